r"""The few numbers that decide which chooser suits an array, from a bounded number of its entries.

Random positions, the probes, are read, and around each of them the corners of the cell of a grid in
which it lies: so the error of linear interpolation of a grid of any stride is measured without
reading the grid. Fourth differences at the probes give the noise, and the singular values of random
rows and columns of each unfolding the ranks.

Shapes: `K` arrays, `n` probes, `D` axes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.choose._interpolate import brackets
from cpic.choose._points import Draw, grid_axes
from cpic.choose._trains import rank_within
from cpic.linalg._maxvol import take_rows
from cpic.tt._points import random_points

Read = Callable[[Tensor], Tensor]
"""Values float64 `(K, n)` at positions int64 `(K, n, D)`."""
SIDE = 48  # random rows, and columns, of an unfolding
PEAKS = 16  # probes at which the width of a detail is measured
TOP, BRIGHTEST = 0.1, 0.01  # shares of the probes, and of the values, that the energies refer to
NORMAL = 0.6745  # median of |x| for the standard normal distribution
FOURTH = ((-2, 1.0), (-1, -4.0), (0, 6.0), (1, -4.0), (2, 1.0))


class Measures(NamedTuple):
    """What was measured of K arrays; errors, spread and noise relative to the root mean square.

    Args:
        size: Root mean square of the values, `(K,)`, in their unit.
        spread: Standard deviation.
        noise: Standard deviation of what changes from one entry to the next: the median of fourth
            differences, scaled for normal noise.
        grid: Error of linear interpolation of a grid of as many positions as the budget.
        ends: The same for a grid that reaches from the first entry of an axis to its last.
        coarse: The same with a quarter of the budget.
        top: Share of the squared error of the coarse grid in the worst tenth of the probes.
        peaks: Share of the squared distance from the median in the most distant hundredth of the
            values.
        width: Entries over which the most distant values fall to one half, `(K,)`.
        stride: Entries from one position of the grid to the next, the largest of an axis.
        rank: Of the train that a search within the budget may have; 0 if none fits.
        tail: What the best train of this rank misses, estimated from the unfoldings.
        spectra: Singular values of each unfolding over the largest, `(K, D - 1, SIDE)`.
        n_probes: Number of probes.
    """

    size: Tensor
    spread: Tensor
    noise: Tensor
    grid: Tensor
    ends: Tensor
    coarse: Tensor
    top: Tensor
    peaks: Tensor
    width: Tensor
    stride: float
    rank: int
    tail: Tensor
    spectra: Tensor
    n_probes: int


def measure(read: Read, shape: Sequence[int], count: int, *, n_probes: int, draw: Draw) -> Measures:
    """Measure K arrays of a shape for a budget of `count` entries."""
    assert draw.generator is not None
    shape, k = tuple(shape), draw.n_arrays
    probes = random_points(shape, n_probes, n_trains=k, generator=draw.generator)
    probes = probes.to(draw.device)
    values, axes = read(probes), grid_axes(shape, count, draw, 0.5)[0]
    middles, places, there = _interpolated(read, axes, probes)
    # The grid lies evenly; its values are those of more places, so rare ones are met more often.
    seen = torch.cat([values, there], 1)
    size = seen.square().mean(1).sqrt().clamp_min(1e-150)
    noise = _noise(read, shape, probes) / size
    gaps = {"grid": middles - values}
    for name, most in (("ends", count), ("coarse", min(max(2 ** len(shape), count // 4), count))):
        ends = grid_axes(shape, most, draw, "ends")[0]
        gaps[name] = _interpolated(read, ends, probes)[0] - values
    errors = {name: _clean(gap, size, noise, len(shape)) for name, gap in gaps.items()}
    far = (seen - seen.median(1, keepdim=True).values).abs()
    (spectra, counted), rank = _spectra(read, shape, draw), _rank(shape, count)
    return Measures(
        size=size,
        spread=seen.std(1, correction=0) / size,
        noise=noise,
        **errors,
        top=_share_of(gaps["coarse"].square(), TOP),
        peaks=_share_of(far.square(), BRIGHTEST),
        width=_width(read, shape, torch.cat([probes, places], 1), seen),
        stride=max(n / axis.shape[1] for n, axis in zip(shape, axes, strict=True)),
        rank=rank,
        tail=_tail(spectra, counted, rank),
        spectra=spectra,
        n_probes=n_probes,
    )


def _interpolated(
    read: Read, axes: Sequence[Tensor], probes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear interpolation of a grid at the probes `(K, n)`; the places and values it needs."""
    k, n = probes.shape[:2]
    inside = [
        brackets(axis.expand(k, -1), at) for axis, at in zip(axes, probes.unbind(-1), strict=True)
    ]
    places, weights = [], []
    for corner in itertools.product(*((0, 1) if a.shape[1] > 1 else (0,) for a in axes)):
        place, weight = [], torch.ones_like(inside[0][1])
        for axis, (low, share), step in zip(axes, inside, corner, strict=True):
            place.append(axis.expand(k, -1).gather(1, low + step))
            weight = weight * (share if step else 1 - share)
        places.append(torch.stack(place, -1))
        weights.append(weight)
    around = torch.cat(places, 1)
    values = read(around)
    found = (torch.stack(weights, 1) * values.view(k, -1, n)).sum(1)
    return found, around, values


def _clean(gap: Tensor, size: Tensor, noise: Tensor, axes: int) -> Tensor:
    """Relative errors without the noise of the probes; that of the grid's own values remains."""
    # Linear interpolation at a random place keeps two thirds of the variance of noise, an axis.
    least = (2 / 3) ** axes * noise.square()
    return ((gap / size[:, None]).square().mean(1) - noise.square()).clamp_min(least).sqrt()


