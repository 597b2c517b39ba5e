r"""Approximate matrices by the rows and columns of a few large pivots.

Gaussian elimination with a pivot (i, j) of the residual E subtracts a matrix of rank one and
leaves zeros in row i and column j:

    E <- E - E[:, j] E[i, :] / E[i, j].

After k steps A ~ left @ right, exactly so in the selected rows and columns. The full search takes
the largest entry of E; the rook search an entry that is the largest of its row and its column,
for which it evaluates only a few rows and columns.

Shapes: `m` rows, `n` columns, `k` pivots, `*b` independent problems.
References: {cite}`dolgov2020parallel`, {cite}`nunez2025learning`.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cpic.linalg._inputs import check_choice, check_finite, check_least, need_generator

_ROOK_STARTS, _ROOK_ROUNDS = 4, 10
# Number of steps of an elimination before the first test of whether it is done.
_UNSEEN = 31


class RankRevealingLU(NamedTuple):
    """What `rank_revealing_lu` found, with k the largest rank of the batch.

    `rows`, `cols` int64 `(*b, k)` and `pivots` `(*b, k)`, in the order of selection, padded
    with -1 and 0 beyond `rank` int64 `(*b)`; `left` `(*b, m, k)`, `right` `(*b, k, n)`;
    `residual` `(*b)`, the largest absolute entry of `matrix - left @ right`.
    """

    rows: Tensor
    cols: Tensor
    pivots: Tensor
    rank: Tensor
    left: Tensor
    right: Tensor
    residual: Tensor


def rank_revealing_lu(
    matrix: Tensor,
    *,
    max_rank: int | None = None,
    tol: float = 0.0,
    search: Literal["full", "rook"] = "full",
    generator: torch.Generator | None = None,
) -> RankRevealingLU:
    r"""Factor each matrix by its largest pivots, until they are small.

    A matrix is done when its next pivot is at most `tol` times its first, or at rounding level.
    The result carries no gradient: the choice of pivots is piecewise constant, and differentiable
    factors can be computed from `matrix[rows]` and `matrix[:, cols]`.

    Args:
        matrix: The matrices, `(*b, m, n)`, float32 or float64.
        max_rank: Upper bound on the number of pivots; None for `min(m, n)`.
        tol: Pivots of at most this fraction of the first are not used; at least 0.
        search: `"full"` compares all entries for each pivot; `"rook"` alternates between the
            largest entry of a column and of a row until both agree.
        generator: Draws the initial rows of the rook search; required only there.

    Returns:
        Pivots, factors, the numerical rank of each matrix and the largest error of an entry.

    Raises:
        ValueError: If an argument is out of range, a value is not finite, or the rook search
            has no generator.

    Example:
        >>> x = torch.arange(1.0, 5.0)
        >>> found = rank_revealing_lu(x[:, None] * x + x[:, None])
        >>> found.rank, found.rows, found.cols
        (tensor(1), tensor([3]), tensor([3]))
    """
    *batch, m, n = _check(matrix, max_rank, tol, search)
    flat = matrix.detach().reshape(math.prod(batch), m, n)
    most = min(m, n) if max_rank is None else min(m, n, max_rank)
    who = 'rank_revealing_lu with search="rook"'
    finder = _Full(flat) if search == "full" else _Rook(flat, need_generator(who, generator))
    state = _eliminate(flat, most, max(tol, max(m, n) * torch.finfo(flat.dtype).eps), finder)
    return RankRevealingLU(*(part.reshape((*batch, *part.shape[1:])) for part in state))


def _check(matrix, max_rank, tol, search) -> torch.Size:
    who = "rank_revealing_lu"
    check_least(who, "pass None for no bound", max_rank=max_rank)
    check_least(who, "0 stops at rounding level", least=0, tol=tol)
    check_choice(who, "search", search, ("full", "rook"), '"full" finds the largest pivots')
    check_finite(who, matrix)
    return matrix.shape


class _Full:
    """Stores the whole residual and selects its largest entry."""

    waits = False  # whether every step synchronizes with the device, or draws random numbers

    def __init__(self, matrix: Tensor):
        self.residual = matrix.clone()

    def __call__(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        b, _, n = self.residual.shape
        if left.shape[-1]:
            self.residual.baddbmm_(left[..., -1:], right[:, -1:], alpha=-1)
        where = self.residual.abs().flatten(1).argmax(-1)
        row, col = where // n, where % n
        each = torch.arange(b, device=where.device)
        return row, col, self.residual[each, :, col], self.residual[each, row]


class _Rook:
    """Evaluates the residual of one row or column at a time."""

    waits = True

    def __init__(self, matrix: Tensor, generator: torch.Generator):
        self.matrix, self.generator = matrix, generator
        self.each = torch.arange(len(matrix), device=matrix.device)
        self.fresh = torch.ones(matrix.shape[:2], dtype=torch.bool, device=matrix.device)

    def __call__(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        b, m, n = self.matrix.shape
        # The residual of pivot rows is zero, and would end the search too early.
        where = self.generator.device
        draw = torch.rand(b, m, generator=self.generator, device=where).to(left.device) + self.fresh
        start = draw.topk(min(_ROOK_STARTS, m)).indices
        each = self.each.unsqueeze(1)
        rows = self.matrix[each, start] - left[each, start] @ right
        col = rows.abs().flatten(1).argmax(-1) % n
        row = along_row = along_col = col
        for _ in range(_ROOK_ROUNDS):
            along_col = self._col(col, left, right)
            row = along_col.abs().argmax(-1)
            along_row = self._row(row, left, right)
            size, next_col = along_row.abs().max(-1)
            # Only a strictly larger entry is accepted, so that ties cannot cause a cycle.
            better = size > along_col[self.each, row].abs()
            if not better.any():
                break
            col = torch.where(better, next_col, col)
        else:
            along_col = self._col(col, left, right)
        self.fresh[self.each, row] = False
        return row, col, along_col, along_row

    def _row(self, row: Tensor, left: Tensor, right: Tensor) -> Tensor:
        known = (left[self.each, row].unsqueeze(1) @ right).squeeze(1)
        return self.matrix[self.each, row] - known

    def _col(self, col: Tensor, left: Tensor, right: Tensor) -> Tensor:
        known = (left @ right[self.each, :, col].unsqueeze(-1)).squeeze(-1)
        return self.matrix[self.each, :, col] - known


def _eliminate(matrix: Tensor, most: int, tol: float, finder) -> tuple[Tensor, ...]:
    b, m, n = matrix.shape
    steps = []
    left, right = matrix.new_zeros(b, m, 0), matrix.new_zeros(b, 0, n)
    floor = active = None
    for k in range(most if matrix.numel() else 0):
        row, col, along_col, along_row = finder(left, right)
        pivot = along_row.gather(1, col.unsqueeze(1)).squeeze(1)
        if floor is None or active is None:
            floor, active = tol * pivot.abs(), torch.ones_like(pivot, dtype=torch.bool)
        active = active & (pivot.abs() > floor)
        # Steps beyond the rank add zeros; a few of them cost less than a read from the device.
        if (finder.waits or (k > _UNSEEN and k & (k - 1) == 0)) and not active.any():
            break
        scaled = along_col * torch.where(active, 1 / pivot, 0.0).unsqueeze(1)
        left = torch.cat([left, scaled.unsqueeze(-1)], dim=-1)
        right = torch.cat([right, (along_row * active.unsqueeze(1)).unsqueeze(1)], dim=1)
        steps.append([torch.where(active, x, y) for x, y in ((row, -1), (col, -1), (pivot, 0.0))])
    error = (matrix - left @ right).abs().flatten(1)
    error = error.amax(-1) if error.shape[1] else matrix.new_zeros(b)
    if steps:
        rows, cols, pivots = (torch.stack(found, -1) for found in zip(*steps, strict=True))
        most = int((rows >= 0).sum(-1).max())
        rows, cols, pivots, left = (part[..., :most] for part in (rows, cols, pivots, left))
        right = right[:, :most]
    else:
        pivots = matrix.new_zeros(b, 0)
        rows = cols = pivots.long()
    return rows, cols, pivots, (rows >= 0).sum(-1), left, right, error
