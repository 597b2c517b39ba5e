"""Layer-wise adaptive rates."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class LARS(torch.optim.Optimizer):
    r"""SGD whose rate for each weight is scaled by the ratio of its norm to that of its gradient.

    A step is `v <- momentum v + lr ratio (g + weight_decay w)`, then `w <- w - v`, with the ratio
    `trust |w| / (|g| + weight_decay |w|)`; parameters of one dimension (biases, normalization) have
    no decay, and the ratio 1.

    Args:
        params: Parameters to learn.
        lr: The rate.
        momentum: Factor of what is accumulated; the rate is part of what it accumulates.
        weight_decay: Factor of the weights.
        trust: Factor of the ratio.

    References: {cite}`you2017large`.

    Example:
        >>> weight = nn.Parameter(torch.ones(2, 2))
        >>> weight.sum().backward()
        >>> LARS([weight], lr=1.0, trust=0.5, weight_decay=0.0).step()
        >>> weight.detach()
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1.5e-6,
        trust: float = 1e-3,
    ) -> None:
        if lr < 0 or momentum < 0 or weight_decay < 0 or trust <= 0:
            raise ValueError(
                f"LARS needs lr, momentum and weight_decay of at least 0 and trust above 0, got "
                f"{lr}, {momentum}, {weight_decay} and {trust}."
            )
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        super().__init__(params, options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient.

        Args:
            closure: Computes the loss again, with gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            for weight in used:
                update: Tensor = weight.grad  # type: ignore[assignment]
                if weight.ndim > 1:
                    decay, length = group["weight_decay"], weight.norm()
                    ratio = group["trust"] * length / (update.norm() + decay * length)
                    # A zero weight or gradient has no ratio; no number is read on the host.
                    ratio = torch.where((length > 0) & (update.norm() > 0), ratio, 1.0)
                    update = ratio * (update + decay * weight)
                velocity = self.state[weight].get("velocity")
                if velocity is None:
                    velocity = self.state[weight]["velocity"] = torch.zeros_like(weight)
                velocity.mul_(group["momentum"]).add_(group["lr"] * update)
                weight.sub_(velocity)
        return loss
