r"""Choose index sets and build a differentiable train on them from the same values.

A half-sweep to the right reads the fibers of site k on the left multi-indices chosen so far and
on the right ones that are given, as a matrix M of (l n) rows and c columns. Without gradient,
`maxvol` chooses the rows that become the next left set; where fewer than c are wanted, it does so
on the leading left singular vectors. Their values P = M[rows] are among those just read, so the
core M P^{-1} costs nothing more, and carries the gradient. A half-sweep to the left is the same of
the tensor with its modes reversed.

The rows are chosen with the columns they are used with, and by an elimination that divides by no
small pivot. So the cores have bounded entries where columns depend on each other to rounding too,
and a train that follows a drifting tensor stays bounded; with rows of an earlier choice it may not.

Shapes: `K` tensors, `d` sites, `l` left and `c` right multi-indices at a site of size `n`.
References: {cite}`oseledets2010ttcross`, {cite}`goreinov2010how`.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cpic.linalg import maxvol
from cpic.linalg._maxvol import take_rows
from cpic.tt import Entries, IndexSets, TensorTrain, cap_ranks
from cpic.tt._fibers import ask, fiber_indices
from cpic.tt._pivots import extend_left, mirrored
from cpic.tt._round import check_limits, choose_ranks
from cpic.tt._solvers import check_options, pivot_condition, solve_core


class HalfSweep(NamedTuple):
    """What `half_sweep` made.

    `train`: K trains with gradient. `sets`: the sets it interpolates on, where the next half-sweep
    begins. `condition` `(K, d - 1)`: condition numbers of the pivots, without gradient.
    """

    train: TensorTrain
    sets: IndexSets
    condition: Tensor


def half_sweep(
    entries: Entries,
    sets: IndexSets,
    *,
    towards: Literal["right", "left"] = "right",
    ranks: int | Sequence[int] | None = None,
    tol: float | None = None,
    max_rank: int | None = None,
    solver: str = "solve",
    ridge: float = 1e-6,
    rtol: float | None = None,
) -> HalfSweep:
    r"""Choose the sets of one side anew and interpolate on them, with one reading of the fibers.

    Towards the right the left sets are chosen and the right ones are used as they are; towards
    the left the other way round. Alternate: `result.sets` with the other direction is the next
    half-sweep, in the next training step if the tensor changes slowly
    {cite}`oseledets2010ttcross`. The train and its gradient are those of `interpolate` on
    `result.sets`, and differentiable in what `entries` returns; the choice carries no gradient.

    `entries` is called once a site, and asked for `result.sets.n_entries` entries of each
    tensor in all. A tensor whose rank at a bond is below the number of its multi-indices (a zero
    background, a constant encoder) gets a core of lower rank, padded with zeros.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to values `(K, n)`.
        sets: Where to begin, for the same K; only the right ones are read when going right.
        towards: `"right"` or `"left"`.
        ranks: Numbers of multi-indices to choose, as in `cap_ranks`; by default as many as the
            used side has. With fewer, the core solves for all multi-indices of the used side in
            the sense of least squares; the next half-sweep, whose used side these are, is
            square again.
        tol: Lower the ranks to what this accuracy needs: at each bond the smallest rank at
            which the singular values left out of the fibers of each tensor are, squared and
            summed, at most `tol` squared of their sum. The largest need in the batch counts.
        max_rank: Bound on all ranks, on top of the others.
        solver: How the cores are solved for, as in `interpolate`.
        ridge: Weight of the solver `"ridge"`.
        rtol: Relative size below which pivots count as zero.

    Returns:
        The trains, their sets and the conditions of the pivots.

    Raises:
        ValueError: If `towards` is unknown, the used side has fewer multi-indices than `ranks`
            wants, a bound is out of range, or `entries` returns another shape or numbers that
            are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sets = IndexSets.random((6, 6, 6), 3, generator=generator)
        >>> step = half_sweep(lambda i: 1.0 / (1.0 + i.double().sum(-1)), sets)
        >>> step = half_sweep(lambda i: 1.0 / (1.0 + i.double().sum(-1)), step.sets, towards="left")
        >>> round(float(step.train.full()[0, 2, 2, 1]), 3)
        0.167
    """
    if towards not in ("right", "left"):
        raise ValueError(f'half_sweep needs towards="right" or "left", got {towards!r}.')
    check_limits("half_sweep", tol or 0.0, max_rank)
    options = {"solver": solver, "ridge": ridge, "rtol": rtol}
    check_options(**options)
    if towards == "right":
        bounds = _bounds(sets, sets.right[:-1], ranks, max_rank)
        cores, left, condition = _sweep(entries, sets.sizes, sets.right, bounds, tol, options)
        return HalfSweep(
            TensorTrain(cores), IndexSets(sets.sizes, tuple(left), sets.right), condition
        )
    bounds = _bounds(sets, sets.left[1:], ranks, max_rank)[::-1]
    turned = mirrored(sets.left)
    cores, right, condition = _sweep(
        lambda indices: entries(indices.flip(-1)), sets.sizes[::-1], turned, bounds, tol, options
    )
    train = TensorTrain([core.permute(0, 3, 2, 1) for core in reversed(cores)])
    return HalfSweep(train, IndexSets(sets.sizes, sets.left, mirrored(right)), condition.flip(-1))


def _bounds(
    sets: IndexSets,
    used: Sequence[Tensor],
    ranks: int | Sequence[int] | None,
    max_rank: int | None,
) -> list[int]:
    """Ranks of the inner bonds that are wanted at most."""
    bounds = [rows.shape[1] for rows in used]
    if ranks is not None:
        wanted = cap_ranks(sets.sizes, ranks)[1:-1]
        for bond, (most, rank) in enumerate(zip(bounds, wanted, strict=True), start=1):
            if rank > most:
                raise ValueError(
                    f"half_sweep needs at least {rank} multi-indices on the side it uses for that "
                    f"rank at bond {bond}, got {most}; add some with `grow`."
                )
        bounds = list(wanted)
    return bounds if max_rank is None else [min(most, max_rank) for most in bounds]


def _sweep(
    entries: Entries,
    sizes: tuple[int, ...],
    right: Sequence[Tensor],
    bounds: Sequence[int],
    tol: float | None,
    options: dict[str, Any],
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Cores, chosen left sets and conditions of a way from the first site to the last."""
    left, matrices, pivots = [right[-1]], [], []
    for k, n in enumerate(sizes):
        values = ask(entries, fiber_indices(left[k], n, right[k]))
        matrices.append(values.unflatten(1, (-1, right[k].shape[1])))
        if k < len(bounds):
            rows = _choose(matrices[k].detach(), bounds[k], tol)
            left.append(extend_left(left[k], rows, n))
            pivots.append(take_rows(matrices[k], rows))
    last = matrices.pop()
    solved = _solve_all(matrices, pivots, options)
    cores = [core.unflatten(1, (-1, n)) for core, n in zip([*solved, last], sizes, strict=True)]
    parts = [pivot_condition(pivot) for pivot in pivots]
    return cores, left, torch.stack(parts, -1) if parts else last.new_zeros(len(last), 0)


