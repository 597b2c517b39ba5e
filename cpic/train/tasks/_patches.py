"""Train a model that chooses patches, on the labels of images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpic.nn._distributed import everyones
from cpic.nn.ips import Answer, Target, target_chance, target_loss, target_metric
from cpic.nn.ips._tasks import Heads, target_hits
from cpic.train.loop._bag_data import columns
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._splits import Table
from cpic.train.loop._task import Task, falling


def warmed(warmup: float, num_epochs: int, n_batches: int) -> Callable[[float], float]:
    """Linear warm-up over some epochs, then half a cosine to a thousandth, step by step.

    Args:
        warmup: Epochs of the warm-up.
        num_epochs: All epochs.
        n_batches: Steps of an epoch.

    Returns:
        The factor of the learning rate by the share of the steps before the present one.
    """
    first, last = warmup * n_batches, num_epochs * n_batches

    def factor(done: float) -> float:
        step = round(done * last) + 1
        if step < first:
            return step / first
        share = falling((step - first) / max(last - first, 1))
        return share + 0.001 * (1 - share)

    return factor


class PatchTask(Task):
    """Mean loss of all tasks; accuracies, exact matches and areas of a fold.

    Metrics: by task `NAME_loss`, and `NAME_accuracy` or `NAME_auc`; the mean of the latter `score`;
    `accuracy`, the mean of the accuracies, if there are any; and `error`, 1 minus `score`. Of the
    steps of an epoch, the means `train_NAME_loss`, `train_NAME_accuracy` and `train_lr`.

    Args:
        model: Returns an `Answer` for `model(bags, views)`, and has `heads`.
        targets: The tasks, in the order of the columns of the labels.
        **options: As in `cpic.train.Regression`.

    Example:
        >>> task = PatchTask(model, model.heads.targets, optimizer="adamw")  # doctest: +SKIP
        >>> fit_fold(task, data, folder="results/own", num_epochs=20)  # doctest: +SKIP
    """

    monitor = "score"
    higher = True

    def __init__(self, model: nn.Module, targets: tuple[Target, ...], **options: Any):
        self.targets = targets
        self._names = [
            f"train_{one.name}_{kind}"
            for one in targets
            for kind in ("loss", "accuracy")
            if kind == "loss" or one.metric != "auc"
        ]
        super().__init__(model, **options)
        self.answers: list[list[tuple[Tensor, ...]]] = []
        # Of the last step, by these names.
        self._means = torch.zeros(0)

    def begin_epoch(self) -> None:
        """Reset the sums of an epoch, also those of each task."""
        super().begin_epoch()
        self.sums |= dict.fromkeys(("train_lr", *self._names), 0.0)

    def forward(self, batch: Batch) -> Answer:  # type: ignore[override]
        """The answer of the model."""
        return self.model(batch["bags"], batch["views"])

    def total(self, predictions: Answer, batch: Batch) -> Tensor:  # type: ignore[override]
        """The mean loss of the tasks, with the penalty of the model."""
        labels = columns(self.targets, batch["target"])
        heads: Any = self.model.heads
        assert isinstance(heads, Heads)
        losses = heads.losses(predictions.logits, labels)
        self._means = self._of_step(predictions, labels, losses.detach())
        loss = losses.mean()
        return loss if predictions.penalty is None else loss + predictions.penalty

    def on_train_epoch_start(self) -> None:
        """Set the learning rate, and the noise of models that have one."""
        super().on_train_epoch_start()
        if callable(anneal := getattr(self.model, "anneal", None)):
            anneal(self.current_epoch / max(self.trainer.max_epochs or 1, 1))

    def _count(self, loss: float | None, n: int, spent: Sequence[int], seconds: float) -> None:
        super()._count(loss, n, spent, seconds)
        if loss is None:
            return
        self.sums["train_lr"] += n * self.trainer.optimizers[0].param_groups[0]["lr"]
        # Read from the device at once.
        for name, mean in zip(self._names, self._means.tolist(), strict=True):
            self.sums[name] += n * mean

    def _of_step(self, answer: Answer, labels: dict[str, Tensor], losses: Tensor) -> Tensor:
        means = []
        for one, loss in zip(self.targets, losses.double(), strict=True):
            means.append(loss)
            if one.metric != "auc":
                hits = target_hits(one, answer.logits[one.name].detach(), labels[one.name])
                means.append(hits.double().mean())
        return torch.stack(means)

    def on_validation_epoch_start(self) -> None:
        """Forget the answers of the last validation."""
        super().on_validation_epoch_start()
        self.answers = [[] for _ in self.meters]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep logits and labels: an area needs all of them."""
        logits = self(batch).logits
        rows = tuple(logits[one.name].detach().float().cpu() for one in self.targets)
        self.answers[dataloader_idx].append((*rows, batch["target"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Metrics over all images, of all processes."""
        found = []
        for parts in zip(*everyones(self.answers), strict=True):
            lines = [line for part in parts for line in part]
            found.append(self._measured(lines) if lines else {})
        self.metrics, self.selected, *_ = [*found, {}]

    def new_meters(self) -> dict[str, Any]:
        """None: the answers are kept."""
        return {}

    def mean_error(self, train: Table, validation: Table) -> float:
        """1 minus the mean chance: the metrics of the best constant answer of the training part."""
        chances = self.chances(train, validation)
        return 1 - sum(chances.values()) / len(chances)

    def chances(self, train: Table, validation: Table) -> dict[str, float]:
        """By task, the metric of the best constant answer of the training part."""
        before, labels = (columns(self.targets, table.target) for table in (train, validation))
        return {
            one.name: target_chance(one, before[one.name], labels[one.name]) for one in self.targets
        }

    def _measured(self, lines: list[tuple[Tensor, ...]]) -> dict[str, float]:
        *logits, target = (torch.cat(rows) for rows in zip(*lines, strict=True))
        labels, found, score = columns(self.targets, target), {}, 0.0
        for one, values in zip(self.targets, logits, strict=True):
            kind = "auc" if one.metric == "auc" else "accuracy"
            value = target_metric(one, values, labels[one.name])
            found[f"{one.name}_loss"] = float(target_loss(one, values, labels[one.name]))
            found[f"{one.name}_{kind}"], score = value, score + value
        parts = [value for name, value in found.items() if name.endswith("_accuracy")]
        if parts:
            found["accuracy"] = sum(parts) / len(parts)
        found["score"] = score / len(self.targets)
        return {**found, "error": 1 - found["score"]}
