"""Zarr arrays as images, read by the reader of volumes, which checks what a store declares."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from cpic import _trust
from cpic._errors import ImageError, VolumeError
from cpic.data._faults import reading
from cpic.data.chunked._zarr import ZarrVolume
from cpic.images._image import Faults, Image


class ZarrImage(Image):
    """A Zarr array (H, W), (H, W, c) or (c, H, W), or a level of an OME-Zarr; see `Image`.

    Args:
        path: Folder of the array, or of a group with `multiscales`; or any address, as for
            `cpic.data.ZarrVolume`.
        level: Index among the data sets of a group.
        mpp: Micrometers per pixel of level 0.
        faults: As for `TiffImage`.
        cache_bytes: As for `TiffImage`.

    Raises:
        ImageError: If it is no such array, or there is no such level.
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
        super().__init__(faults=faults, cache_bytes=cache_bytes)
        self.path = path
        places = _levels(path)
        if not 0 <= level < len(places):
            raise ImageError(f"{path} has the levels 0 to {len(places) - 1}, got level={level}.")
        try:
            volumes = [ZarrVolume(place) for place in places]
        except VolumeError as error:
            raise ImageError(str(error)) from error
        self._volume = volume = volumes[level]
        order = _order(volume.shape)
        shapes = [tuple(one.shape[axis] for axis in order[:2]) for one in volumes]
        self._order, edges = order, [volume.chunks[axis] for axis in order]
        channels = volume.shape[order[2]] if len(order) == 3 else 1
        shape, tile = shapes[level], (edges[0], edges[1])
        self._declare(shape, channels, volume._stored, tile, tuple(shapes))  # type: ignore[arg-type]
        self.level = level
        self.mpp = None if mpp is None else mpp * sum(self.downsample) / 2

    def _decode(self, row: int, column: int) -> tuple[np.ndarray, int]:
        volume, before = self._volume, self._volume.ledger.bytes
        n = -(-self.channels // volume.chunks[self._order[2]]) if len(self._order) == 3 else 1
        at = np.array([(row, column, k)[: len(self._order)] for k in range(n)])
        positions = np.empty_like(at)
        positions[:, self._order] = at
        out = [np.empty((*volume.chunks, 1), self._stored) for _ in range(n)]
        volume._load(positions, out)
        parts = [np.moveaxis(one[..., 0], self._order, range(len(self._order))) for one in out]
        parts = [one if one.ndim == 3 else one[..., None] for one in parts]
        values = np.concatenate(parts, -1)[..., : self.channels]
        return values, volume.ledger.bytes - before


def _order(shape: tuple[int, ...]) -> list[int]:
    """The axes of height, width and channels."""
    if len(shape) == 2:
        return [0, 1]
    return [0, 1, 2] if shape[2] <= 4 or shape[0] > 4 else [1, 2, 0]


def _levels(path: str | os.PathLike) -> list[Any]:
    """The arrays of a group with `multiscales`; else the path itself."""
    for name in ("zarr.json", ".zattrs"):
        file = Path(path) / name
        if "://" in str(path) or not file.is_file():
            continue
        with reading(file, ImageError):
            found = _trust.parse_json(_trust.read_regular(file))
        try:
            found = found["attributes"] if name == "zarr.json" else found
            scales = found.get("ome", found)["multiscales"][0]["datasets"]
            names = [str(one["path"]) for one in scales]
        except (LookupError, TypeError, AttributeError):
            return [path]
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            raise ImageError(f"{file} names levels outside its folder.")
        return [Path(path) / name for name in names]
    return [path]
