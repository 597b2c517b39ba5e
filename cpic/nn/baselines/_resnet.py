r"""The three-dimensional residual network used as a baseline of C-PIC.

The body is MONAI's, imported on demand; the layers after its 512 features, and the options that
determine the memory, are defined here.

References: {cite}`he2016deep`, {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from cpic._vision import declare_operators
from cpic.nn._checks import check_positive, check_volumes
from cpic.nn._dense import dense

_FEATURES = 512
# With one contrast; another version of the library must not change the baseline.
_BODY = 63_470_528


class ResNet(nn.Module):
    """A body that maps volumes to features, followed by a head; created by `resnet34`.

    Args:
        body: Maps volumes `(K, c, *shape)` to features.
        head: Maps features, and tabular ones if there are any, to predictions.
        in_channels: Contrasts of the volumes.
    """

    def __init__(self, body: nn.Module, head: nn.Module, *, in_channels: int = 1):
        super().__init__()
        self.body, self.head, self.in_channels = body, head, in_channels

    def forward(self, volumes: Tensor, *tabular: Tensor) -> Tensor:
        """Predictions for volumes `(K, c, *shape)`, with tabular features `(K, t)` for the head."""
        check_volumes(self, volumes, self.in_channels, 3)
        return self.head(self.body(volumes), *tabular)


def resnet34(
    n_outputs: int = 1,
    *,
    in_channels: int = 1,
    stem_stride: int | Sequence[int] = (1, 2, 2),
    stem_pool: bool = True,
    head: nn.Module | None = None,
) -> ResNet:
    """A ResNet-34 for volumes, with 67 million parameters {cite}`he2016deep`.

    Stages of 3, 4, 6 and 3 basic blocks with 64 to 512 channels, projection shortcuts and batch
    norm, after a 7^3 convolution. Its 512 features go through layers of width 2048, 1024 and 512
    with ReLU. With `head=TwoHeadRegressor(512, n_tabular=1)` it takes tabular features as well.

    Args:
        n_outputs: Outputs per sample; not used with `head`.
        in_channels: Contrasts of the volumes.
        stem_stride: Stride of the first convolution; the published one does not reduce the first
            axis.
        stem_pool: Whether a max-pooling with stride 2 follows it.
        head: Replaces the layers after the 512 features.

    Returns:
        The network, for volumes `(K, c, *shape)`.

    Raises:
        ImportError: If MONAI is missing.
        ValueError: If a size is below 1.
        RuntimeError: If the ResNet-34 of the installed MONAI differs.
    """
    check_positive("resnet34", n_outputs=n_outputs, in_channels=in_channels)
    strides = [stem_stride] * 3 if isinstance(stem_stride, int) else list(stem_stride)
    if len(strides) != 3:
        raise ValueError(f"resnet34 needs a stem stride for three axes, got {stem_stride}.")
    check_positive("resnet34", **{f"stem_stride[{k}]": size for k, size in enumerate(strides)})
    declare_operators()
    try:
        from monai.networks.nets.resnet import resnet34 as build
    except ImportError as error:
        raise ImportError(
            'resnet34 needs MONAI, which is not installed; run `pip install "cpic[train]"`.'
        ) from error
    body = build(
        pretrained=False,
        spatial_dims=3,
        n_input_channels=in_channels,
        conv1_t_stride=strides,
        no_max_pool=not stem_pool,
        feed_forward=False,
    )
    count = sum(parameter.numel() for parameter in body.parameters())
    wanted = _BODY + (in_channels - 1) * 64 * 7**3
    if count != wanted:
        raise RuntimeError(
            f"resnet34 needs MONAI's network of {wanted:,} parameters, got {count:,}; install "
            "the version of constraints.txt."
        )
    if head is None:
        layers = dense(_FEATURES, 2048, 1024, 512, n_outputs=n_outputs, batch_norm=False)
        head = nn.Sequential(*layers)
    return ResNet(body, head, in_channels=in_channels)
