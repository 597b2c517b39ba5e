"""Encoders of patches: residual networks cut after some stages, a small network, a projector.

References: {cite}`he2016deep`, {cite}`wu2018group`, {cite}`bergner2023iterative`.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cpic._vision import torchvision
from cpic.linalg._inputs import check_choice
from cpic.nn._checks import check_positive

Norm = Literal["group", "running", "batch"]
_GROUPS = 8


class RunningNorm(nn.BatchNorm2d):
    """Batch norm that normalizes by its running statistics in training as well.

    The statistics follow the batches, without gradient. A patch then has the same embedding when it
    is chosen, when it is trained on, and in a test.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize, then let the statistics follow the batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        mean, var = self.running_mean.clone(), self.running_var.clone()
        if self.training:
            with torch.no_grad():
                super().forward(input)
        return nn.functional.batch_norm(
            input, mean, var, self.weight, self.bias, training=False, eps=self.eps
        )


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(_GROUPS, channels), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": _group_norm,
    "running": RunningNorm,
    "batch": nn.BatchNorm2d,
}


class ResNetEncoder(nn.Module):
    """A residual network of torchvision for patches, cut after 2 or 4 stages {cite}`he2016deep`.

    Convolution of 7x7, max-pooling, stages, and the mean over all pixels.

    Args:
        kind: "resnet18" or "resnet50".
        in_channels: Channels of the patches.
        stages: 1 to 4; the published models take 2 or 4.
        norm: "group", group norm {cite}`wu2018group`; "running", batch norm by the running
            statistics also in training; both treat a patch alike when it is chosen and when it is
            trained on. "batch", as published, does not.
        pretrained: Load torchvision's weights for ImageNet, which are downloaded once. With other
            than 3 channels the first convolution gets its weights in turn, scaled.

    Attributes:
        n_dims: Width of an embedding: 128 or 512 after 2 stages, 512 or 2048 after 4.

    Raises:
        ImportError: If torchvision is missing.
        ValueError: If an option is unknown, or weights are requested with group norm, for which
            there are none.

    Example:
        >>> encoder = ResNetEncoder("resnet18", in_channels=1, stages=2)
        >>> encoder.n_dims, encoder(torch.rand(4, 1, 50, 50)).shape
        (128, torch.Size([4, 128]))
    """

    def __init__(
        self,
        kind: Literal["resnet18", "resnet50"] = "resnet18",
        *,
        in_channels: int = 3,
        stages: int = 4,
        norm: Norm = "group",
        pretrained: bool = False,
    ):
        super().__init__()
        advice = "choose one of them"
        check_choice("ResNetEncoder", "kind", kind, ("resnet18", "resnet50"), advice)
        check_choice("ResNetEncoder", "stages", stages, (1, 2, 3, 4), advice)
        check_choice("ResNetEncoder", "norm", norm, NORMS, advice)
        check_positive("ResNetEncoder", in_channels=in_channels)
        if pretrained and norm == "group":
            raise ValueError(
                "ResNetEncoder has weights for batch norm only, got pretrained=True with group "
                'norm; use norm="running".'
            )
        models = torchvision().models
        weights = "DEFAULT" if pretrained else None
        whole = getattr(models, kind)(weights=weights, norm_layer=NORMS[norm])
        if in_channels != 3:
            whole.conv1 = _stem(whole.conv1, in_channels, keep=pretrained)
        parts = [getattr(whole, f"layer{k + 1}") for k in range(stages)]
        self.stem = nn.Sequential(whole.conv1, whole.bn1, nn.ReLU(inplace=True), whole.maxpool)
        self.stages = nn.Sequential(*parts)
        self.in_channels = in_channels
        self.n_dims = 2 ** (5 + stages) * (4 if kind == "resnet50" else 1)

    def forward(self, patches: Tensor) -> Tensor:
        """Embeddings `(n, n_dims)` of patches `(n, in_channels, h, w)`, see `as_pixels`."""
        pixels = as_pixels(patches, next(self.parameters()), self.in_channels)
        return self.stages(self.stem(pixels)).mean((2, 3))


