"""Tiles of a slide that show tissue."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.images._image import Fault, Image
from cpic.images._source import PatchSource
from cpic.images.slides._annotations import Annotation
from cpic.images.slides._otsu import thirds

_BATCH_PIXELS = 2**21


class Tiles(NamedTuple):
    """Tiles of a slide, row by row.

    Attributes:
        corners: (n, 2), int64, first pixels at the level of the image.
        corners0: (n, 2), int64, the same at level 0.
        foreground: (n,), float32, shares of foreground pixels.
        tumor: (n,), bool, whether a tile contains a pixel of a tumor.
        faults: Tiles of the file that could not be decoded; their pixels are background.
    """

    corners: Tensor
    corners0: Tensor
    foreground: Tensor
    tumor: Tensor
    faults: tuple[Fault, ...]


def foreground(patches: Tensor, *, threshold: float) -> Tensor:
    """Foreground of tiles: what is connected to a strong pixel by weak ones, inside its tile.

    Strong pixels have a gray value above `threshold`, weak ones above a quarter of it; pixels are
    connected along edges and diagonals.

    Args:
        patches: (n, c, h, w), with 3 or 4 channels.
        threshold: See `otsu_threshold`.

    Returns:
        (n, h, w), bool.

    Raises:
        ImageError: If there are fewer channels, or the threshold is negative.

    References: {cite}`bergner2023iterative`.

    Example:
        >>> row = torch.tensor([0, 3, 3, 0, 3, 30, 3, 0])
        >>> patches = torch.stack([row, 0 * row, 0 * row])[None, :, None]
        >>> foreground(patches, threshold=2.0).int().tolist()
        [[[0, 0, 0, 0, 1, 1, 1, 0]]]
    """
    from scipy import ndimage

    if not threshold >= 0:
        raise ImageError(f"foreground needs a threshold of at least 0, got {threshold}.")
    values, limit = thirds(patches).cpu(), round(3 * threshold)
    plane = np.zeros((3, 3, 3), int)
    plane[1] = 1  # never connected with the next tile
    labels: Any
    labels, n_labels = ndimage.label((4 * values > limit).numpy(), plane)  # type: ignore[misc]
    seeded = np.zeros(n_labels + 1, bool)
    seeded[labels[(values > limit).numpy()]] = True
    return torch.from_numpy(seeded[labels])


def foreground_tiles(
    image: Image,
    *,
    threshold: float,
    size: int = 256,
    overlap: int = 0,
    min_foreground: float = 0.01,
    annotation: Annotation | None = None,
) -> Tiles:
    """Tiles of a regular grid with enough foreground, or with a pixel of a tumor.

    Every tile is compared with the annotation. Pixels outside the slide are background.

    Args:
        image: The slide, at the level of the tiles.
        threshold: See `otsu_threshold`.
        size: Edge of a tile, in pixels of this level.
        overlap: Pixels that neighbors share.
        min_foreground: Smallest share of foreground of a tile.
        annotation: Outlines of tumors at level 0.

    Returns:
        The tiles; none for a slide without foreground.

    Raises:
        ImageError: If an option is invalid, or a tile of the file cannot be decoded.

    References: {cite}`bergner2023iterative`.

    Example:
        >>> foreground_tiles(open_image("slide.tif"), threshold=18.0)  # doctest: +SKIP
    """
    if not 0 <= overlap < size or not 0 < min_foreground <= 1:
        raise ImageError(
            f"foreground_tiles needs 0 <= overlap < size and min_foreground in (0, 1], got "
            f"{overlap}, {size} and {min_foreground}."
        )
    source = PatchSource(image, size=size, stride=size - overlap)
    shares = [
        foreground(source.read(part), threshold=threshold).float().mean((1, 2))
        for part in torch.arange(len(source)).split(max(1, _BATCH_PIXELS // size**2))
    ]
    share, tumor = torch.cat(shares), torch.zeros(len(source), dtype=torch.bool)
    if annotation is not None:
        touched = annotation.touches(
            source.corners0.numpy(), size=source.size, downsample=image.downsample
        )
        tumor = torch.from_numpy(touched)
    keep = (share >= min_foreground) | tumor
    return Tiles(
        source.corners[keep], source.corners0[keep], share[keep], tumor[keep], tuple(image.faults)
    )
