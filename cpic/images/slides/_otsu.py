"""Gray values that show stained tissue, and the threshold of a whole slide."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.images._image import Fault, Image
from cpic.images._source import PatchSource

# Pixels that are converted at once, and the largest edge of a window of a slide.
_BATCH_PIXELS = 2**22
_EDGE = 1024


class Threshold(NamedTuple):
    """The result of `otsu_threshold`.

    Attributes:
        value: Gray value; pixels strictly above it are foreground.
        foreground: Their share of the pixels that could be decoded.
        faults: Tiles that could not be.
    """

    value: float
    foreground: float
    faults: tuple[Fault, ...]


def gray(patches: Tensor) -> Tensor:
    """Gray values of stained tissue: `max(0, R + B - (R + G + B) / 1.5)`, 0 for white and black.

    Args:
        patches: (n, c, h, w), with 3 channels, or 4 of which the last is not used.

    Returns:
        (n, h, w), float32; multiples of a third.

    Raises:
        ImageError: If there are fewer channels.

    References: {cite}`bergner2023iterative`.

    Example:
        >>> gray(torch.tensor([200, 20, 130]).reshape(1, 3, 1, 1))
        tensor([[[96.6667]]])
    """
    return thirds(patches) / 3


def thirds(patches: Tensor) -> Tensor:
    """Three times the gray values, exact, (n, h, w), int32."""
    if patches.ndim != 4 or patches.shape[1] < 3:
        raise ImageError(
            f"gray values of tissue need patches (n, 3, h, w), got {tuple(patches.shape)}; a slide "
            "of one channel has no color to tell tissue by."
        )
    red, green, blue = patches[:, :3].int().unbind(1)
    return (red + blue - 2 * green).clamp(min=0)


def otsu_threshold(image: Image) -> Threshold:
    """The threshold between the two classes of gray values of a slide, from its exact histogram.

    The slide is read in windows. Tiles that cannot be decoded are left out if the policy of the
    image allows it. A slide with a single gray value has no foreground.

    Args:
        image: With 3 or 4 channels, at any level.

    Returns:
        The largest value of the lower class, which maximizes the variance between the classes.

    Raises:
        ImageError: If it has fewer channels, or a tile cannot be decoded.

    References: {cite}`otsu1979threshold`.

    Example:
        >>> from cpic.images import ArrayImage
        >>> pixels = np.full((4, 4, 3), 250, "uint8")
        >>> pixels[0, :2, 1] = 100
        >>> otsu_threshold(ArrayImage(pixels))
        Threshold(value=0.0, foreground=0.125, faults=())
    """
    source = PatchSource(image, size=(min(image.tile[0], _EDGE), min(image.tile[1], _EDGE)))
    height, width = source.size
    counts = torch.zeros(0, dtype=torch.int64)
    n_batch = max(1, _BATCH_PIXELS // (height * width))
    for part in torch.arange(len(source)).split(n_batch):
        values, bad = image._read(source.corners[part], source.size)
        good = torch.from_numpy(~bad)
        values = thirds(values[good]).flatten()
        found = torch.bincount(values, minlength=max(1, len(counts)))
        inside = (torch.tensor(image.shape) - source.corners[part][good]).clamp(
            max=torch.tensor(source.size)
        )
        # Padding has the value 0.
        found[0] -= int(good.sum()) * height * width - int(inside.prod(1).sum())
        counts = found.index_add(0, torch.arange(len(counts)), counts)
    if not counts.any():
        raise ImageError(f"{image._called} has no tile that can be decoded.")
    value = _between(counts.numpy())
    share = counts[value + 1 :].sum().item() / counts.sum().item()
    return Threshold(value / 3, share, tuple(image.faults))


def _between(counts: np.ndarray) -> int:
    """The index that ends the lower class, from counts of sorted values."""
    values = np.flatnonzero(counts)
    if len(values) == 1:
        return int(values[0])
    n = counts[values].astype(np.float64)
    below, total = n.cumsum()[:-1], n.sum()
    sums = (n * values).cumsum()
    variance = (sums[-1] * below - total * sums[:-1]) ** 2 / (below * (total - below))
    return int(values[variance.argmax()])
