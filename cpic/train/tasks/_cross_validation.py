"""Cross-validation: one model per fold, and a summary with baselines."""

import dataclasses
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cpic import cohorts
from cpic.data import Volume
from cpic.nn._features import BASED
from cpic.nn.metrics import laplace_log_likelihood
from cpic.options import Data, Model, Network, Optimization, Run
from cpic.options._groups import Task
from cpic.train.loop._batches import CohortData
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.loop._distributed import launched, rank_and_size
from cpic.train.loop._fit import fit_fold
from cpic.train.loop._resuming import load_weights
from cpic.train.loop._splits import split_selection
from cpic.train.results._results import FoldResult, write_summary
from cpic.train.tasks._fitted import fit_closed_form
from cpic.train.tasks._folder import check_folder, usable
from cpic.train.tasks._models import DENSE, FITTED, TRAINS, check_model, make_module
from cpic.train.tasks._source import Source, load_source
from cpic.train.tasks._tabular import fit_table

if TYPE_CHECKING:
    from pandas import DataFrame

_log = logging.getLogger(__name__)
SCALE_DAYS = 1825.0
# For decoded voxels: every epoch reads nearly the same ones.
_HELD_BYTES = 2**30
_QUANTILES = (0.2, 0.5, 0.8)
# Settings that define the model, and arguments of `fit_fold`.
_KEPT = (
    *("ndims", "encoder", "scales", "activation", "last", "bias"),
    *("positions", "budget", "correction", "residual"),
    *("features", "norm", "rank", "chunk", "precision", "layers", "layers_rank"),
    *("optimizer", "lr", "weight_decay", "schedule", "seed"),
)
_FITTED = (
    *("num_epochs", "clip", "patience", "precision", "resume", "num_nodes", "max_minutes"),
    *("max_faults", "save_every", "progress", "wandb", "seed"),
)
_METRICS = {"brats": "RMSE in days", "osic": "mean Laplace log likelihood"}


def cross_validate(
    task: Task, name: str, data: Data, model: Network, optimization: Optimization, run: Run
) -> list[FoldResult]:
    """Train and validate a model on the folds of a cohort.

    Args:
        task: "brats" or "osic".
        name: A model known to `check_model`.
        data: Scans and folds.
        model: Options of the model.
        optimization: Options of the training.
        run: Where it runs and what it writes.

    Raises:
        ValueError: If an option is invalid.
    """
    check_model(name, model, optimization.batch_size or 1)
    launched(run.num_nodes)
    if data.only_fold is not None and data.only_fold >= data.folds:
        last = data.folds - 1
        raise ValueError(f"only_fold needs a number from 0 to {last}, got {data.only_fold}.")
    folder = Path(run.results_folder) / (run.experiment_name or f"{task}_{name}")
    names = [f"fold_{k}" for k in range(data.folds) if data.only_fold in (None, k)]
    check_folder(folder, names, resume=run.resume)
    ngpus = usable(run.ngpus)
    source = load_source(task, data, seed=run.seed, progress=run.progress)
    trial = _Trial(task, name, data, model, optimization, run, source, folder, ngpus)
    pairs = cohorts.folds(source.prepared.cohort, data.folds, path=folder / "folds.json")
    results: list[FoldResult] = []
    for k, pair in enumerate(pairs):
        if data.only_fold in (None, k):
            _log.info("fold %d of %d: %d patients validate", k + 1, len(pairs), len(pair[1]))
            results.append(trial.fold(k, *pair))
            trial.summarize(results)
    return results


class _Held:
    """Volumes in memory: whole if all of them fit, otherwise the chunks that are read most."""

    def __init__(self, prepared: cohorts.Prepared):
        first = prepared.volume(prepared.patients[0])
        size = math.prod(first.shape) * first.channels * 4 * len(prepared.patients)
        self.prepared = prepared.hold(_HELD_BYTES)
        self.whole = size <= _HELD_BYTES

    def volume(self, patient: str) -> Volume:
        """The scan of a patient."""
        return (self.prepared.in_memory if self.whole else self.prepared.volume)(patient)


