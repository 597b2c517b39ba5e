r"""Select more rows than columns, so that a least-squares fit to them is stable.

With C = A pinv(A[S]) for rows S, adding row i to S multiplies det(A[S]^T A[S]) by 1 + |C_i|^2.
Starting from the rows of `maxvol`, the row with the largest |C_i| is added until there are
enough, and C is computed by a rank-one update:

    C <- [C - (C c^T) c / (1 + |c|^2),  C c^T / (1 + |c|^2)],   c = C_i.

Shapes: `m` rows to select from, `r` columns, `*b` independent problems.
References: {cite}`mikhalev2018rectangular`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from cpic.linalg._maxvol import Maxvol, maxvol, take_rows


class RectMaxvol(Maxvol):
    """What `rect_maxvol` found.

    `rows` int64 `(*b, n_rows)`, `coeffs` `(*b, m, n_rows)`, and `converged` and `rank` `(*b)` of
    `maxvol` for the initial rows.
    """


def rect_maxvol(
    matrix: Tensor,
    *,
    n_rows: int,
    tol: float = 1.05,
    max_iters: int = 100,
    on_deficient: Literal["raise", "report"] = "raise",
) -> RectMaxvol:
    r"""Select `n_rows >= r` rows of each matrix that determine all others stably.

    The first `r` rows are those of `maxvol`; the others are added one by one, each the one whose
    coefficients have the largest norm {cite}`mikhalev2018rectangular`. With twice as many rows as
    columns the norms of the coefficients are at most about sqrt(r / (n_rows - r + 1)).

    The choice carries no gradient. With `on_deficient="raise"` the coefficients are a
    least-squares solution in the selected rows and are differentiable; with `"report"` they are
    those of the search and carry none.

    Args:
        matrix: The matrices to select from, `(*b, m, r)` with `m >= r`, float32 or float64.
        n_rows: Number of rows to select, from `r` to `m`.
        tol: Upper bound on the coefficients of the first `r` rows, at least 1.
        max_iters: Maximum number of swaps among the first `r` rows.
        on_deficient: `"raise"` an error if a matrix has rank below `r`, or `"report"` it.

    Returns:
        Distinct `rows`, in the order of selection, and `coeffs` of least norm with
        `coeffs @ matrix[rows] == matrix`; `converged` and `rank` of the first `r` rows.

    Raises:
        ValueError: If `n_rows` is out of range, or for the same reasons as in `maxvol`.
        RankDeficientError: If a matrix has rank below `r` in its dtype, unless reported.

    Example:
        >>> points = torch.linspace(-1, 1, 9)
        >>> rect_maxvol(torch.vander(points, 2), n_rows=4).rows.sort().values  # both ends
        tensor([0, 1, 7, 8])
    """
    *batch, m, r = matrix.shape
    if m >= r and not r <= n_rows <= m:
        raise ValueError(
            f"rect_maxvol needs `n_rows` from {r} to {m}, the columns and rows of the matrix, got "
            f"{n_rows}; clamp it to that range."
        )
    found = maxvol(matrix, tol=tol, max_iters=max_iters, on_deficient=on_deficient)
    flat = matrix.reshape(math.prod(batch), m, r)
    with torch.no_grad():
        start = found.coeffs.detach().reshape(flat.shape)
        rows, coeffs = _grow(found.rows.reshape(len(flat), r), start, n_rows)
    if on_deficient == "raise":
        frame, triangle = torch.linalg.qr(take_rows(flat, rows))
        solved = torch.linalg.solve_triangular(triangle, flat, upper=True, left=False)
        coeffs = solved @ frame.mT
    return RectMaxvol(
        rows.reshape(*batch, n_rows),
        coeffs.reshape(*batch, m, n_rows),
        found.converged,
        found.rank,
    )


def _grow(rows: Tensor, start: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Add rows until there are `n_rows`; each adds a column to the coefficients."""
    b, m, r = start.shape
    coeffs = start.new_zeros(b, m, n_rows)
    coeffs[..., :r] = start
    rows = torch.nn.functional.pad(rows, (0, n_rows - r))
    norms = start.square().sum(-1).scatter(1, rows[:, :r], -torch.inf)
    for k in range(r, n_rows):
        largest, row = norms.max(-1, keepdim=True)
        chosen = take_rows(coeffs, row)
        along = coeffs @ chosen.mT
        share = along / (1 + largest.unsqueeze(-1))
        coeffs.baddbmm_(share, chosen, alpha=-1)
        coeffs[..., k] = share.squeeze(-1)
        norms -= (along * share).squeeze(-1)
        norms.scatter_(1, row, -torch.inf)
        rows[:, k] = row.squeeze(1)
    return rows, coeffs
