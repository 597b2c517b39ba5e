r"""Search for the entries where a train is wrong, and estimate its error.

No single search finds all errors: uniform probes find those that are spread out, draws by the
square of the train those where it is large, and climbing along the modes those at a single corner
or peak with a slope. The errors on n uniform probes and m draws x from the train g together
estimate the total, each weighted by the density of both samples {cite}`veach1995optimally`:

    |f - g|^2 / |g|^2  ~  sum_x (f - g)(x)^2 / (n s + m g(x)^2),   s the mean of g^2,

and the errors found by climbing are a lower bound, which is added.

The errors at a jump or spike are isolated: at few entries, among others that are exact, or alone on
the lines through them, and no slope leads there. If n draws in a row find none after one of weight
w, a fraction 3 / n of such may be left (the rule of three), so 3 w / n is added too.

Shapes: `K` tensors, `d` sites, `m` or `s` multi-indices.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.linalg._maxvol import take_rows
from cpic.tt._climb import climb, stands_alone
from cpic.tt._contract import entries
from cpic.tt._ledger import Reader
from cpic.tt._pivots import draw_missed, uniform
from cpic.tt._points import random_points
from cpic.tt._train import TensorTrain

_HELD = 2**23  # maximum number of values in memory in one step of a draw
_KEPT = 256  # number of worst points of a climb that are stored
_EXACT = 3e-5  # multiple of the tolerance up to which an entry counts as exact
_FEW = 0.05  # fraction of draws of similar size from which on errors are not isolated
_SINGLE = 2.0**-25  # mean relative error of rounding to float32
_UNLIKELY = 64  # largest plausible ratio of the mean squares of uniform draws and of the train


def relative_error(truth: Tensor, values: Tensor) -> Tensor:
    """`|truth - values| / |truth|` along the last axis without overflow; 0 / 0 is 0."""
    peak = torch.maximum(truth.abs(), values.abs()).amax(-1, keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)
    gap = ((truth - values) / peak).norm(dim=-1)
    size = (truth / peak).norm(dim=-1)
    return torch.where(gap == 0, 0.0, gap / size)


def rounding(values: Tensor) -> Tensor:
    """Relative errors `(K,)` of values `(K, n)` of size one that were rounded to float32.

    Zero if they are more accurate, or multiples of 2^-20.
    """
    single = (values == values.float()).all(1)
    grid = values * 2**20
    return torch.where(single & (grid != grid.round()).any(1), _SINGLE, 0.0)


def draw_squares(train: TensorTrain, m: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Multi-indices `(K, m, d)` drawn by the squares of the entries, and their mean `(K, 1)`.

    Each site is drawn conditionally on the previous ones; the remaining ones are summed in Gram
    matrices. If memory does not suffice, there are fewer than `m`.
    """
    cores, k = train.cores, train.n_trains
    m = max(1, min(m, _HELD // max(k * core[0].numel() // core.shape[1] for core in cores)))
    flat = [core.flatten(2) for core in cores]
    grams = [cores[-1].new_ones(k, 1, 1)]
    for core, wide in zip(reversed(cores), reversed(flat), strict=True):
        weighted = torch.bmm(core.flatten(1, 2), grams[-1]).view(wide.shape)
        grams.append(
            torch.baddbmm(grams[-1][:, :1, :1], weighted, wide.mT, beta=0, alpha=1 / core.shape[2])
        )
    mean = grams.pop().view(k, 1)
    noise = uniform(generator, len(cores), k, m, 1, dtype=mean.dtype).to(mean.device)
    state, start = mean.new_ones(k, m, 1), torch.arange(k * m, device=mean.device).view(k, m, 1)
    drawn = []
    for wide, gram, core, dice in zip(flat, reversed(grams), cores, noise, strict=True):
        n, right = core.shape[2:]
        every = torch.bmm(state, wide).view(k, m * n, right)
        odds = (torch.bmm(every, gram) * every).sum(-1).view(k, m, n).cumsum(-1)
        index = (odds < dice * odds[..., -1:]).sum(-1, keepdim=True).clamp_max_(n - 1)
        drawn.append(index)
        chosen = (start * n + index).view(-1)
        state = every.view(-1, right).index_select(0, chosen).view(k, m, right)
    return torch.cat(drawn, -1), mean


class Products:
    """Products of the lines through a peak, as densities: the higher the power, the closer to it.

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
        dice = uniform(generator, *sums.shape[:-1], m).to(sums.device)
        index = torch.searchsorted(sums, dice * sums[..., -1:], right=True)
        index = torch.minimum(index, self.sizes[:, None] - 1)
        return index.permute(1, 0, 3, 2).flatten(1, 2)

    def density(self, points: Tensor) -> Tensor:
        """Densities of the powers at `points` `(K, n, d)`, relative to uniform ones."""
        index = points.mT.expand(len(self.POWERS), -1, -1, -1)
        return (self.odds.gather(-1, index) * self.sizes[:, None]).log().sum(-2).exp()


def distinct(points: Tensor, weights: Tensor) -> Tensor:
    """Which of `points` `(K, n, d)` differ from all previous ones `(K, n)`."""
    keys = (points * weights).sum(-1)
    order = keys.argsort(dim=1, stable=True)
    again = keys.gather(1, order).diff(dim=1) == 0
    return torch.ones_like(keys, dtype=torch.bool).scatter(1, order[:, 1:], ~again)


class Misses:
    """Points of known value, the errors of a train there, and its error on new points.

    Args:
        reader: Source of the values.
        points: Uniform multi-indices `(K, n, d)`.
        truth: Their values `(K, n)`.
        tol: Relative error to reach.
        generator: Draws further points.
    """

    def __init__(
        self,
        reader: Reader,
        points: Tensor,
        truth: Tensor,
        tol: float,
        generator: torch.Generator,
    ):
        self.reader, self.points, self.truth, self.generator = reader, points, truth, generator
        self.n, self.train, self.gap = points.shape[1], None, truth
        self.spread = torch.ones(self.n, dtype=torch.bool, device=points.device)
        self.starts = max(1, min(8, self.n // sum(reader.sizes)))
        self.floor = rounding(truth)
        self.tol = self.floor.clamp_min(tol)  # (K,)
        self.seen = torch.zeros_like(self.tol)  # sum of squares of uniform draws, and their number
        self.uniform = 0
        self._add_uniform(truth)
        # The largest weights of isolated errors, and the number of draws since the last of them.
        self.lone, self.spike, self.clean = torch.zeros(3, *self.tol.shape).to(self.tol)
        self.products = Products(self.climb(), reader.sizes)

    def compare(self, train: TensorTrain) -> Tensor:
        """Examine a new train; returns its relative error `(K,)` on the first points."""
        self.train = train
        values = entries(train.cores, self.points)
        self.gap = self.truth - values
        first = slice(0, self.n)
        mean = self.truth[:, first].square().mean(1, keepdim=True)
        squares = self.gap[:, first].square() / torch.where(mean > 0, mean, 1.0)
        heavy = self.truth[:, first].square() > 0.01 * mean
        self._watch(squares, torch.where(heavy, squares, torch.nan), first)
        return relative_error(self.truth[:, first], values[:, first])

    def worst(self, count: int = 256) -> Tensor:
        """Points drawn by their errors, alternately from all and from those not climbed to."""
        squares = self.gap.double().square()
        orders = [
            draw_missed(self.points, squares * odds, count // 2, self.generator)
            for odds in (1, self.spread)
        ]
        return torch.stack(orders, 2).flatten(1, 2)

    def climb(self) -> Tensor:
        """Climb from the worst points to worse ones; returns lines `(K, d, n)` through them."""
        height, place = self.gap.abs().topk(self.starts, 1)
        start = take_rows(self.points, place)
        found = climb(self.reader.points, self.train, start, height, self.reader.sizes)
        worst = found.gaps.abs().topk(min(_KEPT, found.gaps.shape[1]), 1).indices
        values, gaps = found.values.gather(1, worst), found.gaps.gather(1, worst)
        self._keep(take_rows(found.points, worst), values, gaps, spread=False)
        mean = self.truth[:, : self.n].square().mean(1)
        weight = found.lines.amax((1, 2)).square() / torch.where(mean > 0, mean, torch.inf)
        new = stands_alone(found.lines, 0.1 if self.train is None else 0.01)
        self._remember(weight, new & (weight > 100 * self.tol**2))
        return found.lines

    def confirm(self, n: int) -> tuple[Tensor, Tensor]:
        """The error `(K,)` of the train on `n` new points, and its bound with undetected errors.

        Half of them are uniform, the others drawn where the train or the entries are large. Twice
        the standard error is added.
        """
        assert self.train is not None
        k, before = len(self.points), self.points.shape[1]
        few, half = max(1, n // 8), max(1, n // 2)
        fresh = random_points(self.reader.sizes, half, n_trains=k, generator=self.generator)
        drawn, mean = draw_squares(self.train, few, self.generator)
        near = self.products.draw(few, self.generator)
        fresh = torch.cat([fresh.to(drawn.device), drawn, near], 1)
        truth = self.reader.points(fresh)
        gap = truth - entries(self.train.cores, fresh)
        self._keep(fresh, truth, gap, spread=True)
        self._add_uniform(truth[:, :half])
        squares, last = gap.double().square(), slice(before, before + fresh.shape[1])
        density = half + few * self.products.density(fresh).sum(0)
        density = density * mean + drawn.shape[1] * (truth - gap).square()
        terms = torch.where(squares > 0, squares / density, 0.0)
        peak = self.truth.abs().amax(1)
        if bool((self.gap.abs().amax(1) > 64 * torch.finfo(peak.dtype).eps * peak).any()):
            self.climb()  # the errors exceed rounding, so they may have a slope
        lone = self.gap.double().square()
        lone[:, last] = 0
        lone = lone * distinct(self.points, self.reader.weights)
        share = math.exp(-sum(map(math.log, self.reader.sizes)))
        lone = torch.where(lone > 0, lone * share / mean, 0.0).sum(1)
        exact = squares[:, half : half + drawn.shape[1]] / torch.where(mean > 0, mean, 1.0)
        self._watch(terms * fresh.shape[1], exact, last)
        self.clean += fresh.shape[1]
        error = terms.sum(1) + 2 * terms.square().sum(1).sqrt() + lone
        error = torch.where(self.seen > _UNLIKELY * self.uniform * mean[:, 0], 1.0, error)
        left = 3 * torch.maximum(self.lone, self.spike) / self.clean
        return error.sqrt(), torch.maximum(error, (error + left).clamp_max(1.0)).sqrt()

    def _watch(self, weights: Tensor, others: Tensor, which: slice) -> None:
        """Record the largest of `weights` `(K, n)` if it is an isolated error.

        It is isolated if all others are exact and no slope leads to it, or if it is alone on the
        lines through it. An error that decreases from call to call is not of the first kind.

        Args:
            weights: Squared errors at random points, whose mean is that of the tensor.
            others: The same where the train is large, NaN elsewhere.
            which: Positions of the random points among all.
        """
        heaviest, place = weights.max(1)
        exact = others.nanmedian(1).values <= (_EXACT * self.tol) ** 2
        exact &= (weights > 0.01 * heaviest[:, None]).double().mean(1) < _FEW
        fades = (heaviest > (_EXACT * self.tol) ** 2) & (heaviest < 0.01 * self.lone)
        self.lone = torch.where(fades, heaviest, self.lone)
        many = torch.maximum(0.1 * weights.sum(1), weights.shape[1] * self.tol**2 / 10)
        suspect = (heaviest > self.tol**2) & (exact | (heaviest > many))
        if not bool(suspect.any()):
            return
        at = which.start + place[:, None]
        start, height = take_rows(self.points, at), self.gap.abs().gather(1, at)
        found = climb(self.reader.points, self.train, start, height, self.reader.sizes, rounds=1)
        jumps = suspect & exact & (found.gaps.abs().amax(1) <= 2 * height[:, 0])
        self.lone = torch.where(jumps, torch.maximum(self.lone, heaviest), self.lone)
        self.clean = torch.where(jumps, 0.0, self.clean)
        self._remember(heaviest, suspect & stands_alone(found.lines, 0.01))

    def _remember(self, weight: Tensor, alone: Tensor) -> None:
        """Record the weight `(K,)` of errors that are alone on their lines."""
        self.spike = torch.where(alone, torch.maximum(self.spike, weight), self.spike)
        self.clean = torch.where(alone, 0.0, self.clean)

    def draws_wanted(self) -> float:
        """Number of draws without an error that outweigh the largest isolated one."""
        return float((3 * torch.maximum(self.lone, self.spike) / self.tol**2).max())

    def _add_uniform(self, truth: Tensor) -> None:
        self.seen = self.seen + truth.double().square().sum(1)
        self.uniform += truth.shape[1]

    def _keep(self, points: Tensor, truth: Tensor, gap: Tensor, *, spread: bool) -> None:
        self.points = torch.cat([self.points, points], 1)
        self.truth = torch.cat([self.truth, truth], 1)
        self.gap = torch.cat([self.gap, gap], 1)
        more = self.spread.new_full((points.shape[1],), spread)
        self.spread = torch.cat([self.spread, more])
