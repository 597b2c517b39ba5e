"""TIFF of any kind that tifffile knows, tiled or in strips, with or without a pyramid."""

import contextlib
import logging
import math
import os
import re
import weakref
from collections.abc import Iterator

import numpy as np

from cpic._errors import ImageError
from cpic._trust import DAMAGED, DoubtError, open_handle
from cpic.data._faults import reading
from cpic.images._image import MOST_TILE_BYTES, Faults, Image

_UNITS = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
# Micrometers in the units of the tag; coarser resolutions are of screens and printers.
_TAG_UNITS = {2: 25400.0, 3: 10000.0}
_COARSEST_MPP = 20.0
# A tile of a codec is never this much longer than its pixels.
_MOST_STORED = 4


class TiffImage(Image):
    """A level of a TIFF, read tile by tile, or strip by strip; see `Image`.

    Args:
        path: The file: baseline and BigTIFF, Aperio, OME, and what else tifffile decodes.
        level: Index among the stored levels, 0 the finest.
        mpp: Micrometers per pixel of level 0; None takes those of the file (Aperio, OME, or a
            resolution per cm or inch finer than 20), which may be unknown.
        faults: What to do with a tile that cannot be decoded: "raise"; "blank" takes its pixels as
            0; "skip" does so too, and a `PatchSource` lists the patches that touch it.
        cache_bytes: Maximum bytes of decoded tiles to keep between reads.

    Raises:
        ImageError: If it is no such file, or there is no such level.
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
        import tifffile

        super().__init__(faults=faults, cache_bytes=cache_bytes)
        self.path = path
        with reading(path, ImageError):
            self._file, self._size = open_handle(path)
        # Closed with the last reference; positions are given in each read, so workers may share it.
        self.close = weakref.finalize(self, os.close, self._file)
        try:
            # What it would log is in the errors here, or does not prevent reading.
            with _silent(), tifffile.TiffFile(os.fspath(path)) as tiff:
                self._describe(tiff, level, mpp)
        except (*DAMAGED, OSError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{path} is not a readable TIFF ({error}).") from error

    def _describe(self, tiff, level: int, mpp: float | None) -> None:
        path = self.path
        # Without series a file has no page that can be read.
        levels = tiff.series[0].levels
        shapes = [_plane(one) for one in levels]
        if not 0 <= level < len(levels):
            sizes = ", ".join(f"{h}x{w}" for h, w in shapes)
            raise ImageError(
                f"{path} has the levels 0 to {len(levels) - 1} ({sizes}), got level={level}."
            )
        axes = levels[level].axes
        self._pages = [page.aspage() for page in levels[level].pages]
        page = self._pages[0]
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        channels = page.samplesperpixel * len(self._pages)
        if set(axes) - set("YXSCQI") or page.photometric == 3 or page.imagedepth > 1:
            raise ImageError(
                f"{path} holds a stack or a palette (axes {axes}), not one image of 1 to 4 "
                "channels; save its plane as a TIFF."
            )
        tile = page.chunks[-3:-1] if page.planarconfig == 1 else page.chunks[-2:]
        tile = page.chunks[:2] if len(page.chunks) == 2 else tile
        self._declare(shapes[level], channels, page.dtype or np.dtype(bool), tile, tuple(shapes))
        self._planes = planes
        n_tiles = math.prod(self._grid) * planes
        for one in self._pages:
            if one.shape != page.shape or len(one.dataoffsets) != n_tiles != len(
                one.databytecounts
            ):
                raise ImageError(
                    f"{path} has {len(one.dataoffsets)} tiles at level {level}, not {n_tiles}; "
                    "copy the file again."
                )
            _ = one.decode, one.jpegtables  # read now: the file is closed afterwards
        self.level = level
        mpp = _stored_mpp(tiff) if mpp is None else mpp
        if mpp is not None and not 0 < mpp < math.inf:
            raise ImageError(f"{path} needs mpp above 0, got {mpp}.")
        self.mpp = None if mpp is None else mpp * sum(self.downsample) / 2

    def _decode(self, row: int, column: int) -> tuple[np.ndarray, int]:
        number, n_bytes, parts = row * self._grid[1] + column, 0, []
        for page in self._pages:
            for plane in range(self._planes):
                at = plane * math.prod(self._grid) + number
                offset, length = page.dataoffsets[at], page.databytecounts[at]
                limit = math.prod(page.chunks) * self._stored.itemsize * _MOST_STORED + 2**16
                if not (0 < length <= min(limit, MOST_TILE_BYTES) and offset > 0):
                    raise DoubtError(f"is not stored ({length} bytes at {offset})")
                raw = os.pread(self._file, length, offset)
                if len(raw) < length:
                    raise DoubtError(f"is cut short, {len(raw)} of {length} bytes")
                if page.compression == 7:
                    self._check_jpeg(raw)
                values = page.decode(raw, at, jpegtables=page.jpegtables)[0]
                if values is None:
                    raise DoubtError("is empty")
                parts.append(values.reshape(-1, *values.shape[-2:])[: self.tile[0]])
                n_bytes += length
        return parts[0] if len(parts) == 1 else np.concatenate(parts, -1), n_bytes

    def _check_jpeg(self, raw: bytes) -> None:
        """Raise unless a JPEG has the size of a tile: the decoder would allocate what it says."""
        at = 2
        while raw[at : at + 1] == b"\xff" and at + 9 <= len(raw):
            kind, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
                height, width = (int.from_bytes(raw[at + k : at + k + 2], "big") for k in (5, 7))
                if height > self.tile[0] or width > self.tile[1]:
                    raise DoubtError(f"has {height}x{width} pixels, more than a tile")
                return
            at += 2 + length


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    logger = logging.getLogger("tifffile")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _plane(level) -> tuple[int, int]:
    """Height and width of a level."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    return sizes.get("Y", 0), sizes.get("X", 0)


def _stored_mpp(tiff) -> float | None:
    page, text = tiff.pages[0], tiff.pages[0].description or ""
    if found := re.search(r"\bMPP\s*=\s*([0-9.]+)", text):
        return _number(found[1])
    if tiff.is_ome:
        size = re.search(r'PhysicalSizeX="([0-9.eE+-]+)"', text)
        unit = re.search(r'PhysicalSizeXUnit="([^"]{1,4})"', text)
        scale = _UNITS.get(unit[1] if unit else "µm")
        if size and scale and (value := _number(size[1])):
            return value * scale
    resolution, unit = page.resolution, _TAG_UNITS.get(page.resolutionunit)
    if unit and resolution[0] > 0 and unit / resolution[0] < _COARSEST_MPP:
        return unit / resolution[0]
    return None


def _number(text: str) -> float | None:
    try:
        return value if 0 < (value := float(text)) < math.inf else None
    except ValueError:
        return None
