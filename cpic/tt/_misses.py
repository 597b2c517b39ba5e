r"""Look for what a train misses, and say how much that is.

No single way of looking finds all misses: uniform probes see what is spread, draws by the square of
the train see where it is large, and climbing along the modes sees a lone corner or peak, from
wherever there is a slope. The misses on n uniform probes and m draws x from the train g estimate
the error together, each weighted by the density of both ways {cite}`veach1995optimally`:

    |f - g|^2 / |g|^2  ~  sum_x (f - g)(x)^2 / (n s + m g(x)^2),   s the mean of g^2,

and what climbing found is a bound from below, which counts on top.

Shapes: `K` tensors, `d` sites, `m` or `s` multi-indices.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.tt._contract import entries
from cpic.tt._cross_square import relative_error
from cpic.tt._ledger import Reader
from cpic.tt._pivots import draw_missed
from cpic.tt._sets import random_points
from cpic.tt._train import TensorTrain

Read = Callable[[Tensor], Tensor]
_HELD = 2**25  # numbers that one step of a draw may hold
_KEPT = 256  # worst points of a climb that guide what follows


def draw_squares(train: TensorTrain, m: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Multi-indices `(K, m, d)` with odds the squares of the entries, and their mean `(K, 1)`.

    Sites are drawn one after the other, given those before; what lies behind is summed up in Gram
    matrices. A step may hold fewer than `m`.
    """
    cores, k = train.cores, train.n_trains
    m = max(1, min(m, _HELD // max(k * core[0].numel() // core.shape[1] for core in cores)))
    grams = [cores[-1].new_ones(k, 1, 1)]
    for core in reversed(cores):
        weighted = (core.flatten(1, 2) @ grams[-1]).view(core.shape).flatten(2)
        grams.append(weighted @ core.flatten(2).mT / core.shape[2])
    mean = grams.pop().view(k, 1)
    noise = torch.rand(
        len(cores), k, m, 1, generator=generator, dtype=mean.dtype, device=generator.device
    ).to(mean.device)
    state, drawn = mean.new_ones(k, m, 1), []
    for core, gram, dice in zip(cores, reversed(grams), noise, strict=True):
        n, right = core.shape[2:]
        every = (state @ core.flatten(2)).view(k, m * n, right)
        odds = (every @ gram * every).sum(-1).clamp_min_(0).view(k, m, n).cumsum(-1)
        index = (odds < dice * odds[..., -1:]).sum(-1, keepdim=True).clamp_max_(n - 1)
        drawn.append(index)
        chosen = index[..., None].expand(-1, -1, 1, right)
        state = every.view(k, m, n, right).gather(2, chosen).squeeze(2)
        state = state / state.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(mean.dtype).tiny)
    return torch.cat(drawn, -1), mean


class Climb(NamedTuple):
    """Multi-indices `(K, n, d)` that were read, values and what is missed `(K, n)`, the top's view.

    `lines` `(K, d, n_k)` are the heights along the modes, through the highest place that was looked
    from; shorter modes are padded with zeros.
    """

    points: Tensor
    values: Tensor
    gaps: Tensor
    lines: Tensor


def climb(
    read: Read, train: TensorTrain | None, points: Tensor, sizes: Sequence[int], *, rounds: int = 3
) -> Climb:
    """Follow the size of what the train misses, from each of `points` `(K, s, d)` upwards.

    A round looks along all modes of each place and goes to the best index of every mode at once, or
    of the best mode alone where that is higher.

    Args:
        read: Values `(K, n)` at multi-indices `(K, n, d)`.
        train: What is known; None climbs on the entries themselves.
        points: Where to begin.
        sizes: Size of each of the `d` modes.
        rounds: Bound on the rounds.
    """
    device, counts = points.device, [n - 1 for n in sizes]
    site = torch.arange(len(sizes), device=device)
    site = site.repeat_interleave(torch.tensor(counts, device=device))
    step = torch.cat([torch.arange(1, n, device=device) for n in sizes])
    bound, column = torch.tensor(sizes, device=device)[site], torch.arange(len(site), device=device)
    seen, found, missed = [], [], []

    def look(where: Tensor) -> Tensor:
        seen.append(where.flatten(1, -2))
        found.append(read(seen[-1]))
        known = 0.0 if train is None else entries(train.cores, seen[-1])
        missed.append(found[-1] - known)
        return missed[-1].abs().view(where.shape[:-1])

    height, view = look(points), torch.empty(0)
    for _ in range(rounds):
        where = (points[..., site] + step) % bound
        lines = points[:, :, None].repeat(1, 1, len(site), 1)
        lines[:, :, column, site] = where
        gaps = look(lines)
        view = _lines(height, points, gaps, where, site, sizes)
        top, best = torch.cat([height[..., None], gaps], -1).max(-1)
        if not bool((top > height).any()):
            break
        one = torch.cat([points[:, :, None], lines], 2)
        one = one.gather(2, best[..., None, None].expand(-1, -1, 1, len(sizes))).squeeze(2)
        every = points.clone()
        for k, part in enumerate(gaps.split(counts, -1)):
            if counts[k]:
                most, j = part.max(-1)
                every[..., k] += torch.where(most > height, j + 1, 0)
                every[..., k] %= sizes[k]
        # Only the modes of a sum or product are free of each other; elsewhere the best one leads.
        height, way = torch.stack([top, look(every)]).max(0)
        points = torch.where(way[..., None] == 1, every, one)
    return Climb(torch.cat(seen, 1), torch.cat(found, 1), torch.cat(missed, 1), view)


def _lines(
    height: Tensor, points: Tensor, gaps: Tensor, where: Tensor, site: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Heights `(K, d, n_k)` along the modes of the highest place."""
    k, _, d = points.shape
    top, highest = height.max(1, keepdim=True)

    def of_highest(parts: Tensor) -> Tensor:
        return parts.gather(1, highest[..., None].expand(-1, 1, parts.shape[-1])).squeeze(1)

    lines = height.new_zeros(k, d, max(sizes))
    lines.scatter_(2, of_highest(points)[..., None], top[..., None].expand(-1, d, 1))
    each = torch.arange(k, device=site.device)[:, None]
    lines[each, site, of_highest(where)] = of_highest(gaps)
    return lines


class Products:
    """Products of the lines through a high place, as odds: the higher the power, the nearer to it.

    Args:
        lines: Heights `(K, d, n_k)`.
        sizes: Sizes of the `d` modes.
    """

    POWERS = (1, 2, 3)

    def __init__(self, lines: Tensor, sizes: Sequence[int]):
        peak = lines.amax(-1, keepdim=True)
        self.sizes = torch.tensor(sizes, device=lines.device)
        inside = torch.arange(lines.shape[-1], device=lines.device) < self.sizes[:, None]
        lines = torch.where(peak > 0, lines / peak, inside.to(lines.dtype)).double()
        odds = torch.stack([lines**power for power in self.POWERS])
        self.odds = odds / odds.sum(-1, keepdim=True)  # (powers, K, d, n_k)

    def draw(self, m: int, generator: torch.Generator) -> Tensor:
        """Multi-indices `(K, powers * m, d)`."""
        sums = self.odds.cumsum(-1)
        dice = torch.rand(
            *sums.shape[:-1], m, generator=generator, dtype=sums.dtype, device=generator.device
        ).to(sums.device)
        index = torch.searchsorted(sums, dice * sums[..., -1:], right=True)
        index = torch.minimum(index, self.sizes[:, None] - 1)
        return index.permute(1, 0, 3, 2).flatten(1, 2)

    def density(self, points: Tensor) -> Tensor:
        """How much more often a power draws `points` `(K, n, d)` than a uniform draw does."""
        index = points.mT.expand(len(self.POWERS), -1, -1, -1)
        return (self.odds.gather(-1, index) * self.sizes[:, None]).log().sum(-2).exp()


def distinct(points: Tensor, weights: Tensor) -> Tensor:
    """Which of `points` `(K, n, d)` are not among those before them `(K, n)`."""
    keys = (points * weights).sum(-1)
    order = keys.argsort(dim=1, stable=True)
    again = keys.gather(1, order).diff(dim=1) == 0
    return torch.ones_like(keys, dtype=torch.bool).scatter(1, order[:, 1:], ~again)


class Misses:
    """Points of known value, what a train misses there, and its error on fresh ones.

    Args:
        reader: Where the values come from.
        points: Uniform multi-indices `(K, n, d)`, or all there are.
        truth: Their values `(K, n)`.
        generator: Draws more.
    """

    def __init__(self, reader: Reader, points: Tensor, truth: Tensor, generator: torch.Generator):
        self.reader, self.points, self.truth, self.generator = reader, points, truth, generator
        self.n, self.train, self.gap = points.shape[1], None, truth
        self.spread = torch.ones(self.n, dtype=torch.bool, device=points.device)
        self.whole = self.n == math.prod(reader.sizes)
        self.starts = max(1, min(8, self.n // sum(reader.sizes)))
        if not self.whole:
            self.products = Products(self.climb(), reader.sizes)

    def compare(self, train: TensorTrain) -> Tensor:
        """Look at a train from now on; its relative error `(K,)` on the first points."""
        self.train = train
        values = entries(train.cores, self.points)
        self.gap = self.truth - values
        return relative_error(self.truth[:, : self.n], values[:, : self.n])

    def worst(self, count: int = 256) -> Tensor:
        """Points by what is missed there, in turn of all and of those that were not climbed to."""
        squares = self.gap.double().square()
        orders = [
            draw_missed(self.points, squares * odds, count // 2, self.generator)
            for odds in (1, self.spread)
        ]
        return torch.stack(orders, 2).flatten(1, 2)

    def climb(self) -> Tensor:
        """Climb from the worst points to worse ones; the lines through the worst `(K, d, n)`."""
        place = self.gap.abs().topk(self.starts, 1).indices
        start = self.points.gather(1, place[..., None].expand(-1, -1, self.points.shape[-1]))
        found = climb(self.reader.points, self.train, start, self.reader.sizes)
        worst = found.gaps.abs().topk(min(_KEPT, found.gaps.shape[1]), 1).indices
        points = found.points.gather(1, worst[..., None].expand(-1, -1, found.points.shape[-1]))
        self._keep(points, found.values.gather(1, worst), found.gaps.gather(1, worst), spread=False)
        return found.lines

    def confirm(self, n: int) -> Tensor:
        """The error `(K,)` of the train, and twice its uncertainty, on `n` points not seen before.

        Half of them are uniform, the others drawn where the train or the entries are large.
        """
        assert self.train is not None
        if self.whole:
            return relative_error(self.truth, self.truth - self.gap)
        k, before = len(self.points), self.points.shape[1]
        few = max(1, n // 8)
        fresh = random_points(self.reader.sizes, n, n_trains=k, generator=self.generator)
        drawn, mean = draw_squares(self.train, few, self.generator)
        near = self.products.draw(few, self.generator)
        fresh = torch.cat([fresh[:, : n // 2].to(drawn.device), drawn, near], 1)
        truth = self.reader.points(fresh)
        self._keep(fresh, truth, truth - entries(self.train.cores, fresh), spread=True)
        squares, last = self.gap.double().square(), slice(before, None)
        density = n // 2 + few * self.products.density(fresh).sum(0)
        density = density * mean + drawn.shape[1] * (self.truth - self.gap)[:, last].square()
        terms = torch.where(squares[:, last] > 0, squares[:, last] / density, 0.0)
        squares[:, last] = 0
        peak = self.truth.abs().amax(1)
        if bool((self.gap.abs().amax(1) > 64 * torch.finfo(peak.dtype).eps * peak).any()):
            self.climb()  # what is left is more than rounding, so it may have a slope
            climbed = self.gap[:, squares.shape[1] :].double().square()
            squares = torch.cat([squares, climbed], 1)
        lone = squares * distinct(self.points, self.reader.weights)
        share = math.exp(-sum(map(math.log, self.reader.sizes)))
        lone = torch.where(lone > 0, lone * share / mean, 0.0).sum(1)
        return (terms.sum(1) + 2 * terms.square().sum(1).sqrt() + lone).sqrt()

    def _keep(self, points: Tensor, truth: Tensor, gap: Tensor, *, spread: bool) -> None:
        self.points = torch.cat([self.points, points], 1)
        self.truth = torch.cat([self.truth, truth], 1)
        self.gap = torch.cat([self.gap, gap], 1)
        more = self.spread.new_full((points.shape[1],), spread)
        self.spread = torch.cat([self.spread, more])
