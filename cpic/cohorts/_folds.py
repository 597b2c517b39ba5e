"""Cross-validation as published: training and validation patients of each fold."""

import os
from pathlib import Path

from cpic._errors import CohortError
from cpic._files import write_json
from cpic._trust import parse_json, read_regular
from cpic.cohorts._cohort import Cohort

Fold = tuple[list[str], list[str]]


def folds(cohort: Cohort, n: int = 5, *, path: str | os.PathLike | None = None) -> list[Fold]:
    """Split the patients of a cohort for n-fold cross-validation; no patient is on both sides.

    With one sample per patient (BraTS) the folds are contiguous parts of the list of patients; with
    several (OSIC) whole patients are distributed so that the folds have equally many samples. Both
    are as published and depend only on the cohort.

    Args:
        cohort: Its order of patients and its samples determine the folds. Use that of a `Prepared`
            if scans were skipped.
        n: Number of folds, between 2 and the number of patients.
        path: JSON file: if it exists, it is read and checked against the cohort, otherwise written.

    Returns:
        n pairs (training patients, validation patients), both in the order of the cohort; each
        patient is in the validation part once.

    Raises:
        CohortError: If n is out of range, or the file is not a split of these patients into n
            folds.

    Example:
        >>> for train, validation in folds(cohort, path="folds.json"):  # doctest: +SKIP
        ...     fit(train, validation)
    """
    names = list(cohort.patients)
    if not 2 <= n <= len(names):
        raise CohortError(
            f"folds needs n between 2 and the {len(names)} patients of {cohort.name}, got {n}."
        )
    if path is not None and Path(path).exists():
        return _load(Path(path), cohort, n)
    held_out = _split(cohort, names, n)
    result = _pairs(names, held_out)
    if path is not None:
        pieces = [{"train": train, "validation": validation} for train, validation in result]
        write_json(Path(path), {"cohort": cohort.name, "n": n, "folds": pieces})
    return result


def _split(cohort: Cohort, names: list[str], n: int) -> list[set[str]]:
    from sklearn.model_selection import GroupKFold, KFold

    groups = cohort.samples["patient"].to_numpy(dtype=object)
    if len(groups) > len(set(groups)):
        parts = GroupKFold(n).split(groups, groups=groups)
        return [set(groups[validation]) for _, validation in parts]
    return [{names[k] for k in validation} for _, validation in KFold(n).split(names)]


def _pairs(names: list[str], held_out: list[set[str]]) -> list[Fold]:
    return [
        ([p for p in names if p not in out], [p for p in names if p in out]) for out in held_out
    ]


def _load(path: Path, cohort: Cohort, n: int) -> list[Fold]:
    names = list(cohort.patients)
    try:
        pieces = parse_json(read_regular(path))["folds"]
        saved = [(list(piece["train"]), list(piece["validation"])) for piece in pieces]
        held_out = [set(validation) for _, validation in saved]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CohortError(
            f"{path} cannot be read as saved folds ({type(error).__name__}: {error}): delete it to "
            "make them again."
        ) from error
    if len(saved) != n:
        raise CohortError(f"{path} has {len(saved)} folds, {n} are needed: choose another path.")
    known = set().union(*held_out)
    if known != set(names):
        differ = sorted(map(str, known ^ set(names)))
        raise CohortError(
            f"{path} is a split of other patients than those of {cohort.name}: {len(differ)} "
            f"differ, the first is {differ[0]}; delete it to split again."
        )
    result = _pairs(names, held_out)
    if sum(map(len, held_out)) != len(names) or not all(held_out) or result != saved:
        raise CohortError(
            f"{path} is not a cross-validation: each patient must validate once and train in all "
            "other folds; delete it to split again."
        )
    return result
