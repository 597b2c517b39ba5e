"""Which entries of an array to read, by name, and what they say about the others."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cpic.choose import _refine
from cpic.choose._budget import check_shape, count_of
from cpic.choose._chosen import Chosen, Log
from cpic.choose._picture import Grid, Sum
from cpic.choose._points import PLACERS, Draw, Points, grid, in_blocks
from cpic.choose._pyramid import Level, Score, as_levels, descend
from cpic.choose._scattered import Rule, Scattered
from cpic.choose._trains import by_cross, by_svd
from cpic.linalg._inputs import check_choice, check_least
from cpic.tt._entries import Entries

Search = Callable[..., dict[str, Any]]
"""Reads, and returns the fields of `Chosen` that it knows."""


def positions(
    shape: Sequence[int],
    *,
    by: str = "grid",
    budget: float,
    n_arrays: int = 1,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Points:
    """Positions in K arrays, chosen without reading any, and their quadrature weights.

    Args:
        shape: Sizes of the arrays, without the batch.
        by: `"grid"`, `"random"`, `"jittered"`, `"low-discrepancy"` or `"importance"`.
        budget: How many entries may be read of one array: an int is their number, a float a
            share in (0, 1] of all.
        n_arrays: Number of arrays K; positions are drawn anew for each.
        generator: The only source of randomness; a grid with a fixed phase needs none.
        device: Where the answer lives.
        **options: Those of the chooser, see `choose`.

    Returns:
        `positions` int64 `(K, m, D)` with m at most the budget, and `weights` float64 `(K, m)`:
        `(weights * values).sum(1)` estimates the mean of each array. The estimate is unbiased
        where the positions are drawn. Without gradient.

    Raises:
        ValueError: If there is no such chooser, the budget is 0 or above everything, or an option
            does not fit.

    Example:
        >>> found = positions((6, 4), by="grid", budget=6)
        >>> found.positions[0].tolist()
        [[1, 1], [1, 3], [3, 1], [3, 3], [5, 1], [5, 3]]
        >>> float(found.weights.sum())
        1.0
    """
    check_choice("positions", "by", by, PLACERS, "others look at values: call `choose`")
    shape, count, draw = _checked("positions", shape, budget, n_arrays, generator, device)
    return PLACERS[by](shape, count, draw, **options)


def choose(
    entries: Entries,
    shape: Sequence[int],
    *,
    by: str = "grid",
    budget: float,
    n_arrays: int = 1,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Chosen:
    """Read a part of K arrays, chosen by name, and rebuild them from it.

    Args:
        entries: Maps int64 multi-indices `(K, n, D)` to real values `(K, n)`.
        shape: Sizes of the arrays, without the batch.
        by: Name of the chooser, one of `CHOOSERS`.
        budget: How many different entries may be read of one array: an int is their number, a
            float a share in (0, 1] of all. `"tt-svd"` reads all of them.
        n_arrays: Number of arrays K, which are independent of each other.
        generator: The only source of randomness; a grid with a fixed phase and `"coarse-to-fine"`
            need none.
        device: Where positions and values live.
        **options: Those of the chooser.

            `"grid"`: `phase`, where in its stride a position lies, from 0 to below 1, by default
            0.5; `"ends"` reaches from the first entry of each axis to its last; `"random"` draws
            it for each array. The picture is linear between the positions.

            `"random"` (without replacement), `"jittered"` (one in each block),
            `"low-discrepancy"` (a shifted Sobol sequence {cite}`cranley1976randomization`):
            `rule`, `"linear"` or `"nearest"`, how the picture follows from them.

            `"importance"`: `map`, `(*sizes)` or `(K, *sizes)`, at least 0, of at most as many
            cells along each axis as the arrays have entries; `mix`, the share in (0, 1] of uniform
            positions, by default 0.1; and `rule`.

            `"coarse-to-fine"`: `coarse`, the share of the budget for a grid of equal strides, by
            default 0.25. Its intervals are then halved where its values jump and bend, and what is
            found there decides where to halve again, down to intervals of `finest` entries. With
            `level`, `(K, *sizes)`, the grid is the next coarser level of a pyramid, such as a level
            of an OME-Zarr: means over blocks, in place of entries at their centers, each counted as
            one entry read.

            `"pyramid"`: `levels`, coarser versions of the arrays, such as those of an OME-Zarr, the
            finest first: each a `(K, *sizes)`, or its `Entries` and sizes, of which only what is
            needed is read. The coarsest is read whole; where `score` is largest, by default the
            squared distance above its median, the next finer one is read, and so on, for the share
            `coarse` of the budget, by default 0.5. The rest are positions drawn in proportion to
            the score, mixed as those of `"importance"`, and as unbiased; `mix` and `rule`. What is
            rare is found if it is visible at a coarse level.

            `"cross-square"`, `"cross-least-squares"`: a train {cite}`oseledets2010ttcross`, of the
            axes or, with `bits="sequential"` or `"interleaved"`, of the bits of the coordinates in
            sites of size `base`; `rank` and `sweeps` as in `cpic.tt.cross`. Arrays of at most 4096
            entries they read whole.

            `"grid+cross"`: a grid for the share `coarse` of the budget, by default 0.5, and for the
            rest the train of what it leaves; the options of both.

            `"tt-svd"`: the best train of as many numbers as the budget, from all entries. An
            oracle, for comparison.

    Returns:
        What was read, its weights, and the picture. The picture is differentiable in the values
        that `entries` returned for grids and `"coarse-to-fine"`.

    Raises:
        ValueError: If there is no such chooser, the budget is 0, above everything or too small for
            a train or a level, a given rank reads more, an option does not fit, or `entries`
            returns a wrong shape, NaN or infinity.

    Example:
        >>> def ball(i):
        ...     return ((i - 16) ** 2).sum(-1).le(100).double()
        >>> plain = choose(ball, (33, 33), by="grid", budget=0.2)
        >>> plain
        Chosen('grid': 19.28% of 1 x (33, 33))
        >>> found = choose(ball, (33, 33), by="coarse-to-fine", budget=0.2)
        >>> truth = ball(torch.cartesian_prod(torch.arange(33), torch.arange(33)))
        >>> misses = [float((c.dense().flatten() - truth).norm()) for c in (found, plain)]
        >>> misses[0] < misses[1] / 2
        True
    """
    check_choice("choose", "by", by, CHOOSERS, "each is described in its docstring")
    shape, count, draw = _checked("choose", shape, budget, n_arrays, generator, device)
    log = Log(entries)
    known = CHOOSERS[by](log, shape, count, draw, **options)
    where, values = log.all()
    found = Chosen(by, shape, where, values, **known)
    if options.get("rank") and int(found.asked.max()) > count:
        raise ValueError(
            f"{by} read {int(found.asked.max())} entries for rank {options['rank']}, above the "
            f"budget of {count}; lower the rank, or leave it to the budget. See "
            '"Against a grid" in chapter 3 of the book.'
        )
    return found


def _checked(who, shape, budget, n_arrays, generator, device):
    shape = check_shape(shape)
    check_least(who, "it is the number of arrays", n_arrays=n_arrays)
    return shape, count_of(budget, shape), Draw(n_arrays, generator, torch.device(device))


def _by_grid(log: Log, shape: tuple[int, ...], count: int, draw: Draw, **options) -> dict[str, Any]:
    points = grid(shape, count, draw, **options)
    remake = partial(_on_grid, shape, points)
    return {"picture": remake(log(points.positions)), "given": points.weights, "remake": remake}


def _on_grid(shape: tuple[int, ...], points: Points, values: Tensor) -> Grid:
    assert points.axes is not None
    return Grid(shape, points.axes, values.unflatten(1, [axis.shape[1] for axis in points.axes]))


def _scattered(
    log: Log,
    shape: tuple[int, ...],
    count: int,
    draw: Draw,
    *,
    by: str,
    rule: Rule = "auto",
    **options,
) -> dict[str, Any]:
    points = PLACERS[by](shape, count, draw, **options)
    picture = Scattered(shape, points.positions, log(points.positions), rule)
    return {"picture": picture, "given": points.weights}


def _coarse_to_fine(
    log: Log,
    shape: tuple[int, ...],
    count: int,
    draw: Draw,
    *,
    coarse: float = 0.25,
    level: Tensor | None = None,
    finest: int = 1,
) -> dict[str, Any]:
    check_least("coarse-to-fine", "1 halves down to single entries", finest=finest)
    if level is None:
        few = min(count, max(_share(coarse, count), 2 ** len(shape)))
        axes = [axis[0] for axis in grid(shape, few, draw, phase="ends").axes or ()]
        values = log(_refine.nodes(axes, draw.n_arrays))
    else:
        axes, values = _refine.from_level(log, level, shape, count, draw)
    values = values.unflatten(1, [len(axis) for axis in axes])
    left = count - values[0].numel()
    steps = _refine.search(log, axes, values.detach(), count=left, finest=finest)
    remake = partial(_refine.rebuild, shape, axes, steps, finest)
    return {"picture": remake(log.all()[1]), "remake": remake}


def _pyramid(
    log: Log,
    shape: tuple[int, ...],
    count: int,
    draw: Draw,
    *,
    levels: Sequence[Level | Tensor],
    score: Score | None = None,
    coarse: float = 0.5,
    mix: float = 0.1,
    rule: Rule = "auto",
) -> dict[str, Any]:
    pyramid = as_levels(levels, shape, draw.n_arrays)
    left = count - math.prod(pyramid[0].shape)
    if left < 1:
        raise ValueError(
            f"pyramid needs a budget above the {count - left} numbers of its coarsest level, got "
            f"{count}; pass a coarser level."
        )
    found, read = descend(pyramid, shape, _share(coarse, left), score, draw)
    points = in_blocks(found, count - read, draw, mix)
    picture = Scattered(shape, points.positions, log(points.positions), rule)
    return {"picture": picture, "given": points.weights, "beside": read}


def _share(coarse: float, count: int) -> int:
    if not 0 < coarse < 1:
        raise ValueError(f"`coarse` needs a share of the budget above 0 and below 1, got {coarse}.")
    return max(1, int(coarse * count))


def _cross(log: Log, shape: tuple[int, ...], count: int, draw: Draw, **options) -> dict[str, Any]:
    return {"picture": by_cross(log, shape, count, draw, **options)}


def _svd(log: Log, shape: tuple[int, ...], count: int, draw: Draw) -> dict[str, Any]:
    return {"picture": by_svd(log, shape, count, draw)}


def _grid_and_cross(
    log: Log,
    shape: tuple[int, ...],
    count: int,
    draw: Draw,
    *,
    coarse: float = 0.5,
    phase: Any = 0.5,
    **options,
) -> dict[str, Any]:
    few = _share(coarse, count)
    first = _by_grid(log, shape, few, draw, phase=phase)["picture"]
    rest = {"method": "least_squares", "dtype": log.all()[1].dtype, **options}
    train = by_cross(lambda i: log(i) - first.entries(i), shape, count - few, draw, **rest)
    return {"picture": Sum(first, train)}


CHOOSERS: dict[str, Search] = {
    "grid": _by_grid,
    **{by: partial(_scattered, by=by) for by in PLACERS if by != "grid"},
    "coarse-to-fine": _coarse_to_fine,
    "pyramid": _pyramid,
    "cross-square": partial(_cross, method="square"),
    "cross-least-squares": partial(_cross, method="least_squares"),
    "grid+cross": _grid_and_cross,
    "tt-svd": _svd,
}
"""The choosers that `choose` knows, by name; only "tt-svd" reads more than its budget."""
