"""NIfTI files, read by position; `.nii.gz` once unpacked into a cache folder."""

import gzip
import hashlib
import math
import os
import shutil
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._array import ArrayVolume, map_raw

# An unpacking that writes is younger than this; an older unfinished file belongs to a dead process.
_STALE_SECONDS = 600
_PART = ".part"


class NiftiVolume(ArrayVolume):
    """A NIfTI image (clauses in `cpic.data.Volume`), mapped and gathered from, never read whole.

    The stored scale is honoured: values are `slope * stored + inter`, as float32 where the stored
    type has at most 24 bits, else as float64. Without a scale the stored type is kept. A `.nii.gz`
    cannot be read by position; it is unpacked once into `cache`, under a name that is the hash of
    its content, so that a changed file is unpacked again and two processes agree.

    Args:
        path: a `.nii` or `.nii.gz` file with three axes (a fourth of length 1 is dropped).
        frame: which image of a file whose fourth axis is longer than 1.
        cache: folder for unpacked files; None is the user's cache folder, `~/.cache/cpic`.
        nan: value that replaces NaN; None refuses NaN voxels when they are read.

    Raises:
        VolumeError: if the file is missing, truncated, no NIfTI, or has a fourth axis and no
            `frame` was given.

    Example:
        >>> NiftiVolume("scan.nii").cubes(centres, size=7)  # doctest: +SKIP
    """

    waits = True

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        frame: int | None = None,
        cache: str | os.PathLike | None = None,
        nan: float | None = None,
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise VolumeError(f"there is no file {self.path}; check the path.")
        plain = self.path
        if self.path.suffix == ".gz":
            plain = _unpacked(self.path, Path(cache) if cache else _user_cache())
        stored = _header(self.path, plain)
        mapped = map_raw(plain, stored.shape, stored.dtype, offset=stored.offset, order="F")
        mapped = _one_frame(mapped, frame, self.path)
        super().__init__(mapped, nan=nan)
        self._scale = (float(stored.slope), float(stored.inter))
        if self._scale != (1.0, 0.0):
            few_bits = mapped.dtype.itemsize <= 2 or mapped.dtype.name == "float32"
            self.dtype = torch.float32 if few_bits else torch.float64
        self._opened = {"frame": frame, "cache": cache, "nan": nan}

    def _decode(self, values: Tensor) -> Tensor:
        slope, inter = self._scale
        return values if self._scale == (1.0, 0.0) else values.to(self.dtype) * slope + inter

    def __getstate__(self) -> dict:
        return {"path": self.path, "opened": self._opened, "ledger": self.ledger}

    def __setstate__(self, state: dict) -> None:
        NiftiVolume.__init__(self, state["path"], **state["opened"])
        self.ledger = state["ledger"]


def _header(path: Path, plain: Path) -> Any:
    """Where and how the voxels of `plain` are stored; errors name `path`."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        # What does not touch the voxels, such as an odd length of a note, is no reason to warn.
        with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
            image = nibabel.load(plain)
        stored = image.dataobj  # type: ignore[attr-defined]
    except (ImageFileError, HeaderDataError, OSError, ValueError, OverflowError) as error:
        raise VolumeError(
            f"{path} cannot be read as NIfTI ({error}); copy or convert it again."
        ) from error
    known = (nibabel.Nifti1Image, nibabel.Nifti2Image)
    if not isinstance(image, known) or stored.offset < image.header.sizeof_hdr:
        raise VolumeError(
            f"{path} is no NIfTI file with header and voxels in one ({type(image).__name__}, "
            "voxels said to be inside the header); copy or convert it again."
        )
    if min(stored.shape, default=0) < 1:
        raise VolumeError(
            f"{path} has the sizes {tuple(stored.shape)}, each needs to be at least 1; copy or "
            "convert it again."
        )
    if stored.dtype.kind not in "iuf" or stored.dtype.name == "uint64":
        raise VolumeError(
            f"{path} stores {stored.dtype}, real numbers that torch can hold are needed; convert "
            "it, for example to float32."
        )
    needed = stored.offset + math.prod(stored.shape) * stored.dtype.itemsize
    if (there := plain.stat().st_size) < needed:
        raise VolumeError(
            f"{path} is truncated: shape {tuple(stored.shape)} of {stored.dtype} needs {needed:,} "
            f"bytes, there are {there:,}; copy or download it again."
        )
    return stored


def _one_frame(mapped, frame: int | None, path: Path):
    while mapped.ndim > 3 and mapped.shape[-1] == 1:
        mapped = mapped[..., 0]
    if mapped.ndim == 4 and frame is not None and 0 <= frame < mapped.shape[3]:
        return mapped[..., frame]
    if mapped.ndim > 3:
        raise VolumeError(
            f"{path} has more than three axes, shape {mapped.shape}, got frame={frame}; pass "
            f"frame= from 0 to {mapped.shape[3] - 1} to read one image of it."
        )
    if mapped.ndim < 2:
        raise VolumeError(
            f"{path} has shape {mapped.shape}, two or three axes are needed; copy or convert it "
            "again."
        )
    return mapped


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cpic"


def _unpacked(path: Path, cache: Path) -> Path:
    """The unpacked copy of `path` in `cache`, made if it is not there."""
    with path.open("rb") as file:
        target = cache / f"{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.nii"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob(f"{target.stem}*{_PART}"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            left.unlink(missing_ok=True)
    # A name of its own each, then one rename: two processes never see each other's half.
    handle, part = tempfile.mkstemp(_PART, f"{target.stem}-", cache)
    try:
        with os.fdopen(handle, "wb") as out, gzip.open(path) as packed:
            shutil.copyfileobj(packed, out, 2**22)
        os.replace(part, target)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise VolumeError(
            f"{path} is truncated or damaged ({error}); copy or download it again."
        ) from error
    finally:
        Path(part).unlink(missing_ok=True)
    return target
