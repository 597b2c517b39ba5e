"""Cross-validation: one model a fold, and a summary that names what it is compared with."""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cpic import cohorts
from cpic.data import Volume
from cpic.nn.metrics import laplace_log_likelihood
from cpic.train.loop._batches import CohortData
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.loop._distributed import launched, rank_and_size
from cpic.train.loop._fit import fit_fold
from cpic.train.loop._resuming import load_weights
from cpic.train.results._results import FoldResult, write_summary
from cpic.train.tasks._models import DENSE, TRAINS, check_model, make_module
from cpic.train.tasks._source import Source, Task, load_source
from cpic.train.tasks._tabular import fit_table

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
SCALE_DAYS = 1825.0
# Of decoded voxels: every epoch reads nearly the same ones.
_HELD_BYTES = 2**30
_QUANTILES = (0.2, 0.5, 0.8)
_KEPT = ("rank", "chunk", "precision", "lr", "schedule", "seed")


def cross_validate(task: Task, model: str, options: Mapping[str, Any]) -> list[FoldResult]:
    """Train and validate `model` on the folds of a cohort.

    Args:
        task: "brats" or "osic".
        model: a name that `check_model` knows.
        options: arguments of `cpic.train.brats`, `osic` or `baseline`; also kept in checkpoints.

    Raises:
        ValueError: If an option does not fit.
    """
    check_model(model, options["more"] or {})
    _check(model, options)
    folder = Path(options["results_folder"]) / (options["experiment_name"] or f"{task}_{model}")
    _check_folder(folder, options)
    ngpus = _usable(options["ngpus"])
    source = load_source(
        task,
        root=options["root"],
        cache=options["cache"],
        resolution=options["resolution"],
        contrasts=options.get("contrasts", ("ct",)),
        intensity=options["intensity"],
        nan=options["nan"],
        patients=options["patients"],
        seed=options["seed"],
        age=options["use_extra_features"],
        progress=options["progress"],
    )
    pairs = cohorts.folds(source.prepared.cohort, options["folds"], path=folder / "folds.json")
    only = options["only_fold"]
    results = []
    for k, pair in enumerate(pairs):
        if only in (None, k):
            _log.info("fold %d of %d: %d patients validate", k + 1, len(pairs), len(pair[1]))
            results.append(
                _fold(task, model, options, source, pair, k, folder / f"fold_{k}", ngpus)
            )
            _summarise(folder, results, task, model, options, source)
    return results


class _Held:
    """Volumes in memory: whole if all of them fit, else the chunks that are read most."""

    def __init__(self, prepared: cohorts.Prepared):
        first = prepared.volume(prepared.patients[0])
        size = math.prod(first.shape) * first.channels * 4 * len(prepared.patients)
        self.prepared = prepared.hold(_HELD_BYTES)
        self.whole = size <= _HELD_BYTES

    def volume(self, patient: str) -> Volume:
        """The scan of a patient."""
        return (self.prepared.in_memory if self.whole else self.prepared.volume)(patient)


def _fold(
    task: Task,
    model: str,
    options: Mapping[str, Any],
    source: Source,
    pair: tuple[list[str], list[str]],
    k: int,
    folder: Path,
    ngpus: int,
) -> FoldResult:
    prepared = source.prepared
    train = prepared.cohort.subset(pair[0]).samples
    table = fit_table(task, train, extra=options["use_extra_features"])
    scale = "first_fvc" if task == "osic" else SCALE_DAYS
    data = CohortData(
        _Held(prepared),
        prepared.samples,
        fold=pair,
        batch_size=options["batch_size"],
        tabular=table,
        scale=scale,
        min_patients=options["rank"] if model in TRAINS else 1,
        seed=options["seed"],
        num_workers=options["num_workers"],
        read=model in DENSE,
        flips=options["flips"],
    )
    config = {
        **describe(task, model, options, source),
        "standard": _standard(train) if options["standardise"] else None,
        "n_tabular": table.width if table else 0,
        "table": table.to_json() if table else None,
        "fold": k,
    }
    module = make_module(config, fold=k)
    if options["pretrain"] is not None:
        path = Path(options["pretrain"])
        load_weights(module.model, read_checkpoint(path), path)  # type: ignore[arg-type]
    result = fit_fold(
        module,
        data,
        folder=folder,
        num_epochs=options["num_epochs"],
        fold=k,
        resume=options["resume"],
        ngpus=ngpus,
        num_nodes=options["num_nodes"],
        clip=options["clip"],
        patience=options["patience"],
        max_minutes=options["max_minutes"],
        max_faults=options["max_faults"],
        save_every=options["save_every"],
        precision=options["precision"],
        progress=options["progress"],
        wandb=options["wandb"],
        seed=options["seed"],
        config=config,
    )
    if task != "osic":
        return result
    held_out = prepared.cohort.subset(pair[1]).samples
    constant = constant_likelihood(train, held_out)
    return dataclasses.replace(result, metrics={**result.metrics, "mean_mlll": constant})


