r"""Count what a search asked for.

Every multi-index gets one integer key, exact where the number of entries fits 62 bits and a hash
otherwise; distinct entries are counted from the keys, and only when somebody looks.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cpic.tt._entries import Entries
from cpic.tt._fibers import ask, fiber_indices


@dataclass(eq=False)
class CrossLedger:
    """What a search cost: entries of one tensor, sweeps, wall seconds.

    Args:
        asked: Entries asked for, of each of the K tensors, repetitions included.
        sweeps: Sweeps made, there and back.
        seconds: Wall time.
    """

    asked: int
    sweeps: float
    seconds: float
    _keys: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def distinct(self) -> Tensor:
        """Different entries asked for of each tensor, int64 `(K,)`; counted on access."""
        if not self._keys:
            return torch.zeros(0, dtype=torch.int64)
        return 1 + (torch.cat(self._keys, 1).sort(1).values.diff(dim=1) != 0).sum(1)


class Reader:
    """Asks `entries` for points and fibers and remembers the keys of what it asked."""

    def __init__(self, entries: Entries, sizes: tuple[int, ...], device: torch.device):
        self.entries, self.sizes, self.asked = entries, sizes, 0
        self.keys: list[Tensor] = []
        self.scale: Tensor | None = None  # (K, 1), divides every value
        if math.prod(sizes) < 2**62:
            weights = [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]
        else:  # odd multipliers of a linear congruential generator; products wrap around
            weights = [((k + 1) * 0x9E3779B97F4A7C15 | 1) % 2**63 for k in range(len(sizes))]
        self.weights = torch.tensor(weights, dtype=torch.int64, device=device)

    def points(self, indices: Tensor) -> Tensor:
        """Values `(K, n)` at `indices` `(K, n, d)`."""
        self.asked += indices.shape[1]
        self.keys.append((indices * self.weights).sum(-1))
        values = ask(self.entries, indices)
        return values if self.scale is None else values / self.scale

    def fibers(self, left: Tensor, right: Tensor) -> Tensor:
        """Values `(K, l, n, r)` on left x [n] x right, at the site between the two."""
        site = left.shape[-1]
        n = self.sizes[site]
        before = (left * self.weights[:site]).sum(-1)[:, :, None, None]
        after = (right * self.weights[site + 1 :]).sum(-1)[:, None, None]
        steps = torch.arange(n, device=left.device)[:, None] * self.weights[site]
        self.keys.append((before + steps + after).flatten(1))
        indices = fiber_indices(left, n, right)
        self.asked += indices.shape[1]
        values = ask(self.entries, indices)
        values = values if self.scale is None else values / self.scale
        return values.unflatten(1, (left.shape[1], n, right.shape[1]))

    def ledger(self, sweeps: float, seconds: float) -> CrossLedger:
        """The books so far."""
        return CrossLedger(self.asked, sweeps, seconds, tuple(self.keys))
