r"""Increase the ranks of a cross-approximation bond by bond until the tolerance is met.

Left and right sets only grow, and so do the blocks of fibers between them: a round requests
only new entries. Points where the train is wrong give new columns; the rows they need are
found by elimination in the residual of the old rows. A bond that has used all its columns gets as
many again; one with unused columns gets few.

Shapes: `K` tensors, `l` left and `c` right multi-indices at a site of size `n`.
References: {cite}`ritter2024quantics`, {cite}`savostyanov2014quasioptimality`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.linalg._maxvol import take_rows
from cpic.tt._fibers import fiber_indices, product
from cpic.tt._ledger import Reader
from cpic.tt._pivots import extend_left, leading_rows
from cpic.tt._points import all_points
from cpic.tt._sets import IndexSets
from cpic.tt._solvers import solve_core
from cpic.tt._train import TensorTrain

_NARROW = 4  # sizes of modes whose fibers share much with those of the next site


class _Block(NamedTuple):
    """Multi-indices `(K, m, d)` to request, and a function from their values to `(K, l, n, c)`."""

    indices: Tensor
    fill: Callable[[Tensor], Tensor]


class AdaptiveSearch:
    """The state of a search with growing sets.

    Args:
        reader: Source of the values.
        ranks: Largest ranks of the `d + 1` bonds.
        n_trains: Number of tensors K.
        generator: Mixes columns.
        sets: Sets whose right ones are the initial ones; by default there are none, and
            `add` must supply some.
    """

    def __init__(
        self,
        reader: Reader,
        ranks: tuple[int, ...],
        n_trains: int,
        generator: torch.Generator,
        sets: IndexSets | None = None,
    ):
        self.reader, self.ranks, self.generator = reader, ranks, generator
        self.sizes = reader.sizes
        d, device = len(reader.sizes), reader.weights.device

        def empty(rows: int, sites: int) -> Tensor:
            return torch.zeros(n_trains, rows, sites, dtype=torch.int64, device=device)

        self.left = [empty(k == 0, k) for k in range(d)]
        self.right = [empty(k == d - 1, d - 1 - k) for k in range(d)]
        if sets is not None:
            self.right = list(sets.right)
        self.rows = [torch.zeros(n_trains, 0, dtype=torch.int64, device=device)] * d
        self.fibers = [torch.empty(n_trains, 0, n, 0) for n in self.sizes]
        self.cores: list[Tensor] = [torch.empty(0)] * d
        self.floor: Tensor | None = None

    def round(self, floor: Tensor) -> TensorTrain:
        """A half-sweep to the right that retains the old rows and adds those above `floor`."""
        lowered = self.floor is None or bool((floor < self.floor).any())
        self.floor = floor
        last = len(self.sizes) - 1
        for k in range(last):
            if self._read(k) or lowered:
                self._choose(k, floor)
        self._read(last)
        self.cores[last] = self.fibers[last]
        return TensorTrain(self.cores)

    def _read(self, site: int) -> bool:
        """Request the new entries of a site in one call; false if there are none."""
        old, left, right = self.fibers[site], self.left[site].shape[1], self.right[site].shape[1]
        rows, columns = old.shape[1::2]
        blocks = []
        if rows and columns < right:
            blocks.append(self._block(site, slice(0, rows), slice(columns, None)))
        if rows < left:
            blocks.append(self._block(site, slice(rows, None), slice(None)))
        if not blocks:
            return False
        indices = [block.indices for block in blocks]
        asked = self.reader.points(torch.cat(indices, 1)).split([i.shape[1] for i in indices], 1)
        found = [block.fill(values) for block, values in zip(blocks, asked, strict=True)]
        if rows and columns < right:
            old = torch.cat([old, found[0]], 3)
        if rows < left:
            old = torch.cat([old, found[-1]], 1) if rows else found[-1]
        self.fibers[site] = old
        return True

    def _block(self, site: int, rows: slice, columns: slice) -> "_Block":
        """What to request for the values on some left and right multi-indices of a site."""
        left, right, n = self.left[site][:, rows], self.right[site][:, columns], self.sizes[site]
        shape = (left.shape[1], n, right.shape[1])
        if site == 0 or n > _NARROW:
            return _Block(fiber_indices(left, n, right), lambda asked: asked.unflatten(1, shape))
        # The pivots of the previous bond also lie on these fibers: half of them if n is two.
        place, known = self._pivots(site, right)
        known, cells = known[:, rows], n * right.shape[1]
        there = place.new_zeros(len(place), cells + 1, dtype=torch.uint8).scatter_(1, place, 1)
        there = there[:, :cells]
        missing = there.argsort(dim=1, stable=True)[:, : cells - int(there.sum(1).min())]
        tails = take_rows(fiber_indices(right[:, :1, :0], n, right), missing)

        def fill(asked: Tensor) -> Tensor:
            asked = asked.unflatten(1, (shape[0], -1))
            values = asked.new_zeros(*known.shape[:2], cells + 1)
            values.scatter_(2, place[:, None].expand_as(known), known)
            values.scatter_(2, missing[:, None].expand_as(asked), asked)
            return values[..., :cells].unflatten(2, shape[1:])

        return _Block(product(left, tails), fill)

    def _pivots(self, site: int, right: Tensor) -> tuple[Tensor, Tensor]:
        """Positions `(K, c)` in [n] x right of the columns of the previous bond, and their values.

        A column that does not extend one of `right` gets the position after the last.
        """
        before, weights = self.right[site - 1], self.reader.weights[site + 1 :]
        marks = (before[..., 1:] * weights).sum(-1)[:, :, None]
        extends = marks == (right * weights).sum(-1)[:, None]
        found, parent = extends.to(torch.uint8).max(-1)
        count = right.shape[1]
        place = torch.where(found > 0, before[..., 0] * count + parent, count * self.sizes[site])
        return place, take_rows(self.fibers[site - 1].flatten(1, 2), self.rows[site - 1])

    def _choose(self, site: int, floor: Tensor) -> None:
        """Add rows that the old ones do not represent, and solve for the core."""
        matrix, rows = self.fibers[site].flatten(1, 2), self.rows[site]
        pivot = take_rows(matrix, rows)
        factors = torch.linalg.qr(pivot.mT) if rows.shape[1] else None
        room = min(self.ranks[site + 1], *matrix.shape[1:]) - rows.shape[1]
        if room > 0:
            residual = matrix
            if factors is not None:
                frame = factors[0]
                residual = torch.baddbmm(matrix, torch.bmm(matrix, frame), frame.mT, alpha=-1)
            new = leading_rows(residual, room, floor, self.generator)
            if factors is None and not new.shape[1]:  # all zero, but a bond needs a row
                new = rows.new_zeros(len(rows), 1)
            if new.shape[1]:
                self.rows[site] = rows = torch.cat([rows, new], 1)
                grown = extend_left(self.left[site], new, self.sizes[site])
                self.left[site + 1] = torch.cat([self.left[site + 1], grown], 1)
                pivot, factors = take_rows(matrix, rows), None
        core = _core(matrix, pivot, factors or torch.linalg.qr(pivot.mT))
        self.cores[site] = core.unflatten(1, (-1, self.sizes[site]))

    def add(self, points: Tensor) -> bool:
        """Add the right parts of `points` `(K, n, d)`, best first, at bonds that need columns."""
        sizes, weights = self.sizes, self.reader.weights
        marks = (points * weights).flip(-1).cumsum(-1).flip(-1)  # of the parts from a site on
        marks, grown = marks.mT.tolist(), False
        for k in range(len(sizes) - 1):
            count, have = self._wanted(k), self.right[k].shape[1]
            if count < 1:
                continue
            tails, whole = points[..., k + 1 :], math.prod(sizes[k + 1 :])
            found = [row[k + 1] for row in marks]
            if have + count >= whole:
                count = whole - have
                tails = all_points(sizes[k + 1 :], device=points.device)
                tails = tails.expand(len(points), -1, -1)
                found = (tails * weights[k + 1 :]).sum(-1).tolist()
            old = (self.right[k] * weights[k + 1 :]).sum(-1).tolist()
            new = torch.tensor(first_new(found, old, count), device=points.device)
            if not new.shape[1]:
                continue
            self.right[k], grown = torch.cat([self.right[k], take_rows(tails, new)], 1), True
        return grown

    def _wanted(self, bond: int) -> int:
        """How many more columns a bond needs."""
        rank, have, most = self.rows[bond].shape[1], self.right[bond].shape[1], self.ranks[bond + 1]
        if rank >= most:
            return 0
        if rank == have:
            return max(1, min(4, most) - have, have) if have else 1
        return max(2, rank // 2)

    def sets_now(self) -> Callable[[], IndexSets]:
        """A function that creates the sets of this round: at most as many left as right ones."""
        return partial(IndexSets.unchecked, self.sizes, tuple(self.left), tuple(self.right))


def _core(matrix: Tensor, pivot: Tensor, factors: tuple[Tensor, Tensor]) -> Tensor:
    """The core X `(K, m, r)` that minimizes |X pivot - matrix|, with the QR factors of pivot^T."""
    frame, corner = factors
    low, high = corner.diagonal(dim1=1, dim2=2).abs().aminmax(dim=1)
    if bool((low > 1e4 * torch.finfo(low.dtype).eps * high).all()):
        target = torch.bmm(matrix, frame)
        return torch.linalg.solve_triangular(corner.mT, target, upper=False, left=False)
    return solve_core(matrix, pivot, solver="qr")  # slower, but lowers the rank


def first_new(marks: list[list[int]], old: list[list[int]], count: int) -> list[list[int]]:
    """Positions `(K, c)` of the first `count` distinct `marks` `(K, n)` that are not in `old`.

    There may be fewer; if other tensors of the batch have more, position 0 is repeated.
    """
    chosen = []
    for row, known in zip(marks, map(set, old), strict=True):
        first: dict[int, int] = {}
        for place, mark in enumerate(row):
            if len(first) == count:
                break
            if mark not in known:
                first.setdefault(mark, place)
        chosen.append(list(first.values()))
    most = max(map(len, chosen), default=0)
    return [places + [0] * (most - len(places)) for places in chosen]
