"""Predictions of a checkpoint for scans that it has not seen."""

import csv
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from cpic._errors import CohortError
from cpic.data import ZarrVolume, cohorts
from cpic.data.cohorts._cache import check_outside
from cpic.train._checkpoints import load_weights, read_checkpoint
from cpic.train._cohorts import user_cache
from cpic.train._models import TRAINS, make_module
from cpic.train._persons import Persons, read_persons
from cpic.train._scans import find_scans
from cpic.train._tables import Table
from cpic.train._validate import SCALE_DAYS

_log = logging.getLogger(__name__)
_COLUMNS = {
    "brats": ("patient", "days", "reason"),
    "osic": ("patient", "weeks", "low", "median", "high", "unit", "reason"),
}
Row = dict[str, Any]


def predict(
    checkpoint: str | Path,
    scans: str | Path,
    *,
    out: str | Path,
    table: str | Path | None = None,
    weeks: tuple[float, ...] = (),
    starts: int | None = None,
    cache: str | Path | None = None,
) -> Path:
    """Predict from every scan in a folder, and write a table.

    Scans are treated as those of the training: what was done is in the checkpoint. Originals are
    only read; converted scans go to the cache. A scan that cannot be read gets a row that says why.

    Args:
        checkpoint: File of a fold, `best.ckpt` or `latest.ckpt`.
        scans: Folder with the tree of BraTS 2020 or OSIC, of .nii or .nii.gz files, or of folders
            of .dcm files.
        out: CSV file to write: `patient`, then `days`, or `weeks` with the three quantiles `low`,
            `median` and `high` and their `unit`, then `reason`, empty where all went well.
        table: CSV file of what is known besides the scan, with the columns of `survival_info.csv`
            or `train.csv`; the one in the tree by default.
        weeks: Weeks since the scan to predict the lung function at, in place of those in the table.
        starts: Scans of the training from whose places each search begins, as in `cpic.nn.CPIC`;
            with more of them it is slower and misses less. As in the training by default.
        cache: Folder of converted scans; the user's cache folder by default.

    Returns:
        `out`.

    Raises:
        ValueError: If the checkpoint, the folder or the table cannot be used, or `out` cannot be
            written.

    Example:
        >>> from cpic import train
        >>> train.predict("best.ckpt", "scans", out="days.csv")  # doctest: +SKIP
    """
    saved = read_checkpoint(checkpoint)
    config, folder, file = saved["config"], Path(scans), Path(out)
    if lacking := sorted({"task", "model", "conversion", "table"} - set(config)):
        raise ValueError(
            f"{checkpoint} does not say how its scans were prepared ({', '.join(lacking)} "
            "missing): predict needs a checkpoint of cpic.train.brats, osic or baseline."
        )
    _check_out(file, folder)
    found = find_scans(folder, config["contrasts"])
    persons = read_persons(config["task"], folder, None if table is None else Path(table))
    model = _model(saved, Path(checkpoint), starts)
    rows: list[Row] = []
    for patient, files in found.items():
        rows += _patient(patient, files, model, config, persons, tuple(weeks), folder, cache)
        if rows[-1]["reason"]:
            _log.warning("%s: %s", patient, rows[-1]["reason"])
    _write(file, _COLUMNS[config["task"]], rows)
    return file


def _model(saved: Mapping[str, Any], path: Path, starts: int | None) -> Any:
    module: Any = make_module(saved["config"])
    if starts is not None:
        name = saved["config"]["model"]
        if starts < 1 or name not in TRAINS:
            raise ValueError(
                f"predict takes `starts` of at least 1 for models out of {', '.join(TRAINS)}, got "
                f"{starts} for {name}; leave it out."
            )
        module.model.starts = starts
    load_weights(module.model, saved, path)
    return module.eval()


def _patient(
    patient: str,
    files: dict[str, Path] | str,
    model: Any,
    config: Mapping[str, Any],
    persons: Persons,
    weeks: tuple[float, ...],
    folder: Path,
    cache: str | Path | None,
) -> list[Row]:
    """The rows of one patient: predictions, or the reason why there are none."""
    if isinstance(files, str):
        return [{"patient": patient, "reason": files}]
    known = persons.of(patient, weeks)
    if isinstance(known, str):
        return [{"patient": patient, "reason": known}]
    place = user_cache(cache) / "prepared"
    check_outside(place, folder)
    conversion = cohorts.Conversion(**config["conversion"])
    converted = cohorts.prepare_patient(
        patient, files, conversion=conversion, cache=place, name="predict"
    )
    if converted.store is None:
        return [{"patient": patient, "reason": converted.reason}]
    volume = ZarrVolume(converted.store, channels=config["channels"])
    if list(volume.shape) != list(config["shape"]):
        reason = f"its shape is {volume.shape}, the model needs {tuple(config['shape'])}"
        return [{"patient": patient, "reason": reason}]
    tabular = None
    if config["table"] is not None:
        try:
            tabular = Table.from_json(config["table"])(known)
        except CohortError as error:
            return [{"patient": patient, "reason": str(error)}]
    outputs = _outputs(model, volume, patient, len(known), tabular)
    return list(_rows(patient, outputs, known, config["task"]))


@torch.no_grad()
def _outputs(
    model: Any, volume: Any, patient: str, n: int, tabular: torch.Tensor | None
) -> torch.Tensor:
    """What the network says of the n samples of a volume, (n, outputs)."""
    rows = torch.zeros(n, dtype=torch.int64)
    batch = {"volumes": [volume], "names": [patient], "rows": rows, "tabular": tabular}
    return model(batch).double()


def _rows(patient: str, outputs: torch.Tensor, known: Any, task: str) -> Iterator[Row]:
    if task == "brats":
        # Three outputs as published, of which the second is used; or just one.
        value = outputs[0, 1 if outputs.shape[1] > 1 else 0]
        yield {"patient": patient, "days": f"{SCALE_DAYS * float(value):.1f}", "reason": ""}
        return
    for one, (_, sample) in zip(outputs.tolist(), known.iterrows(), strict=True):
        first = float(sample["first_fvc"])
        absolute = first == first
        values = [f"{v * first:.1f}" if absolute else f"{v:.4f}" for v in sorted(one)]
        yield {
            "patient": patient,
            "weeks": f"{sample['weeks']:g}",
            **dict(zip(("low", "median", "high"), values, strict=True)),
            "unit": "ml" if absolute else "share of first FVC",
            "reason": "",
        }


def _check_out(file: Path, folder: Path) -> None:
    inside = folder.resolve() in file.resolve().parents
    if inside or file.is_dir() or not file.parent.is_dir():
        raise CohortError(
            f"predictions cannot be written to {file}; give a file in a folder that exists, "
            "outside that of the scans."
        )


def _write(file: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    """The whole table or none of it."""
    part = file.with_name(f".{file.name}-{secrets.token_hex(8)}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, file)
    except OSError as error:
        raise CohortError(f"{file} cannot be written ({error.strerror or error}).") from error
    finally:
        part.unlink(missing_ok=True)
