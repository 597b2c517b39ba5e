"""What is missing or broken in a downloaded cohort, patient by patient."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cpic._errors import CohortError
from cpic._files import write_json
from cpic.cohorts import _brats, _osic
from cpic.cohorts._cache import is_inside
from cpic.cohorts._patient import PatientCheck, check_patient
from cpic.data._folder import looking

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


@dataclasses.dataclass(frozen=True)
class CohortCheck:
    """What a cohort lacks.

    Attributes:
        root: the folder that was checked.
        kind: "brats" or "osic"; empty where the folder is neither.
        n_patients: how many patients were looked at.
        general: faults of the tree and the table.
        faults: of each patient that has some, `{patient: (sentence, ...)}`.
        notes: what is worth knowing and no fault: as in the published set, or odd about a scan
            that is read all the same.
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
        title = _TITLES.get(self.kind, "Neither BraTS 2020 nor OSIC")
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
    report: str | os.PathLike | None = None,
) -> CohortCheck:
    """Name what is missing or broken under `root`; nothing is changed.

    Args:
        root: the folder of the set, or the one above it.
        kind: "brats", "osic", or "auto" to tell by the table that is there.
        deep: read every voxel, instead of headers and sizes of files only.
        progress: show a bar; or a callable that wraps the patients, such as `tqdm.tqdm`.
        run: maps a function over patients and files; `Executor.map` uses several processes.
        report: a file outside `root` for the faults in JSON, which appears when all are known.

    Returns:
        The faults; `str` of it is a report for people.

    Raises:
        CohortError: if `kind` is unknown, or `report` is no file in a folder that exists, or lies
            under `root`. Faults of the data are never raised.
        OSError: if `report` cannot be written.

    Example:
        >>> print(check_cohort("BraTS2020", deep=True))  # doctest: +SKIP
        BraTS 2020 in BraTS2020: 235 patients checked, 0 with faults
    """
    if kind not in (*KINDS, "auto"):
        raise CohortError(f"check_cohort needs kind 'brats', 'osic' or 'auto', got {kind!r}.")
    root = Path(root)
    if report is not None:
        _check_place(Path(report), root)
    found = _checked(root, kind, deep, progress, run)
    if report is not None:
        write_json(Path(report), found.to_json())
    return found


def _check_place(report: Path, root: Path) -> None:
    if is_inside(report, root) or report.is_dir() or not report.absolute().parent.is_dir():
        raise CohortError(
            f"the report cannot be written to {report}; give a file in a folder that exists, "
            f"outside the data folder {root}."
        )


def _checked(root: Path, kind: str, deep: bool, progress: Any, run: Any) -> CohortCheck:
    from tqdm import tqdm

    tree = "\n\nor:\n".join(_TREES.values())
    try:
        with looking(root):
            kind = find_kind(root) if kind == "auto" else kind
            there = root.is_dir()
    except CohortError as error:
        return CohortCheck(root, "", 0, (str(error),), {}, (), tree)
    if not kind:
        reason = "holds neither survival_info.csv nor train.csv" if there else "is no folder"
        return CohortCheck(root, "", 0, (f"{root} {reason}",), {}, (), tree)
    plan = (_plan_brats if kind == "brats" else _plan_osic)(root)
    bar: Any = progress if callable(progress) else functools.partial(tqdm, disable=not progress)
    job = functools.partial(check_patient, deep=deep)
    names = list(plan.patients)
    found = list(
        bar(run(job, names, map(plan.patients.get, names)), total=len(names), desc="check")
    )
    faults = {name: list(sentences) for name, sentences in plan.faults.items()}
    for one in found:
        if one.faults:
            faults.setdefault(one.patient, []).extend(one.faults)
    odd = [f"{one.patient}: {sentence}" for one in found for sentence in one.notes]
    incomplete = plan.general or any("missing" in s for parts in faults.values() for s in parts)
    return CohortCheck(
        root,
        kind,
        len(set(names) | set(faults)),
        tuple(plan.general),
        {name: tuple(faults[name]) for name in sorted(faults)},
        (*plan.notes, *odd, *_shapes(found)),
        expected_tree(kind) if incomplete else "",
    )


def expected_tree(kind: str) -> str:
    """The files of a set as they are published: "brats" or "osic"."""
    return _TREES[kind]


def find_kind(root: str | os.PathLike) -> str:
    """Which set lies under `root`: "brats", "osic", or "" for neither."""
    root = Path(root)
    if not root.is_dir():
        return ""
    for place in (root, root / _osic.TREE):
        if (place / _osic.TABLE).is_file() or (place / "train").is_dir():
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
            if "'ALIVE" in str(error):
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
    plan = _Plan()
    try:
        cohort = _osic.read_osic(root)
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
    common = "x".join(map(str, shapes.most_common(1)[0][0]))
    return [f"the scans have {len(shapes)} different shapes, most often {common}"]
