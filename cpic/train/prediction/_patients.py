"""Data of the patients in a folder of scans, from tables in it.

A table is read as in training, so that the same text gives the same prediction.
"""

import dataclasses
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic.cohorts import _brats, _osic
from cpic.options._groups import Task
from cpic.train.prediction._scans import listed
from cpic.train.tasks._tabular import Kind

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
_TABLES: dict[Task, tuple[str, ...]] = {"brats": _brats.TABLES, "osic": _osic.TABLES}
# Values for patients who are in no table.
_UNKNOWN: dict[Task, dict[str, Any]] = {
    "brats": {"age": math.nan, "resection": "NA"},
    "osic": {**dict.fromkeys(("fvc", "percent", "age"), math.nan), "sex": "", "smoking": ""},
}
# Columns that a model of weeks alone does not need: it predicts ratios to an unknown first FVC.
_SPARE = ("FVC", "Percent", "Age", "Sex", "SmokingStatus")
# Where tables of a published tree may be, from the folder downwards.
_LEVELS = ("", "*/", "*/*/")
Rows = dict[str, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Patients:
    """Rows of tables by patient.

    Attributes:
        task: "brats" or "osic".
        kind: Inputs of the model besides the scan, as in `Table`; None for none.
        rows: Values by name, in the order of the tables.
        faults: Reasons why the row of a patient cannot be used.
        tables: The files.
    """

    task: Task
    kind: Kind | None
    rows: Rows = dataclasses.field(default_factory=dict)
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: tuple[Path, ...] = ()

    @property
    def names(self) -> set[str]:
        """Patients who are in a table."""
        return {*self.rows, *self.faults}

    def of(self, scan: str, weeks: Sequence[float]) -> "DataFrame | str":
        """The rows that a table of features needs for a scan, or the reason why there are none."""
        import pandas

        name = self.known(scan)
        if self.kind is not None and name in self.faults:
            return f"its row in the table cannot be used ({self.faults[name]})"
        rows = self.rows.get(name, [])
        first = rows[0] if rows else _UNKNOWN[self.task]
        if self.task == "brats":
            return pandas.DataFrame([first])
        if not rows and not weeks:
            return "no table has weeks for it; give a table, or weeks"
        visits = [{**first, "weeks": float(week)} for week in weeks] if weeks else rows
        return pandas.DataFrame(visits).assign(
            first_fvc=first["fvc"], first_percent=first["percent"]
        )

    def known(self, scan: str) -> str:
        """The name of a scan in the tables: its own, or the part before the first slash."""
        return scan if scan in self.names else scan.partition("/")[0]

    def report(self, scans: Iterable[str]) -> None:
        """Log scans without table, missing values, and patients without scan."""
        if self.kind is None:
            return
        known = {scan: self.known(scan) for scan in scans}
        files = " and ".join(map(str, self.tables))
        if missing := sorted(self.names - set(known.values())):
            _log.warning("no scan of %s of %s", _counted(missing), files)
        if self.kind != "brats":
            return
        ages = {name: rows[0]["age"] for name, rows in self.rows.items()}
        unknown = [scan for scan, name in known.items() if not ages.get(name, math.nan) >= 0]
        if unknown:
            where = files or f"a table named {' or '.join(_TABLES[self.task])} in the folder"
            _log.warning(
                "the age of %s is not known from %s; the model takes it as unknown",
                _counted(unknown),
                where,
            )


def read_patients(
    task: Task,
    kind: Kind | None,
    scans: Path,
    table: Path | None,
    weeks: Sequence[float] = (),
) -> Patients:
    """Read the given table, or the tables of published trees that are found.

    Args:
        task: "brats" or "osic".
        kind: Inputs of the model besides the scan.
        scans: Folder of the scans.
        table: File given by the user.
        weeks: Weeks given by the user, instead of those in the table.

    Raises:
        CohortError: If a table cannot be read.
    """
    if table is not None:
        paths = [table]
    elif kind is None:
        paths = []
    else:
        found = [scans.glob(f"{level}{name}") for level in _LEVELS for name in _TABLES[task]]
        paths = sorted(path for some in found for path in some if path.is_file())
    patients = Patients(task, kind, tables=tuple(paths))
    optional = (*(_SPARE if kind == "weeks" else ()), *(("Weeks",) if weeks else ()))
    for path in paths:
        skipped: dict[str, str] = {}
        if task == "brats":
            people, skipped = _brats.read_people(path)
            rows: Rows = {name: [known] for name, known in people.items()}
        else:
            unknown = {*optional, "FVC", "Percent"}
            rows = _osic.read_visits(path, skipped, unknown=unknown, optional=optional)
        _merge(patients, rows, skipped, path)
    if kind is None and table is not None:
        _log.warning("the model uses the scan alone: %s has no effect", table)
    return patients


def _merge(found: Patients, rows: Rows, skipped: dict[str, str], path: Path) -> None:
    """Add a table; a patient with conflicting rows in two tables is a fault."""
    for name, reason in skipped.items():
        if ", line " in name:
            _log.warning("%s: %s is left out: %s", path, name, reason)
        else:
            found.faults[name] = reason
    for name, own in rows.items():
        before = found.rows.setdefault(name, own)
        seen = set(map(repr, before))
        new = [row for row in own if repr(row) not in seen]
        if new and found.task == "brats":
            found.faults[name] = f"{path} and another table differ"
        else:
            found.rows[name] = [*before, *new]


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} patients ({listed(names)})"
