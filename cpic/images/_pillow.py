"""PNG and JPEG, which have no index: they are decoded whole, once, at the first read."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from cpic._errors import ImageError
from cpic._trust import check_regular, open_regular
from cpic.data._faults import reading
from cpic.data._volume import memory_bytes
from cpic.images._image import Faults, Image

_MODES = {"L": "L", "1": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "LA", "I;16": "I;16"}


class PillowImage(Image):
    """A PNG or JPEG; all of it is one tile, which `ledger` says. See `Image`.

    Palettes, CMYK and other modes are converted to RGB; 16 bits are kept for gray only.

    Args:
        path: The file.
        mpp: Micrometers per pixel; the resolution that a file declares is for print, and not used.
        faults: What to do with a file that cannot be decoded: "raise", or take all pixels as 0.

    Raises:
        ImageError: If it is no such file, or too large to be decoded whole.
    """

    def __init__(
        self, path: str | os.PathLike, *, mpp: float | None = None, faults: Faults = "raise"
    ) -> None:
        super().__init__(faults=faults)
        self.path = path
        with reading(path, ImageError):
            self._bytes = check_regular(path)
        with self._opened() as image:
            (width, height), self._mode = image.size, _MODES.get(image.mode, "RGB")
        stored = np.dtype(np.uint16 if self._mode == "I;16" else np.uint8)
        # A file and its conversion are in memory together.
        if 3 * width * height * len(self._mode) > memory_bytes():
            raise ImageError(
                f"{path} has {width}x{height} pixels, too many to be decoded whole; convert it to "
                "a tiled TIFF."
            )
        channels = 1 if self._mode == "I;16" else len(self._mode)
        self._declare((height, width), channels, stored, (height, width))
        self.mpp = mpp

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        from PIL import Image as pillow

        path = self.path
        with reading(path, ImageError):
            opened = open_regular(path)
        with opened as file:
            try:
                with warnings.catch_warnings(action="ignore"):
                    image = pillow.open(file, formats=("PNG", "JPEG"))
            except pillow.DecompressionBombError as error:
                raise ImageError(
                    f"{path} has too many pixels to be decoded whole; convert it to a tiled TIFF."
                ) from error
            except (OSError, SyntaxError, ValueError) as error:
                raise ImageError(f"{path} is not a readable PNG or JPEG ({error}).") from error
            with image:
                yield image

    def _decode(self, row: int, column: int) -> tuple[np.ndarray, int]:
        with self._opened() as image:
            image.load()
            values = np.asarray(image if image.mode == self._mode else image.convert(self._mode))
        return values.reshape(*self.shape, self.channels), self._bytes
