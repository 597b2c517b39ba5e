"""Tables of the multi-indices that make up all fibers; they depend on sizes and counts only.

Shapes: `d` sites; `P` pairs of a left multi-index and a position, and `E` entries, of all sites,
one site after the other; at most `m` pairs and `r` pivots at a bond.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Layout(NamedTuple):
    """Positions of multi-indices in `Rows` and in each other; int64.

    `pair_left`, `pair_step` `(P,)`: the left multi-index and the position of each pair.
    `entry_pair`, `entry_right` `(E,)`: the pair and the right multi-index of each entry.
    `pairs` `(d - 1, m)`, `pivots` `(d - 1, r)`: those of each bond, with the last one repeated.
    `last` `(d - 1, 1)`: number of the last pair of each bond.
    `weights` `(d,)`: their inner product with a multi-index is a hash of it.
    `n_pairs`: number of pairs of each site.
    """

    pair_left: Tensor
    pair_step: Tensor
    entry_pair: Tensor
    entry_right: Tensor
    pairs: Tensor
    pivots: Tensor
    last: Tensor
    weights: Tensor
    n_pairs: tuple[int, ...]

    def on(self, device: torch.device) -> "Layout":
        """The same tables on another device."""
        if device.type == "cpu":
            return self
        tables = zip(self._fields[:-1], self[:-1], strict=True)
        return self._replace(**{name: table.to(device) for name, table in tables})


@lru_cache(maxsize=32)
def layout(sizes: tuple[int, ...], left: tuple[int, ...], right: tuple[int, ...]) -> Layout:
    """The tables for given numbers of left and right multi-indices at each site."""
    n_pairs = [n * count for n, count in zip(sizes, left, strict=True)]
    weights = np.random.default_rng(0).integers(-(2**63), 2**63, len(sizes)) | 1
    tables = [*_products(left, sizes), *_products(n_pairs, right)]
    tables += [_beside(n_pairs, 0), _beside(left, 1), np.array(n_pairs[:-1])[:, None] - 1, weights]
    with torch.inference_mode(False):  # the cached tables are also used with gradients
        return Layout._make([*map(torch.from_numpy, tables), tuple(n_pairs)])


def _products(first: Sequence[int], second: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Both parts of all pairs at each site, the second one changing fastest."""
    some, others = [], []
    for m, n, a, b in zip(first, second, _begins(first), _begins(second), strict=True):
        some.append(np.repeat(np.arange(a, a + m), n))
        others.append(np.tile(np.arange(b, b + n), m))
    return np.concatenate(some), np.concatenate(others)


def _beside(counts: Sequence[int], shift: int) -> np.ndarray:
    """Positions at `d - 1` sites, from the first or second on, with the last one repeated."""
    chosen = slice(shift, len(counts) - 1 + shift)
    begins, ends = _begins(counts)[chosen], np.cumsum(counts)[chosen]
    most = np.arange(max(counts[chosen], default=0))
    return np.minimum(begins[:, None] + most, ends[:, None] - 1)


def _begins(counts: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *counts[:-1]])
