r"""Turn index sets and the entries they name into the cores of a train.

With the fibers V_k of site k as a matrix M_k of (l_k n_k) rows and r_{k+1} columns, and the pivots
P_k = f(left[k+1], right[k]), the cores are G_k = M_k P_k^{-1} and the last one is V_{d-1} itself.
With nested sets the train equals f on every fiber. Where a bond has more right than left
multi-indices, G_k solves G_k P_k = M_k in the sense of least squares; where it has more left ones,
the same is done from the other end. Singular pivots (a constant
tensor, a zero background) lower the rank of that bond for that tensor alone, see `_solvers`.

Shapes: `K` tensors, `l`, `r` ranks left and right of a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from cpic.tt._entries import Entries
from cpic.tt._fibers import ask, fiber_indices
from cpic.tt._pivots import mirrored
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
    {cite}`oseledets2010ttcross`, and neither do the cores if the values carry none.

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
            float64, want an `rtol` above x, or the noise is interpolated.
        with_condition: Also return how far the gradients can be trusted.

    Returns:
        K trains with ranks `sets.ranks`, never NaN for finite values: bonds with a lowered rank are
        padded with zeros. With `with_condition` also the condition numbers of the pivots
        `(K, d-1)` in the 1-norm, infinite where they are singular to rounding.
        Gradients are off by at most about `condition * eps` of their largest part; with pivots
        of large volume, as `cross` and `half_sweep` choose them, usually by far less. Above
        `eps ** (-2/3)`, 2.7e10 in float64 and 4.1e4 in float32, do not rely on them unseen: lower
        the rank, raise `rtol`, use `"ridge"`, or compare with differences.

    Raises:
        ValueError: If `entries` returns another shape, complex, float16, NaN or infinite values, a
            bond has fewer right than left multi-indices and another one more, or an option is
            out of range.
        ImportError: If `"cvxpylayers"` is asked for and not installed.

    Example:
        >>> from cpic.tt import IndexSets
        >>> sets = IndexSets.random((5, 5), 2, generator=torch.Generator().manual_seed(0))
        >>> train = interpolate(lambda i: 1.0 + i[..., 0] * i[..., 1], sets)
        >>> round(float(train.full()[0, 3, 4]), 6)
        13.0
    """
    check_options(solver, ridge, rtol)
    options = {"solver": solver, "ridge": ridge, "rtol": rtol}
    more = [
        after.shape[1] - before.shape[1]
        for before, after in zip(sets.left[1:], sets.right, strict=False)
    ]
    if any(m < 0 for m in more):
        if any(m > 0 for m in more):
            raise ValueError(
                "interpolate needs at all bonds as many right as left multi-indices, or at all as "
                f"many left as right ones, or more; got {sets.ranks[1:-1]} left and "
                f"{tuple(rows.shape[1] for rows in sets.right[:-1])} right ones; drop some."
            )
        turned = IndexSets(sets.sizes[::-1], mirrored(sets.right), mirrored(sets.left))
        cores, conditions = _solved(lambda i: entries(i.flip(-1)), turned, options, with_condition)
        cores = [core.permute(0, 3, 2, 1) for core in reversed(cores)]
        conditions = [part.flip(1) for part in reversed(conditions)]
    else:
        cores, conditions = _solved(entries, sets, options, with_condition)
    train = TensorTrain(cores)
    return (train, torch.cat(conditions, 1)) if with_condition else train


def _solved(
    entries: Entries, sets: IndexSets, options: dict[str, Any], with_condition: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Cores and, if wanted, conditions of sets with enough right multi-indices."""
    sizes, ranks = sets.sizes, sets.ranks
    runs, last = read_fibers(entries, sets)
    cores, conditions = [], [last.new_zeros(len(last), 0)]
    for run in runs:
        batch = run.matrix.shape[:2]
        matrix, pivot = run.matrix.flatten(0, 1), run.pivot.flatten(0, 1)
        solved = solve_core(matrix, pivot, **options)
        shape = (*batch, ranks[run.bond], sizes[run.bond], solved.shape[-1])
        cores += solved.view(shape).unbind(1)
        if with_condition:
            conditions.append(pivot_condition(pivot).view(batch))
    return [*cores, last.unflatten(1, (ranks[-2], sizes[-1])).unsqueeze(-1)], conditions


class Run(NamedTuple):
    """Consecutive bonds of equal shapes, to be solved as one batch.

    From bond `bond` on, `n` of them: fibers `(K, n, m, c)` as matrices, pivots `(K, n, r, c)`.
    """

    bond: int
    matrix: Tensor
    pivot: Tensor


def read_fibers(entries: Entries, sets: IndexSets) -> tuple[list[Run], Tensor]:
    """Fibers and pivots of all bonds in one call, and the fibers of the last site."""
    sizes, d = sets.sizes, sets.n_sites
    blocks = [fiber_indices(sets.left[k], n, sets.right[k]) for k, n in enumerate(sizes)]
    rows = [_positions(sets.left[k], sets.left[k + 1], sizes[k]) for k in range(d - 1)]
    for k, found in enumerate(rows):
        if found is None:  # not nested: these pivots are on no fiber
            pairs = sets.left[k + 1]
            blocks.append(fiber_indices(pairs[..., :k], 0, sets.right[k], pairs=pairs))
    values = ask(entries, torch.cat(blocks, 1))
    if values.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"interpolate needs float32 or float64 values, got {values.dtype}: the solves need the "
            "digits; cast what `entries` returns."
        )
    shapes = [(blocks[k].shape[1], sizes[k], sets.right[k].shape[1]) for k in range(d - 1)]
    groups: list[list[int]] = []
    for k in range(d - 1):
        same = k > 0 and shapes[k] == shapes[k - 1]
        if same and _length(rows[k]) == _length(rows[k - 1]) is not None:
            groups[-1].append(k)
        else:
            groups.append([k])
    counts = [len(group) * shapes[group[0]][0] for group in groups]
    parts = values.split([*counts, *(block.shape[1] for block in blocks[d - 1 :])], 1)
    extra = iter(parts[len(groups) + 1 :])
    runs = []
    for group, part in zip(groups, parts, strict=False):
        count, _, columns = shapes[group[0]]
        matrix = part.unflatten(1, (len(group), count // columns, columns))
        chosen = [found for k in group if (found := rows[k]) is not None]
        if chosen:
            where = torch.stack(chosen, 1)[..., None].expand(-1, -1, -1, columns)
            runs.append(Run(group[0], matrix, matrix.gather(2, where)))
        else:
            runs.append(Run(group[0], matrix, next(extra).unflatten(1, (1, -1, columns))))
    return runs, parts[len(groups)]


def _positions(before: Tensor, rows: Tensor, size: int) -> Tensor | None:
    """Which rows of `before` (K, l, k) x [size] the `rows` (K, r, k+1) are, None if one is none."""
    equal = (rows[:, :, None, :-1] == before[:, None]).all(-1)
    found, where = equal.max(-1)
    return where * size + rows[..., -1] if bool(found.all()) else None


def _length(rows: Tensor | None) -> int | None:
    return None if rows is None else rows.shape[1]
