"""Images that are black almost everywhere, stored by the pixels that are not."""

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.images._image import Image


class SparseImage(Image):
    """A gray image by its pixels above 0, whatever its size.

    Args:
        indices: Places of these pixels in row-major order, `(n,)`, ascending and different.
        values: Their gray values, `(n,)`, uint8.
        shape: Height and width.

    Raises:
        ImageError: If they have another form.

    Example:
        >>> image = SparseImage(np.array([1, 5]), np.array([9, 7], np.uint8), shape=(2, 3))
        >>> image.read(torch.tensor([[0, 1]]), size=(2, 2))[0, 0].tolist()
        [[9, 0], [0, 7]]
    """

    def __init__(self, indices: np.ndarray, values: np.ndarray, *, shape: tuple[int, int]) -> None:
        super().__init__()
        places = np.asarray(indices, np.int64)
        fits = places.ndim == 1 and places.shape == values.shape and values.dtype == np.uint8
        if fits and len(places):
            fits = (
                places[0] >= 0 and places[-1] < shape[0] * shape[1] and (np.diff(places) > 0).all()
            )
        if not fits:
            raise ImageError(
                f"SparseImage needs ascending places (n,) below {shape[0]} x {shape[1]} and uint8 "
                f"values (n,), got {places.shape} and {values.dtype} {values.shape}."
            )
        self._declare(shape, 1, np.dtype(np.uint8), shape)
        self._rows, self._columns = np.divmod(places, shape[1])
        self._values = values

    def _read(self, corners: Tensor, size: tuple[int, int]) -> tuple[Tensor, np.ndarray]:
        low = corners.cpu().numpy()
        out = np.zeros((len(low), 1, *size), np.uint8)
        # Of each window, the pixels in its rows, which follow each other; then its columns.
        first = np.searchsorted(self._rows, low[:, 0])
        count = np.searchsorted(self._rows, low[:, 0] + size[0]) - first
        window = np.repeat(np.arange(len(low)), count)
        pixel = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        column = self._columns[pixel] - low[window, 1]
        seen = (column >= 0) & (column < size[1])
        window, pixel, column = window[seen], pixel[seen], column[seen]
        out[window, 0, self._rows[pixel] - low[window, 0], column] = self._values[pixel]
        self.ledger.asked += len(low) * size[0] * size[1]
        self.ledger.pixels += int(count.sum())
        return torch.from_numpy(out), np.zeros(len(low), bool)

    def thumbnail(self, size: tuple[int, int]) -> Tensor:
        """Means over a grid of cells, `(1, *size)` float32 from 0 to 1."""
        (height, width), total = self.shape, torch.zeros(size[0] * size[1])
        rows, columns = self._rows * size[0] // height, self._columns * size[1] // width
        cell = torch.from_numpy(rows * size[1] + columns)
        total.index_add_(0, cell, torch.from_numpy(self._values).float() / 255)
        return (total * (size[0] * size[1] / (height * width))).view(1, *size)
