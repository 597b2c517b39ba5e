"""The BraTS 2020 training set: glioma scans and days of survival."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cpic._errors import CohortError
from cpic.cohorts._cohort import Cohort, made
from cpic.cohorts._layout import BRATS as LAYOUT
from cpic.cohorts._table import NAME, Row, read_table

TABLE = LAYOUT.table
CONTRASTS = ("flair", "t1", "t1ce", "t2", "seg")
# Days that correspond to a target of 1.
SCALE_DAYS = 5 * 365
_COLUMNS = ("Brats20ID", "Age", "Survival_days", "Extent_of_Resection")
# Column names in tables of other years, and of the validation patients.
_ALSO = {
    "Brats20ID": tuple(f"BraTS{year}ID" for year in range(17, 26)),
    "Survival_days": ("Survival",),
    "Extent_of_Resection": ("ResectionStatus",),
}
# Names of tables next to scans, of any year.
TABLES = (TABLE, "survival_evaluation.csv", "survival_data.csv")
_RESECTIONS = ("GTR", "STR", "NA")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?")
_ENDINGS = (".nii", ".nii.gz")
_MOST_DAYS, _MOST_YEARS = 36525, 130


def read_brats(root: str | os.PathLike, *, contrasts: Sequence[str] = ("t1",)) -> Cohort:
    """Read the tree of BraTS 2020: files and survival of each patient.

    No scan is opened. Patients are in the order of the table, as the published folds require; those
    without a row in it are not part of the cohort, and rows that cannot be used (a patient who was
    alive, two rows for one patient, a missing file) are skipped and listed in `skipped`.

    Args:
        root: `MICCAI_BraTS2020_TrainingData` or its parent folder. Scans are
            `BraTS20_Training_NNN/BraTS20_Training_NNN_t1.nii.gz`, or `.nii`; if both exist, the
            uncompressed one is used.
        contrasts: One or more of "flair", "t1", "t1ce", "t2" and "seg" (the labels), as channels.

    Returns:
        A cohort with the columns `patient`, `target` (days / 1825), `days`, `age` (years, NaN if
        unknown) and `resection` ("GTR", "STR" or "NA").

    Raises:
        CohortError: If the tree or the table is missing, the table cannot be read or lacks a
            column, a contrast is unknown, or no patient can be used.

    Example:
        >>> read_brats("BraTS2020", contrasts=("t1", "t1ce", "t2", "flair"))  # doctest: +SKIP
        Cohort(brats2020: 235 patients, 235 samples, t1+t1ce+t2+flair, 1 skipped)
    """
    chosen = _check_contrasts(contrasts)
    tree = LAYOUT.find(Path(root))
    patients: dict[str, dict[str, Path]] = {}
    samples, skipped = [], {}
    for name, sample, files, reasons in look(tree, chosen):
        if reasons:
            skipped[name] = reasons[0]
        else:
            patients[name] = files
            samples.append(sample)
    return made("brats2020", Path(root), tree, chosen, patients, samples, skipped)


def look(
    tree: Path, contrasts: Sequence[str]
) -> Iterator[tuple[str, dict[str, object], dict[str, Path], list[str]]]:
    """Each patient of the table: name, sample, files, and the reason if it cannot be used."""
    for name, rows in _read_table(tree / TABLE).items():
        sample: dict[str, object] = {}
        files: dict[str, Path] = {}
        reasons: list[str] = []
        try:
            sample = _parse(name, rows)
        except _UnusableError as error:
            reasons.append(str(error))
        for contrast in contrasts:
            try:
                files[contrast] = _find_scan(tree / name, name, contrast)
            except _UnusableError as error:
                reasons.append(str(error))
        yield name, sample, files, list(dict.fromkeys(reasons))


def read_people(path: Path) -> tuple[dict[str, dict[str, object]], dict[str, str]]:
    """Age and resection of each patient of a table, and the reasons why rows cannot be used.

    The table is read as by `read_brats`, but days of survival are not required.
    """
    people: dict[str, dict[str, object]] = {}
    skipped: dict[str, str] = {}
    for name, rows in _read_table(path, optional=("Survival_days",)).items():
        try:
            people[name] = _person(rows, path.name)
        except _UnusableError as error:
            skipped[name] = str(error)
    return people, skipped


class _UnusableError(Exception):
    """The reason why a patient is skipped."""


def _check_contrasts(contrasts: Sequence[str]) -> tuple[str, ...]:
    chosen = (contrasts,) if isinstance(contrasts, str) else tuple(contrasts)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(CONTRASTS):
        raise CohortError(
            f"read_brats needs contrasts, each once, out of {', '.join(CONTRASTS)}, got "
            f"{', '.join(map(str, chosen)) or 'none'}."
        )
    return chosen


def _read_table(path: Path, *, optional: Collection[str] = ()) -> dict[str, list[Row]]:
    """The rows of each patient, in the order of the file."""
    table: dict[str, list[Row]] = {}
    for row in read_table(path, _COLUMNS, also=_ALSO, optional=optional):
        table.setdefault(row.cells["Brats20ID"] or "a row without name", []).append(row)
    return table


def _parse(name: str, rows: list[Row]) -> dict[str, object]:
    """The sample of one patient."""
    person = _person(rows, TABLE)
    days = rows[0].cells["Survival_days"]
    if not _NUMBER.fullmatch(days) or float(days) > _MOST_DAYS:
        raise _UnusableError(f"survival is {days!r}, a number of days is needed")
    return {
        "patient": name,
        "target": float(days) / SCALE_DAYS,
        "days": float(days),
        **person,
    }


def _person(rows: list[Row], table: str) -> dict[str, object]:
    """Data of a patient besides the scan."""
    if len(rows) > 1:
        raise _UnusableError(f"{len(rows)} rows in {table}, one is needed")
    if rows[0].fault:
        raise _UnusableError(f"its row in {table} cannot be used: {rows[0].fault}")
    age, resection = (rows[0].cells[column] for column in ("Age", "Extent_of_Resection"))
    resection = resection.upper() or "NA"
    unknown = age.upper() in ("", "NA", "NAN")
    if not unknown and (not _NUMBER.fullmatch(age) or float(age) > _MOST_YEARS):
        raise _UnusableError(f"age is {age!r}, a number of years or NA is needed")
    if resection not in _RESECTIONS:
        raise _UnusableError(f"resection is {resection!r}, GTR, STR or NA is needed")
    return {"age": float("nan") if unknown else float(age), "resection": resection}


def _find_scan(folder: Path, name: str, contrast: str) -> Path:
    if not NAME.fullmatch(name):
        raise _UnusableError("this cannot be the name of a patient's folder")
    if not folder.is_dir():
        raise _UnusableError("its folder is missing")
    # Windows writes names in capitals; a leading dot marks metadata of macOS, not a scan.
    files = {p.name.lower(): p for p in sorted(folder.iterdir()) if p.name[0] != "."}
    files = {key: p for key, p in files.items() if key.endswith(_ENDINGS) and p.is_file()}
    for ending in _ENDINGS:
        if path := files.get(f"{name}_{contrast}{ending}".lower()):
            return path
    if contrast == "seg":
        # The labels of patient 355 have the file name of their hospital.
        others = [path for key, path in files.items() if "segm" in key]
        if len(others) == 1:
            return others[0]
    raise _UnusableError(f"{name}_{contrast}.nii.gz is missing")
