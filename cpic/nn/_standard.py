"""Features in standard deviations from their mean, as running estimates over the batches."""

import torch
from torch import Tensor, nn

from cpic.nn._distributed import all_rows


class Standard(nn.Module):
    """Centers and scales features `(K, r)`; in training mode the statistics are updated.

    All processes use the same statistics. A feature that is constant becomes zero.

    Args:
        n_features: Number of features r.
        momentum: Weight of a new batch in mean and standard deviation.

    Attributes:
        steps: Number of training steps so far.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, n_features: int, *, momentum: float = 0.1):
        super().__init__()
        if not 0 <= momentum <= 1:
            who = type(self).__name__
            raise ValueError(f"{who} needs 0 <= momentum <= 1, got {momentum}.")
        self.momentum, self.steps = momentum, 0
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(n_features, dtype=torch.float64))

    def standardized(self, raw: Tensor) -> Tensor:
        """Features `(K, r)` of raw ones; differentiable in them."""
        if self.training:
            everyone, _ = all_rows(raw.detach())
            mean, variance = everyone.mean(0), everyone.var(0, correction=0)
            share = max(self.momentum, 1 / (self.steps + 1))
            self.mean.lerp_(mean.to(self.mean), share)
            self.variance.lerp_(variance.to(self.variance), share)
            self.steps += 1
        # A feature that is constant carries no information, and dividing by its spread gives noise.
        floor = 1e-12 * (self.variance + self.mean.square()).max()
        constant = ~(self.variance > floor)
        scale = self.variance.masked_fill(constant, 1.0).rsqrt().masked_fill(constant, 0.0)
        return (raw - self.mean.to(raw)) * scale.to(raw)

    def get_extra_state(self) -> dict[str, int]:
        """Step count."""
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore the state of `get_extra_state`."""
        self.steps = int(state["steps"])

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        # The statistics stay in float64, whatever the dtype of the head.
        self.mean, self.variance = self.mean.double(), self.variance.double()
        return self
