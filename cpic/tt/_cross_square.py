r"""Half-sweeps of cross-approximation with as many rows as columns at every bond.

A half-sweep to the right reads the fibers V_k of site k, unfolds them to a matrix M_k of (l n) rows
and r columns, and keeps the rows of nearly maximal volume as the next left set. The coefficients
M_k M_k[rows]^{-1} are the core of that site, so a half-sweep to the right is an interpolation too.

Shapes: `K` tensors, `l` left and `r` right multi-indices at a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

import torch
from torch import Tensor

from cpic.tt._cross_sets import grow_right
from cpic.tt._ledger import Reader
from cpic.tt._pivots import (
    draw_missed,
    draw_points,
    extend_left,
    extend_right,
    pick_rows,
)
from cpic.tt._sets import IndexSets
from cpic.tt._train import TensorTrain


class SquareSearch:
    """The state of a square search: sets, ranks and probes.

    Args:
        reader: Where the values come from.
        probes: Multi-indices `(K, n, d)` that show what the train misses.
        truth: Their values `(K, n)`.
        ranks: Largest ranks of the `d + 1` bonds.
        generator: Draws pivots.
        sets: Sets to begin with; by default probes drawn by the square of their value.
    """

    def __init__(
        self,
        reader: Reader,
        probes: Tensor,
        truth: Tensor,
        ranks: tuple[int, ...],
        generator: torch.Generator,
        sets: IndexSets | None = None,
    ):
        self.reader, self.generator = reader, generator
        self.probes, self.truth, self.ranks = probes, truth, ranks
        if sets is None:
            points = draw_points(probes, truth**2, max(ranks), generator)
            sets = IndexSets.random(
                reader.sizes, ranks, generator=generator, n_trains=len(points), points=points
            )
        self.left, self.right = list(sets.left), list(sets.right)

    def to_left(self) -> TensorTrain:
        """A half-sweep that chooses the right sets anew: the mirror of `to_right`."""
        cores = []
        for k in reversed(range(len(self.reader.sizes))):
            fibers = self.reader.fibers(self.left[k], self.right[k])
            if k == 0:
                cores.append(fibers)
                break
            rows, coeffs = self._pick(fibers.flatten(2).mT.contiguous(), k)
            self.right[k - 1] = extend_right(self.right[k], rows)
            cores.append(coeffs.mT.unflatten(2, fibers.shape[2:]))
        return TensorTrain(cores[::-1])

    def to_right(self) -> TensorTrain:
        """A half-sweep that chooses the left sets anew; the train interpolates on the new sets."""
        cores, last = [], len(self.reader.sizes) - 1
        for k, n in enumerate(self.reader.sizes):
            fibers = self.reader.fibers(self.left[k], self.right[k])
            if k == last:
                cores.append(fibers)
                break
            rows, coeffs = self._pick(fibers.flatten(1, 2), k + 1)
            self.left[k + 1] = extend_left(self.left[k], rows, n)
            cores.append(coeffs.unflatten(1, fibers.shape[1:3]))
        return TensorTrain(cores)

    def _pick(self, matrix: Tensor, bond: int) -> tuple[Tensor, Tensor]:
        return pick_rows(matrix, max_rank=self.ranks[bond], generator=self.generator)

    def sets(self) -> IndexSets:
        """The index sets now."""
        return IndexSets(self.reader.sizes, tuple(self.left), tuple(self.right))

    def sets_are_square(self) -> bool:
        """Whether every bond has as many left as right multi-indices."""
        pairs = zip(self.left[1:], self.right, strict=False)
        return all(before.shape[1] == after.shape[1] for before, after in pairs)

    def add_missed(self, train: TensorTrain, n: int) -> None:
        """Add the right parts of `n` probes, drawn by the square of their residual."""
        missed = (self.truth - train.entries(self.probes)) ** 2
        points = draw_missed(self.probes, missed, n, self.generator)
        for k in range(len(self.reader.sizes) - 1):
            tails = points[..., k + 1 :]
            self.right[k] = grow_right(self.right[k], tails, self.reader.sizes[k + 1 :])


def relative_error(truth: Tensor, values: Tensor) -> Tensor:
    """`|truth - values| / |truth|` along the last axis without overflow; 0 / 0 is 0."""
    peak = torch.maximum(truth.abs(), values.abs()).amax(-1, keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)
    gap = ((truth - values) / peak).norm(dim=-1)
    size = (truth / peak).norm(dim=-1)
    return torch.where(gap > 0, gap / size, 0.0)
