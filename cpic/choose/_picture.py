"""Arrays rebuilt from what was read of them, as entries and as a whole.

Shapes: `K` arrays, `D` axes, `m` positions read, `n` points requested.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cpic.choose._interpolate import brackets, matrix
from cpic.tt._entries import check_indices

MOST = 2**28  # numbers that a picture may have


class Picture(Protocol):
    """K arrays that give any entry."""

    def entries(self, indices: Tensor) -> Tensor:
        """Values `(K, n)` at int64 multi-indices `(K, n, D)`."""
        ...

    def dense(self) -> Tensor:
        """All of them, `(K, *shape)`."""
        ...

    def mean(self) -> Tensor:
        """Means `(K,)`."""
        ...


@dataclass(frozen=True, eq=False)
class Grid:
    """Linear interpolation between values on a grid, constant beyond its ends.

    Args:
        shape: Of the arrays.
        axes: Positions along each axis, int64 `(K, m_i)`, increasing.
        values: `(K, m_1, ..., m_D)`.
    """

    shape: tuple[int, ...]
    axes: tuple[Tensor, ...]
    values: Tensor

    def entries(self, indices: Tensor) -> Tensor:
        check_indices(indices, len(self.values), self.shape)
        found = [brackets(a, i) for a, i in zip(self.axes, indices.unbind(-1), strict=True)]
        sizes = self.values.shape[1:]
        flat = self.values.flatten(1)
        total = flat.new_zeros(indices.shape[:2])
        for corner in itertools.product(*((0, 1) if m > 1 else (0,) for m in sizes)):
            place, weight = torch.zeros_like(indices[..., 0]), torch.ones_like(total)
            for (low, share), m, step in zip(found, sizes, corner, strict=True):
                place = place * m + low + step
                share = share.to(flat.dtype)
                weight = weight * (share if step else 1 - share)
            total = total + weight * flat.gather(1, place)
        return total

    def dense(self) -> Tensor:
        check_room(len(self.values), self.shape)
        values = self.values
        for k, (axis, n) in enumerate(zip(self.axes, self.shape, strict=True)):
            if axis.shape[1] < n:
                spread = matrix(axis, n, dtype=values.dtype)
                moved = torch.einsum(
                    "knm,kam->kan", spread, values.movedim(k + 1, -1).flatten(1, -2)
                )
                rest = values.movedim(k + 1, -1).shape[:-1]
                values = moved.view(*rest, n).movedim(-1, k + 1)
        return values

    def mean(self) -> Tensor:
        values = self.values
        for axis, n in reversed(list(zip(self.axes, self.shape, strict=True))):
            weights = matrix(axis, n, dtype=values.dtype).mean(1)
            values = torch.einsum("k...m,km->k...", values, weights)
        return values


def check_room(n_arrays: int, shape: Sequence[int]) -> None:
    """Refuse pictures that no memory holds."""
    if n_arrays * math.prod(shape) > MOST:
        raise ValueError(
            f"dense needs at most {MOST} numbers, got {n_arrays} arrays of shape {tuple(shape)}; "
            "read single ones with `entries`."
        )


@dataclass(frozen=True, eq=False)
class Sum:
    """Two pictures of the same arrays, added."""

    first: Picture
    second: Picture

    def entries(self, indices: Tensor) -> Tensor:
        return self.first.entries(indices) + self.second.entries(indices)

    def dense(self) -> Tensor:
        return self.first.dense() + self.second.dense()

    def mean(self) -> Tensor:
        return self.first.mean() + self.second.mean()
