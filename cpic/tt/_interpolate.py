r"""Compute the cores of a train from index sets and the entries they specify.

With the fibers V_k of site k as a matrix M_k of (l_k n_k) rows and r_{k+1} columns, and the pivots
P_k = f(left[k+1], right[k]), the cores are G_k = M_k P_k^{-1} and the last one is V_{d-1} itself.
With nested sets the train equals f on every fiber. If a bond has more right than left
multi-indices, G_k solves G_k P_k = M_k in the least-squares sense; if it has more left ones,
the same is done from the other end. Singular pivots (a constant tensor, a zero background) lower
the rank of that bond for that tensor only, see `_solvers`.

Shapes: `K` tensors, `l`, `r` ranks left and right of a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from cpic.tt._entries import Entries
from cpic.tt._fibers import ask, steps, sums
from cpic.tt._layout import Layout, layout
from cpic.tt._rows import Rows
from cpic.tt._sets import IndexSets
from cpic.tt._solvers import Solving, check_options
from cpic.tt._sweep import Towards, mirrored_entries, solved_train
from cpic.tt._train import TensorTrain


@overload
def interpolate(
    entries: Entries,
    sets: IndexSets,
    *,
    with_condition: Literal[False] = False,
    **options: Unpack[Solving],
) -> TensorTrain: ...
@overload
def interpolate(
    entries: Entries, sets: IndexSets, *, with_condition: Literal[True], **options: Unpack[Solving]
) -> tuple[TensorTrain, Tensor]: ...
def interpolate(
    entries: Entries, sets: IndexSets, *, with_condition: bool = False, **options: Unpack[Solving]
) -> TensorTrain | tuple[TensorTrain, Tensor]:
    r"""The train that agrees with a tensor on the fibers of nested index sets.

    All fibers of all sites are requested in one call of `entries`. Differentiable in the values
    that `entries` returns, also twice (once with `"cvxpylayers"`); the sets carry no gradient
    {cite}`oseledets2010ttcross`, and neither do the cores if the values carry none. In the book:
    the train {eq}`eq-cross-train`, more multi-indices on one side of a bond {eq}`eq-cross-ls`, the
    gradient {eq}`eq-gradients-picked`, a core {eq}`eq-gradients-core` and its gradient
    {eq}`eq-gradients-back`.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to values `(K, n)`, float32 or float64.
        sets: Index sets to read on, for the same K; for example `result.sets` of `cross`.
        with_condition: Also return condition numbers, which bound the errors of the gradients.
        **options: Solver for the core G with G P = M, for fibers M and pivots P.

            `solver="solve"`, the default, uses LU for a square P and QR for a wide one; `"qr"`
            always QR. `"ridge"` minimizes `|G P - M|^2 + ridge s^2 |G|^2` with s^2 the mean
            square of the singular values of P, which is smooth where a rank changes, but agrees
            with the fibers only up to the ridge. `"cvxpylayers"` finds the same minimum by a convex
            solver, slowly. `ridge=1e-6` is the weight of the last two, above zero; it does not
            depend on the scale of the entries.

            The first two treat pivots below `rtol` times the largest of their bond as zero, which
            lowers the rank there. The default is 100 times the rounding unit of the values.
            Values with noise of relative size x, such as those of a network in float32 cast to
            float64, need an `rtol` above x; otherwise the noise is interpolated.

    Returns:
        K trains with ranks `sets.ranks`, never NaN for finite values: bonds with a lowered rank are
        padded with zeros. With `with_condition` also the condition numbers of the pivots
        `(K, d-1)` in the 1-norm, infinite if they are singular to rounding.
        The error of a gradient is at most about `condition * eps` of its largest entry; with pivots
        of large volume, as selected by `cross` and `half_sweep`, it is usually far smaller. Above
        `eps ** (-2/3)`, 2.7e10 in float64 and 4.1e4 in float32, do not rely on gradients unchecked:
        lower the rank, raise `rtol`, use `"ridge"`, or compare with finite differences.

    Raises:
        ValueError: If `entries` returns another shape, complex, float16, NaN or infinite values, a
            bond has fewer right than left multi-indices and another one more, or an option is
            out of range.
        ImportError: If `"cvxpylayers"` is requested but not installed.

    Example:
        >>> from cpic.tt import IndexSets
        >>> sets = IndexSets.random((5, 5), 2, generator=torch.Generator().manual_seed(0))
        >>> train = interpolate(lambda i: 1.0 + i[..., 0] * i[..., 1], sets)
        >>> round(float(train.full()[0, 3, 4]), 6)
        13.0
    """
    check_options(**options)
    pairs = zip(sets.counts("left")[1:], sets.counts("right"), strict=False)
    more = [after - before for before, after in pairs]
    if min(more, default=0) < 0 < max(more, default=0):
        raise ValueError(
            "interpolate needs at all bonds as many right as left multi-indices, or at all as "
            f"many left as right ones, or more; got {sets.ranks[1:-1]} left and "
            f"{sets.counts('right')[:-1]} right ones; drop some."
        )
    sizes: tuple[int, ...] = sets.sizes
    towards: Towards = "right"
    if min(more, default=0) < 0:
        towards, sets, entries = "left", sets.mirrored(), mirrored_entries(entries)
    fibers = read_fibers(entries, sets)
    train, condition = solved_train(
        *fibers, sizes, towards, with_condition=with_condition, **options
    )
    return (train, condition) if with_condition else train


def read_fibers(entries: Entries, sets: IndexSets) -> tuple[list[Tensor], list[Tensor]]:
    """Fibers `(K, m, c)` of all sites in one call, and the rows `(K, r)` that are pivots.

    If sets are not nested, pivots that lie on no fiber are the last rows of their matrix.
    """
    left, right = sets.rows("left"), sets.rows("right")
    place = layout(sets.sizes, left.counts, right.counts).on(sets.device)
    pairs = left.whole[:, place.pair_left] + steps(sets.sizes, sets.device)[place.pair_step]
    fibers = pairs[:, place.entry_pair] + right.whole[:, place.entry_right]
    rows, nested = _on_fibers(left, pairs, place)
    # Pivots that lie on no fiber are requested as well.
    aside = [k for k, on_fibers in enumerate(nested) if not on_fibers]
    left_sets, right_sets = left.each(), right.each()
    more = [sums(left_sets[k + 1], right_sets[k]) for k in aside]
    values = ask(entries, torch.cat([fibers, *more], 1) if more else fibers, known=sets.sizes)
    if values.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"interpolate needs float32 or float64 values, got {values.dtype}; cast what `entries` "
            "returns."
        )
    counts = [m * c for m, c in zip(place.n_pairs, right.counts, strict=True)]
    *parts, rest = values.split([*counts, values.shape[1] - sum(counts)], 1)
    matrices = [v.unflatten(1, (-1, c)) for v, c in zip(parts, right.counts, strict=True)]
    rest = rest.split([part.shape[1] for part in more], 1)
    for k, part in zip(aside, rest, strict=True):
        behind = torch.arange(rows[k].shape[1], device=sets.device) + place.n_pairs[k]
        rows[k] = behind.expand_as(rows[k])
        matrices[k] = torch.cat([matrices[k], part.unflatten(1, (-1, right.counts[k]))], 1)
    return matrices, rows


def _on_fibers(left: Rows, pairs: Tensor, place: Layout) -> tuple[list[Tensor], list[bool]]:
    """Rows of the pivots among the pairs of each site, and whether they are there; read once."""
    if len(left.counts) == 1:
        return [], []
    pivots = left.whole[:, place.pivots]  # (K, d - 1, r, d)
    # Compared by hashes first, then index by index.
    key, of_pairs = ((rows * place.weights).sum(-1) for rows in (pivots, pairs))
    equal = key.unsqueeze(-1) == of_pairs[:, place.pairs].unsqueeze(2)
    rows = torch.minimum(equal.max(-1).indices, place.last)
    each = torch.arange(len(pairs), device=pairs.device).view(-1, 1, 1)
    nested = (pairs[each, rows + place.pairs[:, :1]] == pivots).all((0, 2, 3)).tolist()
    counts = zip(rows.unbind(1), left.counts[1:], strict=True)
    return [row if row.shape[1] == r else row[:, :r] for row, r in counts], nested
