r"""Halve the intervals of a grid where its values bend and jump.

The picture begins with a coarse grid. One axis after the other, all its intervals are halved. The
value in the middle of an interval is read where its score is high; elsewhere the picture goes
straight from one end to the other. What has been read is interpolated at all later steps, so a
value on a line also serves the faces around it.

The score is the root of |b - a| c, with a and b the picture at both ends of the interval and c the
larger of the changes of its slope there: a ramp jumps, but straight lines follow it.

How many are read in one step follows from what the later steps are expected to want: a step that
halves the intervals has twice as many middles, each of which stands for half the volume, and their
scores fall. So a score that exceeds the threshold by the j-th power of 1 / DECAY asks for 2^j more
middles j steps later; the threshold is where all that is just within what is left.

Shapes: `K` arrays, `D` axes, `m` middles read in one step.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpic.choose._budget import edges, product
from cpic.choose._chosen import Log
from cpic.choose._picture import Grid
from cpic.choose._points import Draw
from cpic.tt._fibers import ask

# Of score times volume from one step to the next, on photographs and heads.
DECAY = 0.35


@dataclass(frozen=True, eq=False)
class Step:
    """Middles read along one axis.

    Args:
        axis: That was halved.
        middles: Their numbers among all middles of this step, int64 `(K, m)`.
        real: Which of them are read `(K, m)`; the others fill up the batch.
    """

    axis: int
    middles: Tensor
    real: Tensor


def nodes(axes: Sequence[Tensor], n_arrays: int) -> Tensor:
    """Positions `(K, m, D)` of a grid, the last axis fastest."""
    return product([axis[None] for axis in axes]).expand(n_arrays, -1, -1)


def from_level(
    log: Log, level: Tensor, shape: Sequence[int], count: int, draw: Draw
) -> tuple[list[Tensor], Tensor]:
    """A grid, and its values `(K, m)`: a coarser level in the middle, entries around it."""
    sizes = tuple(level.shape[1:])
    fits = level.ndim == len(shape) + 1 and len(level) == draw.n_arrays
    if not fits or any(not 1 <= m <= n for m, n in zip(sizes, shape, strict=True)):
        raise ValueError(
            f"coarse-to-fine needs a level of shape ({draw.n_arrays}, ...) with at most "
            f"{tuple(shape)} values, got {tuple(level.shape)}; put the arrays first."
        )
    axes, inside = [], torch.ones(1, 1, dtype=torch.bool, device=draw.device)
    for n, m in zip(shape, sizes, strict=True):
        cuts = edges(n, m, device=draw.device)
        centers = (cuts[:-1] + cuts[1:] - 1) // 2
        axes.append(torch.cat([centers, cuts.new_tensor([0, n - 1])]).unique())
        inside = (inside[:, :, None] & torch.isin(axes[-1], centers)).flatten(1)
    positions = nodes(axes, draw.n_arrays)
    if positions.shape[1] > count:
        raise ValueError(
            f"coarse-to-fine needs a budget of at least {positions.shape[1]} for a level of "
            f"{sizes} and the entries around it, got {count}; pass a coarser level."
        )
    around = ask(log.entries, positions[:, ~inside[0]])
    values = around.new_empty(positions.shape[:2])
    values[:, ~inside[0]], values[:, inside[0]] = around, level.flatten(1).to(around)
    return axes, log.keep(positions, values)


def search(
    read: Callable[[Tensor], Tensor],
    axes: Sequence[Tensor],
    values: Tensor,
    *,
    count: int,
    finest: int = 1,
) -> list[Step]:
    """Choose and read up to `count` middles of each array.

    Args:
        read: Values `(K, m)` at positions `(K, m, D)`.
        axes: Positions of the first grid along each axis, int64 `(m_i,)`.
        values: There, `(K, m_1, ..., m_D)`.
        count: How many more may be read.
        finest: Intervals of at most so many entries are not halved.
    """
    axes, steps = list(axes), []
    left = torch.full((len(values), 1), count, device=values.device)
    order, room = _order(axes, finest)
    for number, axis in enumerate(order):
        low, high, middle, _ = _halves(axes[axis])
        score = _score(values, axis)
        score = score.masked_fill(_along(high - low <= finest, axis, score.ndim), -1.0)
        most = min(score[0].numel(), int(left.max()))
        top, middles = score.flatten(1).topk(most)
        wanted = _how_many(top, left, room[number:])
        most = int(wanted.max())
        real = torch.arange(most, device=values.device) < wanted
        step = Step(axis, middles[:, :most], real)
        lines = [*axes[:axis], middle, *axes[axis + 1 :]]
        places = torch.unravel_index(step.middles, tuple(score.shape[1:]))
        at = torch.stack([line[i] for line, i in zip(lines, places, strict=True)], -1)
        corner = torch.stack([line[0] for line in axes])
        found = read(torch.where(real[..., None], at, corner)) if most else values.new_zeros(0)
        axes[axis], values = _halve(axes[axis], values, step, found.detach(), finest)
        steps.append(step)
        left = left - wanted
        if int(left.max()) == 0:
            break
    return steps


def rebuild(
    shape: Sequence[int],
    axes: Sequence[Tensor],
    steps: Sequence[Step],
    finest: int,
    values: Tensor,
) -> Grid:
    """The picture of values `(K, m)`, in the order in which they were read; linear in them."""
    axes, sizes = list(axes), [len(axis) for axis in axes]
    counts = [step.middles.shape[1] for step in steps]
    first, *rest = values.split([math.prod(sizes), *counts], 1)
    picture = first.unflatten(1, sizes)
    for step, found in zip(steps, rest, strict=True):
        axes[step.axis], picture = _halve(axes[step.axis], picture, step, found, finest)
    return Grid(tuple(shape), tuple(axis.expand(len(values), -1) for axis in axes), picture)


def _halve(
    line: Tensor, values: Tensor, step: Step, found: Tensor, finest: int
) -> tuple[Tensor, Tensor]:
    """The axis and the picture with the middles between, read or interpolated."""
    low, high, middle, share = _halves(line)
    a, b = _ends(values, step.axis)
    between = torch.lerp(a, b, _along(share.to(a.dtype), step.axis, a.ndim))
    if step.middles.shape[1]:
        flat = between.flatten(1)
        found = torch.where(step.real, found, flat.gather(1, step.middles))
        between = flat.scatter(1, step.middles, found).view_as(between)
    last = values.narrow(step.axis + 1, len(line) - 1, 1)
    woven = torch.stack([a, between], step.axis + 2).flatten(step.axis + 1, step.axis + 2)
    line, woven = (
        torch.cat([_woven(low, middle), line[-1:]]),
        torch.cat([woven, last], step.axis + 1),
    )
    wide = high - low > finest
    if bool(wide.all()):
        return line, woven
    kept = torch.cat([_woven(torch.ones_like(wide), wide), wide.new_ones(1)]).nonzero()[:, 0]
    return line[kept], woven.index_select(step.axis + 1, kept)


def _woven(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], 1).flatten()


def _score(values: Tensor, axis: int) -> Tensor:
    """How much the middles of all intervals along an axis are likely to add."""
    slope = values.diff(dim=axis + 1)
    first, last = slope.narrow(axis + 1, 0, 1), slope.narrow(axis + 1, slope.shape[axis + 1] - 1, 1)
    bend = torch.cat([first, slope, last], axis + 1).diff(dim=axis + 1).abs()
    if slope.shape[axis + 1] == 1:
        return slope.abs()  # of two values no bend is known
    return (slope.abs() * torch.maximum(*_ends(bend, axis))).sqrt()


def _halves(line: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ends and middles of the intervals of an axis, and where in them the middles lie."""
    low, high = line[:-1], line[1:]
    middle = (low + high) // 2
    return low, high, middle, (middle - low).double() / (high - low).clamp_min(1)


