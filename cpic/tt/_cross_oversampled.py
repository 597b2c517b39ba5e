r"""Fit a train by least squares to more rows and columns than its rank.

One pass to the left builds an orthonormal basis of right parts and the rows at which it is read,
one pass to the right does the same for left parts and projects every site on both. Rows are taken
by repeated elimination, several times as many as the basis has functions, so that what lies
outside the basis is averaged instead of amplified. The train has twice the rank that is wanted and
is rounded at the end.

A basis stays orthonormal on the full tensor because every core is; its values at the chosen rows
are a tall matrix B, and coefficients are the least squares solution B^+ A of sampled fibers A.

Shapes: `K` tensors, `l` rows, `c` columns, `n` size of the site, `q` basis functions.
References: {cite}`halko2011finding`, {cite}`mikhalev2018rectangular`.
"""

import math

import torch
from torch import Tensor

from cpic.tt._ledger import Reader
from cpic.tt._pivots import draw_points, extend_left, extend_right, take_blocks
from cpic.tt._sets import IndexSets, all_points, cap_ranks
from cpic.tt._train import TensorTrain

_WIDE = 32  # above this size of a mode one pass over the middle costs too much to make twice


class Oversampled:
    """One least squares search.

    Args:
        reader: Where the values come from.
        points: Multi-indices `(K, m, d)` to take columns from.
        values: What they hold `(K, m)`; larger ones are taken more often.
        ranks: Ranks of the result at the `d + 1` bonds.
        generator: Draws the columns.
        budget: Largest number of entries of one tensor to ask for, about; by default six times
            as many rows as the rank, in wide modes two and a half times.
    """

    def __init__(
        self,
        reader: Reader,
        points: Tensor,
        values: Tensor,
        ranks: tuple[int, ...],
        generator: torch.Generator,
        *,
        budget: int | None = None,
    ):
        self.reader, self.sizes, self.generator = reader, reader.sizes, generator
        self.points, self.weights, self.ranks = points, values.abs(), ranks
        d, rank, self.wide = len(self.sizes), max(ranks), max(self.sizes) > _WIDE
        self.middle = (d - 1) // 2 if self.wide else 0
        self.n_rows = math.ceil((2.5 if self.wide else 6.0) * rank)
        if budget is not None:
            self.n_rows = rank + 1
            while self._cost(self.n_rows + 1) <= budget and self.n_rows < max(60, 12 * rank):
                self.n_rows += 1
        extra = min(2.0, max(1.0, self.n_rows / (2.5 * rank)))
        self.basis = cap_ranks(self.sizes, [math.ceil(extra * r) for r in ranks[1:-1]])

    def _cost(self, n_rows: int) -> int:
        """Entries that both passes ask for with so many rows to a fit."""
        d, before, after = len(self.sizes), [1], [1]
        for n in self.sizes[:-1]:
            before.append(min(n_rows, before[-1] * n))
        for n in self.sizes[:0:-1]:
            after.insert(0, min(n_rows, after[0] * n))
        total = 0
        for k, n in enumerate(self.sizes):
            to_right = math.prod(self.sizes[k + 1 :])
            drawn = self._count(n_rows, before[k])
            total += before[k] * n * (after[k] if k >= self.middle else min(drawn, to_right))
            if k > self.middle:
                total += (
                    after[k] * n * min(self._count(n_rows, after[k]), math.prod(self.sizes[:k]))
                )
        return total if d > 1 else self.sizes[0]

    def _count(self, n_rows: int, n_here: int) -> int:
        """Columns of a fit with `n_here` rows: wide ones with few rows are cheap, so take more."""
        return max(2 * n_rows // 3, n_rows**2 // (2 * n_here)) if self.wide else 2 * n_rows // 3

    def run(self) -> TensorTrain:
        """Both passes and the rounding."""
        d = len(self.sizes)
        middle = self.middle
        right, frames = self._right_parts(middle)
        left = self._empty()
        values = left.new_ones(left.shape[0], 1, 1, dtype=self.weights.dtype)
        cores = []
        for k, n in enumerate(self.sizes):
            columns = right[k] if k >= middle else self._columns(k, left.shape[1], side="right")
            fibers = self.reader.fibers(left, columns)
            core = fit(values, fibers.flatten(2)).unflatten(2, (n, -1))
            if k >= middle:
                core = fit(frames[k], core.flatten(1, 2).mT).mT.unflatten(1, (-1, n))
            if k == d - 1:
                cores.append(core)
                break
            basis = _leading(core.flatten(1, 2), self.basis[k + 1])
            cores.append(basis.unflatten(1, (-1, n)))
            values = torch.einsum("zlq,zqnp->zlnp", values, cores[-1]).flatten(1, 2)
            rows = repeated_rows(values, self.n_rows)
            left, values = extend_left(left, rows, n), take_blocks(values, rows)
        return TensorTrain(cores).round(max_rank=max(self.ranks))

    def _right_parts(self, middle: int) -> tuple[list[Tensor], list[Tensor]]:
        """Rows of the right bases of the sites from `middle` on, and their values there."""
        d = len(self.sizes)
        after = self._empty()
        values = after.new_ones(after.shape[0], 1, 1, dtype=self.weights.dtype)
        sets, frames = [after] * d, [values] * d
        for k in range(d - 1, middle, -1):
            n = self.sizes[k]
            before = self._columns(k, after.shape[1], side="left")
            fibers = self.reader.fibers(before, after)
            core = fit(values, fibers.flatten(1, 2).mT)  # (K, q, c n)
            core = core.unflatten(2, (-1, n)).permute(0, 3, 1, 2)  # (K, n, q, c)
            basis = _leading(core.flatten(1, 2), self.basis[k]).unflatten(1, (n, -1))
            values = torch.einsum("zcq,znqp->zncp", values, basis).flatten(1, 2)
            rows = repeated_rows(values, self.n_rows)
            after, values = extend_right(after, rows), take_blocks(values, rows)
            sets[k - 1], frames[k - 1] = after, values
        return sets, frames

    def _columns(self, site: int, n_rows: int, *, side: str) -> Tensor:
        """Multi-indices of the other side: all of them if they are few, else drawn ones."""
        part = slice(None, site) if side == "left" else slice(site + 1, None)
        sizes = self.sizes[part]
        count = self._count(self.n_rows, n_rows)
        if math.prod(sizes) <= count:
            whole = all_points(sizes, device=self.points.device)
            return whole.expand(len(self.points), -1, -1)
        return draw_points(self.points, self.weights, count, self.generator)[..., part]

    def _empty(self) -> Tensor:
        return self.points.new_zeros(len(self.points), 1, 0)


def fit(frame: Tensor, values: Tensor) -> Tensor:
    """Least squares solution X of `frame @ X = values` for a tall frame of full column rank."""
    q, r = torch.linalg.qr(frame)
    return torch.linalg.solve_triangular(r, q.mT @ values, upper=True)


def repeated_rows(matrix: Tensor, n_rows: int) -> Tensor:
    """Rows `(K, n_rows)` by elimination, again and again among those that are left."""
    k, m, r = matrix.shape
    if n_rows >= m:
        return torch.arange(m, device=matrix.device).expand(k, m)
    rest, chosen, missing = matrix.clone(), [], n_rows
    while missing:
        swaps = torch.linalg.lu_factor_ex(rest).pivots
        rows = _top_rows(swaps, m)[:, : min(r, missing)]
        rest.scatter_(1, rows[..., None].expand(-1, -1, r), 0.0)
        chosen.append(rows)
        missing -= rows.shape[1]
    return torch.cat(chosen, 1)


def _top_rows(swaps: Tensor, m: int) -> Tensor:
    """The rows that row exchanges (counted from one) move to the top, `(K, r)`."""
    order = torch.arange(m, device=swaps.device).repeat(len(swaps), 1)
    for step, there in enumerate((swaps.long() - 1).split(1, 1)):
        here = order[:, step : step + 1].clone()
        order[:, step : step + 1] = order.gather(1, there)
        order.scatter_(1, there, here)
    return order[:, : swaps.shape[1]]


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """Leading left singular vectors, at most `rank` and none that is zero in the whole batch."""
    vectors, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    floor = sizes[:, :1] * (100 * torch.finfo(sizes.dtype).eps)
    alive = int(((sizes > floor) & (sizes > 0)).sum(1).max())
    return vectors[..., : max(1, min(rank, alive))]


def sets_of(train: TensorTrain, *, n_columns: int) -> IndexSets:
    """Nested sets at which a train is well determined, with more right than left multi-indices.

    Args:
        train: K trains.
        n_columns: Right multi-indices of a bond, at least the rank of the train there.
    """
    cores, sizes = train.cores, train.sizes
    d = len(sizes)
    empty = torch.zeros(len(cores[0]), 1, 0, dtype=torch.int64, device=cores[0].device)
    left, right = [empty] * d, [empty] * d
    values = cores[0].new_ones(len(empty), 1, 1)
    for k in range(d - 1, 0, -1):
        values = torch.einsum("zlnr,zcr->zncl", cores[k], values).flatten(1, 2)
        rows = repeated_rows(values, max(n_columns, values.shape[2]))
        right[k - 1], values = extend_right(right[k], rows), take_blocks(values, rows)
    values = cores[0].new_ones(len(empty), 1, 1)
    for k in range(d - 1):
        values = torch.einsum("zml,zlnr->zmnr", values, cores[k]).flatten(1, 2)
        rows = repeated_rows(values, min(values.shape[1:]))
        left[k + 1] = extend_left(left[k], rows, sizes[k])
        values = take_blocks(values, rows)
    return IndexSets(sizes, tuple(left), tuple(right))
