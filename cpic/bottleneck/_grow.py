r"""Add multi-indices to nested sets, so that the next half-sweep may choose more.

From the far end inwards, every set gets new multi-indices that extend one of its neighbour by
one position and are not in it yet. So the sets stay nested.

Shapes: `K` tensors, `d` sites, `r` multi-indices of a set.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cpic.tt import IndexSets, cap_ranks
from cpic.tt._cross_sets import grow_right
from cpic.tt._fibers import fiber_indices
from cpic.tt._pivots import extend_right, mirrored


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

    That half-sweep can then find higher ranks; with `tol` it keeps what is needed, and with
    `ranks` or `max_rank` it uses the additional ones for a least-squares fit.

    Args:
        sets: The sets to add to.
        towards: Direction of the next half-sweep: `"right"` adds right multi-indices.
        by: How many more at every bond.
        ranks: Or how many there shall be, as in `cap_ranks`; where there are more, they stay.
        points: Or multi-indices `(K, n, d)` whose parts are added, such as those where a
            train is worst.
        generator: Draws the new multi-indices, except for `points`.

    Returns:
        New sets, bounded by what the sizes allow; new multi-indices are behind the old ones.

    Raises:
        ValueError: Unless there is one of `by`, `ranks` and `points`, in range, a generator
            for the first two, and a known direction.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> sets = IndexSets.random((4, 4, 4), 2, generator=generator)
        >>> sets = grow(sets, towards="right", by=1, generator=generator)
        >>> [rows.shape[1] for rows in sets.left], [rows.shape[1] for rows in sets.right]
        ([1, 2, 2], [3, 3, 1])
    """
    _check(sets, towards, by, ranks, points, generator)
    if towards == "left":
        flipped = None if points is None else points.flip(-1)
        side = _grow(sets.sizes[::-1], mirrored(sets.left), by, _turn(ranks), flipped, generator)
        return IndexSets(sets.sizes, mirrored(side), sets.right)
    side = _grow(sets.sizes, sets.right, by, ranks, points, generator)
    return IndexSets(sets.sizes, sets.left, side)


def _turn(ranks: int | Sequence[int] | None) -> int | Sequence[int] | None:
    return ranks if ranks is None or isinstance(ranks, int) else list(ranks)[::-1]


def _grow(
    sizes: tuple[int, ...],
    right: Sequence[Tensor],
    by: int | None,
    ranks: int | Sequence[int] | None,
    points: Tensor | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, ...]:
    if points is not None:
        pairs = enumerate(right[:-1], start=1)
        return (*(grow_right(rows, points[..., k:], sizes[k:]) for k, rows in pairs), right[-1])
    if by is not None:
        ranks = [rows.shape[1] + by for rows in right[:-1]]
    assert ranks is not None
    assert generator is not None
    wanted, side = cap_ranks(sizes, ranks), list(right)
    for k in range(len(sizes) - 1, 0, -1):
        here, after = side[k - 1], side[k]
        total = sizes[k] * after.shape[1]
        more = wanted[k] - here.shape[1]
        if more > 0:
            every = fiber_indices(here[:, :1, :0], sizes[k], after)
            taken = (every[:, :, None] == here[:, None]).all(-1).any(-1)
            noise = torch.rand(len(here), total, generator=generator, device=generator.device)
            rows = (noise.to(here.device) + taken).argsort(-1)[:, :more]  # those taken come last
            side[k - 1] = torch.cat([here, extend_right(after, rows)], 1)
    return tuple(side)


def _check(
    sets: IndexSets,
    towards: str,
    by: int | None,
    ranks: int | Sequence[int] | None,
    points: Tensor | None,
    generator: torch.Generator | None,
) -> None:
    if towards not in ("right", "left"):
        raise ValueError(f'grow needs towards="right" or "left", got {towards!r}.')
    if sum(option is not None for option in (by, ranks, points)) != 1:
        raise ValueError("grow needs one of `by`, `ranks` and `points`; leave the others out.")
    if by is not None and by < 1:
        raise ValueError(f"grow needs `by >= 1`, got {by}; `half_sweep` lowers ranks by its `tol`.")
    if points is None and generator is None:
        raise ValueError(
            "grow needs a generator to draw multi-indices, got None; pass "
            "`generator=torch.Generator().manual_seed(0)`."
        )
    wanted = (sets.n_trains, sets.n_sites)
    if points is not None and (points.ndim != 3 or (len(points), points.shape[2]) != wanted):
        raise ValueError(
            f"grow needs points (K={wanted[0]}, n, {wanted[1]}), got {tuple(points.shape)}."
        )
