"""Read the header of a NIfTI file, and check the size of the file; no voxel is read."""

import gzip
import math
import os
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cpic import _trust
from cpic._errors import VolumeError
from cpic.data._faults import broken, reading
from cpic.data.nifti._place import Place, place_of

_GZIP = b"\x1f\x8b"
# Sizes of the headers by their first four bytes, and of the part after it: no extension is read.
_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}
# Maximum compression ratio of gzip, and limit for trailing bytes after the voxels.
_RATIO, SLACK = 1100, 2**20


class Stored(NamedTuple):
    """The content of the header: values are `scale[0] * stored + scale[1]`.

    Axes of length 1 after the third are dropped from `shape`.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    scale: tuple[float, float]
    place: Place
    packed: bool

    @property
    def needed(self) -> int:
        """Number of bytes up to the last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def truncated(self, got: str) -> VolumeError:
        """The error about a file that is shorter than its header declares."""
        announced = f"shape {self.shape} of {self.dtype} needs {self.needed:,} bytes"
        return broken(self.path, f"is truncated: {announced}, {got}")

    def too_long(self) -> VolumeError:
        """The error about a compressed file that is longer than its header declares."""
        return broken(
            self.path, f"holds much more than the {self.needed:,} bytes that its header declares"
        )


class _Limited:
    """A file of which only `left` more bytes may be read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.left = file, 0

    def read(self, size: int, /) -> bytes:
        raw = self._file.read(min(size, self.left + 1))
        self.left -= len(raw)
        if self.left < 0:
            raise _trust.DoubtError("has too many bytes")
        return raw


class Unpacking:
    """The decompressed content of a file; every fault is one error that names it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, _Limited(file)
        self._stream = gzip.GzipFile(fileobj=self._file)  # type: ignore[call-overload]

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        # The name and the comment in a gzip header, and the number of empty members, are unlimited.
        self._file.left = limit = 2 * size + SLACK
        try:
            return self._stream.read(size)
        except _trust.DoubtError as error:
            fault = f"is damaged: {limit:,} compressed bytes hold fewer than {size:,}"
            raise broken(self._path, fault) from error
        except (EOFError, zlib.error, OSError) as error:
            raise broken(self._path, f"is truncated or damaged ({error})") from error


def read_stored(path: Path) -> Stored:
    """Read and check the header, and the size of the file; nothing else.

    Compression is detected from the content, not from the extension.

    Raises:
        VolumeError: If it is missing, not a regular file, not NIfTI, or too short.
    """
    with reading(path), _trust.open_regular(path) as file:
        there = os.fstat(file.fileno()).st_size
        packed = file.read(2) == _GZIP
        file.seek(0)
        raw = (Unpacking(path, file) if packed else file).read(max(_SIZES))
    stored = _parsed(path, raw, packed)
    _check(stored, there)
    return stored


def _parsed(path: Path, raw: bytes, packed: bool) -> Stored:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    sizes = [int.from_bytes(raw[:4], order) for order in ("little", "big")]
    size = next((n for n in sizes if n in _SIZES and n <= len(raw)), None)
    if size is None:
        raise broken(path, "cannot be read as NIfTI (its header is missing)")
    try:
        # Oddities that do not affect the voxels, such as the length of a note, need no warning.
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            header = getattr(nibabel, _SIZES[size])(raw[:size])
            shape = tuple(map(int, header.get_data_shape()))
            slope, inter = header.get_slope_inter()
            offset, dtype = int(header.get_data_offset()), header.get_data_dtype()
            place = place_of(header)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise broken(path, f"cannot be read as NIfTI ({error})") from error
    if offset < size:
        inside = "its voxel offset is inside the header"
        raise broken(path, f"is not a NIfTI file with header and voxels in one ({inside})")
    scale = (1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))
    shape = shape[:3] + tuple(n for n in shape[3:] if n != 1)
    return Stored(path, shape, dtype, offset, scale, place, packed)


def _check(stored: Stored, there: int) -> None:
    """Check that voxels are numbers, and a file of `there` bytes holds them and little else."""
    path, shape, dtype = stored.path, stored.shape, stored.dtype
    if min(shape, default=0) < 1:
        raise broken(path, f"has the sizes {shape}, each needs to be at least 1")
    if dtype.kind not in "iuf" or dtype.name == "uint64":
        fault = f"stores {dtype}, real numbers that torch can hold are needed"
        raise broken(path, fault, "convert it, for example to float32")
    if there < (stored.needed / _RATIO - SLACK if stored.packed else stored.needed):
        raise stored.truncated(f"there are {there:,}{' packed ones' * stored.packed}")
    if stored.packed and there > 1.1 * stored.needed + SLACK:
        raise stored.too_long()
