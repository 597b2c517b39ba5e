r"""Steps, and metrics of a whole fold, around a model `model(volumes, names, rows, tabular)`.

A step of the optimiser is one batch. Gradients are dropped before the backward pass, so a failing
step leaves none; with several processes they are those of the mean over all samples of the batch.

Shapes: `B` samples of a batch, `q` outputs.
References: {cite}`usvyatsov2021cherry`.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from cpic.nn.metrics import RMSE, FoldMean
from cpic.train.loop._batches import Batch
from cpic.train.loop._distributed import sum_gradients, summed
from cpic.train.loop._effort import effort
from cpic.train.loop._faults import Faults, Kept, check_finite
from cpic.train.loop._splits import Table

Meters = dict[str, FoldMean | RMSE]


class Task(pl.LightningModule):
    """What the tasks share: steps of RAdam, sums of an epoch, metrics of a fold.

    Attributes:
        monitor: The metric by which epochs are compared.
        higher: Whether more of it is better.
        power: Of the unit of the targets in the loss; with `standard` it has no unit.
        metrics: Those of the last validation.
        sums: Of the epoch so far: loss, samples, steps, faults, entries asked for, positions
            encoded and voxels read.
        seconds: Of the steps of the epoch so far.
    """

    monitor = "rmse"
    higher = False
    power = 2

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        schedule: str = "constant",
        standard: Sequence[float] | None = None,
    ):
        super().__init__()
        self.mean, self.spread = standard or (0.0, 1.0)
        if not self.spread > 0:
            raise ValueError(f"a task needs targets with a spread above 0, got {self.spread}.")
        if schedule not in ("constant", "cosine"):
            raise ValueError(f'a task needs schedule "constant" or "cosine", got {schedule!r}.')
        self.automatic_optimization = False
        self.model, self.lr, self.schedule = model, lr, schedule
        self.clip: float | None = None
        self.faults = Faults()
        self.metrics: dict[str, float] = {}
        self.meters: Meters = {}
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Start the sums of an epoch at 0."""
        names = ("loss", "samples", "steps", "faults", "asked", "encoded", "voxels")
        self.sums = dict.fromkeys(names, 0.0)
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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """RAdam, which keeps the floating type of each parameter."""
        return torch.optim.RAdam(self.parameters(), lr=self.lr)

    def on_train_epoch_start(self) -> None:
        """Set the step size, which follows from the epoch alone: a resumed run has the same."""
        if self.schedule == "cosine":
            done = self.current_epoch / max(self.trainer.max_epochs or 1, 1)
            for group in self.optimizers().param_groups:  # type: ignore[union-attr]
                group["lr"] = self.lr * (1 + math.cos(math.pi * done)) / 2

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step; a failing one is counted and leaves the model as it was."""
        optimizer: Any = self.optimizers()
        start, before = time.perf_counter(), effort(self.model, batch)
        optimizer.zero_grad()
        kept = Kept(self.model)
        n = len(batch["target"])
        (n_all,) = summed([n], self.device)
        losses: list[Tensor] = []

        def forward() -> None:
            loss = self.loss(self(batch), batch) / self.spread**self.power
            check_finite(loss, "loss")
            losses.append(loss)

        def backward() -> None:
            (losses[0] * (n / n_all)).backward()

        cause = self.faults.attempt([forward, backward], self.device)
        if cause is None:
            sum_gradients(self.parameters())
            norm = nn.utils.clip_grad_norm_(self.parameters(), self.clip or math.inf)
            if bool(norm.isfinite()):
                optimizer.step()
            else:
                cause = FloatingPointError("the gradient is not finite")
        if cause is not None:
            kept.put_back()
        spent = [b - a for a, b in zip(before, effort(self.model, batch), strict=True)]
        # After the step, so that the clock stops when it is done on any device.
        loss = float(losses[0].detach()) if cause is None else 0.0
        self._count(loss, n, spent, time.perf_counter() - start, failed=cause is not None)
        if cause is not None:
            names = ", ".join(batch["names"])
            where = f"epoch {self.current_epoch}, batch {batch_idx} ({names})"
            self.faults.add(cause, where)

    def on_validation_epoch_start(self) -> None:
        """Begin the metrics of the fold, if there is a model to measure."""
        last, none = self.faults.last, self.sums["faults"] == self.sums["steps"]
        if self.current_epoch == 0 and none and last is not None:
            raise RuntimeError(
                f"every step of the first epoch failed, so that nothing is learned; the last one: "
                f"{type(last).__name__}: {last}"
            ) from last
        self.meters = self.new_meters()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the samples of a batch."""
        predictions = self(batch).detach()
        target = batch["target"].to(predictions)
        self.score(self.meters, predictions, target, batch["scale"].to(predictions))

    def on_validation_epoch_end(self) -> None:
        """Metrics over the whole fold, of all processes."""
        means = [m.squares if isinstance(m, RMSE) else m for m in self.meters.values()]
        totals = summed([x for m in means for x in (m.total, m.count)], self.device)
        for mean, total, count in zip(means, totals[::2], totals[1::2], strict=True):
            mean.total, mean.count = total, int(count)
        self.metrics = self.finish({name: m.value for name, m in self.meters.items()})

    def mean_error(self, train: Table, validation: Table) -> float:
        """Error on the validation fold of the best constant of the training fold."""
        meters = self.new_meters()
        constant = self.constant(train.target).expand(len(validation.target), -1)
        constant = constant[:, 0] if constant.shape[1] == 1 else constant
        self.score(meters, constant, validation.target, validation.scale)
        return self.finish({name: m.value for name, m in meters.items()})["error"]

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Mean loss of a batch."""
        raise NotImplementedError

    def new_meters(self) -> Meters:
        """What is averaged over a fold."""
        raise NotImplementedError

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Count samples."""
        raise NotImplementedError

    def finish(self, values: dict[str, float]) -> dict[str, float]:
        """Metrics, with an `error` that is better if it is lower."""
        raise NotImplementedError

    def constant(self, target: Tensor) -> Tensor:
        """The constant prediction `(1, q)` that fits targets best."""
        raise NotImplementedError

    def _count(
        self, loss: float, n: int, spent: Sequence[int], seconds: float, *, failed: bool
    ) -> None:
        good = 0 if failed else n
        added = (loss * good, good, 1, failed, *spent)
        self.sums = {k: v + a for (k, v), a in zip(self.sums.items(), added, strict=True)}
        self.seconds += seconds
        shown = {
            "s_per_sample": seconds / n,
            "evaluations_per_sample": spent[0] / n,
            "voxels_per_sample": spent[2] / n,
        }
        if not failed:
            shown = {"train_loss": loss, **shown}
        self.log_dict(shown, prog_bar=True, logger=False, batch_size=n)
