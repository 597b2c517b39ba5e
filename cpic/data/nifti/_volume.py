"""NIfTI files, read by position; compressed ones are first decompressed into a cache folder."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpic._errors import VolumeError
from cpic.data._faults import broken
from cpic.data._folder import user_cache
from cpic.data._mapped import FilePart, MappedVolume
from cpic.data.nifti._header import Stored, read_stored
from cpic.data.nifti._unpacked import unpacked


class NiftiVolume(MappedVolume):
    """A NIfTI image (see `cpic.data.Volume`), memory-mapped, never read whole.

    The stored scale is applied: values are `slope * stored + inter`, as float32 if the stored dtype
    has at most 24 bits, otherwise as float64. Without a scale the stored dtype is kept. A file
    compressed by gzip, whatever its name, cannot be read by position; it is decompressed once into
    `cache`, under a name that is the hash of its content, so that a changed file is decompressed
    again and concurrent processes agree.

    Args:
        path: A `.nii` or `.nii.gz` file with three axes (further ones of length 1 are dropped).
        frame: Index of the image in a file whose fourth axis is longer than 1.
        cache: Folder for decompressed files; None is the user's cache folder, `~/.cache/cpic`.
        nan: Value to replace NaN and infinity with; None rejects such voxels when they are read.
        orientation: Three letters for the directions of the axes of the results, such as "RAS"
            (from left to right, from back to front, from feet to head): stored axes are permuted
            and reversed to match. None leaves them as they are stored.

    Attributes:
        place: The affine matrix from voxels to mm {eq}`eq-data-affine`, and its `orientation`.
        notes: Sentences about oddities of the file that do not prevent reading.

    Raises:
        VolumeError: If the file is missing, truncated, not NIfTI, has a fourth axis but no `frame`
            was given, or has no position in space but an `orientation` was given.
        CacheError: If the cache cannot be written.

    Example:
        >>> NiftiVolume("scan.nii").cubes(centers, size=7)  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        frame: int | None = None,
        cache: str | os.PathLike | None = None,
        nan: float | None = None,
        orientation: str | None = None,
    ) -> None:
        self._given = {"path": path, "frame": frame, "cache": cache, "nan": nan}
        self._given |= {"orientation": orientation}
        self._frame = frame
        stored = read_stored(Path(path))
        _check_frame(stored, frame)
        self.path, self.place, self._turn = stored.path, stored.place, None
        if orientation:
            self._turn, self.place = _turns(stored, orientation)
        self.notes = stored.place.notes
        plain = unpacked(stored, user_cache(cache)) if stored.packed else stored.path
        part = FilePart.of(plain, stored.shape, stored.dtype, offset=stored.offset, order="F")
        super().__init__(part, nan=nan)
        self._scale = stored.scale
        if self._scale != (1.0, 0.0):
            few_bits = stored.dtype.itemsize <= 2 or stored.dtype.name == "float32"
            self.dtype = torch.float32 if few_bits else torch.float64

    def _view(self, mapped: np.ndarray) -> np.ndarray:
        image = mapped if mapped.ndim < 4 else mapped[..., self._frame]
        if self._turn is None:
            return image
        # By views, which stay memory maps: nothing is read.
        reversed_axes = tuple(axis for axis, sign in enumerate(self._turn[:, 1]) if sign < 0)
        return np.flip(image, reversed_axes).transpose(np.argsort(self._turn[:, 0]))

    def _decode(self, values: np.ndarray) -> np.ndarray:
        slope, inter = self._scale
        if self._scale == (1.0, 0.0):
            return values
        kind = np.float32 if self.dtype == torch.float32 else np.float64
        # Python's numbers: NumPy's would make all of it float64. What overflows is refused later.
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(kind) * float(slope) + float(inter)


def _check_frame(stored: Stored, frame: int | None) -> None:
    """Reject all but images of two or three axes, and several images without an index."""
    path, shape = stored.path, stored.shape
    if len(shape) < 2:
        raise broken(path, f"has shape {shape}, two or three axes are needed")
    if len(shape) < 4 and frame not in (None, 0):
        raise broken(path, f"holds one image of shape {shape}, got frame={frame}", "leave it out")
    several = f"has more than three axes, shape {shape}"
    alone = "save one image of it as a file of its own"
    if len(shape) > 4:
        raise broken(path, several, alone)
    if len(shape) == 4 and (frame is None or not 0 <= frame < shape[3]):
        got = "" if frame is None else f", got frame={frame}"
        option = f"pass frame= from 0 to {shape[3] - 1} to read one image of it"
        raise VolumeError(f"{path} {several}{got}", option=option, instead=alone)


def _turns(stored: Stored, orientation: str) -> tuple[Any, Any]:
    if sorted("LRAPIS".find(letter) // 2 for letter in orientation) != [0, 1, 2]:
        raise VolumeError(
            "orientation needs one letter each of L or R, A or P, I or S, such as 'RAS', got "
            f"{orientation!r}."
        )
    if len(stored.shape) < 3 or stored.place.affine is None:
        raise broken(
            stored.path,
            "does not say where its voxels lie (it has no sform and no qform, or no three axes), "
            f"so it cannot be reoriented to {orientation}",
            "correct its header",
        )
    return stored.place.turns(orientation, stored.shape[:3])
