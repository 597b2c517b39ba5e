r"""Positions that need no values, and their quadrature weights.

With positions x_i and weights w_i, sum_i w_i f(x_i) estimates the mean of an array f. It is
unbiased for every f where positions are drawn: an entry that is expected n_x times among the
positions has the weight 1 / (N n_x) there, with N entries in all {cite}`horvitz1952generalization`.

Shapes: `K` arrays, `m` positions, `D` axes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from cpic.choose._budget import edges, parts_of, product, weigh
from cpic.choose._interpolate import matrix
from cpic.linalg._inputs import need_generator
from cpic.linalg._maxvol import take_rows
from cpic.tt._ledger import key_weights


class Points(NamedTuple):
    """Where to read K arrays, and what each value counts.

    Args:
        positions: int64 `(K, m, D)`.
        weights: float64 `(K, m)`: `(weights * values).sum(1)` estimates the means of the arrays.
        axes: Positions along each axis, int64 `(K, m_i)`, where they are a grid.
    """

    positions: Tensor
    weights: Tensor
    axes: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Draw:
    """For how many arrays positions are wanted, where, and the source of randomness."""

    n_arrays: int
    generator: torch.Generator | None
    device: torch.device

    def uniform(self, who: str, *shape: int) -> Tensor:
        """Numbers in [0, 1), float64 `(K, *shape)`."""
        source = need_generator(who, self.generator)
        drawn = torch.rand(
            self.n_arrays, *shape, generator=source, dtype=torch.float64, device=source.device
        )
        return drawn.to(self.device)


Placer: TypeAlias = Callable[..., Points]
"""Positions for a shape and a number of them: `(shape, count, draw, **options)`."""


def grid(
    shape: Sequence[int],
    count: int,
    draw: Draw,
    *,
    phase: float | Literal["ends", "random"] = 0.5,
) -> Points:
    """Every s-th entry along each axis, with equal strides s along all of them.

    Args:
        shape: Sizes of the arrays.
        count: Bound on the positions.
        draw: For how many arrays.
        phase: Where in its stride a position lies, 0 to below 1: 0.5 is the middle. `"ends"`: from
            the first entry of an axis to its last. `"random"`: drawn for each array and axis, which
            makes the mean unbiased. The weights of the first two are the integrals of linear
            interpolation, those of the last are equal.
    """
    axes, parts = grid_axes(shape, count, draw, phase)
    if phase == "random":
        lead = torch.zeros(draw.n_arrays, 1, dtype=torch.float64, device=draw.device)
        weights = lead + 1 / math.prod(parts)
        weights = weights.expand(-1, math.prod(parts))
    else:
        weights = weigh([matrix(axis, n).mean(1) for axis, n in zip(axes, shape, strict=True)])
    return Points(product(axes), weights, axes)


def grid_axes(
    shape: Sequence[int], count: int, draw: Draw, phase: float | Literal["ends", "random"]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Positions of a grid along each axis, int64 `(K, m_i)`, and their numbers m_i."""
    parts = parts_of(shape, count)
    lead = torch.zeros(draw.n_arrays, 1, dtype=torch.float64, device=draw.device)
    if phase == "ends":
        ends = [
            (0, n - 1) if m > 1 else (n // 2, n // 2) for n, m in zip(shape, parts, strict=True)
        ]
        axes = [
            torch.linspace(*two, m, device=draw.device).round() + lead
            for two, m in zip(ends, parts, strict=True)
        ]
    else:
        if phase == "random":
            moved = draw.uniform("grid with a random phase", len(shape))
        elif isinstance(phase, str) or not 0 <= phase < 1:
            raise ValueError(
                f"grid needs a phase from 0 to below 1, 'ends' or 'random', got {phase!r}."
            )
        else:
            moved = (lead + phase).expand(-1, len(shape))
        axes = [
            (torch.arange(m, device=draw.device) + moved[:, k : k + 1]) * (n / m)
            for k, (n, m) in enumerate(zip(shape, parts, strict=True))
        ]
    return tuple(axis.long() for axis in axes), parts


def random(shape: Sequence[int], count: int, draw: Draw) -> Points:
    """Uniform positions without replacement."""
    total = math.prod(shape)
    if count > total // 4:
        keys = draw.uniform("random", total).argsort(1)[:, :count]
        positions = unravel(keys, shape)
    else:
        positions = _distinct(shape, count, draw)
    return Points(positions, _equal(positions))


def _distinct(shape: Sequence[int], count: int, draw: Draw) -> Tensor:
    """The first `count` different ones of uniform positions."""
    bound = torch.tensor(shape, dtype=torch.float64, device=draw.device)
    weights = key_weights(shape).to(draw.device)
    drawn = torch.empty(draw.n_arrays, 0, len(shape), dtype=torch.int64, device=draw.device)
    while True:
        more = math.ceil(0.2 * count) + 10 if drawn.shape[1] else math.ceil(1.1 * count) + 10
        fresh = (draw.uniform("random", more, len(shape)) * bound).long()
        drawn = torch.cat([drawn, fresh], 1)
        keys, order = (drawn * weights).sum(-1).sort(dim=1, stable=True)
        again = torch.nn.functional.pad(keys[:, 1:] == keys[:, :-1], (1, 0))
        first = torch.empty_like(again).scatter_(1, order, ~again)
        if bool((first.sum(1) >= count).all()):
            break
    wanted = torch.arange(1, count + 1, device=draw.device).repeat(draw.n_arrays, 1)
    kept = torch.searchsorted(first.long().cumsum(1), wanted)
    return take_rows(drawn, kept)


def low_discrepancy(shape: Sequence[int], count: int, draw: Draw) -> Points:
    """A Sobol sequence with a random shift {cite}`cranley1976randomization`.

    Neighbors may coincide.
    """
    points = torch.quasirandom.SobolEngine(len(shape)).draw(count, dtype=torch.float64)
    moved = points.to(draw.device) + draw.uniform("low-discrepancy", 1, len(shape))
    bound = torch.tensor(shape, dtype=torch.float64, device=draw.device)
    positions = (moved.frac() * bound).long()
    return Points(positions, _equal(positions))


def jittered(shape: Sequence[int], count: int, draw: Draw) -> Points:
    """One uniform position in each of equal blocks; weights are the sizes of the blocks."""
    parts = parts_of(shape, count)
    begins, widths = blocks(shape, parts, draw.device)
    noise = draw.uniform("jittered", math.prod(parts), len(shape))
    positions = begins + (noise * widths).long()
    weights = widths.double().prod(-1) / math.prod(shape)
    return Points(positions, weights.expand(draw.n_arrays, -1))


def importance(
    shape: Sequence[int], count: int, draw: Draw, *, map: Tensor, mix: float = 0.1
) -> Points:
    """Positions drawn in proportion to a map, mixed with uniform ones, as by `in_blocks`.

    Args:
        shape: Sizes of the arrays.
        count: Number of positions.
        draw: For how many arrays.
        map: `(*sizes)` or `(K, *sizes)`, at least 0, of one cell or more an axis and at most as
            many as entries.
        mix: Share of the uniform positions, in (0, 1].
    """
    odds = _cells(map, shape, draw)
    begins, widths = (
        x.expand(draw.n_arrays, -1, -1) for x in blocks(shape, odds.shape[1:], draw.device)
    )
    return in_blocks(Blocks(begins, widths, odds.flatten(1)), count, draw, mix)


class Blocks(NamedTuple):
    """Blocks that fill K arrays.

    Args:
        begins: First entries, int64 `(K, m, D)`.
        widths: int64 `(K, m, D)`.
        odds: How densely to read there, `(K, m)`.
    """

    begins: Tensor
    widths: Tensor
    odds: Tensor


def in_blocks(found: Blocks, count: int, draw: Draw, mix: float) -> Points:
    """Positions in proportion to odds times volume, mixed with uniform ones.

    The blocks are drawn systematically: in their order, in equal steps of their cumulated odds,
    from a random start. The position in a block is uniform.
    """
    if not 0 < mix <= 1:
        raise ValueError(
            f"drawing by odds needs a mix above 0 and at most 1, got {mix}; without uniform "
            "positions what has the odds 0 is never read, and means are biased."
        )
    volumes = found.widths.double().prod(-1)
    total = volumes.sum(1, keepdim=True)
    odds = found.odds * volumes
    most = odds.sum(1, keepdim=True)
    # Where all odds are 0 the positions are uniform.
    known = (1 - mix) * (most > 0)
    share = known * odds / most.clamp_min(1e-300) + (1 - known) * volumes / total
    steps = torch.arange(count, device=draw.device) + draw.uniform("importance", 1)
    ends = share.cumsum(1)
    block = torch.searchsorted(ends / ends[:, -1:], steps / count).clamp_max(share.shape[1] - 1)
    widths = take_rows(found.widths, block)
    inside = draw.uniform("importance", *widths.shape[1:]) * widths
    expected = count * share.gather(1, block) / volumes.gather(1, block)
    return Points(take_rows(found.begins, block) + inside.long(), 1 / (total * expected))


def _cells(map: Tensor, shape: Sequence[int], draw: Draw) -> Tensor:
    """The map as float64 `(K, *sizes)`, checked."""
    cells = map.detach().to(draw.device, torch.float64)
    cells = cells[None] if cells.ndim == len(shape) else cells
    fits = cells.ndim == len(shape) + 1 and len(cells) in (1, draw.n_arrays)
    if not fits or any(not 1 <= m <= n for m, n in zip(cells.shape[1:], shape, strict=True)):
        raise ValueError(
            f"importance needs a map of at most {tuple(shape)} cells, or one for each of "
            f"{draw.n_arrays} arrays, got shape {tuple(map.shape)}."
        )
    if not bool((cells.isfinite() & (cells >= 0)).all()):
        raise ValueError(
            "importance needs a map of finite numbers of at least 0, got NaN, infinity or a number "
            "below 0; replace them, for example with `map.nan_to_num(0).clamp_min(0)`."
        )
    if not bool(cells.flatten(1).any(1).all()):
        raise ValueError(
            "importance needs a map with a number above 0 for each array, got only zeros; choose "
            "by 'jittered' where nothing is known."
        )
    return cells.expand(draw.n_arrays, *cells.shape[1:])


def blocks(
    shape: Sequence[int], parts: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """First entries and widths `(1, n_blocks, D)` of the blocks that divide an array evenly."""
    cuts = [edges(n, m, device=device)[None] for n, m in zip(shape, parts, strict=True)]
    return product([cut[:, :-1] for cut in cuts]), product([cut.diff(dim=1) for cut in cuts])


def unravel(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """Positions `(*keys, D)` of entries by their numbers, last axis fastest."""
    return torch.stack(torch.unravel_index(keys, tuple(shape)), -1)


def _equal(positions: Tensor) -> Tensor:
    k, m = positions.shape[:2]
    return torch.full((k, m), 1 / m, dtype=torch.float64, device=positions.device)


PLACERS: dict[str, Placer] = {
    "grid": grid,
    "importance": importance,
    "jittered": jittered,
    "low-discrepancy": low_discrepancy,
    "random": random,
}
