r"""Count the entries that a search requests.

Every multi-index gets one integer key, exact if the number of entries fits 62 bits and a hash
otherwise; distinct entries are counted from the keys, on access only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cpic.tt._entries import Entries, strides
from cpic.tt._fibers import ask


@dataclass(eq=False)
class CrossLedger:
    """Cost of a search: entries of one tensor, sweeps, wall time.

    Args:
        asked: Entries requested, of each of the K tensors, including repetitions.
        sweeps: Number of sweeps, back and forth.
        seconds: Wall time.
    """

    asked: int
    sweeps: float
    seconds: float
    _keys: tuple[Tensor, ...] = field(default=(), repr=False)

    @property
    def distinct(self) -> Tensor:
        """Distinct entries requested of each tensor, int64 `(K,)`; counted on access."""
        if not self._keys:
            return torch.zeros(0, dtype=torch.int64)
        return 1 + (torch.cat(self._keys, 1).sort(1).values.diff(dim=1) != 0).sum(1)


class Reader:
    """Requests points from `entries` and records their keys."""

    def __init__(self, entries: Entries, sizes: tuple[int, ...], device: torch.device):
        self.entries, self.sizes, self.asked = entries, sizes, 0
        self.keys: list[Tensor] = []
        self.scale: Tensor | None = None  # (K, 1), divides every value
        self.weights = key_weights(sizes).to(device)

    def points(self, indices: Tensor, *, by: Callable[..., Tensor] = ask) -> Tensor:
        """Values `(K, n)` at `indices` `(K, n, d)`, requested by `ask` or a similar function."""
        self.keys.append((indices * self.weights).sum(-1))
        self.asked += indices.shape[1]
        values = by(self.entries, indices)
        return values if self.scale is None else values / self.scale

    def ledger(self, sweeps: float, seconds: float) -> CrossLedger:
        """Counts so far."""
        return CrossLedger(self.asked, sweeps, seconds, tuple(self.keys))


def key_weights(sizes: Sequence[int]) -> Tensor:
    """Weights `(d,)` of the sites, whose sum over a multi-index is its key."""
    if math.prod(sizes) < 2**62:
        return torch.tensor(strides(sizes))
    # Too many for exact keys, so use hashes, whose products wrap around.
    return torch.tensor([_mixed(k) for k in range(len(sizes))])


def _mixed(k: int) -> int:
    """The k-th odd number of a splitmix64 sequence, as int64.

    Multiples of one number would not work: their sums agree for many pairs of multi-indices.
    """
    mask = 2**64 - 1
    z = (k + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return ((z ^ z >> 31) | 1) - 2**63