@dataclasses.dataclass(frozen=True)
class _Trial:
    """One cross-validation: data, model and options."""

    task: Task
    name: str
    data: Data
    model: Network
    optimization: Optimization
    run: Run
    source: Source
    folder: Path
    ngpus: int

    def fold(self, k: int, train: list[str], validation: list[str]) -> FoldResult:
        """Train a model on all folds but one, and validate it on that one."""
        prepared, extra = self.source.prepared, self.data.use_extra_features
        draw = torch.Generator().manual_seed(self.run.seed + k)
        closed = self.name in FITTED
        share = 0.0 if closed else self.optimization.selection
        used, selection = split_selection(train, share, generator=draw)
        samples = prepared.cohort.subset(used).samples
        table = fit_table(self.task, samples, extra=extra)
        standardize = self.optimization.standardize and not closed
        config = {
            **self.describe(),
            "standard": _standard(samples) if standardize else None,
            "n_tabular": table.width if table else 0,
            "table": table.to_json() if table else None,
            "fold": k,
            "selection_patients": selection,
        }
        module = make_module(config, fold=k)
        if self.optimization.pretrain is not None and not closed:
            path = Path(self.optimization.pretrain)
            load_weights(module.model, read_checkpoint(path), path)  # type: ignore[arg-type]
        batches = CohortData(
            _Held(prepared),
            prepared.samples,
            fold=(train, validation),
            selection=selection,
            batch_size=self.optimization.batch_size or 1,
            tabular=table,
            scale="first_fvc" if self.task == "osic" else SCALE_DAYS,
            min_patients=self.model.rank if self._has_components else 1,
            seed=self.run.seed,
            num_workers=self.run.num_workers,
            read=self.name in DENSE,
            flips=self.data.flips,
        )
        asked = self.flat()
        place: Any = {"folder": self.folder / f"fold_{k}", "fold": k, "config": config}
        if closed:
            result = fit_closed_form(module, batches, **place, resume=asked["resume"])
        else:
            chosen = {key: asked[key] for key in _FITTED}
            result = fit_fold(module, batches, ngpus=self.ngpus, **place, **chosen)
        if self.task != "osic":
            return result
        constant = constant_likelihood(samples, prepared.cohort.subset(validation).samples)
        return dataclasses.replace(result, metrics={**result.metrics, "mean_mlll": constant})

    @property
    def _has_components(self) -> bool:
        """Whether a batch must hold as many patients as there are features in a basis."""
        features = getattr(self.model, "features", ("components",))
        return self.name in TRAINS and bool(set(BASED) & set(features))

    def flat(self) -> dict[str, Any]:
        """Options of the model and its training by name."""
        return (
            vars(Model())
            | {"ndims": None}
            | vars(self.model)
            | vars(self.optimization)
            | vars(self.run)
        )

    def describe(self) -> dict[str, Any]:
        """Everything needed to rebuild the model and prepare other scans alike, as plain data."""
        prepared, asked = self.source.prepared, self.flat()
        volume = prepared.volume(prepared.patients[0])
        groups = ("data", "model", "optimization", "run")
        return {
            "task": self.task,
            "model": self.name,
            "shape": list(volume.shape),
            "channels": volume.channels,
            "contrasts": list(prepared.cohort.contrasts),
            "conversion": dataclasses.asdict(prepared.conversion),
            **{key: asked[key] for key in _KEPT},
            "more": dict(self.model.more or {}),
            "generated": self.source.generated,
            "options": {group: getattr(self, group).plain() for group in groups},
        }

    def summarize(self, results: list[FoldResult]) -> None:
        """Write the results of the folds so far, from one process."""
        if rank_and_size()[0] > 0:
            return
        facts = {
            **self.describe(),
            "metric": _METRICS[self.task],
            "data": "semi-synthetic" if self.source.generated else str(self.source.root),
            "best_possible": self.source.best_error,
            "patients": len(self.source.prepared.patients),
            "samples": len(self.source.prepared.samples),
            "skipped": self.source.prepared.skipped,
        }
        _log.info("summary: %s", write_summary(self.folder, results, facts))


def constant_likelihood(train: "DataFrame", held_out: "DataFrame") -> float:
    """Mean Laplace log likelihood of OSIC samples, for the quantiles of the training fold."""
    before = torch.tensor(train["target"].to_numpy(float))
    target = torch.tensor(held_out["target"].to_numpy(float))
    levels = before.quantile(torch.tensor(_QUANTILES, dtype=before.dtype))
    scale = torch.tensor(held_out["first_fvc"].to_numpy(float))
    return float(laplace_log_likelihood(levels.expand(len(target), 3), target, scale=scale).mean())


def _standard(train: "DataFrame") -> list[float]:
    """Mean and spread of the targets, rounded to 9 digits, so that they survive a file."""
    target = train["target"].to_numpy(float)
    return [float(f"{value:.9g}") for value in (target.mean(), target.std())]
