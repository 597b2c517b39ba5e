"""Bootstrap your own latent: two networks that predict each other's view of a patch."""

import copy
import math
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpic.train.loop._distributed import rank_and_size
from cpic.train.pretrain._lars import LARS
from cpic.train.pretrain._views import random_views


class BYOL(pl.LightningModule):
    r"""An encoder with a projector and a predictor, and a target that follows it slowly.

    The loss of a batch is the mean of $2 - 2 \cos(q(z_1), z_2')$ over both directions. The
    rate rises linearly from a thousandth and falls by a cosine back to it at the last step; the
    momentum of the target is $1 - (1 - m)(\cos(\pi s / S) + 1) / 2$ at step $s$ of
    $S$.

    Args:
        encoder: Maps (n, 3, h, w) to features (n, F).
        width: F.
        size: Edge of a view.
        hidden: Width inside projector and predictor.
        projection: Width of a projection.
        lr: Peak rate for a batch of 256; it is proportional to the batch.
        weight_decay: As for `LARS`.
        momentum: $m$.
        n_steps: $S$, over all epochs.
        warmup: Steps of the linear rise.
        batch_size: Patches per step, over all processes.
        seed: Seed of the views, which depend on it, the step and the process only.

    References: {cite}`grill2020bootstrap`.

    Example:
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        >>> model = BYOL(encoder, 4, size=8, hidden=8, projection=4, n_steps=10)
        >>> model.loss(torch.rand(4, 3, 9, 9), step=0).ndim
        0
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        *,
        size: int = 224,
        hidden: int = 4096,
        projection: int = 256,
        lr: float = 0.2,
        weight_decay: float = 1.5e-6,
        momentum: float = 0.99,
        n_steps: int,
        warmup: int = 0,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < n_steps:
            raise ValueError(f"BYOL needs 0 <= warmup < n_steps, got {warmup} and {n_steps}.")
        self.automatic_optimization = False
        self.online = nn.Sequential(encoder, _perceptron(width, hidden, projection))
        self.predictor = _perceptron(projection, hidden, projection)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.size, self.base, self.seed = size, momentum, seed
        self.peak, self.weight_decay = lr * batch_size / 256, weight_decay
        self.n_steps, self.warmup, self.step = n_steps, warmup, 0
        self.total, self.history = torch.zeros(()), []

    @property
    def encoder(self) -> nn.Module:
        """The encoder that is learned."""
        return self.online[0]

    def rate(self, step: int) -> float:
        """The learning rate of a step.

        Args:
            step: From 0.
        """
        low = 1e-3 * self.peak
        if step < self.warmup:
            return low + (self.peak - low) * step / self.warmup
        done = (step - self.warmup) / max(1, self.n_steps - self.warmup)
        return low + (self.peak - low) * (1 + math.cos(math.pi * done)) / 2

    def follow(self, step: int) -> float:
        """The momentum of the target after a step.

        Args:
            step: From 0.
        """
        return 1 - (1 - self.base) * (math.cos(math.pi * step / self.n_steps) + 1) / 2

    def loss(self, patches: Tensor, *, step: int) -> Tensor:
        """The loss of a batch.

        Args:
            patches: (n, 3, h, w), see `random_views`.
            step: Number of the step, which with the seed and the process determines the views.

        Returns:
            A number; differentiable with respect to encoder, projector and predictor.
        """
        seed = (self.seed * 1_000_003 + step) * 1_009 + rank_and_size()[0]
        generator = torch.Generator().manual_seed(seed % 2**63)
        first = random_views(patches, size=self.size, generator=generator)
        second = random_views(patches, size=self.size, blur=0.1, solarize=0.2, generator=generator)
        # One pass each: statistics of batch normalization are those of a view.
        predicted = torch.cat([self.predictor(self.online(x)) for x in (first, second)])
        with torch.no_grad():
            projected = torch.cat([self.target(x) for x in (second, first)])
        return 2 - 2 * F.cosine_similarity(predicted, projected).mean()

    def configure_optimizers(self) -> LARS:
        """LARS over encoder, projector and predictor."""
        learned = [*self.online.parameters(), *self.predictor.parameters()]
        return LARS(learned, lr=self.peak, weight_decay=self.weight_decay)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """One step of the optimizer, and of the target.

        Args:
            batch: Patches.
            batch_idx: Not used.
        """
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        loss = self.loss(batch, step=self.step)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        keep = self.follow(self.step)
        with torch.no_grad():
            for one, other in zip(self.target.parameters(), self.online.parameters(), strict=True):
                one.lerp_(other, 1 - keep)
        self.step += 1
        self.total = self.total.to(loss.device) + loss.detach()


def _perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
    )
