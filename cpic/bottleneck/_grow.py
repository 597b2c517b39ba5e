r"""Add multi-indices to nested sets, so that the next half-sweep can select more.

From the far end inwards, every set gets new multi-indices that extend one of its neighbor by
one position and are not in it yet, so that the sets stay nested.

Shapes: `K` tensors, `d` sites, `r` multi-indices of a set.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cpic.linalg._inputs import check_least, need_generator
from cpic.tt import IndexSets, cap_ranks
from cpic.tt._cross_sets import with_points
from cpic.tt._fibers import fiber_indices
from cpic.tt._pivots import extend_right
from cpic.tt._sweep import check_towards


def grow(
    sets: IndexSets,
    *,
    towards: Literal["right", "left"],
    by: int | None = None,
    ranks: int | Sequence[int] | None = None,
    points: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> IndexSets:
    """Index sets with more multi-indices on the side that the next half-sweep uses.

    That half-sweep can then find higher ranks; with `tol` it retains those needed, and with
    `ranks` or `max_rank` it uses the additional ones for a least-squares fit.

    Args:
        sets: The sets to add to.
        towards: Direction of the next half-sweep: `"right"` adds right multi-indices.
        by: Number of multi-indices to add at every bond.
        ranks: Or their total numbers, as in `cap_ranks`; larger sets are unchanged.
        points: Or multi-indices `(K, n, d)` whose parts are added, such as those where a
            train is worst.
        generator: Draws the new multi-indices, except for `points`.

    Returns:
        New sets, bounded by what the sizes allow; new multi-indices follow the old ones.

    Raises:
        ValueError: Unless exactly one of `by`, `ranks` and `points` is given, in range, a generator
            for the first two, and a known direction.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sets = IndexSets.random((4, 4, 4), 2, generator=generator)
        >>> sets = grow(sets, towards="right", by=1, generator=generator)
        >>> [rows.shape[1] for rows in sets.left], [rows.shape[1] for rows in sets.right]
        ([1, 2, 2], [3, 3, 1])
    """
    check_towards("grow", towards)
    if sum(option is not None for option in (by, ranks, points)) != 1:
        raise ValueError("grow needs one of `by`, `ranks` and `points`; omit the others.")
    check_least("grow", "`half_sweep` lowers ranks by its `tol`", by=by)
    wanted = (sets.n_trains, sets.n_sites)
    if points is not None and (points.ndim != 3 or (len(points), points.shape[2]) != wanted):
        raise ValueError(
            f"grow needs points (K={wanted[0]}, n, {wanted[1]}), got {tuple(points.shape)}."
        )
    if towards == "left":
        if isinstance(ranks, Sequence):
            ranks = ranks[::-1]
        points = None if points is None else points.flip(-1)
        options = {"by": by, "ranks": ranks, "points": points, "generator": generator}
        return grow(sets.mirrored(), towards="right", **options).mirrored()
    if points is not None:
        return with_points(sets, points)
    return IndexSets(sets.sizes, sets.left, _drawn(sets, by, ranks, generator))


def _drawn(
    sets: IndexSets,
    by: int | None,
    ranks: int | Sequence[int] | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, ...]:
    """Right sets with more multi-indices, drawn from those that extend the next set."""
    sizes, side = sets.sizes, list(sets.right)
    if by is not None:
        ranks = [rows.shape[1] + by for rows in side[:-1]]
    assert ranks is not None
    wanted, drawn = cap_ranks(sizes, ranks), need_generator("grow", generator)
    for k in range(len(sizes) - 1, 0, -1):
        here, after = side[k - 1], side[k]
        total = sizes[k] * after.shape[1]
        more = wanted[k] - here.shape[1]
        if more > 0:
            every = fiber_indices(here[:, :1, :0], sizes[k], after)
            taken = (every[:, :, None] == here[:, None]).all(-1).any(-1)
            noise = torch.rand(len(here), total, generator=drawn, device=drawn.device)
            rows = (noise.to(here.device) + taken).argsort(-1)[:, :more]  # present ones come last
            side[k - 1] = torch.cat([here, extend_right(after, rows)], 1)
    return tuple(side)
