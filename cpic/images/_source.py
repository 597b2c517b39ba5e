"""Patches of an image, cut when they are read."""

import math
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.images._image import Decoded, Fault, Image

Padding = Literal["zeros", "drop", "inside"]


def grid_corners(
    shape: tuple[int, int],
    *,
    size: tuple[int, int],
    stride: tuple[int, int] | None = None,
    padding: Padding = "zeros",
) -> Tensor:
    """First pixels of the patches of a regular grid, row by row.

    Args:
        shape: Height and width of the image.
        size: Height and width of a patch.
        stride: Distances between patches; None is `size`, without overlap.
        padding: What to do where the strides leave a rest, or the image is smaller than a patch:
            "zeros" adds a patch that extends beyond the image, where it is 0; "drop" leaves the
            rest out; "inside" adds a patch moved to end at the border.

    Returns:
        (n, 2), int64, row and column.

    Raises:
        ImageError: If an option is invalid, or no patch lies inside the image.

    Example:
        >>> grid_corners((5, 4), size=(2, 4), padding="inside").tolist()
        [[0, 0], [2, 0], [3, 0]]
    """
    stride = stride or size
    if min(*size, *stride) < 1 or padding not in get_args(Padding):
        raise ImageError(
            f"grid_corners needs sizes and strides of at least 1 and padding out of "
            f"{', '.join(get_args(Padding))}; got size={size}, stride={stride}, {padding!r}."
        )
    axes = []
    for length, edge, step in zip(shape, size, stride, strict=True):
        if length < edge and padding != "zeros":
            raise ImageError(
                f"an image of {shape[0]}x{shape[1]} pixels has no patch of {size[0]}x{size[1]}; "
                'choose a smaller size, or padding="zeros".'
            )
        n = (length - edge) // step + 1 if length >= edge else 0
        places = torch.arange(n) * step
        if n == 0 or int(places[-1]) + edge < length:
            last = n * step if padding == "zeros" else length - edge
            # A stride above the size may leave a rest that no further patch would reach.
            if padding == "inside" or (padding == "zeros" and last < length):
                places = torch.cat([places, torch.tensor([last])])
        axes.append(places)
    return torch.cartesian_prod(*axes).reshape(-1, 2)


class PatchSource:
    """A bag of patches of an image that is never decoded whole (unless its format requires it).

    Args:
        image: The image, see `open_image`.
        size: Height and width of a patch in pixels of the image's level; one number for both.
        stride: As for `grid_corners`; one number for both.
        padding: As for `grid_corners`.
        corners: (n, 2), int64, first pixels of the patches at the image's level, instead of a grid:
            tiles of a table, for example.

    Attributes:
        corners: (n, 2), int64, row and column of the first pixels at the image's level.
        skipped: Indices of the patches read so far that touch a corrupt tile, if the policy of the
            image is "skip".

    Raises:
        ImageError: If an option is invalid, or there is no patch.

    Example:
        >>> from cpic.images import open_image
        >>> image = open_image(np.arange(36, dtype="uint8").reshape(6, 6))
        >>> source = PatchSource(image, size=2)
        >>> len(source), source.read(torch.tensor([8]))[0, 0].tolist()
        (9, [[28, 29], [34, 35]])
    """

    def __init__(
        self,
        image: Image,
        *,
        size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        padding: Padding = "zeros",
        corners: Tensor | None = None,
    ) -> None:
        self.image, self.size = image, _pair(size)
        self.stride = self.size if stride is None else _pair(stride)
        if corners is None:
            corners = grid_corners(image.shape, size=self.size, stride=self.stride, padding=padding)
        elif corners.ndim != 2 or corners.shape[1] != 2 or corners.dtype != torch.int64:
            raise ImageError(
                f"PatchSource needs int64 corners (n, 2), got {corners.dtype} "
                f"{tuple(corners.shape)}."
            )
        if not len(corners):
            raise ImageError(f"PatchSource needs at least one patch; {image!r} has none.")
        self.corners, self.skipped = corners, torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.corners)

    def read(self, indices: Tensor) -> Tensor:
        """Read patches.

        Args:
            indices: (n,), int64, from 0 to `len(self)`; in any order, with duplicates if needed.

        Returns:
            (n, c, h, w), dtype of the image. A patch that touches a corrupt tile is complete but
            for that tile ("blank"), or 0 and listed in `skipped` ("skip").

        Raises:
            ImageError: If an index is out of range, or a tile cannot be decoded ("raise").
        """
        low, high = (int(indices.min()), int(indices.max())) if indices.numel() else (0, 0)
        if indices.ndim != 1 or indices.is_floating_point() or low < 0 or high >= len(self):
            raise ImageError(
                f"read needs indices (n,) from 0 to {len(self) - 1}, got {tuple(indices.shape)} "
                f"from {low} to {high}."
            )
        indices = indices.cpu()
        values, bad = self.image._read(self.corners[indices], self.size)
        if self.image.policy == "skip" and bad.any():
            lost = torch.from_numpy(np.flatnonzero(bad))
            values[lost] = 0
            self.skipped = torch.cat([self.skipped, indices[lost]]).unique()
        return values

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a patch."""
        return (self.image.channels, *self.size)

    @property
    def ledger(self) -> Decoded:
        """What reading the image has cost so far."""
        return self.image.ledger

    @property
    def faults(self) -> list[Fault]:
        """Tiles that cannot be decoded, among those read so far."""
        return self.image.faults

    @property
    def corners0(self) -> Tensor:
        """First pixels of the patches at level 0, (n, 2), int64, rounded."""
        scale = torch.tensor(self.image.downsample, dtype=torch.float64)
        return (self.corners * scale).round().long()

    @property
    def size0(self) -> tuple[int, int]:
        """Height and width of a patch at level 0, rounded."""
        (h, w), (y, x) = self.size, self.image.downsample
        return max(1, round(h * y)), max(1, round(w * x))

    @property
    def fraction(self) -> float:
        """Pixels decoded so far, divided by those of the image; above 1 if tiles were repeated."""
        return self.ledger.pixels / math.prod(self.image.shape)

    def __repr__(self) -> str:
        return f"PatchSource({len(self)} patches of {self.size[0]}x{self.size[1]} of {self.image})"


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(one, int) and one > 0 for one in pair):
        raise ImageError(f"a size or stride needs one or two numbers above 0, got {value}.")
    return pair
