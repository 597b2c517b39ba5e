"""What is missing or broken in a downloaded cohort, patient by patient."""

import collections
import dataclasses
import functools
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cpic._errors import CohortError, VolumeError
from cpic.data._slice import read_header, read_hu
from cpic.data.cohorts import _brats
from cpic.data.cohorts._cohort import open_scan

KINDS = ("brats", "osic")
_TREES = {
    "brats": """\
MICCAI_BraTS2020_TrainingData/
    survival_info.csv           Brats20ID,Age,Survival_days,Extent_of_Resection
    BraTS20_Training_001/
        BraTS20_Training_001_flair.nii.gz   (or .nii, here and below)
        BraTS20_Training_001_t1.nii.gz
        BraTS20_Training_001_t1ce.nii.gz
        BraTS20_Training_001_t2.nii.gz
        BraTS20_Training_001_seg.nii.gz
    BraTS20_Training_002/
        ...""",
    "osic": """\
osic-pulmonary-fibrosis-progression/
    train.csv                   Patient,Weeks,FVC,Percent,Age,Sex,SmokingStatus
    train/
        ID00007637202177411956430/
            1.dcm
            2.dcm
            ...
        ID00009637202177434476278/
            ...""",
}
_TITLES = {"brats": "BraTS 2020", "osic": "OSIC"}
_LABELS = (0, 1, 2, 4)
# Faults named of one series; a folder copied wrongly has hundreds.
_NAMED = 5


