"""A NIfTI file as it lies on the disk: what its header says, and a copy that is not packed."""

import contextlib
import gzip
import hashlib
import io
import math
import os
import shutil
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cpic import _trust
from cpic._errors import VolumeError
from cpic.data._folder import writing
from cpic.data._place import Place, place_of

_GZIP = b"\x1f\x8b"
# Sizes of the headers by their first four bytes, and what follows the header: no extension is read.
_SIZES = {348: "Nifti1Header", 540: "Nifti2Header"}
# What gzip packs a byte into at best, and what may follow the voxels.
_RATIO, _SLACK = 1100, 2**20
# An unpacking that writes is younger than this; an older unfinished file belongs to a dead process.
_STALE_SECONDS = 600
_PART = ".part"


class Stored(NamedTuple):
    """What the header says: values are `scale[0] * stored + scale[1]`.

    Axes of length 1 behind the third are left out of `shape`.
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
        """Bytes up to the last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def read_stored(path: Path) -> Stored:
    """Read and check the header, and that the file can hold what it announces; nothing else.

    Whether a file is packed is told by its content, not by its ending.

    Raises:
        VolumeError: if it is missing, no regular file, no NIfTI, or too short.
    """
    try:
        with _trust.open_regular(path) as file:
            there = os.fstat(file.fileno()).st_size
            packed = file.read(2) == _GZIP
            file.seek(0)
            raw = _read(path, gzip.GzipFile(fileobj=file) if packed else file)
    except _trust.DoubtError as error:
        raise VolumeError(f"{path} {error}.") from error
    except FileNotFoundError as error:
        raise VolumeError(f"there is no file {path}; check the path.") from error
    except OSError as error:
        raise VolumeError(f"{path} cannot be read ({error.strerror or error}).") from error
    stored = _parsed(path, raw, packed)
    _check_stored(stored)
    _check_size(stored, there)
    return stored


def _read(path: Path, stream: BinaryIO | gzip.GzipFile) -> bytes:
    try:
        return stream.read(max(_SIZES))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VolumeError(
            f"{path} is truncated or damaged ({error}); copy or download it again."
        ) from error


def _parsed(path: Path, raw: bytes, packed: bool) -> Stored:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    sizes = [int.from_bytes(raw[:4], order) for order in ("little", "big")]
    size = next((n for n in sizes if n in _SIZES and n <= len(raw)), None)
    if size is None:
        raise VolumeError(
            f"{path} cannot be read as NIfTI (its header is missing); copy or convert it again."
        )
    try:
        # What does not touch the voxels, such as an odd length of a note, is no reason to warn.
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            header = getattr(nibabel, _SIZES[size])(raw[:size])
            shape = tuple(map(int, header.get_data_shape()))
            slope, inter = header.get_slope_inter()
            offset, dtype = int(header.get_data_offset()), header.get_data_dtype()
            place = place_of(header)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise VolumeError(
            f"{path} cannot be read as NIfTI ({error}); copy or convert it again."
        ) from error
    if offset < size:
        raise VolumeError(
            f"{path} is no NIfTI file with header and voxels in one (voxels are said to be inside "
            "the header); copy or convert it again."
        )
    scale = (1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))
    shape = shape[:3] + tuple(n for n in shape[3:] if n != 1)
    return Stored(path, shape, dtype, offset, scale, place, packed)


def _check_stored(stored: Stored) -> None:
    path, shape, dtype = stored.path, stored.shape, stored.dtype
    if min(shape, default=0) < 1:
        raise VolumeError(
            f"{path} has the sizes {shape}, each needs to be at least 1; copy or convert it again."
        )
    if dtype.kind not in "iuf" or dtype.name == "uint64":
        raise VolumeError(
            f"{path} stores {dtype}, real numbers that torch can hold are needed; convert it, for "
            "example to float32."
        )


def _check_size(stored: Stored, there: int) -> None:
    """That a file of `there` bytes can hold the voxels, and little else if it is packed."""
    announced = f"shape {stored.shape} of {stored.dtype} needs {stored.needed:,} bytes"
    least = stored.needed / _RATIO - _SLACK if stored.packed else stored.needed
    if there < least:
        raise VolumeError(
            f"{stored.path} is truncated: {announced}, there are {there:,}"
            f"{' packed ones' * stored.packed}; copy or download it again."
        )
    if stored.packed and there > 1.1 * stored.needed + _SLACK:
        raise VolumeError(_longer(stored))


def _longer(stored: Stored) -> str:
    return (
        f"{stored.path} holds much more than the {stored.needed:,} bytes that its header "
        "announces; copy or download it again."
    )


class _Packed(io.RawIOBase):
    """What a packed file holds; every fault of it is one error that names it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._stream = path, gzip.GzipFile(fileobj=file)

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, OSError) as error:
            raise VolumeError(
                f"{self._path} is truncated or damaged ({error}); copy or download it again."
            ) from error


def unpack(stored: Stored, target: BinaryIO) -> None:
    """Write what a packed file holds, to its end, so that its checksums are looked at.

    Raises:
        VolumeError: if it is damaged, or holds less than it announces, or much more.
        OSError: if `target` cannot be written.
    """
    with _trust.open_regular(stored.path) as file:
        try:
            source = _Packed(stored.path, file)
            copied = _trust.copy_at_most(source, target, stored.needed + _SLACK)
        except _trust.DoubtError as error:
            raise VolumeError(_longer(stored)) from error
    if copied < stored.needed:
        raise VolumeError(
            f"{stored.path} is truncated: shape {stored.shape} of {stored.dtype} needs "
            f"{stored.needed:,} bytes, it holds {copied:,}; copy or download it again."
        )


def check_packed(stored: Stored) -> None:
    """Look whether a packed file is whole, at its end if that is enough.

    Raises:
        VolumeError: if it is not.
    """
    with _trust.open_regular(stored.path) as file:
        file.seek(-4, os.SEEK_END)
        end = int.from_bytes(file.read(4), "little")
    # The unpacked size, modulo 4 GiB: of the last part only, where a file was packed in several.
    if end != stored.needed % 2**32:
        with open(os.devnull, "wb") as nowhere:
            unpack(stored, nowhere)


def unpacked(stored: Stored, cache: Path) -> Path:
    """The unpacked copy in `cache`, made if it is not there whole.

    Raises:
        VolumeError: as `unpack`, or if the cache has too little space.
        CacheError: if the cache cannot be written.
    """
    with _trust.open_regular(stored.path) as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:32]  # type: ignore[arg-type]
    target = cache / f"{name}.nii"
    with contextlib.suppress(OSError):
        if target.stat().st_size >= stored.needed:
            return target
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        _check_free(stored, cache)
        for left in cache.glob(f"{name}*{_PART}"):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink(missing_ok=True)
        # A name of its own each, then one rename: two processes never see each other's half.
        handle, part = tempfile.mkstemp(_PART, f"{name}-", cache)
        try:
            with os.fdopen(handle, "wb") as out:
                unpack(stored, out)
            os.replace(part, target)
        finally:
            Path(part).unlink(missing_ok=True)
    return target


def _check_free(stored: Stored, cache: Path) -> None:
    free = shutil.disk_usage(cache).free
    if free < stored.needed:
        raise VolumeError(
            f"{stored.path} unpacks to {stored.needed:,} bytes, and the cache {cache} has {free:,} "
            "free: free space there, or choose another folder with cache=."
        )
