r"""Select rows of a tall matrix that span its row space stably.

Given A of shape (m, r) with m >= r, find r rows S such that no entry of C = A A[S]^{-1} exceeds
`tol` in absolute value. Then A = C A[S], the rows S of C are the identity, and |det A[S]| is
within a factor tol^r r^(r/2) of the largest over all choices of r rows.

The search starts from the rows that Gaussian elimination with partial pivoting moves to the top.
With A = P L U and L1 the top block of L, the first coefficients are P L L1^{-1}: they need no
division by a pivot of U, so they exist and are bounded also for a rank-deficient A.

Shapes: `m` rows to select from, `r` columns, `*b` independent problems.
References: {cite}`goreinov2010how`, {cite}`oseledets2010ttcross`.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpic._errors import RankDeficientError
from cpic.linalg._inputs import check_choice, check_least

# Size up to which matrices on a GPU are searched on the host; above it, transfers cost more.
_HOST = 2**18


class Maxvol(NamedTuple):
    """What `maxvol` found.

    `rows` int64 `(*b, r)`, `coeffs` `(*b, m, r)`, `converged` bool `(*b)`, `rank` int64 `(*b)`:
    the number of pivots of the elimination above rounding level.
    """

    rows: Tensor
    coeffs: Tensor
    converged: Tensor
    rank: Tensor


def maxvol(
    matrix: Tensor,
    *,
    tol: float = 1.05,
    max_iters: int = 100,
    on_deficient: Literal["raise", "report"] = "raise",
) -> Maxvol:
    r"""Select `r` rows of each matrix whose submatrix has nearly maximal volume.

    Starts from the rows selected by partial pivoting, then swaps the row with the largest
    coefficient into the selection until no coefficient exceeds `tol` {cite}`goreinov2010how`.
    Every swap multiplies the submatrix volume by more than `tol`, so the search cannot cycle.

    The choice of rows is piecewise constant in `matrix` and carries no gradient. With
    `on_deficient="raise"` the coefficients are the solution of one linear system in the selected
    rows and are differentiable; with `"report"` they are those of the search and carry none.

    Args:
        matrix: The matrices to select from, `(*b, m, r)` with `m >= r`, float32 or float64.
        tol: Upper bound on the absolute value of the coefficients, at least 1.
        max_iters: Maximum number of swaps in each matrix of the batch.
        on_deficient: Action if a matrix has rank below `r`: `"raise"` an error, or
            `"report"` the rank of each matrix in `rank` and return bounded coefficients that
            still satisfy `coeffs @ matrix[rows] == matrix` to rounding.

    Returns:
        The selected `rows`, in no particular order; `coeffs`; `converged`, false if
        `max_iters` was reached before `tol`, or the matrix is not finite; and `rank`.

    Raises:
        ValueError: If `matrix` is not tall, or `tol < 1`, or `on_deficient` is unknown.
        RankDeficientError: If a matrix has rank below `r` in its dtype, unless reported.

    Example:
        >>> points = torch.linspace(-1, 1, 9)
        >>> maxvol(torch.vander(points, 3)).rows.sort().values  # both ends, the middle
        tensor([0, 4, 8])
    """
    *batch, m, r = _check(matrix, tol, on_deficient)
    flat = matrix if len(batch) == 1 else matrix.reshape(math.prod(batch), m, r)
    with torch.no_grad():
        # For small matrices, the host is faster than the launch of each operation on a GPU.
        searched = (flat.detach() if flat.requires_grad else flat).contiguous()
        if flat.numel() <= _HOST:
            searched = searched.cpu()
        rows, coeffs, rank = _eliminate(searched)
        if on_deficient == "raise" and (short := int((rank < r).sum())):
            raise RankDeficientError(
                f"maxvol needs full column rank {r}, but {short} of {len(flat)} matrices have a "
                'lower one; truncate the columns first, or pass on_deficient="report". See "Rank '
                'deficiency is normal" in chapter 5 of the book.'
            )
        found = (rows, coeffs, _swap(rows, coeffs, tol, max_iters), rank)
        rows, coeffs, converged, rank = (part.to(flat.device) for part in found)
    if on_deficient == "raise":
        coeffs = torch.linalg.solve_ex(take_rows(flat, rows), flat, left=False).result
    if len(batch) == 1:
        return Maxvol(rows, coeffs, converged, rank)
    return Maxvol(
        rows.reshape(*batch, r),
        coeffs.reshape(*batch, m, r),
        converged.reshape(batch),
        rank.reshape(batch),
    )


def _check(matrix: Tensor, tol: float, on_deficient: str) -> torch.Size:
    if matrix.ndim < 2 or matrix.shape[-2] < matrix.shape[-1]:
        raise ValueError(
            "maxvol needs at least as many rows as columns, got shape "
            f"{tuple(matrix.shape[-2:])}; to select columns pass `matrix.mT`."
        )
    check_least("maxvol", "1.05 is a good choice", tol=tol)
    advice = 'choose "report" to get the rank of each matrix instead of an error'
    check_choice("maxvol", "on_deficient", on_deficient, ("raise", "report"), advice)
    return matrix.shape


def take_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Rows `(b, k)` of matrices `(b, m, r)`, differentiable in the matrices."""
    return matrix.gather(1, rows.unsqueeze(-1).expand(-1, -1, matrix.shape[-1]))