class PatientCheck(NamedTuple):
    """What was found in the files of a patient: sentences, and the shape of the scan."""

    patient: str
    faults: tuple[str, ...]
    shape: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class CohortCheck:
    """What a cohort lacks.

    Attributes:
        root: the folder that was checked.
        kind: "brats" or "osic"; empty where the folder is neither.
        n_patients: how many patients were looked at.
        general: faults of the tree and the table.
        faults: of each patient that has some, `{patient: (sentence, ...)}`.
        notes: what is as in the published set, and worth knowing.
        tree: what is expected, where something is missing; else empty.
    """

    root: Path
    kind: str
    n_patients: int
    general: tuple[str, ...]
    faults: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    tree: str = ""

    @property
    def ok(self) -> bool:
        """Nothing is missing or broken."""
        return not self.general and not self.faults

    def to_json(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        return {**dataclasses.asdict(self), "root": str(self.root), "ok": self.ok}

    def __str__(self) -> str:
        n = len(self.faults)
        title = _TITLES.get(self.kind, "No known cohort")
        lines = [f"{title} in {self.root}: {self.n_patients} patients checked, {n} with faults"]
        lines += [f"  {sentence}" for sentence in self.general]
        for patient, sentences in self.faults.items():
            lines += [f"  {patient}: {sentence}" for sentence in sentences]
        lines += [f"  (note) {sentence}" for sentence in self.notes]
        return "\n".join([*lines, *(["Expected:", self.tree] if self.tree else [])])


def check_cohort(
    root: str | os.PathLike,
    *,
    kind: str = "auto",
    deep: bool = False,
    progress: bool | Callable[..., Iterable[Any]] = False,
    run: Callable[..., Iterable[PatientCheck]] = map,
) -> CohortCheck:
    """Name what is missing or broken under `root`; nothing is changed.

    Args:
        root: the folder of the set, or the one above it.
        kind: "brats", "osic", or "auto" to tell by the table that is there.
        deep: read every voxel, instead of headers and sizes of files only.
        progress: show a bar; or a callable that wraps the patients, such as `tqdm.tqdm`.
        run: maps a function over patients and files; `Executor.map` uses several processes.

    Returns:
        The faults; `str` of it is a report for people.

    Raises:
        CohortError: if `kind` is unknown. Faults of the data are never raised.

    Example:
        >>> print(check_cohort("BraTS2020", deep=True))  # doctest: +SKIP
        BraTS 2020 in BraTS2020: 235 patients checked, 0 with faults
    """
    from tqdm import tqdm

    if kind not in (*KINDS, "auto"):
        raise CohortError(f"check_cohort needs kind 'brats', 'osic' or 'auto', got {kind!r}.")
    root = Path(root)
    if kind == "auto":
        kind = find_kind(root)
    if not kind:
        reason = "it holds neither survival_info.csv nor train.csv" if root.is_dir() else "no such"
        tree = "\n\nor:\n".join(_TREES.values())
        sentence = f"{root} is no folder of a known set ({reason}{' folder' * (not root.is_dir())})"
        return CohortCheck(root, "", 0, (sentence,), {}, (), tree)
    plan = (_plan_brats if kind == "brats" else _plan_osic)(root)
    bar = progress if callable(progress) else functools.partial(tqdm, disable=not progress)
    job = functools.partial(check_patient, deep=deep)
    names = list(plan.patients)
    found = list(
        bar(run(job, names, map(plan.patients.get, names)), total=len(names), desc="check")
    )
    faults = {name: list(sentences) for name, sentences in plan.faults.items()}
    for one in found:
        if one.faults:
            faults.setdefault(one.patient, []).extend(one.faults)
    incomplete = plan.general or any("missing" in s for parts in faults.values() for s in parts)
    return CohortCheck(
        root,
        kind,
        len(set(names) | set(faults)),
        tuple(plan.general),
        {name: tuple(faults[name]) for name in sorted(faults)},
        (*plan.notes, *_shapes(found)),
        _TREES[kind] if incomplete else "",
    )


def find_kind(root: str | os.PathLike) -> str:
    """Which set lies under `root`: "brats", "osic", or "" for neither."""
    root = Path(root)
    if not root.is_dir():
        return ""
    if (root / "train.csv").is_file() or (root / "train").is_dir():
        return "osic"
    places = [root, root / _brats.TREE, root / "BraTS2020_TrainingData" / _brats.TREE]
    if any((place / _brats.TABLE).is_file() for place in places):
        return "brats"
    if any(place.is_dir() for place in places[1:]) or next(root.glob("BraTS20_*"), None):
        return "brats"
    return ""


@dataclasses.dataclass
class _Plan:
    """Whose files to look at, and what is known before."""

    patients: dict[str, dict[str, Path]] = dataclasses.field(default_factory=dict)
    general: list[str] = dataclasses.field(default_factory=list)
    faults: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def _plan_brats(root: Path) -> _Plan:
    plan = _Plan()
    try:
        tree = _brats._find_tree(root)
        table = _brats._read_table(tree / _brats.TABLE)
    except CohortError as error:
        plan.general.append(str(error))
        return plan
    for name, rows in table.items():
        try:
            _brats._parse(name, rows)
        except _brats._UnusableError as error:
            if rows[0].get("days", "").upper().startswith("ALIVE"):
                # As published: a patient who was alive has no days of survival.
                plan.notes.append(f"{name} is no sample: {error}")
                continue
            plan.faults.setdefault(name, []).append(str(error))
        files = {}
        for contrast in _brats.CONTRASTS:
            try:
                files[contrast] = _brats._find_scan(tree / name, name, contrast)
            except _brats._UnusableError as error:
                sentences = plan.faults.setdefault(name, [])
                if str(error) not in sentences:
                    sentences.append(str(error))
        if files:
            plan.patients[name] = files
    others = {path.name for path in tree.glob("BraTS20_*") if path.is_dir()} - set(table)
    if others:
        plan.notes.append(f"{len(others)} folders have no row in {_brats.TABLE}: no samples")
    if not table:
        plan.general.append(f"{tree / _brats.TABLE} has no rows; download it again.")
    return plan


def _plan_osic(root: Path) -> _Plan:
    from cpic.data.cohorts._osic import read_osic

    plan = _Plan()
    try:
        cohort = read_osic(root)
    except CohortError as error:
        plan.general.append(str(error))
        return plan
    plan.patients = {name: cohort.files(name) for name in cohort.patients}
    plan.faults = {name: [reason] for name, reason in cohort.skipped.items()}
    return plan


def _shapes(found: list[PatientCheck]) -> list[str]:
    shapes = collections.Counter(one.shape for one in found if one.shape)
    if len(shapes) < 2:
        return []
    common, n = shapes.most_common(1)[0]
    size = "x".join(map(str, common))
    return [f"{len(shapes)} different shapes of scans, most often {size} ({n} patients)"]


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
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.load(path)
        stored = image.dataobj  # type: ignore[attr-defined]
        shape, kind = tuple(map(int, stored.shape)), stored.dtype
    except (ImageFileError, HeaderDataError, EOFError, zlib.error, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise VolumeError(f"{path} has no header of NIfTI ({reason}); copy it again.") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise VolumeError(f"{path} has wrong dimensions: three axes are needed, got {shape}.")
    wanted, there = int(stored.offset) + math.prod(shape) * kind.itemsize, _n_bytes(path)
    # Of a packed file only the size of its last part is known, modulo 4 GiB.
    packed = path.suffix == ".gz"
    if (packed and there != wanted % 2**32) or (not packed and there < wanted):
        raise VolumeError(
            f"{path} is truncated or damaged: {wanted:,} bytes are announced, the end of the file "
            f"says {there:,}; copy or download it again."
        )
    if deep:
        _read_all(path, contrast)
    return shape


def _n_bytes(path: Path) -> int:
    """Unpacked size, as far as it can be told without unpacking."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        return int.from_bytes(file.read(4), "little")


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
    from cpic.data._dicom import DicomVolume

    faults = []
    for file in sorted(path.glob("*.[dD][cC][mM]")):
        try:
            header = read_header(file)
            if deep:
                read_hu(header)
        except VolumeError as error:
            faults.append(str(error))
    if faults:
        more = [f"and {len(faults) - _NAMED} more files of {path}"] * (len(faults) > _NAMED)
        raise VolumeError("\n".join(faults[:_NAMED] + more))
    return DicomVolume(path).shape
