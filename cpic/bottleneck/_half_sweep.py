r"""Select index sets and build a differentiable train on them from the same values.

`cpic.tt._sweep` reads the fibers of each site as a matrix M of (l n) rows and c columns. Without
gradient, `maxvol` selects the rows that become the next set; if fewer than c are requested, it does
so on the leading left singular vectors. Their values P = M[rows] are among those just read, so the
core M P^{-1} requires no further entries, and carries the gradient.

The rows are selected for the columns with which they are used, by an elimination that does not
divide by small pivots. Hence the entries of the cores are bounded even if columns are dependent to
rounding, and a train that follows a changing tensor stays bounded; with earlier rows it may not.

Shapes: `K` tensors, `d` sites, `l` left and `c` right multi-indices at a site of size `n`.
References: {cite}`oseledets2010ttcross`, {cite}`goreinov2010how`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from cpic.linalg import Maxvol, maxvol
from cpic.tt import Entries, IndexSets, TensorTrain, cap_ranks
from cpic.tt._fibers import ask_unchecked
from cpic.tt._round import check_limits, choose_ranks
from cpic.tt._solvers import Solving, check_options
from cpic.tt._sweep import check_towards, solved_train, sweep


class HalfSweep(NamedTuple):
    """What `half_sweep` returns.

    `train`: K trains with gradient. `sets`: the sets it interpolates on, for the next half-sweep.
    `condition` `(K, d - 1)`: condition numbers of the pivots, without gradient.
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
    **options: Unpack[Solving],
) -> HalfSweep:
    r"""Select the sets of one side and interpolate on them, reading the fibers once.

    Towards the right, the left sets are selected and the right ones are fixed; towards
    the left, vice versa. Alternate the direction: the next half-sweep starts from `result.sets`, in
    the next training step if the tensor changes slowly
    {cite}`oseledets2010ttcross`. The train and its gradient are those of `interpolate` on
    `result.sets`, and differentiable in what `entries` returns; the selection has no gradient.

    `entries` is called once per site, for `result.sets.n_entries` entries of each
    tensor in total. A tensor whose rank at a bond is below the number of its multi-indices (a zero
    background, a constant encoder) gets a core of lower rank, padded with zeros.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to values `(K, n)`.
        sets: Current sets, for the same K; towards the right, only the right ones are used.
        towards: `"right"` or `"left"`.
        ranks: Numbers of multi-indices to select, as in `cap_ranks`; by default as many as the
            fixed side has. With fewer, the core is the least-squares solution for all
            multi-indices of the fixed side; the next half-sweep, whose fixed side they form, is
            square again.
        tol: Lower the ranks to this accuracy: at each bond the smallest rank at which the squared
            truncated singular values of the fibers of each tensor sum to at most `tol` squared
            times the sum of all. The largest rank in the batch is used.
        max_rank: Upper bound on all ranks, in addition to the others.
        **options: `solver`, `ridge` and `rtol` of the solver for cores, as in `interpolate`.

    Returns:
        The trains, their sets and the conditions of the pivots.

    Raises:
        ValueError: If `towards` is unknown, the fixed side has fewer multi-indices than `ranks`
            requires, a bound is out of range, or `entries` returns another shape or values that
            are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sets = IndexSets.random((6, 6, 6), 3, generator=generator)
        >>> step = half_sweep(lambda i: 1.0 / (1.0 + i.double().sum(-1)), sets)
        >>> step = half_sweep(lambda i: 1.0 / (1.0 + i.double().sum(-1)), step.sets, towards="left")
        >>> round(float(step.train.full()[0, 2, 2, 1]), 3)
        0.167
    """
    check_towards("half_sweep", towards)
    check_limits("half_sweep", tol or 0.0, max_rank)
    check_options(**options)
    bounds = _bounds(sets, towards, ranks, max_rank)
    choose = partial(_choose, tol)
    read = partial(ask_unchecked, entries, known=sets.sizes)
    matrices, choices, sets = sweep(read, sets, towards, bounds, choose)
    rows = [choice.rows for choice in choices]
    train, condition = solved_train(
        matrices, rows, sets.sizes, towards, with_condition=True, **options
    )
    return HalfSweep(train, sets, condition)


def _bounds(
    sets: IndexSets, towards: str, ranks: int | Sequence[int] | None, max_rank: int | None
) -> list[int]:
    """Maximum ranks of the inner bonds."""
    used = sets.counts("right")[:-1] if towards == "right" else sets.counts("left")[1:]
    bounds = list(used)
    if ranks is not None:
        wanted = cap_ranks(sets.sizes, ranks)[1:-1]
        for bond, (most, rank) in enumerate(zip(bounds, wanted, strict=True), start=1):
            if rank > most:
                raise ValueError(
                    f"half_sweep needs at least {rank} multi-indices on the fixed side for that "
                    f"rank at bond {bond}, got {most}; add some with `grow`."
                )
        bounds = list(wanted)
    return bounds if max_rank is None else [min(most, max_rank) for most in bounds]


@torch.no_grad()
def _choose(tol: float | None, matrix: Tensor, bound: int) -> Maxvol:
    """Rows `(K, r)` that represent each of the matrices `(K, m, c)`; r is the same for all."""
    peak = torch.linalg.vector_norm(matrix, torch.inf, (-2, -1), keepdim=True)
    matrix = matrix / peak.clamp_min(torch.finfo(matrix.dtype).tiny)
    rank = min(bound, *matrix.shape[1:])
    if tol is not None or rank < matrix.shape[2]:
        vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        if tol is not None:
            budget = tol**2 * values.square().sum(-1)
            rank = int(choose_ranks(values, budget, rank)[0].max())
        matrix = vectors[..., :rank]
    return maxvol(matrix, on_deficient="report")
