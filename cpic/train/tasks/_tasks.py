r"""Losses and metrics of the tasks.

Shapes: `B` samples of a batch, `q` outputs.
References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpic.nn.metrics import RMSE, FoldMean, laplace_log_likelihood, pinball
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._task import Meters, Task


class Regression(Task):
    """Mean squared error; the fold's RMSE in the unit of the batch's `scale`, such as days.

    Metrics: `rmse` and `error`, the same {cite}`usvyatsov2021cherry`.

    Args:
        model: Called as `model(volumes, names, rows=..., tabular=...)`.
        lr: Learning rate.
        output: Column of the outputs that is the prediction; None if there is only one output.
        **options: `schedule`, "constant", "cosine" or "linear" (the learning rate decreases to 0
            over all epochs), "onecycle" (it rises first), or a function that maps the share of the
            training that is done to a factor; `by_step`, change it in every step, not only in every
            epoch; `optimizer`, "radam", "adamw", "adam" or "sgd", with `weight_decay`;
            `standard`, mean and standard deviation of the targets of the training fold: the model
            then predicts standardized targets; and `residual`, the weight of `model.residual()` in
            the loss, as `cpic.nn.CPIC` has it.

    Example:
        >>> from torch import nn
        >>> task = Regression(nn.Linear(2, 3), output=1)
        >>> batch = {"target": torch.tensor([0.5])}
        >>> float(task.loss(torch.tensor([[9.0, 0.25, 9.0]]), batch))
        0.0625
    """

    def __init__(
        self, model: nn.Module, *, lr: float = 1e-3, output: int | None = None, **options: Any
    ):
        super().__init__(model, lr=lr, **options)
        self.output = output

    def predicted(self, outputs: Tensor) -> Tensor:
        """Select the predictions `(B,)` from the outputs of the model.

        Raises:
            ValueError: If there are several outputs and none was selected.
        """
        if outputs.ndim == 1:
            return outputs
        if self.output is None and outputs.shape[1] != 1:
            raise ValueError(
                f"Regression needs one output, got {outputs.shape[1]}; choose one with output=."
            )
        return outputs[:, self.output or 0]

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Mean squared error."""
        predicted = self.predicted(predictions)
        return nn.functional.mse_loss(predicted, batch["target"].to(predicted))

    def new_meters(self) -> Meters:
        """Squared errors, in the unit of the scale."""
        return {"rmse": RMSE(scale=1.0)}

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Add samples to the meters."""
        meters["rmse"].add(self.predicted(predictions) * scale, target * scale)  # type: ignore[call-arg]

    def finish(self, values: dict[str, float]) -> dict[str, float]:
        """The RMSE, twice."""
        return {**values, "error": values["rmse"]}

    def constant(self, target: Tensor) -> Tensor:
        """The mean."""
        return target.mean().view(1, 1)


class Quantiles(Task):
    """Pinball loss; the mean Laplace log-likelihood of the fold, with its clipping.

    Metrics: `mlll`, higher is better; `pinball`, the loss; `rmse` and `error`, of the median in
    the unit of the batch's `scale` {cite}`usvyatsov2021cherry`.

    Args:
        model: Called as `model(volumes, names, rows=..., tabular=...)`, returns `(B, q)`.
        lr: Learning rate.
        quantiles: Three levels.
        **options: As in `Regression`.

    Example:
        >>> from torch import nn
        >>> task = Quantiles(nn.Linear(2, 3))
        >>> batch = {"target": torch.tensor([1.2])}
        >>> round(float(task.loss(torch.tensor([[0.9, 1.0, 1.1]]), batch)), 2)
        0.24
    """

    monitor = "mlll"
    higher = True
    power = 1

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        quantiles: Sequence[float] = (0.2, 0.5, 0.8),
        **options: Any,
    ):
        super().__init__(model, lr=lr, **options)
        self.quantiles = tuple(quantiles)

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Pinball loss."""
        return pinball(predictions, batch["target"].to(predictions), quantiles=self.quantiles)

    def new_meters(self) -> Meters:
        """Log-likelihoods, losses and squared errors of the median."""
        return {"mlll": FoldMean(), "pinball": FoldMean(), "rmse": RMSE(scale=1.0)}

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Add samples to the meters."""
        add: Any = {name: meter.add for name, meter in meters.items()}
        add["mlll"](laplace_log_likelihood(predictions, target, scale=scale))
        one_by_one = zip(predictions.split(1), target.split(1), strict=True)
        add["pinball"](
            torch.stack([pinball(p, t, quantiles=self.quantiles) for p, t in one_by_one])
        )
        add["rmse"](predictions[:, 1] * scale, target * scale)

    def finish(self, values: dict[str, float]) -> dict[str, float]:
        """All means, and the error of the median."""
        return {**values, "error": values["rmse"]}

    def constant(self, target: Tensor) -> Tensor:
        """The quantiles."""
        return target.quantile(target.new_tensor(self.quantiles)).view(1, -1)


class Classification(Task):
    """Cross-entropy; the accuracy of the fold.

    Targets are class indices. Metrics: `accuracy`, `cross_entropy`, and `error`, the fraction of
    wrong classes.

    Args:
        model: Called as `model(volumes, names, rows=..., tabular=...)`, returns logits `(B, q)`.
        lr: Learning rate.
        schedule: As in `Regression`.
        by_step: As in `Regression`.
        optimizer: As in `Regression`.
        weight_decay: Of all optimizers but "radam".
        standard: Leave at None, since classes have no mean.
        residual: As in `Regression`.

    Example:
        >>> from torch import nn
        >>> task = Classification(nn.Linear(2, 2))
        >>> batch = {"target": torch.tensor([1.0])}
        >>> round(float(task.loss(torch.tensor([[0.0, 0.0]]), batch)), 3)  # log 2
        0.693
    """

    monitor = "accuracy"
    higher = True

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(predictions, batch["target"].long())

    def new_meters(self) -> Meters:
        """Correct predictions and losses."""
        return {"accuracy": FoldMean(), "cross_entropy": FoldMean()}

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Add samples to the meters."""
        add: Any = {name: meter.add for name, meter in meters.items()}
        classes = target.long()
        add["accuracy"]((predictions.argmax(1) == classes).double())
        add["cross_entropy"](nn.functional.cross_entropy(predictions, classes, reduction="none"))

    def finish(self, values: dict[str, float]) -> dict[str, float]:
        """All means, and the fraction of wrong classes."""
        return {**values, "error": 1 - values["accuracy"]}

    def constant(self, target: Tensor) -> Tensor:
        """Logarithms of the frequencies of the classes."""
        shares = target.long().bincount().double() / len(target)
        return shares.clamp_min(1e-12).log().view(1, -1)
