"""The cohort a run learns from: read from a folder, or generated in the user's cache."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cpic import cohorts
from cpic._errors import CohortError
from cpic.cohorts import synthetic
from cpic.data import Volume
from cpic.data._folder import user_cache

Task = Literal["brats", "osic"]
Intensity = Literal["none", "minmax", "zscore"]
_log = logging.getLogger(__name__)
# As many patients as the published cohorts have, the one who was still alive included.
_PATIENTS = {"brats": 236, "osic": 176}
# Finer scans are made from these by splines, as they were for the published runs.
_FINEST = {"brats": (256, 256, 256), "osic": (64, 512, 512)}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Converted scans and where they come from.

    Attributes:
        prepared: the converted cohort.
        root: folder of the originals.
        generated: whether the cohort was made by this package.
        best_error: error that no model can beat, in the unit of the task's metric; None for a
            cohort that was not generated.
    """

    prepared: cohorts.Prepared
    root: Path
    generated: bool
    best_error: float | None


def load_source(
    task: Task,
    *,
    root: str | os.PathLike | None,
    cache: str | os.PathLike | None,
    resolution: Sequence[int],
    contrasts: Sequence[str] = ("t1",),
    intensity: Intensity = "none",
    nan: float | None = None,
    patients: int | None = None,
    seed: int = 42,
    age: bool = False,
    progress: bool = False,
) -> Source:
    """Read or generate a cohort, and convert its scans once.

    Args:
        task: "brats" or "osic".
        root: folder of the published tree; None makes the semi-synthetic cohort of this package
            in the cache, at this resolution, or takes it from there.
        cache: folder for everything that is written; None is the user's cache folder.
        resolution: grid all scans are brought to.
        contrasts: of BraTS, what the channels are.
        intensity: as in `cpic.cohorts.Conversion`.
        nan: see there.
        patients: the first so many only; without root, how many to make.
        seed: of the generated cohort.
        age: whether the model is told the age, which lowers the best error of BraTS-like patients.
        progress: show bars.

    Raises:
        CohortError: if the cohort cannot be used, or its scans hold nothing to learn from.
    """
    place = user_cache(cache)
    made = None
    if root is None:
        made = _generate(task, place, tuple(resolution), patients, seed, progress)
    found = Path(root) if root is not None else made
    assert found is not None
    if task == "brats":
        cohort = cohorts.read_brats(found, contrasts=contrasts)
    else:
        cohort = cohorts.read_osic(found)
    if patients is not None:
        cohort = cohort.subset(list(cohort.patients)[:patients])
    prepared = cohorts.prepare(
        cohort,
        cache=place / "prepared",
        shape=tuple(resolution),
        intensity=intensity,
        nan=nan,
        progress=progress,
    )
    prepared = _with_content(prepared)
    _report(prepared, found)
    best = synthetic.best_error(made, age=age) if made is not None else None
    return Source(prepared, found, made is not None, best)


def nothing_in(volume: Volume) -> str:
    """Why there is nothing to learn from a converted scan; empty where there is something."""
    # Written when it was converted; stores of older versions do not say.
    found = getattr(volume, "attributes", {}).get("constant")
    if not found:
        return ""
    return f"every voxel of {', '.join(map(str, found))} has one value: nothing to learn from"


def _with_content(prepared: cohorts.Prepared) -> cohorts.Prepared:
    """The patients in whose scans there is something."""
    reasons = {name: nothing_in(prepared.volume(name)) for name in prepared.patients}
    empty = {name: reason for name, reason in reasons.items() if reason}
    if not empty:
        return prepared
    if len(empty) == len(reasons):
        name, reason = next(iter(empty.items()))
        raise CohortError(
            f"the scans of all {len(empty)} patients hold nothing to learn from, the first "
            f"because: {name}: {reason}; download or convert them again."
        )
    stores = {name: store for name, store in prepared.stores.items() if name not in empty}
    cohort = prepared.cohort.subset(stores, skipped=empty)
    return dataclasses.replace(prepared, cohort=cohort, stores=stores)


def _generate(
    task: Task,
    cache: Path,
    resolution: tuple[int, ...],
    patients: int | None,
    seed: int,
    progress: bool,
) -> Path:
    """Make the patients that are not there yet; the folder that holds them."""
    wanted = patients or _PATIENTS[task]
    low = (24, 24, 24) if task == "brats" else (8, 24, 24)
    shape = tuple(
        min(max(n, least), most)
        for n, least, most in zip(resolution, low, _FINEST[task], strict=True)
    )
    # One folder for each number of patients, so that its best error is that of the run.
    folder = cache / "generated" / f"{task}-{'x'.join(map(str, shape))}-n{wanted}-seed{seed}"
    _log.info(
        "no root is given: the run uses a semi-synthetic cohort of %d patients at %s voxels, made "
        "by this package in %s; its numbers say nothing about real patients. Patients and "
        "resolution make it smaller.",
        wanted,
        "x".join(map(str, shape)),
        folder,
    )
    make = synthetic.make_brats_like if task == "brats" else synthetic.make_osic_like
    make(folder, n_patients=wanted, shape=shape, seed=seed, progress=progress)  # type: ignore[arg-type]
    return folder


def _report(prepared: cohorts.Prepared, root: Path) -> None:
    cohort = prepared.cohort
    _log.info("%r from %s", cohort, root)
    for patient, reason in cohort.skipped.items():
        _log.warning("left out: %s: %s", patient, reason)
    for patient, notes in prepared.notes.items():
        for note in notes:
            _log.warning("note: %s: %s", patient, note)
