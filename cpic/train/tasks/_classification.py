"""Classification of pictures in batches of pixels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cpic.images._alter import random_parts, shifted
from cpic.nn import spectral
from cpic.nn.metrics import FoldMean
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._task import Meters
from cpic.train.tasks._layers import Choice, Compensated, penalty
from cpic.train.tasks._tasks import Classification
from cpic.train.tasks._watch import Watch

ALTERED: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda images, generator: images,
    "shift": lambda images, generator: shifted(images, 2, generator=generator),
    "published": lambda images, generator: random_parts(images, generator=generator),
}


class PictureClassification(Classification):
    """Cross-entropy of pictures of uint8, normalized and altered on their device.

    Metrics: `accuracy`, `top5`, `cross_entropy`, and `error`, the fraction of wrong classes.

    Args:
        model: Maps images to logits.
        choice: Its layers, for the penalty.
        mean: Of each channel, of pixels in [0, 1].
        spread: Standard deviation of each channel.
        augment: Name of the alteration in training.
        seed: Seed of the alterations.
        num_steps: Steps in all.
        decay: Which parameters decay, "all" or "weights".
        settings: Further options of the optimizer.
        watch: Writes spectra and losses; None for nothing.
        **options: As of `Classification`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        choice: Choice | None = None,
        mean: Sequence[float],
        spread: Sequence[float],
        augment: str,
        seed: int,
        num_steps: int,
        decay: str = "all",
        settings: dict[str, Any] | None = None,
        watch: "Watch | None" = None,
        **options: Any,
    ):
        super().__init__(model, by_step=True, **options)
        self.register_buffer("shift", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(spread).view(-1, 1, 1), persistent=False)
        self.choice, self.augment, self.num_steps = choice, ALTERED[augment], num_steps
        self.decay, self.settings, self.watch = decay, settings or {}, watch
        self.draw = torch.Generator().manual_seed(seed)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch; altered at random in training."""
        images = batch["images"].to(self.scale) / 255  # type: ignore[arg-type]
        images = (images - self.shift) / self.scale  # type: ignore[operator]
        return self.model(self.augment(images, self.draw) if self.training else images)

    @property
    def done(self) -> int:
        """Steps so far."""
        before = self.current_epoch * self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        return before + int(self.sums["steps"])

    def set_rate(self) -> None:
        """Set the learning rate by the share of all steps that is done."""
        factor = self.schedule(self.done / self.num_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * factor

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD or Adam; frames, which are not lengths, may be spared from decay."""
        frames = [p for n, p in self.model.named_parameters() if n.endswith(".original0")]
        spared = {id(p) for p in frames if self.decay == "weights"}
        groups = [
            {"params": [p for p in self.model.parameters() if id(p) not in spared]},
            {"params": [p for p in frames if id(p) in spared], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        base: dict[str, Any] = {"lr": self.lr, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, **{**base, "momentum": 0.9, **self.settings})
        return torch.optim.Adam(groups, **{**base, **self.settings})

    def loss(self, predictions: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy, and in training the penalty on the spectra."""
        found = super().loss(predictions, batch)
        if self.choice is None or not self.training:
            return found
        return found + penalty(self.model, self.choice)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Compensate the weights if it is time; log losses and spectra when they are due."""
        if isinstance(compensation := getattr(self.model, "compensation", None), Compensated):
            compensation.step()
        if self.watch is None:
            return
        losses: dict[str, Any] = {"batch/loss": self.sums["loss"] / max(self.sums["samples"], 1)}
        if self.choice is not None and self.choice.penalty != "none":
            losses["batch/loss_spectral_penalty"] = lambda: float(
                penalty(self.model, self.choice).detach()  # type: ignore[arg-type]
            )
        rates = {"progress/lr": self.trainer.optimizers[0].param_groups[0]["lr"]}
        self.watch.log(self, {**losses, **rates}, done=self.done, of=self.num_steps)
        self.watch.draw(self, {"model": lambda: spectral.spectra(self.model)}, done=self.done)

    def new_meters(self) -> Meters:
        """Correct predictions, also among the best five, and losses."""
        return {**super().new_meters(), "top5": FoldMean()}

    def score(self, meters: Meters, predictions: Tensor, target: Tensor, scale: Tensor) -> None:
        """Add samples to the meters."""
        super().score(meters, predictions, target, scale)
        best = predictions.topk(min(5, predictions.shape[1])).indices
        add: Any = meters["top5"].add
        add((best == target.long()[:, None]).any(1).double())
