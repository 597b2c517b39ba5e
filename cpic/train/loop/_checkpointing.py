"""Keep a run: checkpoints, one row an epoch, the best epoch, and the reasons to stop."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cpic.train.loop._batches import CohortData
from cpic.train.loop._checkpoints import (
    check_same,
    fitting,
    load_optimizer,
    load_weights,
    random_state,
    read_checkpoint,
    set_random_state,
    write_checkpoint,
)
from cpic.train.loop._distributed import copy_from_first, place, summed
from cpic.train.loop._parts import RESUMED, check_there
from cpic.train.loop._task import Task
from cpic.train.results._results import FoldResult, Row, peak_bytes, write_rows, writing


class StopRunError(Exception):
    """Leaves the loops after a signal. `saved`: whether the state of the last step is saved."""

    def __init__(self, saved: bool):
        super().__init__("stopped by a signal")
        self.saved = saved


class Keeper(pl.Callback):
    """Saves a run so that it can go on exactly, and ends it in good order.

    Args:
        folder: For checkpoints and tables.
        config: Settings that a resumed run must share.
        patience: Epochs without a better metric after which training ends.
        max_minutes: Minutes after which it ends, earlier pieces of a resumed run included.
        save_every: Steps from one checkpoint to the next inside an epoch.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        patience: int | None = None,
        max_minutes: float | None = None,
        save_every: int | None = None,
    ):
        self.folder, self.config, self.patience = folder, config, patience
        self.max_minutes, self.save_every = max_minutes, save_every
        self.latest, self.best = folder / "latest.ckpt", folder / "best.ckpt"
        self.epoch, self.position = 0, 0
        self.step, self.stale = 0, 0
        self.history: list[Row] = []
        self.times: list[Row] = []
        self.best_epoch, self.stopped = -1, "epochs"
        self.signals = 0
        self._spent = self._before = 0.0
        self._began = time.monotonic()
        self._resumed: dict[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """Spent on this run, earlier pieces included."""
        return self._before + time.monotonic() - self._began

    @property
    def ended(self) -> bool:
        """Whether patience or time was over before; there is a row then."""
        late = self.epoch > 0 and self._late()
        return late or (self.patience is not None and self.stale >= self.patience)

    def load(self, module: Task, data: CohortData) -> None:
        """Take over the state of the latest checkpoint, if there is one."""
        if not self.latest.exists():
            return
        state = read_checkpoint(self.latest)
        check_there(state, RESUMED, self.latest)
        check_same(state["config"], self.config, self.latest)
        _check_place(state, module, data, self.latest)
        load_weights(module.model, state, self.latest)
        for name in ("epoch", "position", "step", "stale", "history", "times", "best_epoch"):
            setattr(self, name, state[name])
        self._before, self._spent, self.stopped = (
            state[name] for name in ("seconds", "spent", "stopped")
        )
        module.sums, module.seconds = dict(state["sums"]), state["step_seconds"]
        module.faults.count = state["faults"]
        data.start = (self.epoch, self.position)
        self._resumed = state

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin at the epoch of the checkpoint."""
        progress: Any = trainer.fit_loop.epoch_progress.current
        progress.ready = progress.started = progress.processed = progress.completed = self.epoch

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put optimiser and generators where they were; the last thing before the first batch."""
        copy_from_first(pl_module)
        self.stopped = "epochs"
        if self._resumed is not None:
            load_optimizer(trainer.optimizers[0], self._resumed, self.latest)
            with fitting(self.latest, "random"):
                set_random_state(pl_module, self._resumed["random"])
            self._resumed = None
        self._write_tables()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; save and stop if it is time."""
        self.position, self.step = self.position + 1, self.step + 1
        if self._is_last(trainer):
            # The end of the epoch saves, with its validation.
            return
        signalled, late = (
            number > 0 for number in summed([self.signals, self._late()], pl_module.device)
        )
        if late:
            # Validation follows, and the end of the epoch.
            self.stopped, trainer.should_stop = "minutes", True
        elif signalled or (self.save_every and self.step % self.save_every == 0):
            self._save(trainer, pl_module, self.latest)
        if signalled and not late:
            raise StopRunError(saved=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add a row, save the best and the latest state."""
        self._add_row(pl_module)
        for logger in trainer.loggers:
            logger.log_metrics({**self.history[-1], **self.times[-1]}, step=self.step)
            logger.save()
        self.epoch, self.position = self.epoch + 1, 0
        if self._improved(pl_module):
            self.best_epoch, self.stale = self.epoch - 1, 0
            # First, so that no latest state speaks of a best one that is not there.
            self._save(trainer, pl_module, self.best)
        else:
            self.stale += 1
        if self.patience is not None and self.stale >= self.patience:
            self.stopped = "patience"
        signalled, late = (
            number > 0 for number in summed([self.signals, self._late()], pl_module.device)
        )
        if late and self.stopped == "epochs" and self.epoch < (trainer.max_epochs or 0):
            self.stopped = "minutes"
        trainer.should_stop = trainer.should_stop or self.stopped != "epochs"
        self._write_tables()
        self._save(trainer, pl_module, self.latest)
        if signalled:
            raise StopRunError(saved=True)

    def result(self, fold: int, mean_error: float, monitor: str) -> FoldResult:
        """What the fold gave so far."""
        last = {k: v for k, v in (self.history or [{}])[-1].items() if k.startswith("val_")}
        metrics = {name.removeprefix("val_"): value for name, value in last.items()}
        best = next((row for row in self.history if row["epoch"] == self.best_epoch), None)
        if best is not None:
            metrics[f"best_{monitor}"] = best[f"val_{monitor}"]
            metrics["best_error"] = best["val_error"]
            metrics["best_epoch"] = self.best_epoch
        return FoldResult(
            fold=fold,
            metrics={**metrics, "mean_error": mean_error},
            epochs=self.epoch,
            seconds=self.seconds,
            step_seconds=self._spent / max(1, self.step),
            peak_bytes=peak_bytes(),
            latest=self.latest,
            best=self.best,
            stopped=self.stopped,
        )

    def _late(self) -> bool:
        return self.max_minutes is not None and self.seconds >= 60 * self.max_minutes

    def _is_last(self, trainer: pl.Trainer) -> bool:
        return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)

    def _add_row(self, module: Task) -> None:
        sums = dict(zip(module.sums, summed(module.sums.values(), module.device), strict=True))
        n_ranks = place()[1]
        seen = max(1.0, sums["samples"])
        row: Row = {
            "epoch": self.epoch,
            "step": self.step,
            "train_loss": sums["loss"] / seen,
            "faults": int(sums["faults"]) // n_ranks,
            **{f"{name}_per_sample": sums[name] / seen for name in ("asked", "encoded", "voxels")},
            **{f"val_{name}": value for name, value in module.metrics.items()},
        }
        self._spent += module.seconds
        time_row: Row = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "step_seconds": module.seconds * n_ranks / max(1.0, sums["steps"]),
            "seconds_per_sample": module.seconds / seen,
            "peak_bytes": peak_bytes(),
        }
        self.history, self.times = [*self.history, row], [*self.times, time_row]
        module.begin_epoch()

    def _improved(self, module: Task) -> bool:
        name = f"val_{module.monitor}"
        past = [row[name] for row in self.history[:-1] if row["epoch"] == self.best_epoch]
        now = self.history[-1][name]
        if not past:
            return True
        return now > past[0] if module.higher else now < past[0]

    def _save(self, trainer: pl.Trainer, module: Task, path: Path) -> None:
        """Collective: the states of the generators of all processes are saved."""
        state = {
            "cpic": version("cpic"),
            "config": self.config,
            "model": module.model.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "random": random_state(module),
            "sums": module.sums,
            "step_seconds": module.seconds,
            "faults": module.faults.count,
            "seconds": self.seconds,
            "spent": self._spent,
            **{name: getattr(self, name) for name in ("epoch", "position", "step", "stale")},
            **{name: getattr(self, name) for name in ("history", "times", "best_epoch", "stopped")},
        }
        if place()[0] == 0:
            with writing(path):
                write_checkpoint(path, state)

    def _write_tables(self) -> None:
        # All of them again: a run that was killed may have written a row that it did not save.
        if place()[0] == 0:
            write_rows(self.folder / "metrics.csv", self.history)
            write_rows(self.folder / "times.csv", self.times)


def _check_place(state: dict[str, Any], module: Task, data: CohortData, path: Path) -> None:
    """Raise unless a run can go on from where a checkpoint says that it was."""
    with fitting(path, "place in the run"):
        if state["position"] >= max(1, data.n_batches):
            raise ValueError(f"batch {state['position']} of {data.n_batches} in an epoch")
        if state["sums"].keys() != module.sums.keys():
            raise ValueError(f"sums of {', '.join(map(str, state['sums']))}")
        wanted = {f"val_{module.monitor}", "val_error"}
        if any(not wanted <= row.keys() for row in state["history"]):
            raise ValueError(f"a row of history without {' or '.join(sorted(wanted))}")
