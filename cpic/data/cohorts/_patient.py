"""What is missing or broken in the files of one patient."""

import collections
import math
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import torch

from cpic._errors import VolumeError
from cpic.data._nifti import NiftiVolume
from cpic.data._slice import read_header, read_hu
from cpic.data.cohorts._cohort import open_scan

_LABELS = (0, 1, 2, 4)
# Faults of a series, or values of a file, that are named.
_NAMED = 5


class PatientCheck(NamedTuple):
    """What was found in the files of a patient: sentences, and the shape of the scan."""

    patient: str
    faults: tuple[str, ...]
    shape: tuple[int, ...] | None = None


def check_patient(patient: str, files: dict[str, Path], *, deep: bool = False) -> PatientCheck:
    """Look at the files of one patient; depends on nothing else, so it can be sent to workers.

    Args:
        patient: its name.
        files: contrast to file, or to the folder of a DICOM series.
        deep: read every voxel.
    """
    faults: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for contrast, path in files.items():
        try:
            look = _look_at_series if path.is_dir() else _look_at_nifti
            shapes[contrast] = look(path, contrast, deep)
        except VolumeError as error:
            faults += str(error).split("\n")
        except OSError as error:
            faults.append(f"{path} cannot be read ({error.strerror or error})")
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{c} {'x'.join(map(str, s))}" for c, s in shapes.items())
        faults.append(f"its contrasts need one shape, got {sizes}")
    return PatientCheck(patient, tuple(faults), next(iter(shapes.values()), None))


def _look_at_nifti(path: Path, contrast: str, deep: bool) -> tuple[int, ...]:
    """The shape; raises VolumeError for a fault."""
    shape = _packed_shape(path) if path.suffix == ".gz" else NiftiVolume(path).shape
    if len(shape) != 3 or min(shape) < 2:
        raise VolumeError(f"{path} has wrong dimensions: three axes are needed, got {shape}.")
    if deep:
        _read_all(path, contrast)
    return shape


def _packed_shape(path: Path) -> tuple[int, ...]:
    """What the header of a `.nii.gz` says, compared with the end of the file; nothing between."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    faults = (ImageFileError, HeaderDataError, EOFError, zlib.error, ValueError, OverflowError)
    try:
        with warnings.catch_warnings(action="ignore"):
            stored = nibabel.load(path).dataobj  # type: ignore[attr-defined]
    except faults as error:
        reason = " ".join(str(error).split())[:160]
        raise VolumeError(f"{path} has no header of NIfTI ({reason}); copy it again.") from error
    shape = tuple(map(int, stored.shape))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    wanted = int(stored.offset) + math.prod(shape) * stored.dtype.itemsize
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        there = int.from_bytes(file.read(4), "little")
    # The last four bytes are the unpacked size, modulo 4 GiB.
    if there != wanted % 2**32:
        raise VolumeError(
            f"{path} is truncated or damaged: {wanted:,} bytes are announced, the end of the file "
            f"says {there:,}; copy or download it again."
        )
    return shape


def _read_all(path: Path, contrast: str) -> None:
    with tempfile.TemporaryDirectory() as cache:
        values = open_scan(path, cache=cache, nan=None).read()
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise VolumeError(f"{path} has infinite voxels; convert it again.")
    low, high = values.min().item(), values.max().item()
    if contrast == "seg":
        others = sorted(set(values.unique().tolist()) - set(_LABELS))
        if others:
            raise VolumeError(f"{path} needs the labels {_LABELS}, got also {others[:_NAMED]}.")
    elif low == high:
        raise VolumeError(f"every voxel of {path} is {low}; copy or download it again.")


def _look_at_series(path: Path, contrast: str, deep: bool) -> tuple[int, ...]:
    """The shape; raises one VolumeError with a line for each of the first faults."""
    from cpic.data._dicom import DicomVolume, slice_files

    faults = collections.defaultdict(list)
    for file in slice_files(path):
        try:
            header = read_header(file)
            if deep:
                read_hu(header)
        except VolumeError as error:
            faults[str(error).replace(str(file), "")].append(str(error))
    if faults:
        # A folder copied wrongly has the same fault hundreds of times.
        raise VolumeError(
            "\n".join(
                alike[0] + f" (and {len(alike) - 1} more files alike)" * (len(alike) > 1)
                for alike in list(faults.values())[:_NAMED]
            )
        )
    return DicomVolume(path).shape
