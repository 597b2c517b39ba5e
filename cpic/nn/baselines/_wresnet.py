"""Residual networks for small images: WideResNet, and the narrow ones of depth 20 to 1202.

References: {cite}`zagoruyko2016wide`, {cite}`he2016deep`.
"""

import itertools

from torch import Tensor, nn
from torch.nn import functional

from cpic.nn._checks import check_positive, check_volumes

# Depths that were published for CIFAR-10.
DEPTHS = (20, 32, 44, 56, 110, 1202)


class _WideBlock(nn.Module):
    """Norm, ReLU and 3x3 convolution twice; the second convolution has the stride."""

    def __init__(self, before: int, after: int, stride: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.Conv2d(before, after, 3, padding=1),
            nn.Dropout(dropout),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, stride=stride, padding=1),
        )
        changed = stride > 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride) if changed else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images) + self.shortcut(images)


class WideResNet(nn.Module):
    """A residual network with few, wide layers {cite}`zagoruyko2016wide`.

    A 3x3 convolution to 16 channels, three stages of `(depth - 4) / 6` blocks with 16, 32 and 64
    times `widen` channels, the last two at half the size of the one before, and a linear layer on
    the mean over pixels. Convolutions have biases, and weights start as PyTorch's do, as in the
    experiments of {cite}`obukhov2021spectral`.

    Args:
        n_classes: Outputs per image.
        in_channels: Channels of the images.
        depth: 4 plus a multiple of 6; 28 as published.
        widen: Factor on the channels, at least 0.5; their numbers are rounded.
        dropout: Share of the channels that are dropped between the convolutions of a block.

    Raises:
        ValueError: If a size is invalid, and, when called, if the images have another shape.

    Example:
        >>> network = WideResNet(10, in_channels=1, depth=10, widen=1)
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        n_classes: int = 10,
        *,
        in_channels: int = 3,
        depth: int = 28,
        widen: float = 10,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive("WideResNet", n_classes=n_classes, in_channels=in_channels)
        # With fewer than 8 channels, oneDNN's gradient of a shortcut writes beyond its memory.
        if not 0.5 <= widen <= 256:
            raise ValueError(f"WideResNet needs `widen` between 0.5 and 256, got {widen!r}.")
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"WideResNet needs a depth of 4 plus a multiple of 6, got {depth}.")
        self.in_channels = in_channels
        widths = [16, *(round(n * widen) for n in (16, 32, 64))]
        self.stem = nn.Conv2d(in_channels, 16, 3, padding=1)
        self.blocks = nn.Sequential()
        for k, (before, after) in enumerate(itertools.pairwise(widths)):
            for j in range((depth - 4) // 6):
                stride = 2 if k > 0 and j == 0 else 1
                self.blocks.append(_WideBlock(after if j else before, after, stride, dropout))
        self.norm = nn.BatchNorm2d(widths[3], momentum=0.9)
        self.last = nn.Linear(widths[3], n_classes)

    def features(self, images: Tensor) -> Tensor:
        """Means over pixels of the last channels, `(K, 64 * widen)`, rounded.

        Args:
            images: `(K, c, h, w)`.
        """
        check_volumes(self, images, self.in_channels, 2)
        return functional.relu(self.norm(self.blocks(self.stem(images)))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(K, n_classes)` of images `(K, c, h, w)`."""
        return self.last(self.features(images))


class _Block(nn.Module):
    """Two 3x3 convolutions with norms; the shortcut has no parameters.

    It takes every second pixel, and zeros for new channels, half of them on either side.
    """

    def __init__(self, before: int, after: int):
        super().__init__()
        self.stride, self.added = (2, after - before) if after > before else (1, 0)
        self.first = nn.Conv2d(before, after, 3, stride=self.stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norms = nn.ModuleList((nn.BatchNorm2d(after), nn.BatchNorm2d(after)))

    def forward(self, images: Tensor) -> Tensor:
        found = functional.relu(self.norms[0](self.first(images)))
        found = self.norms[1](self.second(found))
        half = self.added // 2
        kept = images[:, :, :: self.stride, :: self.stride]
        return functional.relu(found + functional.pad(kept, (0, 0, 0, 0, half, self.added - half)))


class SmallResNet(nn.Module):
    """The residual network for small images {cite}`he2016deep`.

    A 3x3 convolution, three stages of `(depth - 2) / 6` blocks with 16, 32 and 64 channels, and a
    linear layer on the mean over pixels. Weights of convolutions and of the linear layer start as
    normal numbers with the variance of {cite}`he2015delving`.

    Args:
        n_classes: Outputs per image.
        in_channels: Channels of the images.
        depth: 2 plus a multiple of 6; 20, 32, 44, 56, 110 and 1202 were published.
        width: Channels of the first stage; 16 as published.

    Raises:
        ValueError: If a size is invalid, and, when called, if the images have another shape.

    Example:
        >>> SmallResNet(10, in_channels=1, depth=8)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, n_classes: int = 10, *, in_channels: int = 3, depth: int = 20, width: int = 16
    ):
        super().__init__()
        check_positive("SmallResNet", n_classes=n_classes, in_channels=in_channels, width=width)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"SmallResNet needs a depth of 2 plus a multiple of 6, got {depth}.")
        self.in_channels = in_channels
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages = [width, 2 * width, 4 * width]
        widths = [width, *(one for one in stages for _ in range((depth - 2) // 6))]
        pairs = itertools.pairwise(widths)
        self.blocks = nn.Sequential(*(_Block(before, after) for before, after in pairs))
        self.last = nn.Linear(4 * width, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def features(self, images: Tensor) -> Tensor:
        """Means over pixels of the last channels, `(K, 4 * width)`.

        Args:
            images: `(K, c, h, w)`.
        """
        check_volumes(self, images, self.in_channels, 2)
        return self.blocks(functional.relu(self.norm(self.stem(images)))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(K, n_classes)` of images `(K, c, h, w)`."""
        return self.last(self.features(images))