def describe(task: Task, model: str, options: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """What it takes to make the model again and to treat other scans alike, as plain values."""
    prepared = source.prepared
    volume = prepared.volume(prepared.patients[0])
    plain = {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items()
    }
    return {
        "task": task,
        "model": model,
        "shape": list(volume.shape),
        "channels": volume.channels,
        "contrasts": list(prepared.cohort.contrasts),
        "conversion": dataclasses.asdict(prepared.conversion),
        "ndims": options.get("ndims"),
        "encoder": options.get("encoder", "fast"),
        "bias": options.get("bias"),
        **{key: options[key] for key in _KEPT},
        "more": dict(options["more"] or {}),
        "generated": source.generated,
        "options": plain,
    }


def constant_likelihood(train: "DataFrame", held_out: "DataFrame") -> float:
    """Mean Laplace log likelihood of OSIC samples, given the quantiles of the training fold."""
    before = torch.tensor(train["target"].to_numpy(float))
    target = torch.tensor(held_out["target"].to_numpy(float))
    levels = before.quantile(torch.tensor(_QUANTILES, dtype=before.dtype))
    scale = torch.tensor(held_out["first_fvc"].to_numpy(float))
    return float(laplace_log_likelihood(levels.expand(len(target), 3), target, scale=scale).mean())


def _standard(train: "DataFrame") -> list[float]:
    """Mean and spread of the targets, to 9 digits, so that a file gives them back."""
    target = train["target"].to_numpy(float)
    return [float(f"{value:.9g}") for value in (target.mean(), target.std())]


def _summarise(
    folder: Path,
    results: list[FoldResult],
    task: Task,
    model: str,
    options: Mapping[str, Any],
    source: Source,
) -> None:
    if rank_and_size()[0] > 0:
        return
    facts = {
        **describe(task, model, options, source),
        "metric": "RMSE in days" if task == "brats" else "mean Laplace log likelihood",
        "data": "semi-synthetic" if source.generated else str(source.root),
        "best_possible": source.best_error,
        "patients": len(source.prepared.patients),
        "samples": len(source.prepared.samples),
        "skipped": source.prepared.skipped,
    }
    path = write_summary(folder, results, facts)
    _log.info("summary: %s", path)


def _check(model: str, options: Mapping[str, Any]) -> None:
    launched(options["num_nodes"])
    only, folds = options["only_fold"], options["folds"]
    if only is not None and not 0 <= only < folds:
        raise ValueError(f"only_fold needs a number from 0 to {folds - 1}, got {only}.")
    if model in TRAINS and options["batch_size"] < options["rank"]:
        raise ValueError(
            f"a run needs batch_size of at least rank, {options['rank']}, since as many features "
            f"are found in the scans of a batch, got {options['batch_size']}; raise one or lower "
            "the other."
        )


def _check_folder(folder: Path, options: Mapping[str, Any]) -> None:
    """Neither may a run overwrite another, nor find out at its end that it cannot write."""
    only = options["only_fold"]
    names = [f"fold_{k}" for k in range(options["folds"]) if only in (None, k)]
    there = [name for name in names if (folder / name / "latest.ckpt").exists()]
    if there and not options["resume"]:
        raise ValueError(
            f"{folder} holds a run already ({there[0]}); go on with it by resume, or choose "
            "another experiment_name."
        )
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"the results folder {folder} cannot be written ({error.strerror or error}); choose "
            "another results_folder."
        ) from error


def _usable(ngpus: int) -> int:
    """As many GPUs as were asked for, or none where there is none."""
    found = torch.cuda.device_count()
    if ngpus and not found:
        _log.warning("%d GPU asked for, this machine has none: the run is on the CPU.", ngpus)
        return 0
    if ngpus > found:
        raise ValueError(f"ngpus is {ngpus}, this machine has {found}; ask for at most these.")
    return ngpus
