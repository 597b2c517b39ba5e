"""What is known of the patients of a folder of scans, from a table beside them."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic._errors import CohortError
from cpic.train._cohorts import Task

if TYPE_CHECKING:
    from pandas import DataFrame

_TABLES: dict[Task, str] = {"brats": "survival_info.csv", "osic": "train.csv"}
_NAMES: dict[Task, str] = {"brats": "Brats20ID", "osic": "Patient"}
_UNKNOWN = float("nan")


@dataclasses.dataclass(frozen=True, eq=False)
class Persons:
    """Rows of a table by patient.

    Attributes:
        task: "brats" or "osic".
        rows: cells by column, in the order of the table.
    """

    task: Task
    rows: dict[str, list[dict[str, Any]]]

    def of(self, patient: str, weeks: tuple[float, ...]) -> "DataFrame | str":
        """What a table of features asks of the samples of a patient, or why there are none."""
        import pandas

        rows = self.rows.get(patient, [])
        try:
            if self.task == "brats":
                return pandas.DataFrame([_person(rows[0] if rows else {})])
            if not rows and not weeks:
                return "no table has weeks for it; give a table, or weeks"
            return pandas.DataFrame(_visits(rows, weeks))
        except (ValueError, TypeError) as error:
            return f"its row in the table cannot be used ({error})"


def read_persons(task: Task, scans: Path, table: Path | None) -> Persons:
    """Read a table, or the one of the published tree if it is there.

    Raises:
        CohortError: If a table that was asked for cannot be read.
    """
    import pandas

    levels = ("", "*/", "*/*/")
    beside = [path for level in levels for path in sorted(scans.glob(level + _TABLES[task]))]
    path = table if table is not None else next(iter(beside), None)
    if path is None:
        return Persons(task, {})
    try:
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise CohortError(f"{path} cannot be read as a table ({error}).") from error
    column = _NAMES[task]
    if column not in frame.columns:
        raise CohortError(f"{path} needs the column {column}, got {', '.join(frame.columns)}.")
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        rows.setdefault(str(row[column]), []).append({str(k): v for k, v in row.items()})
    return Persons(task, rows)


def _person(row: dict[str, Any]) -> dict[str, Any]:
    resection = row.get("Extent_of_Resection", "NA").upper() or "NA"
    return {"age": _number(row, "Age"), "resection": resection}


def _visits(rows: list[dict[str, Any]], weeks: tuple[float, ...]) -> list[dict[str, Any]]:
    """Samples of a patient of OSIC: the rows of the table, or the weeks asked for."""
    first = rows[0] if rows else {}
    person = {
        "first_fvc": _number(first, "FVC"),
        "first_percent": _number(first, "Percent"),
        "age": _number(first, "Age"),
        "sex": first.get("Sex", ""),
        "smoking": first.get("SmokingStatus", ""),
    }
    times = list(weeks) or [_number(row, "Weeks") for row in rows]
    if any(time != time for time in times):
        raise ValueError("Weeks is not a number")
    return [{"weeks": float(time), **person} for time in times]


def _number(row: dict[str, Any], column: str) -> float:
    text = str(row.get(column, "")).strip()
    return float(text) if text and text.upper() not in ("NA", "NAN") else _UNKNOWN
