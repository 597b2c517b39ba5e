"""The OSIC pulmonary fibrosis set: chest CT series, and lung function at several visits."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cpic._errors import VolumeError
from cpic.cohorts._cohort import Cohort, made, reason_of
from cpic.cohorts._layout import OSIC
from cpic.cohorts._table import NAME, Row, read_table

TABLE = OSIC.table
# Names of tables next to scans.
TABLES = (TABLE, "test.csv")
SEXES = ("Female", "Male")
SMOKING = ("Ex-smoker", "Never smoked", "Currently smokes")
COLUMNS = ("Patient", "Weeks", "FVC", "Percent", "Age", "Sex", "SmokingStatus")
_NUMBER = re.compile(r"-?[0-9]{1,9}(\.[0-9]{0,30})?")
# Lower (excluded) and upper limit of plausible values: weeks since the scan, milliliters, percent,
# years.
_RANGES = {"Weeks": (-1001, 2000), "FVC": (0, 20000), "Percent": (0, 500), "Age": (0, 130)}


def read_osic(root: str | os.PathLike, *, headers: bool = False) -> Cohort:
    """Read the tree of the OSIC challenge: scans, and the lung function at each visit.

    Every visit is a sample, including two visits in one week, as published. The first row of a
    patient in the table is the baseline that all targets are relative to; in the published table,
    which is sorted by week, that is the earliest visit. A row that cannot be used, or is an exact
    duplicate, is skipped and listed in `skipped` as "<patient>, line <number>"; without a usable
    first row, or without scan, the patient is skipped.

    No pixels are read; series that cannot be decoded are found by `prepare`, which skips them.

    Args:
        root: The folder with `train.csv` and `train/<patient>/<n>.dcm`, or its parent.
        headers: Read the header of every slice, and skip patients whose headers show that their
            series is broken (no decoder, truncated, two orientations and so on).

    Returns:
        A cohort of one contrast, "ct", with the columns `patient`, `target` (FVC / first FVC),
        `weeks` (since the scan), `fvc` and `first_fvc` (ml), `percent` (of the value predicted for
        such a person, at this visit), `first_percent` (at the baseline), `age` (years), `sex`
        ("Male", "Female") and `smoking` ("Ex-smoker", "Never smoked", "Currently smokes").

    Raises:
        CohortError: If the tree or the table is missing, the table cannot be read or lacks a
            column, or no patient can be used.

    Example:
        >>> read_osic("osic-pulmonary-fibrosis-progression")  # doctest: +SKIP
        Cohort(osic: 176 patients, 1549 samples, ct, 0 skipped)
    """
    tree = OSIC.find(Path(root))
    skipped: dict[str, str] = {}
    visits = read_visits(tree / TABLE, skipped)
    patients: dict[str, dict[str, Path]] = {}
    samples: list[dict[str, Any]] = []
    for name, rows in visits.items():
        folder = tree / "train" / name
        if reason := _fault_of(folder, headers):
            skipped[name] = reason
            continue
        patients[name] = {"ct": folder}
        first = {"first_fvc": rows[0]["fvc"], "first_percent": rows[0]["percent"]}
        samples += [
            {"patient": name, "target": row["fvc"] / first["first_fvc"], **row, **first}
            for row in rows
        ]
    return made("osic", Path(root), tree, ("ct",), patients, samples, skipped)


def read_visits(
    path: Path,
    skipped: dict[str, str],
    *,
    unknown: Collection[str] = (),
    optional: Collection[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Usable rows of each patient, in the order of the table; adds to `skipped`.

    Args:
        path: The table.
        skipped: Reasons for skipped patients and rows; extended in place.
        unknown: Columns whose cells may be empty or NA; the values are NaN, or "" for text.
        optional: Columns that may be missing.
    """
    table: dict[str, list[Row]] = {}
    for row in read_table(path, COLUMNS, optional=optional):
        name = row.cells["Patient"]
        if NAME.fullmatch(name):
            table.setdefault(name, []).append(row)
        else:
            reason = f"{name[:60]!r} cannot be the name of a patient's folder"
            skipped[f"{path.name}, line {row.line}"] = reason
    visits = {}
    for name, rows in table.items():
        good, faults = _usable(rows, unknown)
        if rows[0].line in faults:
            fault = faults[rows[0].line]
            skipped[name] = f"its first row, the baseline, cannot be used: {fault}"
            continue
        skipped |= {f"{name}, line {line}": fault for line, fault in faults.items()}
        visits[name] = good
    return visits


def _usable(
    rows: list[Row], unknown: Collection[str]
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Values of the usable rows of a patient, and faults of the others, by line."""
    good: list[dict[str, Any]] = []
    faults: dict[int, str] = {}
    seen: dict[tuple[str, ...], int] = {}
    for row in rows:
        fault, visit = (row.fault, {}) if row.fault else _parse(row.cells, unknown)
        before = seen.setdefault(tuple(row.cells.values()), row.line)
        if before != row.line:
            fault = f"it repeats line {before}"
        if fault:
            faults[row.line] = fault
        else:
            good.append(visit)
    return good, faults


def _parse(cells: dict[str, str], unknown: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The fault of a row, if any, and its values."""
    values: dict[str, Any] = {}
    blank = {name for name in unknown if cells[name].upper() in ("", "NA", "NAN")}
    for column, (low, high) in _RANGES.items():
        if column in blank:
            values[column.lower()] = float("nan")
            continue
        if not _NUMBER.fullmatch(cells[column]) or not low < float(cells[column]) <= high:
            said = f"{column} is {cells[column][:40]!r}, a number above {low} and up to {high}"
            return f"{said} is needed", {}
        values[column.lower()] = float(cells[column])
    for column, known in (("Sex", SEXES), ("SmokingStatus", SMOKING)):
        found = [word for word in known if word.casefold() == cells[column].casefold()]
        if not found and column not in blank:
            return f"{column} is {cells[column][:40]!r}, one of {', '.join(known)} is needed", {}
        values["sex" if column == "Sex" else "smoking"] = found[0] if found else ""
    return "", values


def _fault_of(folder: Path, headers: bool) -> str:
    """The reason why the scan of a patient cannot be used, as far as it is checked."""
    from cpic.data.dicom._order import slice_files
    from cpic.data.dicom._volume import DicomVolume

    if not folder.is_dir():
        return f"its folder {folder.parent.name}/{folder.name} is missing"
    try:
        DicomVolume(folder) if headers else slice_files(folder)
    except (VolumeError, OSError) as error:
        return reason_of(error)
    return ""
