r"""Training steps, and metrics of a whole fold, for `model(volumes, names, rows, tabular)`.

A step of the optimizer is one batch. Gradients are reset before the backward pass, so a failed
step leaves none; with several ranks they are those of the mean over all samples of the batch.

Shapes: `B` samples of a batch, `q` outputs.
References: {cite}`usvyatsov2021cherry`.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from cpic.nn._distributed import everyones
from cpic.nn.metrics import RMSE, FoldMean
from cpic.train.loop._distributed import sum_gradients, summed
from cpic.train.loop._faults import Faults, Snapshot, check_finite
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._splits import Table

Meters = dict[str, FoldMean | RMSE]


def falling(done: float) -> float:
    """Half a cosine, from 1 to 0, of the share of the training that is done."""
    return (1 + math.cos(math.pi * done)) / 2


def _one_cycle(done: float) -> float:
    return 0.04 + 0.96 * falling(1 - done / 0.3) if done < 0.3 else falling((done - 0.3) / 0.7)


# Factor on the learning rate by the share of the training that is done.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": falling,
    "onecycle": _one_cycle,
    "linear": lambda done: 1 - done,
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "radam": lambda parameters, lr, weight_decay: torch.optim.RAdam(parameters, lr=lr),
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
}


SUMS = ("loss", "samples", "steps", "faults", "asked", "encoded", "voxels")


class Task(pl.LightningModule):
    """Base class of the tasks: steps of RAdam, sums of an epoch, metrics of a fold.

    Attributes:
        monitor: The metric used to compare epochs.
        higher: Whether a higher value is better.
        power: Power of the unit of the targets in the loss; with `standard` the loss has no unit.
        metrics: Metrics of the last validation.
        selected: The same of the patients who choose the epoch; empty if there are none.
        sums: Sums of the epoch so far: loss, samples, steps, faults, entries requested, positions
            encoded and voxels read; a task may add some over samples, whose names begin with
            `train_`, and their means are in the row of the epoch.
        seconds: Time of the steps of the epoch so far.
        norm: Norm of the gradient of the last step, before it was clipped.
    """

    monitor = "rmse"
    higher = False
    power = 2

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        schedule: str | Callable[[float], float] = "constant",
        by_step: bool = False,
        optimizer: str = "radam",
        weight_decay: float = 0.01,
        standard: Sequence[float] | None = None,
        residual: float = 0.0,
    ):
        super().__init__()
        self.mean, self.spread = standard or (0.0, 1.0)
        if not self.spread > 0:
            raise ValueError(f"a task needs targets with a spread above 0, got {self.spread}.")
        if not callable(schedule) and schedule not in SCHEDULES:
            raise ValueError(f"a task needs a schedule out of {[*SCHEDULES]}, got {schedule!r}.")
        if optimizer not in OPTIMIZERS:
            raise ValueError(
                f"a task needs an optimizer out of {[*OPTIMIZERS]}, got {optimizer!r}."
            )
        self.automatic_optimization = False
        self.model, self.lr, self.by_step = model, lr, by_step
        self.schedule = schedule if callable(schedule) else SCHEDULES[schedule]
        self.optimizer, self.weight_decay, self.residual = optimizer, weight_decay, residual
        self.clip: float | None = None
        self.norm = 0.0
        self.faults = Faults()
        self.metrics: dict[str, float] = {}
        self.selected: dict[str, float] = {}
        self.meters: list[Meters] = []
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Reset the sums of an epoch."""
        self.sums: dict[str, float] = dict.fromkeys(SUMS, 0.0)
        self.seconds = 0.0

    def forward(self, batch: Batch) -> Tensor:
        """Predictions of a batch, in the unit of the targets."""
        dtype = next(self.model.parameters()).dtype
        tabular = batch["tabular"]
        outputs = self.model(
            batch["volumes"],
            batch["names"],
            rows=batch["rows"],
            tabular=None if tabular is None else tabular.to(dtype),
        )
        return self.mean + self.spread * outputs

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of parameters; `factor` in a group multiplies its learning rate."""
        return [{"params": list(self.parameters())}]

    def configure_optimizers(self) -> torch.optim.Optimizer | list[torch.optim.Optimizer]:
        """An optimizer, which keeps the dtype of each parameter."""
        make = OPTIMIZERS[self.optimizer]
        return make(self.parameter_groups(), lr=self.lr, weight_decay=self.weight_decay)

    def on_train_epoch_start(self) -> None:
        """Set the learning rate at the start of an epoch."""
        self.set_rate()

    def set_rate(self) -> None:
        """Set the learning rate, which depends only on the progress, so that resumed runs agree."""
        done: float = self.current_epoch
        if self.by_step:
            done += self.sums["steps"] / self.trainer.datamodule.n_batches  # type: ignore[attr-defined]
        factor = self.schedule(done / max(self.trainer.max_epochs or 1, 1))
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("factor", 1.0) * self.lr * factor

    def total(self, predictions: Tensor, batch: Batch) -> Tensor:
        """The loss without unit, and the weighted residual of the trains."""
        loss = self.loss(predictions, batch) / self.spread**self.power
        return loss + self.residual * self.model.residual() if self.residual else loss  # type: ignore[operator]

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step; a failed step is counted and leaves the model unchanged."""
        if self.by_step:
            self.set_rate()
        optimizer: Any = self.optimizers()
        start, before = time.perf_counter(), self._read(batch)
        optimizer.zero_grad()
        snapshot, n = Snapshot(self.model), len(batch["target"])
        (n_all,) = summed([n], self.device)
        losses: list[Tensor] = []

        def forward() -> None:
            losses.append(self.total(self(batch), batch))
            check_finite(losses[0], "loss")

        def backward() -> None:
            (losses[0] * (n / n_all)).backward()

        cause = self.faults.attempt([forward, backward], self.device)
        if cause is None:
            sum_gradients(self.parameters())
            norm = nn.utils.clip_grad_norm_(self.parameters(), self.clip or math.inf)
            if bool(norm.isfinite()):
                self.norm = float(norm)
                optimizer.step()
            else:
                cause = FloatingPointError("the gradient is not finite")
        if cause is not None:
            snapshot.restore()
        spent = [b - a for a, b in zip(before, self._read(batch), strict=True)]
        # Measured after the step, which the transfer of the loss has completed on any device.
        loss = float(losses[0].detach()) if cause is None else None
        self._count(loss, n, spent, time.perf_counter() - start)
        if cause is not None:
            names = ", ".join(batch["names"])
            self.faults.add(cause, f"epoch {self.current_epoch}, batch {batch_idx} ({names})")

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics; raise if every step of the first epoch failed."""
        last, none = self.faults.last, self.sums["faults"] == self.sums["steps"]
        if self.current_epoch == 0 and none and last is not None:
            raise RuntimeError(
                f"every step of the first epoch failed, so nothing was learned; the last error: "
                f"{type(last).__name__}: {last}"
            ) from last
        loaders = self.trainer.val_dataloaders
        n = len(loaders) if isinstance(loaders, list) else 1
        self.meters = [self.new_meters() for _ in range(n)]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the samples of a batch to the metrics of the fold, or to those of the selection."""
        predictions = self(batch).detach()
        target = batch["target"].to(predictions)
        meters = self.meters[dataloader_idx]
        self.score(meters, predictions, target, batch["scale"].to(predictions))

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics over all patients, of all processes."""
        first, *others = everyones(self.meters)
        for meters in others:
            first = [{k: a[k] + b[k] for k in a} for a, b in zip(first, meters, strict=True)]
        self.metrics, self.selected, *_ = [*map(self.values, first), {}]

    def mean_error(self, train: Table, validation: Table) -> float:
        """Error of the best constant of the training fold on the validation fold."""
        meters = self.new_meters()
        constant = self.constant(train.target).expand(len(validation.target), -1).squeeze(1)
        self.score(meters, constant, validation.target, validation.scale)
        return self.values(meters)["error"]

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch."""
        raise NotImplementedError

    def new_meters(self) -> Meters:
        """Empty meters of the quantities averaged over a fold."""
        raise NotImplementedError

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Add samples to the meters."""
        raise NotImplementedError

    def finish(self, values: dict[str, float]) -> dict[str, float]:
        """Metrics, with an `error` that is better if it is lower."""
        raise NotImplementedError

    def constant(self, target: Tensor) -> Tensor:
        """The constant prediction `(1, q)` that minimizes the loss."""
        raise NotImplementedError

    def values(self, meters: Meters) -> dict[str, float]:
        """Metrics of all samples that were added to these meters."""
        return self.finish({name: meter.value for name, meter in meters.items()})

    def _read(self, batch: Batch) -> tuple[int, int, int]:
        """Entries requested and positions encoded so far, and voxels read of a batch's volumes."""
        counts = getattr(self.model, "counts", None)
        voxels = sum(volume.ledger.voxels for volume in batch.get("volumes", ()))
        return getattr(counts, "asked", 0), getattr(counts, "encoded", 0), voxels

    def _count(self, loss: float | None, n: int, spent: Sequence[int], seconds: float) -> None:
        """Add a step to the sums of the epoch; loss None means that it failed."""
        good = 0 if loss is None else n
        added = ((loss or 0.0) * good, good, 1, loss is None, *spent)
        for name, more in zip(SUMS, added, strict=True):
            self.sums[name] += more
        self.seconds += seconds
        shown = {} if loss is None else {"train_loss": loss}
        shown["s_per_sample"] = seconds / n
        shown["evaluations_per_sample"] = spent[0] / n
        shown["voxels_per_sample"] = spent[2] / n
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=n)
