r"""Turn index sets and the entries they name into the cores of a train.

With the fibers V_k of site k as a matrix M_k of (l_k n_k) rows and r_{k+1} columns, and the pivots
P_k = f(left[k+1], right[k]), the cores are G_k = M_k P_k^{-1} and the last one is V_{d-1} itself.
With nested sets the train equals f on every fiber. Where a bond has more right than left
multi-indices, G_k solves G_k P_k = M_k in the sense of least squares. Singular pivots (a constant
tensor, a zero background) lower the rank of that bond for that tensor alone, see `_solvers`.

Shapes: `K` tensors, `l`, `r` ranks left and right of a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

from typing import Any, Literal, overload

import torch
from torch import Tensor

from cpic.tt._entries import Entries
from cpic.tt._fibers import ask, fiber_indices
from cpic.tt._sets import IndexSets
from cpic.tt._solvers import check_options, pivot_condition, solve_core
from cpic.tt._train import TensorTrain

Solver = Literal["solve", "qr", "ridge", "cvxpylayers"]


@overload
def interpolate(
    entries: Entries,
    sets: IndexSets,
    *,
    solver: Solver = "solve",
    ridge: float = 1e-6,
    rtol: float | None = None,
    with_condition: Literal[False] = False,
) -> TensorTrain: ...
@overload
def interpolate(
    entries: Entries,
    sets: IndexSets,
    *,
    solver: Solver = "solve",
    ridge: float = 1e-6,
    rtol: float | None = None,
    with_condition: Literal[True],
) -> tuple[TensorTrain, Tensor]: ...
def interpolate(
    entries: Entries,
    sets: IndexSets,
    *,
    solver: Solver = "solve",
    ridge: float = 1e-6,
    rtol: float | None = None,
    with_condition: bool = False,
) -> TensorTrain | tuple[TensorTrain, Tensor]:
    r"""The train that agrees with a tensor on the fibers of nested index sets.

    All fibers of all sites are asked for in one call of `entries`. Differentiable in what
    `entries` returns, also twice (once with `"cvxpylayers"`); the sets carry no gradient
    {cite}`oseledets2010ttcross`.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to values `(K, n)`, float32 or float64.
        sets: Where to read, for the same K; `result.sets` of `cross` fits.
        solver: How the core G with G P = M is found for fibers M and pivots P. `"solve"` factors
            a square P as LU and a wide one as QR; `"qr"` always by QR. `"ridge"` minimises
            `|G P - M|^2 + ridge s^2 |G|^2` with s^2 the mean square of the singular values of P,
            which is smooth where a rank changes, but agrees with the fibers only up to the ridge.
            `"cvxpylayers"` finds the same minimum by a convex solver, slowly.
        ridge: Weight of the last two, above zero; a multiple of the entries needs the same one.
        rtol: The first two count pivots below `rtol` times the largest of their bond as zero,
            which lowers the rank there. By default 100 times the rounding unit of the values.
            Values with noise of relative size x, as of a network in float32 that is cast to
            float64, want an `rtol` above x, or gradients grow as the inverse of the noise.
        with_condition: Also return how far the gradients can be trusted.

    Returns:
        K trains with ranks `sets.ranks`, never NaN for finite values: bonds with a lowered rank are
        padded with zeros. With `with_condition` also the condition numbers of the pivots
        `(K, d-1)` in the 1-norm, infinite where they are singular and a lower rank was used.
        Gradients are off by at most about `condition * eps` of their largest part. Above
        `eps ** (-2/3)`, 2.7e10 in float64 and 4.1e4 in float32, take them for unreliable: lower
        the rank, raise `rtol` or use `"ridge"`.

    Raises:
        ValueError: If `entries` returns another shape, complex, float16, NaN or infinite values, a
            bond has fewer right than left multi-indices, or an option is out of range.
        ImportError: If `"cvxpylayers"` is asked for and not installed.

    Example:
        >>> from cpic.tt import IndexSets
        >>> sets = IndexSets.random((5, 5), 2, generator=torch.Generator().manual_seed(0))
        >>> train = interpolate(lambda i: 1.0 + i[..., 0] * i[..., 1], sets)
        >>> round(float(train.full()[0, 3, 4]), 6)
        13.0
    """
    check_options(solver, ridge, rtol)
    sizes, ranks, d = sets.sizes, sets.ranks, sets.n_sites
    for k in range(d - 1):
        if sets.right[k].shape[1] < ranks[k + 1]:
            raise ValueError(
                f"interpolate needs at least as many right as left multi-indices at bond {k + 1}, "
                f"got {sets.right[k].shape[1]} and {ranks[k + 1]}; drop left ones."
            )
    matrices, pivots, last = read_fibers(entries, sets)
    cores = _solve_all(matrices, pivots, solver=solver, ridge=ridge, rtol=rtol)
    shaped = [core.unflatten(1, (ranks[k], sizes[k])) for k, core in enumerate(cores)]
    train = TensorTrain([*shaped, last.unflatten(1, (ranks[-2], sizes[-1])).unsqueeze(-1)])
    if not with_condition:
        return train
    found = [pivot_condition(pivot) for pivot in pivots]
    return train, torch.stack(found, 1) if found else last.new_zeros(len(last), 0)


def read_fibers(entries: Entries, sets: IndexSets) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Fibers as matrices and pivots of all bonds, and the fibers of the last site."""
    sizes, d = sets.sizes, sets.n_sites
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
    return matrices, pivots, fibers[-1]


def _positions(before: Tensor, rows: Tensor) -> Tensor | None:
    """Which of `before` (K, l, k) each of `rows` (K, r, k+1) extends, None if one extends none."""
    equal = (rows[:, :, None, :-1] == before[:, None]).all(-1)
    found, where = equal.max(-1) if equal.shape[-1] else (equal.any(-1), None)
    return where if bool(found.all()) else None


def _solve_all(matrices: list[Tensor], pivots: list[Tensor], **options: Any) -> list[Tensor]:
    """Cores as matrices; bonds of one shape are solved as one batch."""
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for k, (matrix, pivot) in enumerate(zip(matrices, pivots, strict=True)):
        groups.setdefault((matrix.shape, pivot.shape), []).append(k)
    cores: list[Tensor] = [torch.empty(0)] * len(pivots)
    for bonds in groups.values():
        some = [torch.cat([parts[k] for k in bonds]) for parts in (matrices, pivots)]
        for k, core in zip(bonds, solve_core(*some, **options).chunk(len(bonds)), strict=True):
            cores[k] = core
    return cores
