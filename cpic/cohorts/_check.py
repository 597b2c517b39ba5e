"""Find missing or broken files in a downloaded cohort, patient by patient."""

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
from cpic.cohorts._cohort import over_patients
from cpic.cohorts._layout import LAYOUTS, find_kind
from cpic.cohorts._patient import PatientCheck, check_patient
from cpic.data._folder import looking
from cpic.data._progress import Progress


@dataclasses.dataclass(frozen=True)
class CohortCheck:
    """The faults of a cohort.

    Attributes:
        root: The folder that was checked.
        kind: "brats" or "osic"; empty if the folder is neither.
        n_patients: Number of patients that were checked.
        general: Faults of the tree and of the table.
        faults: Faults by patient, `{patient: (sentence, ...)}`.
        notes: Remarks that are not faults: properties of the published set, or oddities of a scan
            that can be read nevertheless.
        tree: The expected tree if something is missing; else empty.
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
        """Whether nothing is missing or broken."""
        return not self.general and not self.faults

    def to_json(self) -> dict[str, Any]:
        """The content as JSON types."""
        return {**dataclasses.asdict(self), "root": str(self.root), "ok": self.ok}

    def __str__(self) -> str:
        n = len(self.faults)
        title = LAYOUTS[self.kind].title if self.kind else "Neither BraTS 2020 nor OSIC"
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
    progress: Progress = False,
    run: Callable[..., Iterable[PatientCheck]] = map,
    report: str | os.PathLike | None = None,
) -> CohortCheck:
    """Find missing or broken files under `root`; nothing is changed.

    Args:
        root: The folder of the set, or its parent.
        kind: "brats", "osic", or "auto" to detect it from the table.
        deep: Read every voxel, not only headers and file sizes.
        progress: Show a progress bar; or a callable that wraps the patients, such as `tqdm.tqdm`.
        run: Maps a function over patients and files; use `Executor.map` for several processes.
        report: File outside `root` for a report as JSON, written at the end.

    Returns:
        The faults; `str` gives a readable report.

    Raises:
        CohortError: If `kind` is unknown, or `report` is not a file in an existing folder, or is
            inside `root`. Faults of the data are never raised.
        OSError: If `report` cannot be written.

    Example:
        >>> print(check_cohort("BraTS2020", deep=True))  # doctest: +SKIP
        BraTS 2020 in BraTS2020: 235 patients checked, 0 with faults
    """
    if kind not in (*LAYOUTS, "auto"):
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


def _checked(root: Path, kind: str, deep: bool, progress: Progress, run: Any) -> CohortCheck:
    general = ""
    try:
        with looking(root):
            kind = find_kind(root) if kind == "auto" else kind
            if not kind:
                lacks = "holds neither survival_info.csv nor train.csv"
                general = f"{root} {lacks if root.is_dir() else 'is not a folder'}"
    except CohortError as error:
        general = str(error)
    if general:
        tree = "\n\nor:\n".join(layout.files for layout in LAYOUTS.values())
        return CohortCheck(root, "", 0, (general,), {}, (), tree)
    plan = _Plan()
    try:
        (_plan_brats if kind == "brats" else _plan_osic)(root, plan)
    except CohortError as error:
        plan.general.append(str(error))
    job = functools.partial(check_patient, deep=deep)
    found = over_patients(job, plan.patients, run=run, progress=progress, desc="check")
    for one in found:
        plan.faults[one.patient] += one.faults
        plan.notes += [f"{one.patient}: {sentence}" for sentence in one.notes]
    faults = {name: tuple(plan.faults[name]) for name in sorted(plan.faults) if plan.faults[name]}
    missing = plan.general or any("missing" in s for parts in faults.values() for s in parts)
    return CohortCheck(
        root,
        kind,
        len({*plan.patients, *faults}),
        tuple(plan.general),
        faults,
        (*plan.notes, *_shapes(found)),
        LAYOUTS[kind].files if missing else "",
    )


@dataclasses.dataclass
class _Plan:
    """The patients to check, and the faults of the tree that are found without their files."""

    patients: dict[str, dict[str, Path]] = dataclasses.field(default_factory=dict)
    general: list[str] = dataclasses.field(default_factory=list)
    faults: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    notes: list[str] = dataclasses.field(default_factory=list)


def _plan_brats(root: Path, plan: _Plan) -> None:
    tree = _brats.LAYOUT.find(root)
    names = set()
    for name, _, files, reasons in _brats.look(tree, _brats.CONTRASTS):
        names.add(name)
        if alive := [reason for reason in reasons if "'ALIVE" in reason]:
            # As published: a patient who was alive has no days of survival.
            plan.notes.append(f"{name} is not a sample: {alive[0]}")
            continue
        plan.faults[name] += reasons
        if files:
            plan.patients[name] = files
    others = {path.name for path in tree.glob("BraTS20_*") if path.is_dir()} - names
    if others:
        plan.notes.append(f"{len(others)} folders have no row in {_brats.TABLE}: no samples")
    if not names:
        plan.general.append(f"{tree / _brats.TABLE} has no rows; download it again.")


def _plan_osic(root: Path, plan: _Plan) -> None:
    cohort = _osic.read_osic(root)
    plan.patients = {name: cohort.files(name) for name in cohort.patients}
    plan.faults |= {name: [reason] for name, reason in cohort.skipped.items()}


def _shapes(found: list[PatientCheck]) -> list[str]:
    shapes = collections.Counter(one.shape for one in found if one.shape)
    if len(shapes) < 2:
        return []
    common = "x".join(map(str, shapes.most_common(1)[0][0]))
    return [f"the scans have {len(shapes)} different shapes, most often {common}"]
