r"""Fit a train to sampled entries by least squares, for tensors that are not exactly low rank.

Interpolation through exactly r pivots amplifies the components beyond rank r, which are large in
anatomical data. Here consecutive sites are first merged into few groups, so that few bonds have to
be estimated from samples. Then, with R > r columns,

1. from the left end, and mirrored from the right one: the fibers of a group through sampled
   multi-indices of the other groups give, by SVD, an orthonormal basis U of R columns; p > R of its
   rows are selected by rectangular maxvol, and are the left multi-indices of the next group;
2. the core of the middle group solves  min | B_l C B_r^T - V |,  where V holds the entries on the
   selected rows of both sides and B_l, B_r the values of the bases there;
3. the group cores are split into their sites, and the train is rounded to rank r.

The oversampling p / R keeps the noise of step 2 low, and the rounding of step 3 is near-optimal.

Shapes: `K` tensors, `d` sites, `n` positions of a group, `R` columns, `p` rows, `m` fibers.
References: {cite}`mikhalev2018rectangular`, {cite}`halko2011finding`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.linalg import rect_maxvol
from cpic.tt._fibers import product
from cpic.tt._pivots import draw_points
from cpic.tt._points import all_points
from cpic.tt._train import TensorTrain

Read = Callable[[Tensor], Tensor]
WIDE, NARROW = 256, 64  # positions of a group: wide if three groups are enough


class Plan(NamedTuple):
    """Numbers of samples: groups of sites, columns R, rows p, fibers at the ends and inside."""

    groups: tuple[range, ...]
    columns: int
    rows: int
    end_fibers: int
    inner_fibers: int
    n_entries: int


def make_plan(sizes: Sequence[int], *, rank: int, max_entries: int | None = None) -> Plan:
    """Choose what to sample: as much as `max_entries` allows, or what the rank needs.

    Raises:
        ValueError: If `max_entries` is too small for a basis of one column.
    """
    groups = merge_sites(sizes)
    if max_entries is None:
        return _plan_of(groups, sizes, math.ceil(1.7 * rank))
    least = _plan_of(groups, sizes, 1)
    if least.n_entries > max_entries:
        raise ValueError(
            f"least squares on sizes {tuple(sizes)} needs at least {least.n_entries} entries, got "
            f"max_entries={max_entries}; raise it or use method='square'."
        )
    low, high = 1, 4 * max(rank, 4)  # the cost grows with the columns: bisect
    while low < high:
        middle = (low + high + 1) // 2
        fits = _plan_of(groups, sizes, middle).n_entries <= max_entries
        low, high = (middle, high) if fits else (low, middle - 1)
    return _plan_of(groups, sizes, low)


def merge_sites(sizes: Sequence[int]) -> tuple[range, ...]:
    """Consecutive sites in as few groups as the width allows, of sizes as equal as possible."""
    groups = _merge(sizes, WIDE)
    if len(groups) > 3 and max(sizes) < WIDE:
        groups = _merge(sizes, max(NARROW, *sizes))
    width = max(math.prod(sizes[k] for k in group) for group in groups)
    for narrower in range(1, width):
        even = _merge(sizes, max(narrower, *sizes)) if max(sizes) <= narrower else ()
        if len(even) == len(groups):
            return even
    return groups


def _merge(sizes: Sequence[int], width: int) -> tuple[range, ...]:
    edges, count = [0], 1
    for k, size in enumerate(sizes):
        if count * size > width and k > edges[-1]:
            edges.append(k)
            count = 1
        count *= size
    return tuple(range(a, b) for a, b in zip(edges, [*edges[1:], len(sizes)], strict=True))


def _plan_of(groups: tuple[range, ...], sizes: Sequence[int], columns: int) -> Plan:
    rows, ends, inner = math.ceil(1.4 * columns), 6 * columns, 2 * columns
    wide = [math.prod(sizes[k] for k in group) for group in groups]
    center = len(groups) // 2
    cost, reached = 0, []
    for inwards in (wide[:center], wide[:center:-1]):
        reach, rest = 1, math.prod(wide)
        for step, n in enumerate(inwards):
            rest //= n
            cost += reach * n * min(inner if step else ends, rest)
            reach = min(rows, reach * n)
        reached.append(reach)
    return Plan(groups, columns, rows, ends, inner, cost + reached[0] * wide[center] * reached[1])


def fit_sampled(
    read: Read,
    sizes: Sequence[int],
    plan: Plan,
    *,
    points: Tensor,
    weights: Tensor,
    generator: torch.Generator,
) -> TensorTrain:
    """Sample by `plan` and return the fitted train, not yet rounded.

    Args:
        read: Values `(K, n)` at multi-indices `(K, n, d)`.
        sizes: Size of each of the `d` sites.
        plan: From `make_plan`.
        points: Multi-indices `(K, q, d)` to draw fibers through.
        weights: Their weights `(K, q)`; magnitudes of the entries avoid fibers in empty regions.
        generator: Draws the fibers.
    """
    sampler = _Sampler(read, list(sizes), plan, points, weights, generator)
    center = len(plan.groups) // 2
    left = sampler.side(range(center), mirrored=False)
    right = sampler.side(range(len(plan.groups) - 1, center, -1), mirrored=True)
    values = sampler.block(left.rows, center, right.rows)
    k, _, n, _ = values.shape
    core = values if left.values is None else _fit(left.values, values.flatten(2))
    core = core.reshape(k, -1, n, right.rows.shape[1])
    if right.values is not None:
        core = _fit(right.values, core.flatten(1, 2).mT).mT.unflatten(1, (-1, n))
    cores = [*left.cores, core, *right.cores[::-1]]
    sites = [
        site
        for core, group in zip(cores, plan.groups, strict=True)
        for site in _split(core, [sizes[k] for k in group])
    ]
    return TensorTrain(sites)


class _Side(NamedTuple):
    """Cores of one side, the last selected rows `(K, p, sites)`, the basis there `(K, p, R)`.

    A side without groups has one empty row and no basis.
    """

    cores: list[Tensor]
    rows: Tensor
    values: Tensor | None


class _Sampler:
    def __init__(self, read, sizes, plan, points, weights, generator):
        self.read, self.sizes, self.plan, self.k = read, sizes, plan, len(points)
        self.points, self.weights, self.generator = points, weights, generator
        self.places = [
            all_points([self.sizes[k] for k in group], device=points.device)
            for group in plan.groups
        ]

    def _others(self, sites: range, count: int) -> Tensor:
        """Multi-indices `(K, count, sites)`: all if they are few, otherwise a sample."""
        sizes = self.sizes[sites.start : sites.stop]
        if math.prod(sizes) <= count:
            return all_points(sizes, device=self.points.device).expand(self.k, -1, -1)
        drawn = draw_points(self.points, self.weights, count, self.generator)
        return drawn[..., sites.start : sites.stop]

    def block(self, left: Tensor, group: int, right: Tensor) -> Tensor:
        """Values `(K, l, n, r)` on left x positions of the group x right."""
        places = self.places[group]
        shape = (self.k, left.shape[1], len(places), right.shape[1])
        return self.read(product(left, places[None], right)).view(shape)

    def side(self, order: range, *, mirrored: bool) -> _Side:
        """Bases of the groups in `order`, from one end inwards."""
        plan, d = self.plan, len(self.sizes)
        rows = torch.zeros(self.k, 1, 0, dtype=torch.int64, device=self.points.device)
        values, cores = None, []
        for step, g in enumerate(order):
            group, places = plan.groups[g], self.places[g]
            rest = range(group.start) if mirrored else range(group.stop, d)
            others = self._others(rest, plan.inner_fibers if step else plan.end_fibers)
            if mirrored:
                block = self.block(others, g, rows).permute(0, 3, 2, 1)
            else:
                block = self.block(rows, g, others)
            if values is None:
                values = block.new_ones(self.k, 1, 1)
            fitted = _fit(values, block.flatten(2))
            core = _basis(fitted.unflatten(2, block.shape[2:]).flatten(1, 2), plan.columns)
            core = core.unflatten(1, (-1, len(places)))
            values = torch.einsum("kpr,krnc->kpnc", values, core).flatten(1, 2)
            pairs = product(rows, places[None])
            if mirrored:
                pairs = pairs.roll(len(group), -1)
            count = min(plan.rows, values.shape[1])
            kept = rect_maxvol(values, n_rows=count, on_deficient="report").rows.unsqueeze(-1)
            values = values.take_along_dim(kept, 1)
            rows = pairs.take_along_dim(kept, 1)
            cores.append(core.permute(0, 3, 2, 1) if mirrored else core)
        return _Side(cores, rows, values)


def _basis(matrix: Tensor, columns: int) -> Tensor:
    """The leading left singular vectors `(K, m, R)`."""
    left, _, _ = torch.linalg.svd(matrix, full_matrices=False)
    return left[..., :columns]


def _fit(rows: Tensor, values: Tensor) -> Tensor:
    """Least-squares solution X of rows X = values, by QR."""
    q, r = torch.linalg.qr(rows)
    return torch.linalg.solve_triangular(r, q.mT @ values, upper=True)


def _split(core: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The sites of a group core `(K, l, n, r)`, exactly."""
    k, left, _, right = core.shape
    sites, rest = [], core
    for size in sizes[:-1]:
        q, rest = torch.linalg.qr(rest.reshape(k, left * size, -1))
        sites.append(q.view(k, left, size, -1))
        left = q.shape[-1]
    return [*sites, rest.reshape(k, left, sizes[-1], right)]