def _share_of(energy: Tensor, part: float) -> Tensor:
    """Share of the energy `(K, n)` in the largest part of it; 0 where there is none."""
    most = energy.topk(max(1, int(part * energy.shape[1])), dim=1).values.sum(1)
    total = energy.sum(1)
    return torch.where(total > 0, most / total.clamp_min(1e-300), torch.zeros_like(total))


def _noise(read: Read, shape: tuple[int, ...], probes: Tensor) -> Tensor:
    """Standard deviation `(K,)` of what changes from one entry to the next."""
    axes = [axis for axis, n in enumerate(shape) if n >= len(FOURTH)]
    if not axes:
        return torch.zeros(len(probes), dtype=torch.float64, device=probes.device)
    inner = torch.tensor(shape, device=probes.device) - 3
    middle = torch.minimum(probes, inner).clamp_min(2)
    middle = torch.minimum(middle, inner + 2)  # axes that are too short for a difference
    places = []
    for axis, (step, _) in itertools.product(axes, FOURTH):
        places.append(middle.clone())
        places[-1][..., axis] += step
    values = read(torch.cat(places, 1)).view(len(probes), len(axes), len(FOURTH), -1)
    weights = values.new_tensor([weight for _, weight in FOURTH])
    bends = torch.einsum("kasn,s->kan", values, weights / weights.norm())
    return bends.abs().flatten(1).median(1).values / NORMAL


def _width(read: Read, shape: tuple[int, ...], places: Tensor, values: Tensor) -> Tensor:
    """Entries `(K,)` over which the most distant values fall to half their distance."""
    middle, d = values.median(1, keepdim=True).values, len(shape)
    far, chosen = (values - middle).abs().topk(min(PEAKS, values.shape[1]), dim=1)
    peaks = take_rows(places, chosen)
    steps = 2 ** torch.arange(max(1, (max(shape) - 1).bit_length()), device=places.device)
    ways = torch.cat([torch.eye(d), -torch.eye(d)]).long().to(places.device)
    moved = peaks[:, :, None, None] + ways[:, None] * steps[:, None]  # (K, peaks, 2 D, steps, D)
    bound = torch.tensor(shape, device=places.device)
    inside = ((moved >= 0) & (moved < bound)).all(-1)
    there = read(torch.minimum(moved.clamp_min(0), bound - 1).flatten(1, 3)).view(inside.shape)
    fallen = ((there - middle[..., None, None]).abs() < far[..., None, None] / 2) | ~inside
    # Steps double, so the edge lies between the last step that is high and the first that is not.
    first = torch.where(fallen.any(-1), fallen.int().argmax(-1), len(steps))
    reach = 0.75 * 2.0 ** first.double()
    # Values that are not half as distant as the most distant one belong to what is around it.
    across = (reach[..., :d] + reach[..., d:] - 1).clamp_min(1)
    across = across.masked_fill((far < far[:, :1] / 2)[..., None], math.nan)
    return across.flatten(1).nanmedian(1).values


def _spectra(read: Read, shape: tuple[int, ...], draw: Draw) -> tuple[Tensor, Tensor]:
    """Random parts of the unfoldings: squared singular values of sum 1, and how many rows count.

    `(K, D - 1, SIDE)` and `(K, D - 1)`; the latter is the least of rows and columns.
    """
    assert draw.generator is not None
    parts, counted = [], []
    for cut in range(1, len(shape)):
        rows, columns = (
            random_points(side, SIDE, n_trains=draw.n_arrays, generator=draw.generator)
            for side in (shape[:cut], shape[cut:])
        )
        left = rows[:, :, None].expand(-1, -1, SIDE, -1)
        right = columns[:, None].expand(-1, SIDE, -1, -1)
        places = torch.cat([left, right], -1).flatten(1, 2).to(draw.device)
        part = read(places).unflatten(1, (SIDE, SIDE))
        parts.append(torch.linalg.svdvals(part).square())
        energies = torch.stack([part.square().sum(axis) for axis in (1, 2)], 1)
        least = energies.square().sum(-1).clamp_min(1e-300)
        counted.append((energies.sum(-1).square() / least).amin(1))
    energy = torch.stack(parts, 1)
    return energy / energy.sum(-1, keepdim=True).clamp_min(1e-300), torch.stack(counted, 1)


def _rank(shape: tuple[int, ...], count: int) -> int:
    try:
        return rank_within(shape, count, method="least_squares")
    except ValueError:
        return 0


def _tail(spectra: Tensor, counted: Tensor, rank: int) -> Tensor:
    """What the best train of a rank misses `(K,)`, relative; 1 for rank 0."""
    if not rank:
        return torch.ones_like(spectra[:, 0, 0])
    # A part whose rows are mostly empty is of low rank whatever the array: no rank above half of
    # the rows that carry energy is judged.
    judged = (counted / 2).clamp(1, rank).floor().long()[..., None]
    numbers = torch.arange(SIDE, device=spectra.device)
    rest = spectra.masked_fill(numbers < judged, 0).sum(-1)
    # Components removed from a part take some of the others with them.
    return (rest / (1 - judged[..., 0] / SIDE).square()).sum(1).sqrt()


def numbers_of(found: Measures, array: int) -> dict[str, float]:
    """What was measured of one array, by name, without its spectra."""
    return {
        name: float(value[array]) if isinstance(value, Tensor) else value
        for name, value in found._asdict().items()
        if name != "spectra"
    }


def effective_ranks(spectra: Tensor, error: float) -> list[int]:
    """Ranks of the unfoldings of one array that keep a relative error; SIDE means more."""
    rest = spectra[0].flip(-1).cumsum(-1).flip(-1)
    return [int(n) for n in (rest > error**2).sum(-1)]
