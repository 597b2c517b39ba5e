"""Checkpoints, one row per epoch, the best epoch, and stopping criteria."""

import dataclasses
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cpic.train.loop._checkpoints import RESUMED, check_there, read_checkpoint, write_checkpoint
from cpic.train.loop._distributed import anywhere, copy_from_first, rank_and_size, summed
from cpic.train.loop._fold_data import FoldData
from cpic.train.loop._resuming import (
    check_same,
    fitting,
    load_optimizers,
    load_weights,
    optimizer_state,
    random_state,
    set_random_state,
)
from cpic.train.loop._task import Task
from cpic.train.results._results import FoldResult, Row, peak_bytes, write_rows, writing


class StopRunError(Exception):
    """Ends the loops after a signal. `saved`: whether the state of the last step was saved."""

    def __init__(self, saved: bool):
        super().__init__("stopped by a signal")
        self.saved = saved


@dataclasses.dataclass
class Progress:
    """Progress of a run; every field is saved in checkpoints.

    Attributes:
        epoch: Number of finished epochs.
        position: Batches of the current epoch that are done.
        step: Steps over all epochs.
        stale: Epochs since the best one.
        best_epoch: Index of the best epoch; -1 before there is one.
        stopped: Why training ended, as in `FoldResult`.
        seconds: Time spent in earlier parts of a resumed run.
        spent: Time of the training steps of finished epochs, in seconds.
        history: One row of metrics per epoch.
        times: One row of times per epoch.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    stale: int = 0
    best_epoch: int = -1
    stopped: str = "epochs"
    seconds: float = 0.0
    spent: float = 0.0
    history: list[Row] = dataclasses.field(default_factory=list)
    times: list[Row] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class Checkpointing(pl.Callback):
    """Saves a run so that it can resume exactly, and ends it cleanly.

    Lightning's own callbacks save neither the generators of a model nor the sums of an epoch, and
    ranks that stop by their own clocks would wait for each other.

    Args:
        folder: Folder for checkpoints and tables.
        config: Settings that a resumed run must have as well.
        patience: Epochs without a better metric, of the patients who choose, after which training
            ends.
        max_minutes: Time limit, earlier parts of a resumed run included.
        save_every: Steps between checkpoints within an epoch.
    """

    folder: Path
    config: dict[str, Any]
    patience: int | None = None
    max_minutes: float | None = None
    save_every: int | None = None

    def __post_init__(self) -> None:
        self.latest, self.best = self.folder / "latest.ckpt", self.folder / "best.ckpt"
        self.run, self.signals = Progress(), 0
        self._began = time.monotonic()
        self._resumed: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Time spent on this run in seconds, earlier parts included."""
        return self.run.seconds + time.monotonic() - self._began

    @property
    def late(self) -> bool:
        """Whether the time limit is reached."""
        return self.max_minutes is not None and self.seconds >= 60 * self.max_minutes

    @property
    def worn_out(self) -> bool:
        """Whether patience is exhausted."""
        return self.patience is not None and self.run.stale >= self.patience

    @property
    def ended(self) -> bool:
        """Whether patience or time ran out in an earlier part of the run."""
        return self.worn_out or (self.run.epoch > 0 and self.late)

    def load(self, module: Task, data: FoldData) -> None:
        """Restore the state of the latest checkpoint, if there is one."""
        if not self.latest.exists():
            return
        state = read_checkpoint(self.latest)
        check_there(state, RESUMED, self.latest)
        check_same(state["config"], self.config, self.latest)
        _check_position(state, module, data, self.latest)
        load_weights(module.model, state, self.latest)
        self.run = Progress(**{name: state[name] for name in vars(self.run)})
        module.sums, module.seconds = dict(state["sums"]), state["step_seconds"]
        module.faults.count = state["faults"]
        data.start = (self.run.epoch, self.run.position)
        self._resumed = state

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start at the epoch of the checkpoint."""
        current: Any = trainer.fit_loop.epoch_progress.current
        current.ready = current.started = current.processed = current.completed = self.run.epoch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore optimizer and generators, as the last action before the first batch."""
        copy_from_first(pl_module)
        self.run.stopped = "epochs"
        if self._resumed is not None:
            load_optimizers(trainer.optimizers, self._resumed, self.latest)
            with fitting(self.latest, "random"):
                set_random_state(pl_module, self._resumed["random"])
            self._resumed = None
        self._write_tables()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; save or stop if it is due."""
        run = self.run
        run.position, run.step = run.position + 1, run.step + 1
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            # The end of the epoch saves, after validation.
            return
        signaled, late = anywhere(self.signals > 0, self.late, device=pl_module.device)
        if late:
            # Validation and the end of the epoch follow.
            run.stopped, trainer.should_stop = "minutes", True
            return
        if signaled or (self.save_every and run.step % self.save_every == 0):
            self._save(trainer, pl_module, self.latest)
        if signaled:
            raise StopRunError(saved=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add a row; save the latest state and, if it improved, the best one."""
        run = self.run
        self._add_row(pl_module)
        for logger in trainer.loggers:
            logger.log_metrics({**run.history[-1], **run.times[-1]}, step=run.step)
            logger.save()
        improved = self._improved(pl_module)
        run.epoch, run.position, run.stale = run.epoch + 1, 0, run.stale + 1
        if improved:
            run.best_epoch, run.stale = run.epoch - 1, 0
            # First, so that the latest state never refers to a best one that does not exist.
            self._save(trainer, pl_module, self.best)
        if self.worn_out:
            run.stopped = "patience"
        signaled, late = anywhere(self.signals > 0, self.late, device=pl_module.device)
        if late and run.stopped == "epochs" and run.epoch < (trainer.max_epochs or 0):
            run.stopped = "minutes"
        trainer.should_stop = trainer.should_stop or run.stopped != "epochs"
        self._write_tables()
        self._save(trainer, pl_module, self.latest)
        if signaled:
            raise StopRunError(saved=True)

    def result(
        self, fold: int, mean_error: float, monitor: str, selection: tuple[str, ...]
    ) -> FoldResult:
        """The result of the fold so far, whose best epoch was chosen by these patients."""
        run, metrics = self.run, {}
        if run.history:
            row = run.history[-1]
            metrics = {k.removeprefix("val_"): v for k, v in row.items() if k.startswith("val_")}
        if run.best_epoch >= 0:
            best = run.history[run.best_epoch]
            metrics |= {f"best_{name}": best[f"val_{name}"] for name in (monitor, "error")}
            metrics["best_epoch"] = run.best_epoch
        return FoldResult(
            fold=fold,
            metrics={**metrics, "mean_error": mean_error},
            epochs=run.epoch,
            seconds=self.seconds,
            step_seconds=run.spent / max(1, run.step),
            peak_bytes=peak_bytes(),
            latest=self.latest,
            best=self.best,
            stopped=run.stopped,
            selection=selection,
        )

    def _add_row(self, module: Task) -> None:
        run, n_ranks = self.run, rank_and_size()[1]
        sums = dict(zip(module.sums, summed(module.sums.values(), module.device), strict=True))
        seen = max(1.0, sums["samples"])
        run.spent += module.seconds
        row: Row = {
            "epoch": run.epoch,
            "step": run.step,
            "train_loss": sums["loss"] / seen,
            "faults": int(sums["faults"]) // n_ranks,
            **{f"{name}_per_sample": sums[name] / seen for name in ("asked", "encoded", "voxels")},
            **{name: total / seen for name, total in sums.items() if name.startswith("train_")},
            **{f"val_{name}": value for name, value in module.metrics.items()},
            **{f"selection_{name}": value for name, value in module.selected.items()},
        }
        times: Row = {
            "epoch": run.epoch,
            "seconds": self.seconds,
            "step_seconds": module.seconds * n_ranks / max(1.0, sums["steps"]),
            "seconds_per_sample": module.seconds / seen,
            "peak_bytes": peak_bytes(),
        }
        run.history, run.times = [*run.history, row], [*run.times, times]
        module.begin_epoch()

    def _improved(self, module: Task) -> bool:
        if self.run.best_epoch < 0:
            return True
        rows = self.run.history
        # Never on the fold that is reported, unless this was asked for.
        part = "selection" if module.selected else "val"
        now, best = (rows[k][f"{part}_{module.monitor}"] for k in (-1, self.run.best_epoch))
        return now > best if module.higher else now < best

    def _save(self, trainer: pl.Trainer, module: Task, path: Path) -> None:
        """Save the state; a collective call, since the generators of all ranks are saved."""
        state = {
            "cpic": version("cpic"),
            "config": self.config,
            "model": module.model.state_dict(),
            "optimizer": optimizer_state(trainer.optimizers),
            "random": random_state(module),
            "sums": module.sums,
            "step_seconds": module.seconds,
            "faults": module.faults.count,
            **vars(self.run),
            "seconds": self.seconds,
        }
        if rank_and_size()[0] == 0:
            with writing(path):
                write_checkpoint(path, state)

    def _write_tables(self) -> None:
        # All rows are rewritten: a run that was killed may have written a row it did not save.
        if rank_and_size()[0] > 0:
            return
        for name, rows in {"metrics": self.run.history, "times": self.run.times}.items():
            path = self.folder / f"{name}.csv"
            with writing(path):
                write_rows(path, rows)


def _check_position(state: dict[str, Any], module: Task, data: FoldData, path: Path) -> None:
    """Raise unless the run can resume from the position in a checkpoint."""
    wanted = {f"val_{module.monitor}", "val_error"}
    with fitting(path, "position in the run"):
        if state["position"] >= max(1, data.n_batches):
            raise ValueError(f"batch {state['position']} of {data.n_batches} in an epoch")
        if state["sums"].keys() != module.sums.keys():
            raise ValueError(f"sums of {', '.join(state['sums'])}")
        if any(not wanted <= row.keys() for row in state["history"]):
            raise ValueError(f"a row of history without {' or '.join(sorted(wanted))}")
