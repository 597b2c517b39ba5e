"""Residual blocks of generators and discriminators.

Shapes: `K` images, `c` channels, `h`, `w` sides.
References: {cite}`miyato2018spectral`, {cite}`miyato2018cgans`, {cite}`dumoulin2017learned`.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift depend on the class {cite}`dumoulin2017learned`.

    Args:
        channels: Channels of the images.
        n_classes: Number of classes; at the start all have scale 1 and shift 0.

    Example:
        >>> ConditionalBatchNorm(4, 10)(torch.rand(3, 4, 8, 8), torch.tensor([0, 9, 9])).shape
        torch.Size([3, 4, 8, 8])
    """

    def __init__(self, channels: int, n_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(n_classes, channels)
        self.shift = nn.Embedding(n_classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Normalized images `(K, c, h, w)` for labels `(K,)`."""
        scale, shift = self.scale(labels), self.shift(labels)
        return self.norm(images) * scale[:, :, None, None] + shift[:, :, None, None]


class UpBlock(nn.Module):
    """Norm, ReLU, twice the size and 3x3 convolution, then the same without the size.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        n_classes: Classes of conditional norms; None for plain ones.
    """

    def __init__(self, before: int, after: int, *, n_classes: int | None):
        super().__init__()
        self.norms = nn.ModuleList(_norm(channels, n_classes) for channels in (before, after))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, after, 3, padding=1) for channels in (before, after)
        )
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor:
        """Images of twice the size."""
        found = images
        for k, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            found = functional.relu(norm(found, *labels))
            found = convolution(doubled(found) if k == 0 else found)
        # The 1x1 convolution commutes with the interpolation, and is cheaper before it.
        return found + doubled(self.shortcut(images))


class DownBlock(nn.Module):
    """ReLU and 3x3 convolution twice, then a mean over 2x2 pixels if the size is halved.

    The first ReLU acts on the shortcut as well, as in the published networks, where it is in place.

    Args:
        before: Channels of the input, and between the convolutions.
        after: Channels of the output.
        halved: Whether the size is halved.
        first: Whether it reads an image: there is no ReLU before, and the shortcut is averaged
            before its convolution.
    """

    def __init__(self, before: int, after: int, *, halved: bool = True, first: bool = False):
        super().__init__()
        self.halved, self.first = halved, first
        between = after if first else before
        self.convolutions = nn.ModuleList(
            (nn.Conv2d(before, between, 3, padding=1), nn.Conv2d(between, after, 3, padding=1))
        )
        changed = halved or before != after
        self.shortcut = nn.Conv2d(before, after, 1) if changed else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Features `(K, after, h, w)`, of half the size if it is halved."""
        entered = images if self.first else functional.relu(images)
        first, second = self.convolutions
        found = second(functional.relu(first(entered)))
        if not self.halved:
            return found + self.shortcut(entered)
        # A mean and a 1x1 convolution commute; the mean comes first, on a quarter of the pixels.
        return functional.avg_pool2d(found, 2) + self.shortcut(functional.avg_pool2d(entered, 2))


def doubled(images: Tensor) -> Tensor:
    """Twice the size, by bilinear interpolation."""
    return functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


def initialize(network: nn.Module) -> None:
    """Xavier-uniform weights: gain sqrt(2) for 3x3 convolutions in blocks, 1 elsewhere."""
    inner = {id(one) for one in _inner(network)}
    for module in network.modules():
        if isinstance(module, ConditionalBatchNorm):
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, math.sqrt(2) if id(module) in inner else 1.0)


def _inner(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        if isinstance(module, UpBlock | DownBlock):
            yield from module.convolutions


def _norm(channels: int, n_classes: int | None) -> nn.Module:
    if n_classes is None:
        return nn.BatchNorm2d(channels)
    return ConditionalBatchNorm(channels, n_classes)


def check_labels(
    owner: nn.Module, labels: Tensor | None, n_classes: int | None, n_rows: int
) -> tuple[Tensor, ...]:
    """The labels of a conditional network as arguments; none for an unconditional one.

    Raises:
        ValueError: If labels are missing, unexpected, or not one for each row.
    """
    name = type(owner).__name__
    if n_classes is None:
        if labels is not None:
            raise ValueError(f"{name} was made without classes, got labels; set n_classes.")
        return ()
    if labels is None:
        raise ValueError(f"{name} needs labels (K,) of its {n_classes} classes, got none.")
    if labels.shape != (n_rows,) or labels.dtype != torch.int64:
        raise ValueError(
            f"{name} needs labels of shape ({n_rows},) and int64, got {tuple(labels.shape)} and "
            f"{labels.dtype}."
        )
    return (labels,)
