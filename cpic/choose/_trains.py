r"""Read what a tensor train needs, within a budget.

The budget fixes the rank: least squares samples as much as it allows, and the square search gets
the largest rank whose sweeps could not ask for more, even if no entry were met twice.

Shapes: `K` arrays, `D` axes, `n` points requested.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cpic.choose._picture import check_room
from cpic.choose._points import Draw
from cpic.linalg._inputs import need_generator
from cpic.tt import Quantics, TensorTrain, cap_ranks, cross, tt_svd
from cpic.tt._cross_run import _SMALL
from cpic.tt._cross_sampled import make_plan
from cpic.tt._points import all_points

Bits = Literal["sequential", "interleaved"]
Method = Literal["square", "least_squares"]
_OVERSAMPLED = 1.7  # columns of a least-squares fit over the rank it is rounded to


@dataclass(frozen=True, eq=False)
class Train:
    """K arrays as trains, of their axes or of the bits of their coordinates."""

    shape: tuple[int, ...]
    train: TensorTrain
    bits: Quantics | None = None

    def entries(self, indices: Tensor) -> Tensor:
        return self.train.entries(indices if self.bits is None else self.bits.sites(indices))

    def dense(self) -> Tensor:
        check_room(self.train.n_trains, self.shape)
        full = self.train.full()
        return full if self.bits is None else self.bits.join(full)

    def mean(self) -> Tensor:
        if self.bits is not None and self.bits.padded != self.shape:
            # Beyond the true shape the train is zero only up to its error.
            return self.dense().flatten(1).mean(1)
        ones = TensorTrain([torch.ones_like(c[:, :1, :, :1]) for c in self.train.cores])
        return self.train.inner(ones) / math.prod(self.shape)


def by_cross(
    read: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    count: int,
    draw: Draw,
    *,
    method: Method,
    bits: Bits | None = None,
    base: Literal[2, 4, 8] = 2,
    sweeps: int = 2,
    rank: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Train:
    """The train of a search that reads at most `count` entries.

    Args:
        read: Values `(K, n)` at positions `(K, n, D)`.
        shape: Sizes of the arrays.
        count: Bound on the entries.
        draw: For how many arrays, and the generator.
        method: As in `cpic.tt.cross`.
        bits: Order of the bits of a quantics train; by default the sites are the axes.
        base: Size of a site of a quantics train.
        sweeps: Of the square search.
        rank: Of the train; by default what the budget allows.
        dtype: Of the train.
    """
    total = math.prod(shape)
    if count < total <= _SMALL:
        raise ValueError(
            f"the crosses read arrays of at most {_SMALL} entries whole, got a budget of {count} of"
            f" {total}; pass budget=1.0 or choose by 'grid'."
        )
    who = f"cross-{method.replace('_', '-')}"
    generator = need_generator(who, draw.generator)
    map_ = None if bits is None else Quantics(shape, order=bits, base=base)
    sizes = shape if map_ is None else map_.sizes
    probes = n_probes(count)
    fits = count - 2 * probes
    most = rank_within(sizes, count, method=method, sweeps=sweeps)
    if most < 1:
        raise ValueError(
            f"{who} needs more than {count} entries for rank 1 on sizes {tuple(sizes)}; raise the "
            "budget or choose by 'grid'."
        )
    result = cross(
        read if map_ is None else map_.entries(read),
        sizes,
        n_trains=draw.n_arrays,
        rank=most if rank is None else rank,
        sweeps=sweeps,
        method=method,
        generator=generator,
        n_probes=probes,
        max_entries=fits,
        dtype=dtype,
        device=draw.device,
    )
    return Train(shape, result.train, map_)


def n_probes(count: int) -> int:
    """Entries of a budget on which a search measures its error, twice."""
    return min(1000, max(1, count // 20))


def rank_within(sizes: Sequence[int], count: int, *, method: Method, sweeps: int = 2) -> int:
    """The rank of a search that reads at most `count` entries; 0 if none fits."""
    fits = count - 2 * n_probes(count)
    if method == "square":
        return _largest(lambda r: 2 * sweeps * _fibers(sizes, r) <= fits, fits)
    columns = make_plan(sizes, rank=fits, max_entries=fits).columns
    return math.ceil(columns / _OVERSAMPLED)


def by_svd(
    read: Callable[[Tensor], Tensor], shape: tuple[int, ...], count: int, draw: Draw
) -> Train:
    """The best train of at most `count` numbers, from all entries."""
    check_room(draw.n_arrays, shape)
    points = all_points(shape, device=draw.device).expand(draw.n_arrays, -1, -1)
    rank = max(1, _largest(lambda r: _fibers(shape, r) <= count, count))
    return Train(shape, tt_svd(read(points).unflatten(1, shape), max_rank=rank))


def _fibers(sizes: Sequence[int], rank: int) -> int:
    """Numbers in the cores of a train, or entries of its fibers."""
    ranks = cap_ranks(sizes, rank)
    return sum(a * n * b for a, n, b in zip(ranks, sizes, ranks[1:], strict=False))


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `holds`, which turns false once; 0 if none."""
    low, high = 0, 1
    while high <= most and holds(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
