"""Formats that only OpenSlide reads, if `openslide-python` is installed."""

import os

import numpy as np

from cpic._errors import ImageError
from cpic.data._faults import reading
from cpic.images._image import Faults, Image

_EDGE = 512


class OpenSlideImage(Image):
    """A level of a slide that OpenSlide opens, in squares of 512 pixels; see `Image`.

    Transparent pixels, which were not scanned, are 0. `ledger.bytes` counts decoded bytes:
    OpenSlide does not tell those of the file.

    Args:
        path: The slide.
        level: As for `TiffImage`.
        mpp: As for `TiffImage`.
        faults: As for `TiffImage`.
        cache_bytes: As for `TiffImage`.

    Raises:
        ImageError: If OpenSlide is not installed, or cannot open the slide; or there is no such
            level.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        level: int = 0,
        mpp: float | None = None,
        faults: Faults = "raise",
        cache_bytes: int = 2**26,
    ) -> None:
        try:
            import openslide  # type: ignore[import-not-found]
        except ImportError as error:
            raise ImageError(
                f"{path} needs OpenSlide: pip install openslide-python openslide-bin."
            ) from error
        super().__init__(faults=faults, cache_bytes=cache_bytes)
        self.path = path
        try:
            with reading(path, ImageError):
                os.stat(path)
            self._slide = openslide.OpenSlide(os.fspath(path))
        except openslide.OpenSlideError as error:
            raise ImageError(f"{path} cannot be opened by OpenSlide ({error}).") from error
        shapes = tuple((h, w) for w, h in self._slide.level_dimensions)
        if not 0 <= level < len(shapes):
            raise ImageError(f"{path} has the levels 0 to {len(shapes) - 1}, got level={level}.")
        self._declare(shapes[level], 3, np.dtype(np.uint8), (_EDGE, _EDGE), shapes)
        self.level = level
        stored = self._slide.properties.get("openslide.mpp-x")
        mpp = float(stored) if mpp is None and stored else mpp
        self.mpp = None if mpp is None else mpp * sum(self.downsample) / 2

    def _decode(self, row: int, column: int) -> tuple[np.ndarray, int]:
        import openslide  # type: ignore[import-not-found]

        scale = self._slide.level_downsamples[self.level]
        place = (round(column * _EDGE * scale), round(row * _EDGE * scale))
        try:
            region = np.asarray(self._slide.read_region(place, self.level, (_EDGE, _EDGE)))
        except openslide.OpenSlideError as error:
            # An object that failed answers nothing more.
            self._slide = openslide.OpenSlide(os.fspath(self.path))
            raise OSError(str(error)) from error
        values = region[..., :3] * (region[..., 3:] > 0)
        return values, values.nbytes
