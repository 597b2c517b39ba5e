r"""Grow the ranks of a cross-approximation bond by bond until its probes agree.

Left and right sets only ever grow, so the fibers of one round contain those of the round before and
little is read twice. Probes that the train misses give new columns; the rows they need are found by
elimination in what the old rows leave over. A bond with columns to spare gets few more of them.

Shapes: `K` tensors, `l` left and `r` right multi-indices at a site of size `n`.
References: {cite}`ritter2024quantics`, {cite}`savostyanov2014quasioptimality`.
"""

import torch
from torch import Tensor

from cpic.linalg._maxvol import take_rows
from cpic.tt._cross_sets import grow_right
from cpic.tt._ledger import Reader
from cpic.tt._pivots import (
    draw_missed,
    draw_points,
    extend_left,
    pick_rows,
)
from cpic.tt._sets import IndexSets
from cpic.tt._solvers import solve_core
from cpic.tt._train import TensorTrain

_START = 8


class AdaptiveSearch:
    """The state of a search whose sets grow.

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
        self.reader, self.generator, self.ranks = reader, generator, ranks
        self.probes, self.truth = probes, truth
        sizes, d = reader.sizes, len(reader.sizes)
        empty = probes.new_zeros(len(probes), 1, 0)
        self.left = [empty] * d
        self.rows: list[Tensor | None] = [None] * d
        self.right = [empty] * d
        if sets is not None:
            self.right = list(sets.right)
            return
        points = draw_points(probes, truth**2, 2 * _START, generator)
        for k in range(d - 1):
            tails = points[..., k + 1 :]
            self.right[k] = grow_right(tails[:, :0], tails, sizes[k + 1 :])

    def round(self, floor: Tensor) -> TensorTrain:
        """A half-sweep to the right that keeps the old rows and adds those above `floor`."""
        self.reader.settle()
        cores, last = [], len(self.reader.sizes) - 1
        for k, n in enumerate(self.reader.sizes):
            fibers = self.reader.fibers(self.left[k], self.right[k])
            if k == last:
                cores.append(fibers)
                break
            matrix = fibers.flatten(1, 2)
            rows = self._more_rows(k, matrix, floor)
            self.rows[k] = rows
            self.left[k + 1] = extend_left(self.left[k], rows, n)
            core = solve_core(matrix, take_rows(matrix, rows), solver="qr")
            cores.append(core.unflatten(1, (-1, n)))
        return TensorTrain(cores)

    def _more_rows(self, site: int, matrix: Tensor, floor: Tensor) -> Tensor:
        old = self.rows[site]
        if old is None:
            return pick_rows(
                matrix, max_rank=self.ranks[site + 1], generator=self.generator, floor=floor
            )[0]
        room = min(self.ranks[site + 1], *matrix.shape[1:]) - old.shape[1]
        if room <= 0:
            return old
        frame = torch.linalg.qr(take_rows(matrix, old).mT).Q
        rest = matrix - (matrix @ frame) @ frame.mT
        if not bool((rest.abs().amax((1, 2)) > floor).any()):
            return old
        new, _ = pick_rows(rest, max_rank=room, generator=self.generator, floor=floor)
        return torch.cat([old, new], 1)

    def add_missed(self, train: TensorTrain) -> None:
        """Add the right parts of probes, drawn by the square of their residual, where needed."""
        missed = (self.truth - train.entries(self.probes)) ** 2
        count = max(_START, max(train.ranks) // 2)
        points = draw_missed(self.probes, missed, count, self.generator)
        for k in range(len(self.reader.sizes) - 1):
            rank = train.ranks[k + 1]
            if rank >= self.ranks[k + 1]:
                continue
            # Spare columns may all look past what is missed, so a few new ones are always added.
            few = self.right[k].shape[1] >= rank + _START
            tails = points[:, : max(2, rank // 6) if few else max(_START, rank // 2), k + 1 :]
            self.right[k] = grow_right(self.right[k], tails, self.reader.sizes[k + 1 :])

    def sets(self) -> IndexSets:
        """The index sets now; bonds have at least as many right as left multi-indices."""
        return IndexSets(self.reader.sizes, tuple(self.left), tuple(self.right))
