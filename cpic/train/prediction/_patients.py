"""What is known of the patients of a folder of scans, from tables beside them.

A table is read as the training reads it, so that one text gives one prediction.
"""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic.cohorts import _brats, _osic
from cpic.train.tasks._source import Task
from cpic.train.tasks._tabular import Kind

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
_TABLES: dict[Task, tuple[str, ...]] = {"brats": _brats.TABLES, "osic": _osic.TABLES}
_UNKNOWN = float("nan")
# What a model of weeks alone can do without: it gives shares of a first FVC that is not known.
_SPARE = ("FVC", "Percent", "Age", "Sex", "SmokingStatus")
# Names that a message shows.
_SHOWN = 5
Rows = dict[str, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True, eq=False)
class Persons:
    """Rows of tables by patient.

    Attributes:
        task: "brats" or "osic".
        kind: what the model is told besides the scan, as in `Table`; None for nothing.
        rows: values by name, in the order of the tables.
        faults: why a patient of a table cannot be used.
        tables: the files.
    """

    task: Task
    kind: Kind | None
    rows: Rows = dataclasses.field(default_factory=dict)
    faults: dict[str, str] = dataclasses.field(default_factory=dict)
    tables: tuple[Path, ...] = ()

    @property
    def names(self) -> set[str]:
        """Who is in a table."""
        return {*self.rows, *self.faults}

    def of(self, patient: str, weeks: Sequence[float]) -> "DataFrame | str":
        """What a table of features asks of the samples of a patient, or why there are none."""
        import pandas

        name = self.known(patient)
        if self.kind is not None and name in self.faults:
            return f"its row in the table cannot be used ({self.faults[name]})"
        rows = self.rows.get(name, [])
        if self.task == "brats":
            person = rows[0] if rows else {"age": _UNKNOWN, "resection": "NA"}
            return pandas.DataFrame([person])
        if not rows and not weeks:
            return "no table has weeks for it; give a table, or weeks"
        return pandas.DataFrame(_visits(rows, weeks))

    def known(self, patient: str) -> str:
        """The name in the tables of a scan: its own, or that in front of the first slash."""
        names = self.names
        return patient if patient in names else patient.partition("/")[0]

    def report(self, patients: Iterable[str]) -> None:
        """Say which patients are without table, what is not known, and who is without scan."""
        known = {patient: self.known(patient) for patient in patients}
        if self.kind is None:
            return
        files = " and ".join(map(str, self.tables))
        if missing := sorted(set(self.names) - set(known.values())):
            _log.warning("no scan of %s of %s", _listed(missing), files)
        if self.kind != "brats":
            return
        ages = {name: rows[0]["age"] for name, rows in self.rows.items()}
        unknown = [p for p, name in known.items() if not ages.get(name, _UNKNOWN) >= 0]
        if unknown:
            where = files or f"a table named {' or '.join(_TABLES[self.task])} in the folder"
            _log.warning(
                "the age of %s is not known from %s; the model takes it as unknown",
                _listed(unknown),
                where,
            )


def read_persons(
    task: Task,
    kind: Kind | None,
    scans: Path,
    table: Path | None,
    weeks: Sequence[float] = (),
) -> Persons:
    """Read a table, or those of the published trees that are there.

    Args:
        task: "brats" or "osic".
        kind: what the model is told besides the scan.
        scans: folder of the scans.
        table: file that was asked for.
        weeks: asked for in place of those in the table.

    Raises:
        CohortError: If a table cannot be read.
    """
    paths = [table] if table is not None else _beside(scans, _TABLES[task])
    if kind is None and table is None:
        return Persons(task, kind)
    found = Persons(task, kind, tables=tuple(paths))
    for path in paths:
        skipped: dict[str, str] = {}
        if task == "brats":
            people, skipped = _brats.read_people(path)
            rows: Rows = {name: [person] for name, person in people.items()}
        else:
            optional = (*(_SPARE if kind == "weeks" else ()), *(("Weeks",) if weeks else ()))
            unknown = {*optional, "FVC", "Percent"}
            rows = _osic.read_visits(path, skipped, unknown=unknown, optional=optional)
        _merge(found, rows, skipped, path)
    if kind is None:
        _log.warning("the model knows the scan alone: %s changes nothing", table)
    return found


def _merge(found: Persons, rows: Rows, skipped: dict[str, str], path: Path) -> None:
    """Add a table; a patient of whom two tables say different things is at fault."""
    for name, reason in skipped.items():
        if ", line " in name:
            _log.warning("%s: %s is left out: %s", path, name, reason)
        else:
            found.faults[name] = reason
    for name, own in rows.items():
        before = found.rows.setdefault(name, own)
        if before is not own and found.task == "brats" and repr(before) != repr(own):
            found.faults[name] = f"{path} and another table differ"
        elif before is not own:
            seen = list(map(repr, before))
            found.rows[name] = [*before, *(row for row in own if repr(row) not in seen)]


def _beside(scans: Path, names: Sequence[str]) -> list[Path]:
    levels = ("", "*/", "*/*/")
    found = [path for level in levels for name in names for path in scans.glob(level + name)]
    return sorted(path for path in found if path.is_file())


def _visits(rows: list[dict[str, Any]], weeks: Sequence[float]) -> list[dict[str, Any]]:
    """Samples of a patient of OSIC: the rows of the table, or the weeks asked for."""
    nobody = {**dict.fromkeys(("fvc", "percent", "age"), _UNKNOWN), "sex": "", "smoking": ""}
    first = rows[0] if rows else nobody
    person = {"first_fvc": first["fvc"], "first_percent": first["percent"]}
    visits = [{**first, "weeks": float(time)} for time in weeks] if weeks else rows
    return [{**visit, **person} for visit in visits]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)
    return f"{len(names)} patients ({', '.join(names[:_SHOWN])}{more})"
