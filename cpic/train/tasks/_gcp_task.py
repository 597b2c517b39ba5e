"""Classification with covariance pooling: schedules, the switch, and what is logged."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from cpic._files import replace_file
from cpic.nn.metrics import FoldMean
from cpic.nn.pooling import CovariancePool, Switched, ThreeParts
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._task import Meters
from cpic.train.tasks._images import ImageClassification

# Sums over the training pictures of an epoch, as they were when each step was made.
_MISSED = ("train_error", "train_top5_error")


def factors(
    method: str, numbers: Sequence[float], lr: float, num_epochs: int
) -> Callable[[float], float]:
    """The factor on the learning rate by the share of the training that is done.

    Args:
        method: "step" or "log", see `cpic.options.Descent`.
        numbers: Epochs, or the exponents of the first and the last learning rate.
        lr: Learning rate that is multiplied.
        num_epochs: Number of epochs.

    Raises:
        ValueError: If the numbers do not fit the method.
    """
    if method == "log" and len(numbers) != 2:
        raise ValueError(
            f'lr_params needs two exponents for lr_method "log", got {list(numbers)}; pass -1.1 -5.'
        )
    if method == "step" and any(not float(one).is_integer() or one < 0 for one in numbers):
        raise ValueError(
            f'lr_params needs epochs from 0 for lr_method "step", got {list(numbers)}.'
        )

    def factor(done: float) -> float:
        epoch = int(done * num_epochs + 1e-9)
        if method == "step":
            return 0.1 ** sum(epoch >= one for one in numbers)
        first, last = numbers
        share = min(epoch, num_epochs - 1) / max(1, num_epochs - 1)
        return 10 ** (first + (last - first) * share) / lr

    return factor


class GCPTask(ImageClassification):
    """Cross-entropy of three parts; logs gradients before clipping, and spectra.

    Metrics are `accuracy`, `top5_error`, `cross_entropy`, `gradient_norm`, the mean over the steps
    of the norm before clipping, and, with a covariance, `log10_condition`, the mean over the
    validation pictures of the decimal logarithm of largest over smallest eigenvalue, those below
    eps times the largest one counted as that. Of the training pictures there are both errors.

    Args:
        model: Three parts.
        momentum: Of "sgd".
        factor: Factor on the learning rate of the classifier.
        classifier_decay: Weight decay of the classifier; None for that of the others.
        switch_at: Epoch at which a `Switched` power is switched.
        **options: As in `Classification`.
    """

    model: ThreeParts

    def __init__(
        self,
        model: ThreeParts,
        *,
        momentum: float = 0.9,
        factor: float = 1.0,
        classifier_decay: float | None = None,
        switch_at: int | None = None,
        **options: Any,
    ):
        super().__init__(model, **options)
        self.momentum, self.factor, self.classifier_decay = momentum, factor, classifier_decay
        self.switch_at = switch_at
        self._conditions, self._values = FoldMean(), []
        self._missed = torch.zeros(2, 0)
        for module in model.modules():
            if isinstance(module, CovariancePool):
                module.register_forward_hook(self._watch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Features and representation, and the classifier with its factor."""
        return self.model.groups(factor=self.factor, classifier_decay=self.classifier_decay)

    def configure_optimizers(self) -> torch.optim.Optimizer | list[torch.optim.Optimizer]:
        """As in other tasks, but SGD has its momentum."""
        if self.optimizer != "sgd":
            return super().configure_optimizers()
        groups = self.parameter_groups()
        decay = self.weight_decay
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, weight_decay=decay)

    def begin_epoch(self) -> None:
        """Reset the sums of an epoch, also those of norms and of missed pictures."""
        super().begin_epoch()
        self.sums |= dict.fromkeys(("norms", *_MISSED), 0.0)

    def on_train_epoch_start(self) -> None:
        """Set the learning rate and, from the epoch of the switch on, the other power."""
        super().on_train_epoch_start()
        self.switch(self.current_epoch)

    def switch(self, epoch: int) -> None:
        """The power of this epoch."""
        for module in self.model.modules():
            if isinstance(module, Switched):
                module.late = self.switch_at is not None and epoch >= self.switch_at

    def _count(self, loss: float | None, n: int, spent: Sequence[int], seconds: float) -> None:
        super()._count(loss, n, spent, seconds)
        if loss is not None:
            self.sums["norms"] += self.norm
            for name, missed in zip(_MISSED, self._missed.sum(1).tolist(), strict=True):
                self.sums[name] += missed
            self.log("gradient_norm", self.norm, logger=True, batch_size=n)

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy; notes which pictures are missed."""
        self._missed = _misses(predictions.detach(), batch["target"])
        return super().loss(predictions, batch)

    def on_validation_epoch_start(self) -> None:
        """Reset the spectra."""
        super().on_validation_epoch_start()
        self._conditions, self._values = FoldMean(), []

    def on_validation_model_zero_grad(self) -> None:
        """Log the sizes of the gradients along the network before they are dropped."""
        if (board := self._board()) is not None:
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None and parameter.ndim > 1:
                    size = float(parameter.grad.abs().mean())
                    board.add_scalar(f"gradient/{name}", size, self.current_epoch)
        super().on_validation_model_zero_grad()

    def on_validation_epoch_end(self) -> None:
        """Metrics, with the norm of the gradient and the condition of the covariances."""
        super().on_validation_epoch_end()
        good = max(1.0, self.sums["steps"] - self.sums["faults"])
        self.metrics["gradient_norm"] = self.sums["norms"] / good
        if self._values:
            self.metrics["log10_condition"] = self._conditions.value
            if (board := self._board()) is not None:
                board.add_histogram(
                    "log10 of eigenvalues", torch.cat(self._values), self.current_epoch
                )
        self._values = []

    def new_meters(self) -> Meters:
        """Correct predictions, among the first one and five, and losses."""
        return {**super().new_meters(), "top5_error": FoldMean()}

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Add samples to the meters."""
        super().score(meters, predictions, target, scale)
        meters["top5_error"].add(_misses(predictions, target)[1].double())  # type: ignore[call-arg]

    def _board(self) -> Any:
        """The writer of TensorBoard, if there is one."""
        boards = [one for one in self.loggers if isinstance(one, TensorBoardLogger)]
        return boards[0].experiment if boards and self.trainer.is_global_zero else None

    def _watch(self, module: nn.Module, given: Any, covariance: Tensor) -> None:
        """Note the spectrum of the covariances of validation batches."""
        if self.training or not len(covariance):
            return
        values = torch.linalg.eigvalsh(covariance.detach().double())
        eps = torch.finfo(torch.float64).eps
        least = (eps * values[:, -1:]).clamp(min=torch.finfo(torch.float64).tiny)
        logs = values.maximum(least).log10()
        self._conditions.add(logs[:, -1] - logs[:, 0])
        if len(self._values) < 8:
            self._values.append(logs.flatten().cpu())


class EveryEpoch(Callback):
    """Keeps the state after every epoch, beside the latest and the best one."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Copy the latest state, which was saved just before."""
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            state = (folder / "latest.ckpt").read_bytes()
            path = folder / f"epoch_{trainer.current_epoch}.ckpt"
            replace_file(path, lambda file: file.write(state))


def _misses(predictions: Tensor, target: Tensor) -> Tensor:
    """Which pictures are not among the first one, and five, `(2, B)`."""
    first = predictions.topk(min(5, predictions.shape[1]), 1).indices
    hits = first == target.long()[:, None]
    return ~torch.stack([hits[:, 0], hits.any(1)])


@torch.no_grad()
def evaluate(task: GCPTask, batches: Any) -> dict[str, float]:
    """Accuracy and top-5 error of a task over batches, several views of a picture averaged."""
    was = task.training
    task.eval()
    device = next(task.model.parameters()).device
    meters = task.new_meters()
    for batch in batches:
        moved: Batch = {**batch, "images": batch["images"].to(device)}
        predictions = task(moved)
        target = batch["target"].to(predictions)
        task.score(meters, predictions, target, torch.ones_like(target))
    task.train(was)
    return {name: meters[name].value for name in ("accuracy", "top5_error")}