def _ends(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    intervals = values.shape[axis + 1] - 1
    return values.narrow(axis + 1, 0, intervals), values.narrow(axis + 1, 1, intervals)


def _along(line: Tensor, axis: int, ndim: int) -> Tensor:
    return line.view(*[1] * (axis + 1), -1, *[1] * (ndim - axis - 2))


def _order(axes: Sequence[Tensor], finest: int) -> tuple[list[int], list[int]]:
    """The axes in the order in which they are halved, and how many middles each step has.

    It is always one of the axes with the longest intervals.
    """
    gaps = [axis.diff().tolist() for axis in axes]
    order, room = [], []
    while (widest := max(max(g, default=0) for g in gaps)) > finest:
        axis = next(k for k, g in enumerate(gaps) if max(g, default=0) == widest)
        others = math.prod(len(g) + 1 for k, g in enumerate(gaps) if k != axis)
        order.append(axis)
        room.append(others * sum(gap > finest for gap in gaps[axis]))
        halves = ([g // 2, g - g // 2] if g > finest else [g] for g in gaps[axis])
        gaps[axis] = [part for pair in halves for part in pair]
    return order, room


def _how_many(top: Tensor, left: Tensor, room: Sequence[int]) -> Tensor:
    """How many `(K, 1)` of the scores `top` `(K, m)`, falling, to read in the first step.

    Args:
        top: Largest scores of this step, below 0 where there is nothing to read.
        left: How many may still be read `(K, 1)`.
        room: Middles of this step and of those that follow.
    """
    rising, m = top.flip(1).contiguous(), top.shape[1]
    total = torch.zeros_like(top, dtype=torch.int64)
    for ahead, most in enumerate(room):
        above = m - torch.searchsorted(rising, top / DECAY**ahead)
        total += (2**ahead * above).clamp_max(most)
    all_fit = left >= sum(room)
    return ((all_fit & (top >= 0)) | ((total <= left) & (top > 0))).sum(1, keepdim=True)
