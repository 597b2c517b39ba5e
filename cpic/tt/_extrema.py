r"""Find the smallest and the largest entry of a tensor that is accessed entry by entry.

Cross-approximation reads entries near the largest ones: rows of large volume hold large values.
The search therefore runs on f - min and on max - f, with the best bounds found so far, and then
climbs from the best multi-indices along one mode at a time. Nothing is proved: an extremum that no
probe and no fiber hits is missed.

Shapes: `K` tensors, `d` sites.
References: {cite}`goreinov2010how`, {cite}`oseledets2010ttcross`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.linalg._inputs import check_least
from cpic.linalg._maxvol import take_rows
from cpic.tt._cross import cross
from cpic.tt._entries import Entries
from cpic.tt._fibers import ask, with_dtype
from cpic.tt._points import all_points, random_points
from cpic.tt._sets import check_sizes
from cpic.tt._threads import one_thread

_SMALL = 4096


class Extrema(NamedTuple):
    """What `find_extrema` found: values `(K,)`, multi-indices `(K, d)`, number of evaluations."""

    minimum: Tensor
    argmin: Tensor
    maximum: Tensor
    argmax: Tensor
    n_evals: int


class _Best:
    """Entries that record the extrema of all returned values, and a few of the best points."""

    def __init__(self, entries: Entries, n_places: int):
        self.entries, self.n_places, self.n_evals = entries, n_places, 0
        self.values: list[Tensor] = []  # of -f and f, (K, n_places)
        self.places: list[Tensor] = []

    def __call__(self, indices: Tensor) -> Tensor:
        values = ask(self.entries, indices)
        self.n_evals += indices.shape[1]
        values_of, places_of = [], []
        for side, signed in enumerate((-values, values)):
            pool, places = signed, indices
            if self.values:
                pool = torch.cat([self.values[side], signed], 1)
                places = torch.cat([self.places[side], indices], 1)
            top = pool.topk(min(self.n_places, pool.shape[1]), dim=1)
            values_of.append(top.values)
            places_of.append(take_rows(places, top.indices))
        self.values, self.places = values_of, places_of
        return values


def find_extrema(
    entries: Entries,
    sizes: Sequence[int],
    *,
    generator: torch.Generator,
    n_trains: int = 1,
    rank: int = 4,
    n_probes: int = 2000,
    n_starts: int = 4,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Extrema:
    r"""Smallest and largest entry of K tensors, and their multi-indices.

    Tensors of at most 4096 entries are read completely, and the result is exact. Carries no
    gradient.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to real values `(K, n)`.
        sizes: Size of each of the `d` modes.
        generator: The only source of randomness.
        n_trains: Number of tensors K.
        rank: Rank of the searches; a higher one reads more entries.
        n_probes: Number of random entries to begin with.
        n_starts: Number of points to climb from, for each extremum.
        dtype: Type of the values.
        device: Device of the multi-indices.

    Returns:
        The best entries found. In a tie, any of the equal entries is returned.

    Raises:
        ValueError: If a number is below 1, or `entries` returns a wrong shape, complex, NaN or
            infinite values.

    Example:
        >>> seed = torch.Generator().manual_seed(0)
        >>> found = find_extrema(lambda i: ((i - 5) ** 2).sum(-1), (16,) * 4, generator=seed)
        >>> float(found.minimum), found.argmin.tolist(), float(found.maximum)
        (0.0, [[5, 5, 5, 5]], 400.0)
    """
    sizes = check_sizes(sizes)
    numbers = {"n_trains": n_trains, "n_probes": n_probes, "n_starts": n_starts}
    check_least("find_extrema", "raise it", **numbers)
    best = _Best(with_dtype(entries, dtype), n_starts)
    with one_thread(), torch.no_grad():
        if math.prod(sizes) <= _SMALL:
            best(all_points(sizes, device=device).expand(n_trains, -1, -1))
        else:
            points = random_points(sizes, n_probes, n_trains=n_trains, generator=generator)
            best(points.to(device))
            for side in (0, 1):
                _search(best, side, sizes, rank, n_trains, generator, dtype, device)
                _climb(best, side, sizes)
    low, high = best.values
    return Extrema(-low[:, 0], best.places[0][:, 0], high[:, 0], best.places[1][:, 0], best.n_evals)


def _search(best, side, sizes, rank, n_trains, generator, dtype, device) -> None:
    """Two sweeps on the distance from the opposite extremum, largest at the extremum sought."""
    other = best.values[1 - side][:, :1]  # of the opposite sign

    def distance(indices: Tensor) -> Tensor:
        values = best(indices)
        return (values if side else -values) / 2 + other / 2  # the whole distance may overflow

    cross(
        distance, sizes, rank=rank, n_trains=n_trains, sweeps=2, method="square",
        generator=generator, n_probes=100, dtype=dtype, device=device,
    )  # fmt: skip


def _climb(best: _Best, side: int, sizes: tuple[int, ...], rounds: int = 10) -> None:
    """Move each start to the best index of one mode after the other, until none moves."""
    places = best.places[side].clone()
    n = places.shape[1]
    for _ in range(rounds):
        before = places.clone()
        for site, size in enumerate(sizes):
            lines = places[:, :, None].repeat(1, 1, size, 1)
            lines[..., site] = torch.arange(size, device=places.device)
            values = best(lines.flatten(1, 2)).unflatten(1, (n, size))
            places[..., site] = (values if side else -values).argmax(-1)
        if torch.equal(before, places):
            break
