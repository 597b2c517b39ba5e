"""Find missing or broken files of one patient."""

import collections
import tempfile
from pathlib import Path
from typing import NamedTuple

from cpic._errors import CacheError, VolumeError
from cpic.cohorts._cohort import named, open_scan
from cpic.data._faults import broken
from cpic.data.dicom._order import slice_files
from cpic.data.dicom._slice import read_header, read_hu
from cpic.data.dicom._volume import DicomVolume
from cpic.data.nifti._header import read_stored
from cpic.data.nifti._place import Place, fit
from cpic.data.nifti._unpacked import check_packed

_LABELS = (0, 1, 2, 4)
# Number of faults of a series, or values of a file, that are listed.
_NAMED = 5


class PatientCheck(NamedTuple):
    """The result for one patient: sentences, and the shape of the scan."""

    patient: str
    faults: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


class _Look(NamedTuple):
    """One contrast: a file, the position of its voxels, and notes."""

    path: Path
    shape: tuple[int, ...]
    place: Place = Place(None)
    notes: tuple[str, ...] = ()


def check_patient(patient: str, files: dict[str, Path], *, deep: bool = False) -> PatientCheck:
    """Check the files of one patient; depends on nothing else, so it can run in workers.

    Args:
        patient: Name of the patient.
        files: Contrast to file, or to the folder of a DICOM series.
        deep: Read every voxel.
    """
    faults: list[str] = []
    notes: list[str] = []
    looks: dict[str, _Look] = {}
    for contrast, path in files.items():
        try:
            look = (_look_at_series if path.is_dir() else _look_at_nifti)(path, contrast, deep)
            found = fit(next(iter(looks.values()), look), look)
            looks[contrast] = look._replace(shape=found.shape)
            notes += named(patient, path, (*look.notes, *found.notes))
        except VolumeError as error:
            faults += error.plain.split("\n")
        except OSError as error:
            faults.append(f"{path} cannot be read ({error.strerror or error})")
    if len({look.shape for look in looks.values()}) > 1:
        sizes = ", ".join(f"{c} {'x'.join(map(str, look.shape))}" for c, look in looks.items())
        faults.append(f"its contrasts need one shape, got {sizes}")
    shape = next((look.shape for look in looks.values()), None)
    return PatientCheck(patient, tuple(faults), shape, tuple(notes))


def _look_at_nifti(path: Path, contrast: str, deep: bool) -> _Look:
    """Raise VolumeError for a fault."""
    stored = read_stored(path)
    if len(stored.shape) != 3 or min(stored.shape) < 2:
        got = f"three axes are needed, got {stored.shape}"
        raise VolumeError(f"{path} has wrong dimensions: {got}.")
    if stored.packed:
        check_packed(stored)
    if deep:
        _read_all(path, contrast)
    return _Look(path, stored.shape, stored.place, stored.place.notes)


def _read_all(path: Path, contrast: str) -> None:
    try:
        with tempfile.TemporaryDirectory() as cache:
            values = open_scan(path, cache=cache, nan=None).read()
    except CacheError as error:
        fault = f"cannot be unpacked into {tempfile.gettempdir()} ({error.__cause__})"
        raise broken(path, fault, "set TMPDIR to a folder with more space") from error
    if contrast != "seg":
        _check_different(path, values.min().item(), values.max().item())
    elif others := sorted(set(values.unique().tolist()) - set(_LABELS)):
        raise VolumeError(f"{path} needs the labels {_LABELS}, got also {others[:_NAMED]}.")


def _check_different(path: Path, low: float, high: float) -> None:
    if low == high:
        raise broken(f"every voxel of {path}", f"is {low}")


def _look_at_series(path: Path, contrast: str, deep: bool) -> _Look:
    """Raise one VolumeError with a line for each of the first faults."""
    faults = collections.defaultdict(list)
    ends: set[float] = set()
    for file in slice_files(path):
        try:
            header = read_header(file)
            if deep:
                hu = read_hu(header)
                ends |= {float(hu.min()), float(hu.max())}
        except VolumeError as error:
            faults[str(error).replace(str(file), "")].append(str(error))
    if faults:
        # In a badly copied folder the same fault occurs hundreds of times.
        lines = [
            alike[0] + f" (and {len(alike) - 1} more such files)" * (len(alike) > 1)
            for alike in list(faults.values())[:_NAMED]
        ]
        raise VolumeError("\n".join(lines))
    if ends:
        _check_different(path, min(ends), max(ends))
    volume = DicomVolume(path)
    return _Look(path, volume.shape, notes=volume.notes)