def _solve_all(
    matrices: Sequence[Tensor], pivots: Sequence[Tensor], options: dict[str, Any]
) -> list[Tensor]:
    """Cores as matrices; bonds of one shape are one batch."""
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for k, (matrix, pivot) in enumerate(zip(matrices, pivots, strict=True)):
        groups.setdefault((matrix.shape, pivot.shape), []).append(k)
    cores = list(matrices)
    for bonds in groups.values():
        stacked = [torch.cat([part[k] for k in bonds]) for part in (matrices, pivots)]
        for k, core in zip(bonds, solve_core(*stacked, **options).chunk(len(bonds)), strict=True):
            cores[k] = core
    return cores


@torch.no_grad()
def _choose(matrix: Tensor, bound: int, tol: float | None) -> Tensor:
    """Rows `(K, r)` that carry each of the matrices `(K, m, c)`; r is the same for all."""
    peak = matrix.abs().amax((-2, -1), keepdim=True)
    matrix = matrix / torch.where(peak > 0, peak, 1.0)
    rank = min(bound, *matrix.shape[1:])
    if tol is not None or rank < matrix.shape[2]:
        vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        if tol is not None:
            budget = tol**2 * values.square().sum(-1)
            rank = int(choose_ranks(values, budget, rank)[0].max())
        matrix = vectors[..., :rank]
    return maxvol(matrix, on_deficient="report").rows