class ConvEncoder(nn.Module):
    """A small network for patches: strided convolutions of 3x3 with group norm, and a maximum.

    Args:
        in_channels: Channels of the patches.
        widths: Channels of the layers, each of which halves the resolution.
        n_dims: Width of an embedding.

    Raises:
        ValueError: If a size is below 1.

    Example:
        >>> ConvEncoder(1, widths=(8, 16), n_dims=32)(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4, 32])
    """

    def __init__(self, in_channels: int, *, widths: Sequence[int] = (16, 32, 64), n_dims: int = 64):
        super().__init__()
        named = {f"widths[{k}]": width for k, width in enumerate(widths)}
        check_positive("ConvEncoder", in_channels=in_channels, n_dims=n_dims, **named)
        layers: list[nn.Module] = []
        for before, behind in zip((in_channels, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, behind, 3, 2, 1, bias=False), _group_norm(behind)]
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1], n_dims)
        self.in_channels, self.n_dims = in_channels, n_dims

    def forward(self, patches: Tensor) -> Tensor:
        """Embeddings `(n, n_dims)` of patches `(n, in_channels, h, w)`, see `as_pixels`."""
        pixels = as_pixels(patches, self.last.weight, self.in_channels)
        # A maximum: a digit in a corner of a patch is seen as one in its middle.
        return self.last(self.layers(pixels).amax((2, 3)))


class FeatureProjector(nn.Module):
    """Stored features to embeddings: layer norm without weights, linear, norm, ReLU.

    Args:
        n_features: Width of the features.
        n_dims: Width of an embedding.
        norm: "layer", which treats a patch alike when it is chosen and when it is trained on, or
            "batch", as published {cite}`bergner2023iterative`.

    Raises:
        ValueError: If a size is below 1, or the norm is unknown.

    Example:
        >>> FeatureProjector(2048, n_dims=32)(torch.randn(4, 2048)).shape
        torch.Size([4, 32])
    """

    def __init__(
        self, n_features: int, *, n_dims: int = 512, norm: Literal["layer", "batch"] = "layer"
    ):
        super().__init__()
        check_positive("FeatureProjector", n_features=n_features, n_dims=n_dims)
        check_choice("FeatureProjector", "norm", norm, ("layer", "batch"), "choose one of them")
        kind = nn.LayerNorm if norm == "layer" else nn.BatchNorm1d
        self.layers = nn.Sequential(
            nn.LayerNorm(n_features, elementwise_affine=False),
            nn.Linear(n_features, n_dims),
            kind(n_dims),
            nn.ReLU(),
        )
        self.n_features, self.n_dims = n_features, n_dims

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings `(n, n_dims)` of features `(n, n_features)`."""
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise ValueError(
                f"FeatureProjector needs features (n, {self.n_features}), got "
                f"{tuple(features.shape)}; make it for that width."
            )
        return self.layers(features.to(next(self.parameters()).dtype))


def as_pixels(patches: Tensor, like: Tensor, in_channels: int) -> Tensor:
    """Patches `(n, in_channels, h, w)` in the dtype of a weight; those of integers from 0 to 1.

    Integers of 32 bits are 16-bit pixels, as `cpic.images` reads them.

    Raises:
        ValueError: If they have another shape.
    """
    if patches.ndim != 4 or patches.shape[1] != in_channels:
        raise ValueError(
            f"an encoder of {in_channels} channels needs patches (n, {in_channels}, h, w), got "
            f"{tuple(patches.shape)}; set its `in_channels`."
        )
    if patches.is_floating_point():
        return patches.to(like.dtype)
    top = 65535 if patches.dtype == torch.int32 else torch.iinfo(patches.dtype).max
    return patches.to(like.dtype) / top


def _stem(old: nn.Conv2d, in_channels: int, *, keep: bool) -> nn.Conv2d:
    """A first convolution for other channels, with the old weights or as torchvision draws them."""
    new = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if keep:
        turns = torch.arange(in_channels) % old.in_channels
        with torch.no_grad():
            new.weight.copy_(old.weight[:, turns] * old.in_channels / in_channels)
    return new
