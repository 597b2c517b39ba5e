r"""Count what a search asked for.

Every multi-index gets one integer key, exact where the number of entries fits 62 bits and a hash
otherwise; distinct entries are counted from the keys, and only when somebody looks.
"""

import math
from collections.abc import Sequence
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
        self.remember = False  # pays where half-sweeps repeat most of their entries
        self.marks = torch.zeros(0, dtype=torch.int64, device=device)
        self.memory = torch.zeros(0, device=device)
        self.news: list[tuple[Tensor, Tensor]] = []
        self.weights = key_weights(sizes).to(device)

    def points(self, indices: Tensor) -> Tensor:
        """Values `(K, n)` at `indices` `(K, n, d)`."""
        return self._ask(indices, (indices * self.weights).sum(-1))

    def fibers(self, left: Tensor, right: Tensor) -> Tensor:
        """Values `(K, l, n, r)` on left x [n] x right, at the site between the two."""
        return self.blocks([(left, right)])[0]

    def blocks(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Fibers of several pairs of sets of one site, asked for in one call."""
        site = pairs[0][0].shape[-1]
        n = self.sizes[site]
        steps = torch.arange(n, device=self.weights.device)[:, None] * self.weights[site]
        keys = torch.cat([self._keys(left, steps, right) for left, right in pairs], 1)
        indices = torch.cat([fiber_indices(left, n, right) for left, right in pairs], 1)
        values = self._read(indices, keys) if self.remember else self._ask(indices, keys)
        shapes = [(left.shape[1], n, right.shape[1]) for left, right in pairs]
        parts = values.split([math.prod(shape) for shape in shapes], 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _keys(self, left: Tensor, steps: Tensor, right: Tensor) -> Tensor:
        site = left.shape[-1]
        before = (left * self.weights[:site]).sum(-1)[:, :, None, None]
        after = (right * self.weights[site + 1 :]).sum(-1)[:, None, None]
        return (before + steps + after).flatten(1)

    def _ask(self, indices: Tensor, keys: Tensor) -> Tensor:
        self.keys.append(keys)
        self.asked += keys.shape[1]
        values = ask(self.entries, indices)
        return values if self.scale is None else values / self.scale

    def _read(self, indices: Tensor, keys: Tensor) -> Tensor:
        """Take from memory what is there and ask for the rest, for as many in every tensor."""
        marks = keys + self._shift(keys)
        known = torch.zeros_like(keys, dtype=torch.bool)
        values = self.memory.new_zeros(keys.shape)
        # Neighbouring sites share half of their fibers, so the last call counts before it settles.
        for old, memory in [(self.marks, self.memory), *self.news[-1:]]:
            if len(old):
                place = torch.searchsorted(old, marks).clamp_max(len(old) - 1)
                hit = old[place] == marks
                values = torch.where(hit, memory[place], values.to(memory.dtype))
                known |= hit
        order = marks.argsort(1)
        again = torch.zeros_like(known)
        again.scatter_(1, order[:, 1:], marks.gather(1, order).diff(dim=1) == 0)
        skip = known | again
        count = int((~skip).sum(1).max())
        if count:
            missing = skip.long().argsort(dim=1, stable=True)[:, :count]
            rows = missing[..., None].expand(-1, -1, indices.shape[-1])
            fresh = self._ask(indices.gather(1, rows), keys.gather(1, missing))
            news, by_mark = marks.gather(1, missing).flatten().sort()
            fresh = fresh.flatten()[by_mark]
            place = torch.searchsorted(news, marks).clamp_max(len(news) - 1)
            values = torch.where(known, values.to(fresh.dtype), fresh[place])
            self.news.append((news, fresh))
        return values

    def _shift(self, keys: Tensor) -> Tensor:
        """Keeps the keys of different tensors apart."""
        return torch.arange(len(keys), device=keys.device)[:, None] * 0x2545F4914F6CDD1D

    def settle(self) -> None:
        """Sort what was asked lately into the memory; once a half-sweep is often enough."""
        if not self.news:
            return
        marks = torch.cat([self.marks, *(mark for mark, _ in self.news)])
        values = [value for _, value in self.news]
        memory = torch.cat([self.memory.to(values[0].dtype), *values])
        self.marks, order = marks.sort()
        self.memory, self.news = memory[order], []

    def ledger(self, sweeps: float, seconds: float) -> CrossLedger:
        """The books so far."""
        return CrossLedger(self.asked, sweeps, seconds, tuple(self.keys))


def key_weights(sizes: Sequence[int]) -> Tensor:
    """Weights `(d,)` of the sites, whose sum over a multi-index is its key."""
    if math.prod(sizes) < 2**62:
        return torch.tensor([math.prod(sizes[k + 1 :]) for k in range(len(sizes))])
    # Too many for exact keys: hashes, whose products wrap around.
    return torch.tensor([_mixed(k) for k in range(len(sizes))])


def _mixed(k: int) -> int:
    """The k-th odd number of a splitmix64 sequence, as int64.

    Multiples of one number would not do: their sums agree for many pairs of multi-indices.
    """
    mask = 2**64 - 1
    z = (k + 1) * 0x9E3779B97F4A7C15 & mask
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
    z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
    return ((z ^ z >> 31) | 1) - 2**63
