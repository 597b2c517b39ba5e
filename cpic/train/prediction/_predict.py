"""Predictions of a checkpoint for new scans."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from cpic import cohorts
from cpic._errors import CacheError, CohortError
from cpic.cohorts._cache import check_outside
from cpic.data import ZarrVolume
from cpic.options._groups import Task
from cpic.train.loop._checkpoints import check_there, read_checkpoint
from cpic.train.loop._faults import check_finite
from cpic.train.loop._resuming import fitting, load_weights
from cpic.train.prediction._patients import read_patients
from cpic.train.prediction._scans import find_scans
from cpic.train.results._results import write_rows
from cpic.train.tasks._cross_validation import SCALE_DAYS
from cpic.train.tasks._models import TRAINS, make_module
from cpic.train.tasks._source import nothing_in, user_cache
from cpic.train.tasks._tabular import Table

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
_NEEDED = {"task", "model", "conversion", "table", "contrasts", "shape", "channels"}
# As in the tables of the training.
_MOST_WEEKS = 2000
_COLUMNS = {
    "brats": ("patient", "days", "reason"),
    "osic": ("patient", "weeks", "low", "median", "high", "unit", "reason"),
}
Row = dict[str, Any]
_Found = TypeVar("_Found")


def write_predictions(
    checkpoint: str | Path,
    scans: str | Path,
    *,
    out: str | Path,
    table: str | Path | None,
    weeks: Sequence[float],
    n_warm_starts: int | None,
    nan: float | None,
    cache: str | Path | None,
) -> Path:
    """Implement `cpic.train.predict`."""
    if wrong := [week for week in weeks if not -_MOST_WEEKS < week < _MOST_WEEKS]:
        raise ValueError(
            f"predict needs weeks between -{_MOST_WEEKS} and {_MOST_WEEKS}, got {wrong[0]}."
        )
    recipe = _read(Path(checkpoint), n_warm_starts, nan)
    folder, file = Path(scans), Path(out)
    _check_out(file, folder, [Path(one) for one in (checkpoint, table) if one is not None])
    kind = None if recipe.table is None else recipe.table.kind
    patients = read_patients(
        recipe.task, kind, folder, None if table is None else Path(table), weeks
    )
    found = find_scans(folder, recipe.contrasts, patients.names)
    place = user_cache(cache) / "prepared"
    check_outside(place, folder)
    patients.report(found)
    if weeks and recipe.task == "brats":
        _log.warning("the model predicts survival: weeks have no effect")
    rows: list[Row] = []
    for name, files in found.items():
        known = patients.of(name, weeks)
        try:
            volume = _volume(name, _usable(files), recipe, place)
            outputs = _outputs(recipe, volume, name, _usable(known))
            rows += [{"patient": name, **row} for row in _values(outputs, known, recipe.task)]
        except (ValueError, ArithmeticError, LinAlgError) as error:
            if isinstance(error, CacheError):
                raise
            rows.append({"patient": name, "reason": str(error)})
            _log.warning("%s: %s", name, error)
    try:
        write_rows(file, rows, _COLUMNS[recipe.task])
    except OSError as error:
        raise CohortError(f"{file} cannot be written ({error.strerror or error}).") from error
    failed = len({row["patient"] for row in rows if row.get("reason")})
    _log.info("%d patients in %s, %d of them without prediction", len(found), folder, failed)
    return file


class _Recipe(NamedTuple):
    """The contents of a checkpoint: its model and the settings of its training."""

    task: Task
    model: Any
    conversion: cohorts.Conversion
    contrasts: tuple[str, ...]
    shape: tuple[int, ...]
    table: Table | None


def _read(path: Path, n_warm_starts: int | None, nan: float | None) -> _Recipe:
    saved = read_checkpoint(path)
    check_there(saved, ("config", "model"), path)
    config = saved["config"]
    if lacking := sorted(_NEEDED - set(config)):
        raise ValueError(
            f"{path} does not say how its scans were prepared ({', '.join(lacking)} "
            "missing): predict needs a checkpoint of cpic.train.brats, osic or baseline."
        )
    with fitting(path, "config"):
        module: Any = make_module(config)
        conversion = cohorts.Conversion(**config["conversion"])
        table = None if config["table"] is None else Table.from_json(config["table"])
        contrasts, shape = tuple(map(str, config["contrasts"])), tuple(map(int, config["shape"]))
        if config["task"] not in _COLUMNS or len(contrasts) != config["channels"]:
            raise ValueError(f"{config['task']!r} with {len(contrasts)} contrasts")
    if n_warm_starts is not None:
        _set_warm_starts(module, config["model"], n_warm_starts)
    load_weights(module.model, saved, path)
    if nan is not None:
        conversion = dataclasses.replace(conversion, nan=nan)
    return _Recipe(config["task"], module.eval(), conversion, contrasts, shape, table)


def _usable(found: _Found | str) -> _Found:
    """The given value; raises CohortError if it is a reason why there is none."""
    if isinstance(found, str):
        raise CohortError(found)
    return found


def _set_warm_starts(module: Any, name: str, n: int) -> None:
    if name not in TRAINS:
        raise ValueError(
            f"predict takes `n_warm_starts` for models out of {', '.join(TRAINS)}, got {n} for "
            f"{name}; leave it out."
        )
    module.model.search = dataclasses.replace(module.model.search, n_warm_starts=n)


def _volume(patient: str, files: dict[str, Path], recipe: _Recipe, place: Path) -> ZarrVolume:
    """A converted scan; raises CohortError if it cannot be converted."""
    # Scans with the same content share a store, whatever the names of their patients.
    done = cohorts.prepare_patient(
        "scan", files, conversion=recipe.conversion, cache=place, name="predict"
    )
    if done.store is None:
        raise CohortError(done.reason)
    for note in done.notes:
        _log.warning("%s: %s", patient, note)
    volume = ZarrVolume(done.store, channels=len(recipe.contrasts))
    if volume.shape != recipe.shape:
        raise CohortError(f"its shape is {volume.shape}, the model needs {recipe.shape}")
    if reason := nothing_in(volume):
        raise CohortError(reason)
    return volume


@torch.no_grad()
def _outputs(recipe: _Recipe, volume: ZarrVolume, patient: str, known: "DataFrame") -> torch.Tensor:
    """Outputs of the network for the samples of a volume, (samples, outputs), finite."""
    batch = {
        "volumes": [volume],
        "names": [patient],
        "rows": torch.zeros(len(known), dtype=torch.int64),
        "tabular": None if recipe.table is None else recipe.table(known),
    }
    outputs = recipe.model(batch).double()
    check_finite(outputs, "prediction")
    return outputs


def _values(outputs: torch.Tensor, known: Any, task: str) -> Iterator[Row]:
    """Columns of the predictions of a patient, one row per sample."""
    if task == "brats":
        # Three outputs as published, of which the second is used; or a single one.
        value = outputs[0, 1 if outputs.shape[1] > 1 else 0]
        yield {"days": f"{SCALE_DAYS * float(value):.1f}"}
        return
    samples = zip(known["weeks"], known["first_fvc"], outputs.sort().values.tolist(), strict=True)
    for week, first, quantiles in samples:
        relative = math.isnan(first)
        shown = [f"{v:.4f}" if relative else f"{first * v:.1f}" for v in quantiles]
        yield {
            "weeks": f"{week:g}",
            **dict(zip(("low", "median", "high"), shown, strict=True)),
            "unit": "share of first FVC" if relative else "ml",
        }


def _check_out(file: Path, folder: Path, read: Sequence[Path]) -> None:
    inside = folder.resolve() in file.resolve().parents
    if file.exists() and any(one.exists() and file.samefile(one) for one in read):
        raise CohortError(
            f"predictions cannot be written to {file}, which they are made from; give another file."
        )
    if inside or file.is_dir() or not file.parent.is_dir():
        raise CohortError(
            f"predictions cannot be written to {file}; give a file in a folder that exists, "
            "outside that of the scans."
        )
