"""The cohort of a run: read from a folder, or generated in the user's cache."""

import dataclasses
import logging
import math
from pathlib import Path

from cpic import cohorts
from cpic._errors import CohortError
from cpic.cohorts import synthetic
from cpic.data import Volume
from cpic.data._folder import user_cache
from cpic.options import Data
from cpic.options._groups import Task

_log = logging.getLogger(__name__)
_COARSE = 2**15
# As many patients as in the published cohorts, including the one who was still alive.
_PATIENTS = {"brats": 236, "osic": 176}
_COARSEST = {"brats": (24, 24, 24), "osic": (8, 24, 24)}
# Finer scans are upsampled from these by splines, as for the published runs.
_FINEST = {"brats": (256, 256, 256), "osic": (64, 512, 512)}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Converted scans and their origin.

    Attributes:
        prepared: The converted cohort.
        root: Folder of the originals.
        generated: Whether the cohort was made by this package.
        best_error: Lower bound on the error of any model, in the unit of the task's metric; None
            for a cohort that was not generated.
    """

    prepared: cohorts.Prepared
    root: Path
    generated: bool
    best_error: float | None


def load_source(task: Task, data: Data, *, seed: int = 42, progress: bool = False) -> Source:
    """Read or generate a cohort, and convert its scans unless they are in the cache.

    Args:
        task: "brats" or "osic".
        data: Scans and their preprocessing; without root, the semi-synthetic cohort of this package
            is generated at this resolution, or taken from the cache. Resolution and intensity must
            be given.
        seed: Seed of the generated cohort.
        progress: Show progress bars.

    Raises:
        CohortError: If the cohort cannot be used, or all scans are constant.
    """
    assert data.resolution is not None
    assert data.intensity is not None
    place = user_cache(data.cache)
    made = None if data.root is not None else _generate(task, place, data, seed, progress)
    found = Path(data.root) if made is None else made  # type: ignore[arg-type]
    if task == "brats":
        cohort = cohorts.read_brats(found, contrasts=getattr(data, "contrasts", ("t1",)))
    else:
        cohort = cohorts.read_osic(found)
    prepared = cohorts.prepare(
        cohort.subset(list(cohort.patients)[: data.patients]),
        cache=place / "prepared",
        shape=data.resolution,
        intensity=data.intensity,
        nan=data.nan,
        progress=progress,
    )
    prepared = _with_content(prepared)
    _check_grid(prepared)
    _report(prepared, found)
    # With the age, a better prediction is possible for patients like those of BraTS.
    best = synthetic.best_error(made, age=data.use_extra_features) if made is not None else None
    return Source(prepared, found, made is not None, best)


def nothing_in(volume: Volume) -> str:
    """The reason why a converted scan is useless for learning; empty if it is not."""
    # Recorded at conversion; stores of older versions lack it.
    found = getattr(volume, "attributes", {}).get("constant")
    if not found:
        return ""
    return f"every voxel of {', '.join(map(str, found))} has one value: nothing to learn from"


def _with_content(prepared: cohorts.Prepared) -> cohorts.Prepared:
    """Restrict to the patients whose scans are not constant."""
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


def _check_grid(prepared: cohorts.Prepared) -> None:
    """Raise if the grid is so coarse that all voxels of a scan are equal."""
    name = prepared.patients[0]
    volume = prepared.volume(name)
    if math.prod(volume.shape) <= _COARSE and float(volume.read().std()) < 1e-6:
        shape = "x".join(map(str, volume.shape))
        raise CohortError(
            f"with a resolution of {shape} every voxel of {name} has one value, which leaves "
            "nothing to learn from; give a finer one."
        )


def _generate(task: Task, cache: Path, data: Data, seed: int, progress: bool) -> Path:
    """Generate the patients that are missing; return their folder."""
    wanted = data.patients or _PATIENTS[task]
    bounds = zip(data.resolution or (), _COARSEST[task], _FINEST[task], strict=True)
    shape = tuple(min(max(size, least), most) for size, least, most in bounds)
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
