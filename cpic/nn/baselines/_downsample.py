"""A plain network of strided convolutions."""

from collections.abc import Sequence

from torch import Tensor, nn

from cpic.nn._checks import check_positive, check_volumes


class DownsampleCNN(nn.Module):
    """Convolutions that halve the resolution, a mean over the remaining grid, and linear layers.

    Each layer is a convolution of width 3 with stride 2, group norm and ReLU. There are no batch
    statistics, so that a batch of one sample, if no more fits in memory, can be used for training.

    Args:
        n_outputs: Outputs per sample.
        in_channels: Contrasts of the volumes.
        n_axes: 3 for volumes, 2 for images.
        widths: Channels of the layers, multiples of 4.
        hidden: Width of a layer before the outputs.

    Raises:
        ValueError: If a size is invalid, and, when called, if the volumes have another shape.

    Example:
        >>> DownsampleCNN(3)(torch.rand(2, 1, 20, 16, 16)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        n_outputs: int = 1,
        *,
        in_channels: int = 1,
        n_axes: int = 3,
        widths: Sequence[int] = (8, 16, 32, 64),
        hidden: int = 64,
    ):
        super().__init__()
        check_positive("DownsampleCNN", n_outputs=n_outputs, in_channels=in_channels, hidden=hidden)
        if n_axes not in (2, 3) or not widths or any(width < 1 or width % 4 for width in widths):
            raise ValueError(
                "DownsampleCNN needs 2 or 3 axes and `widths` that are multiples of 4, got "
                f"{n_axes} and {tuple(widths)}."
            )
        self.in_channels, self.n_axes = in_channels, n_axes
        convolution = nn.Conv3d if n_axes == 3 else nn.Conv2d
        layers: list[nn.Module] = []
        before = in_channels
        for width in widths:
            layers.append(convolution(before, width, 3, stride=2, padding=1))
            layers += [nn.GroupNorm(4, width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(before, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs)
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """Outputs `(K, n_outputs)` for volumes `(K, c, *shape)`."""
        check_volumes(self, volumes, self.in_channels, self.n_axes)
        return self.head(self.layers(volumes).flatten(2).mean(2))