def _eliminate(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, coefficients and rank of an elimination with partial pivoting."""
    b, m, r = matrix.shape
    factors, swaps, _ = torch.linalg.lu_factor_ex(matrix)
    top, rest = factors.split((r, m - r), 1)
    below = torch.linalg.solve_triangular(top, rest, upper=False, left=False, unitriangular=True)
    coeffs, filled = _empty(matrix, b, m, r)
    order = _order(swaps, m)
    rows = torch.from_numpy(np.ascontiguousarray(order[:, :r])).to(matrix.device)
    xp, (factors, below) = _arrays(factors, below)
    places = order if xp is np else torch.from_numpy(order).to(matrix.device)
    each, columns = _numbers(xp, b, matrix)[:, None], _numbers(xp, r, matrix)
    diagonal = abs(factors[:, columns, columns])
    floor = m * torch.finfo(matrix.dtype).eps * xp.amax(diagonal, -1, keepdims=True) if r else 0
    rank = r - (diagonal <= floor).sum(-1)  # so that a NaN does not count as deficiency
    filled[each, places[:, :r]] = 0.0
    filled[each, places[:, :r], columns] = 1.0
    filled[each, places[:, r:]] = below
    return rows, coeffs, torch.as_tensor(rank)


def _arrays(*tensors: Tensor) -> tuple[Any, tuple[Any, ...]]:
    """Tensors as NumPy arrays that share their memory if it is on the host, else the tensors.

    Both are indexed alike, and NumPy operations on a few numbers are several times faster.
    """
    if all(map(_on_host, tensors)):
        return np, tuple(tensor.numpy() for tensor in tensors)
    return torch, tensors


def _on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _empty(like: Tensor, *shape: int) -> tuple[Tensor, Any]:
    """New memory as a tensor, and as `_arrays` gives it."""
    if not _on_host(like):
        return (made := like.new_empty(shape)), made
    array = np.empty(shape, np.float32 if like.dtype == torch.float32 else np.float64)
    return torch.from_numpy(array), array


def _numbers(xp: Any, n: int, like: Tensor) -> Any:
    """The first `n` whole numbers from zero."""
    return np.arange(n) if xp is np else torch.arange(n, device=like.device)


def row_order(swaps: Tensor, m: int) -> Tensor:
    """The order of the rows `(b, m)` after a sequence of swaps `(b, r)`, counted from one."""
    return torch.from_numpy(_order(swaps, m)).to(swaps.device)


def _order(swaps: Tensor, m: int) -> np.ndarray:
    # In NumPy: each step copies a few numbers twice, for which torch has too much overhead.
    order = np.tile(np.arange(m), (len(swaps), 1))
    each = np.arange(len(swaps))
    moves = swaps if _on_host(swaps) else swaps.cpu()
    for k, there in enumerate(moves.numpy().T - 1):
        here = order[:, k].copy()
        order[:, k] = order[each, there]
        order[each, there] = here
    return order


def _swap(rows: Tensor, coeffs: Tensor, tol: float, max_iters: int) -> Tensor:
    """Swap rows in place while a coefficient exceeds `tol`; a swap is a rank-one update.

    Matrices without such a coefficient do not change while others of the batch swap, so
    infrequent tests of whether all are done suffice.
    """
    b, m, r = coeffs.shape
    if not coeffs.numel():
        return torch.ones(b, dtype=torch.bool, device=coeffs.device)
    (column_of, there), (row_of, update) = _empty(coeffs, b, m, 1), _empty(coeffs, b, 1, r)
    xp, (chosen, table) = _arrays(rows, coeffs)
    flat, each = table.reshape(b, m * r), _numbers(xp, b, coeffs)
    with np.errstate(all="ignore"):
        for k in range(max_iters):
            where = abs(flat).argmax(-1)
            pivot = flat[each, where]
            active = abs(pivot) > tol
            if (xp is np or k & (k - 1) == 0) and not active.any():
                break
            row, column = where // r, where % r
            before = chosen[each, column]
            chosen[each, column] = before + active * (row - before)
            there[..., 0], update[:, 0] = table[each, :, column], table[each, row]
            update[each, 0, column] -= 1.0
            update *= (active / pivot)[:, None, None]
            coeffs.baddbmm_(column_of, row_of, alpha=-1)
        return torch.as_tensor(xp.amax(abs(flat), -1) <= tol)
