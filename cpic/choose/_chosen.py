"""What was read of K arrays, and what it says about the rest."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.choose._picture import Picture
from cpic.tt._entries import Entries
from cpic.tt._fibers import ask
from cpic.tt._ledger import key_weights


class Peak(NamedTuple):
    """The largest value read of each array.

    Args:
        value: `(K,)`.
        position: int64 `(K, D)`.
    """

    value: Tensor
    position: Tensor


@dataclass(frozen=True, eq=False)
class Chosen:
    """What `choose` read, and the picture it gives of K arrays.

    Args:
        by: Name of the chooser.
        shape: Sizes of the arrays.
        positions: Where it read, int64 `(K, m, D)`; some may repeat.
        values: There, `(K, m)`.
        picture: The arrays rebuilt from them.
        given: Weights `(K, m)` that the chooser knows.
        remake: The picture of other values at the same positions, where it is linear in them.
        beside: Numbers read of the levels of a pyramid, which no position stands for.
    """

    by: str
    shape: tuple[int, ...]
    positions: Tensor
    values: Tensor
    picture: Picture
    given: Tensor | None = None
    remake: Callable[[Tensor], Picture] | None = None
    beside: int = 0

    @cached_property
    def asked(self) -> Tensor:
        """How many different entries and numbers of levels were read of each, int64 `(K,)`."""
        keys = (self.positions * key_weights(self.shape).to(self.positions.device)).sum(-1)
        return self.beside + 1 + (keys.sort(1).values.diff(dim=1) != 0).sum(1)

    @cached_property
    def weights(self) -> Tensor | None:
        """What each value counts `(K, m)`: `(weights * values).sum(1)` estimates the means.

        None for trains, whose mean is no sum over the values they were built from.
        """
        if self.given is not None or self.remake is None:
            return self.given
        with torch.enable_grad():
            values = torch.zeros_like(self.values, requires_grad=True)
            (weights,) = torch.autograd.grad(self.remake(values).mean().sum(), values)
        return weights.double()

    def entries(self, indices: Tensor) -> Tensor:
        """The picture `(K, n)` at int64 multi-indices `(K, n, D)`; this method is an `Entries`."""
        return self.picture.entries(indices)

    def dense(self) -> Tensor:
        """The picture `(K, *shape)`; a `ValueError` where that is too large."""
        return self.picture.dense()

    def mean(self) -> Tensor:
        """Estimated means of the arrays `(K,)`."""
        if self.weights is None:
            return self.picture.mean()
        return (self.weights.to(self.values.dtype) * self.values).sum(1)

    def maximum(self) -> Peak:
        """The largest value read of each array, and where."""
        value, place = self.values.max(1)
        where = place[:, None, None].expand(-1, 1, len(self.shape))
        return Peak(value, self.positions.gather(1, where)[:, 0])

    def __repr__(self) -> str:
        share = float(self.asked.double().mean()) / math.prod(self.shape)
        return f"Chosen({self.by!r}: {share:.2%} of {len(self.values)} x {self.shape})"


class Log:
    """Asks `entries`, checks what comes back, and keeps it."""

    def __init__(self, entries: Entries):
        self.entries = entries
        self._positions: list[Tensor] = []
        self._values: list[Tensor] = []

    def __call__(self, indices: Tensor) -> Tensor:
        """Values `(K, n)` at `indices` `(K, n, D)`."""
        return self.keep(indices, ask(self.entries, indices))

    def keep(self, indices: Tensor, values: Tensor) -> Tensor:
        """Note values that were got in another way."""
        self._positions.append(indices)
        self._values.append(values)
        return values

    def all(self) -> tuple[Tensor, Tensor]:
        """All positions `(K, m, D)` and values `(K, m)` so far."""
        return torch.cat(self._positions, 1), torch.cat(self._values, 1)
