"""Arrays and memory maps as images."""

from typing import Any

import numpy as np
import torch

from cpic._errors import ImageError
from cpic.images._image import Image


class ArrayImage(Image):
    """An array or memory map as an image; it is one tile, of which only touched pixels are read.

    Args:
        array: (H, W) or (H, W, c) with c from 1 to 4; uint8, uint16 or float32.
        mpp: Micrometers per pixel.

    Raises:
        ImageError: If it has another form.

    Example:
        >>> image = ArrayImage(np.arange(12, dtype="uint8").reshape(3, 4))
        >>> image.read(torch.tensor([[1, 2]]), size=(2, 3))[0, 0].tolist()
        [[6, 7, 0], [10, 11, 0]]
    """

    def __init__(self, array: Any, *, mpp: float | None = None) -> None:
        super().__init__()
        values = array.numpy() if isinstance(array, torch.Tensor) else np.asanyarray(array)
        if values.ndim not in (2, 3):
            raise ImageError(f"ArrayImage needs (H, W) or (H, W, c), got shape {values.shape}.")
        values = values if values.ndim == 3 else values[..., None]
        edges = values.shape[:2]
        self._declare(edges, values.shape[2], values.dtype, edges)
        self._values, self.mpp = np.ascontiguousarray(values), mpp

    def _tile(self, number: int) -> np.ndarray:
        return self._values
