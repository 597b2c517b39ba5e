r"""Turn index sets and the entries they name into the cores of a train.

With the fibers V_k of site k as a matrix M_k of (l_k n_k) rows and r_{k+1} columns, and the pivots
P_k = f(left[k+1], right[k]), the cores are G_k = M_k P_k^{-1} and the last one is V_{d-1} itself.
With nested sets the train equals f on every fiber. Where a bond has more right than left
multi-indices, G_k solves G_k P_k = M_k in the sense of least squares.

P_k may be singular (a constant tensor, a zero background). Then the rank of that bond is lowered
for that tensor alone: complete pivoting finds rows I and columns J with a regular P[I, J], the
core is M[:, J] P[I, J]^{-1} in the columns I and zero in the others.

Shapes: `K` tensors, `l`, `r` ranks left and right of a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

import torch
from torch import Tensor

from cpic.tt._entries import Entries
from cpic.tt._fibers import ask, fiber_indices
from cpic.tt._sets import IndexSets
from cpic.tt._train import TensorTrain


def interpolate(entries: Entries, sets: IndexSets, *, rtol: float | None = None) -> TensorTrain:
    r"""The train that agrees with a tensor on the fibers of nested index sets.

    All fibers of all sites are asked for in one call of `entries`. Differentiable in what
    `entries` returns, also twice; the sets carry no gradient {cite}`oseledets2010ttcross`.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to values `(K, n)`.
        sets: Where to read, for the same K; `result.sets` of `cross` fits.
        rtol: Pivots below `rtol` times the largest of their bond count as zero, which lowers the
            rank there. By default 100 times the rounding unit of the values.

    Returns:
        K trains with ranks `sets.ranks`. Never NaN for finite values: deficient bonds are
        padded with zeros.

    Raises:
        ValueError: If `entries` returns another shape, complex, NaN or infinite values, or a
            bond has fewer right than left multi-indices.

    Example:
        >>> from cpic.tt import IndexSets
        >>> sets = IndexSets.random((5, 5), 2, generator=torch.Generator().manual_seed(0))
        >>> train = interpolate(lambda i: 1.0 + i[..., 0] * i[..., 1], sets)
        >>> round(float(train.full()[0, 3, 4]), 6)
        13.0
    """
    sizes, d = sets.sizes, sets.n_sites
    for k in range(d - 1):
        if sets.right[k].shape[1] < sets.left[k + 1].shape[1]:
            raise ValueError(
                f"interpolate needs at least as many right as left multi-indices at bond {k + 1}, "
                f"got {sets.right[k].shape[1]} and {sets.left[k + 1].shape[1]}; drop left ones."
            )
    blocks = [fiber_indices(sets.left[k], n, sets.right[k]) for k, n in enumerate(sizes)]
    positions = [_positions(sets.left[k], sets.left[k + 1]) for k in range(d - 1)]
    for k, where in enumerate(positions):
        if where is None:  # not nested: these pivots are on no fiber
            rows = sets.left[k + 1]
            blocks.append(fiber_indices(rows[..., :k], 0, sets.right[k], pairs=rows))
    values = ask(entries, torch.cat(blocks, 1))
    parts = list(values.split([block.shape[1] for block in blocks], 1))
    fibers, extra = parts[:d], iter(parts[d:])
    matrices, pivots = [], []
    for k, where in enumerate(positions):
        n_right = sets.right[k].shape[1]
        matrix = fibers[k].unflatten(1, (-1, n_right))
        if where is None:
            pivots.append(next(extra).unflatten(1, (-1, n_right)))
        else:
            rows = where * sizes[k] + sets.left[k + 1][..., -1]
            pivots.append(matrix.gather(1, rows[..., None].expand(-1, -1, n_right)))
        matrices.append(matrix)
    cores = _solve_all(matrices, pivots, rtol)
    ranks = sets.ranks
    shaped = [core.unflatten(1, (ranks[k], sizes[k])) for k, core in enumerate(cores)]
    return TensorTrain([*shaped, fibers[-1].unflatten(1, (ranks[-2], sizes[-1])).unsqueeze(-1)])


def _positions(before: Tensor, rows: Tensor) -> Tensor | None:
    """Which of `before` (K, l, k) each of `rows` (K, r, k+1) extends, None if one extends none."""
    equal = (rows[:, :, None, :-1] == before[:, None]).all(-1)
    found, where = equal.max(-1) if equal.shape[-1] else (equal.any(-1), None)
    return where if bool(found.all()) else None


def _solve_all(matrices: list[Tensor], pivots: list[Tensor], rtol: float | None) -> list[Tensor]:
    """Cores as matrices; the rank check looks at all bonds of one shape at once."""
    cores: list[Tensor] = [torch.empty(0)] * len(pivots)
    groups: dict[torch.Size, list[int]] = {}
    for k, pivot in enumerate(pivots):
        groups.setdefault(pivot.shape, []).append(k)
    for bonds in groups.values():
        stacked = torch.stack([pivots[k] for k in bonds])
        if stacked.shape[-1] > stacked.shape[-2]:
            solved = [least_squares(matrices[k], pivots[k]) for k in bonds]
        elif not (bad := _singular(stacked, rtol)).any():
            solved = [torch.linalg.solve(pivots[k], matrices[k], left=False) for k in bonds]
        else:
            keep = bad.flatten(1).any(1).tolist()
            solved = [
                solve_deficient(matrices[k], pivots[k], rtol)
                if deficient
                else torch.linalg.solve(pivots[k], matrices[k], left=False)
                for k, deficient in zip(bonds, keep, strict=True)
            ]
        for k, core in zip(bonds, solved, strict=True):
            cores[k] = core
    return cores


def least_squares(matrix: Tensor, pivot: Tensor) -> Tensor:
    """Minimise |X pivot - matrix| for a wide pivot, through the QR factors of its transpose."""
    frame, corner = torch.linalg.qr(pivot.mT)
    if _singular(corner, None).any():
        return solve_deficient(matrix @ frame, corner.mT, None)
    return torch.linalg.solve_triangular(corner.mT, matrix @ frame, upper=False, left=False)


def _singular(pivots: Tensor, rtol: float | None) -> Tensor:
    """Which square matrices are singular to rounding, by the norm of their inverse."""
    with torch.no_grad():
        rtol = 100 * torch.finfo(pivots.dtype).eps if rtol is None else rtol
        peak = pivots.abs().amax((-2, -1), keepdim=True)
        scaled = pivots / torch.where(peak > 0, peak, 1.0)
        inverse, info = torch.linalg.inv_ex(scaled)
        return (info != 0) | ~(inverse.abs().amax((-2, -1)) * rtol < 1)


def solve_deficient(matrix: Tensor, pivot: Tensor, rtol: float | None) -> Tensor:
    """Solve `X pivot = matrix` with the rank of each pivot lowered to what it has.

    Args:
        matrix: `(K, m, r)`, in the row space of `pivot`.
        pivot: `(K, r, r)`, possibly singular.
        rtol: Relative size below which a pivot is zero.

    Returns:
        `X` of shape `(K, m, r)`, zero in the columns that were dropped.
    """
    with torch.no_grad():
        rtol = 100 * torch.finfo(pivot.dtype).eps if rtol is None else rtol
        rows, columns, keep = _complete_pivots(pivot, rtol)
    k, m, r = matrix.shape
    ordered = pivot.gather(1, rows[..., None].expand(k, r, r))
    ordered = ordered.gather(2, columns[:, None].expand(k, r, r))
    both = keep[:, :, None] & keep[:, None]
    regular = torch.where(both, ordered, torch.eye(r, dtype=pivot.dtype, device=pivot.device))
    target = matrix.gather(2, columns[:, None].expand(k, m, r)) * keep[:, None]
    solution = torch.linalg.solve(regular, target, left=False)
    return torch.empty_like(solution).scatter(2, rows[:, None].expand(k, m, r), solution)


def _complete_pivots(pivot: Tensor, rtol: float) -> tuple[Tensor, Tensor, Tensor]:
    """Order of rows and columns by complete pivoting, and which pivots are not zero."""
    k, r, _ = pivot.shape
    rest = pivot.clone()
    order = torch.arange(r, device=pivot.device).expand(k, r)
    rows, columns = order.clone(), order.clone()
    sizes = []
    free_rows = torch.ones(k, r, dtype=torch.bool, device=pivot.device)
    free_columns = free_rows.clone()
    for step in range(r):
        free = free_rows[:, :, None] & free_columns[:, None]
        size, where = torch.where(free, rest.abs(), -1.0).flatten(1).max(1)
        row, column = (where // r)[:, None], (where % r)[:, None]
        rows[:, step : step + 1], columns[:, step : step + 1] = row, column
        free_rows.scatter_(1, row, False)
        free_columns.scatter_(1, column, False)
        across = rest.gather(1, row[..., None].expand(k, 1, r))
        down = rest.gather(2, column[:, None].expand(k, r, 1))
        corner = across.gather(2, column[:, None])
        rest = (
            rest
            - torch.where(corner != 0, down / torch.where(corner != 0, corner, 1.0), 0.0) * across
        )
        sizes.append(size)
    sizes = torch.stack(sizes, 1)
    return rows, columns, (sizes > rtol * sizes[:, :1]).cummin(1).values
