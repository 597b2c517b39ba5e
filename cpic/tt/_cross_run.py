r"""One search from its first probe to its result.

In the square search, the rows of nearly maximal volume of the fibers M of a site are its next set,
and the coefficients M M[rows]^{-1} are its core, so that the train interpolates on the new sets.

The values are divided by a power of two near their largest probe, so that the search does not
depend on the scale of a tensor; the last core is multiplied by the factor in the end.

Shapes: `K` tensors, `d` sites.
References: {cite}`oseledets2010ttcross`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cpic.tt._arith import padded
from cpic.tt._cross_adaptive import AdaptiveSearch
from cpic.tt._cross_sampled import fit_sampled, make_plan
from cpic.tt._cross_sets import sets_of, with_points
from cpic.tt._fibers import ask_unchecked
from cpic.tt._ledger import CrossLedger, Reader
from cpic.tt._misses import Misses, relative_error
from cpic.tt._pivots import draw_missed, draw_points, pick_rows
from cpic.tt._points import all_points, random_points
from cpic.tt._sets import IndexSets
from cpic.tt._svd import tt_svd
from cpic.tt._sweep import Towards, as_train, sweep
from cpic.tt._table import Table
from cpic.tt._train import TensorTrain

# Maximum numbers of entries of a tensor that is checked on all of them: always, and
_SMALL, _LOOKED_THROUGH = 4096, 2**16  # if all probes are zero.
_DRAWS = 64  # maximum draws, per probe, to confirm that no isolated error is left


@dataclass(frozen=True, eq=False)
class CrossState:
    """What a callback receives after each half-sweep.

    Args:
        half_sweep: Number of half-sweeps so far.
        sets: Current index sets.
        train: Interpolation of this half-sweep.
        error: Held-out relative error `(K,)`.
        asked: Entries requested so far, of each tensor.
    """

    half_sweep: int
    sets: IndexSets
    train: TensorTrain
    error: Tensor
    asked: int


@dataclass(frozen=True, eq=False)
class CrossResult:
    """What `cross` found.

    Args:
        train: The K trains.
        sets: Consistent index sets, for `interpolate` and as a warm start. A least-squares train
            was fitted to more entries than these sets specify: on data that are not of low rank,
            `interpolate` on them gives a clearly worse train.
        errors: Held-out errors after each half-sweep `(half_sweeps, K)`.
        error: The last of them `(K,)`; NaN if all probes were zero.
        converged: Whether each search has converged `(K,)`.
        ledger: Cost of the search.
    """

    train: TensorTrain
    sets: IndexSets
    errors: Tensor
    error: Tensor
    converged: Tensor
    ledger: CrossLedger


@dataclass(eq=False)
class Run:
    """The state of one call of `cross`, with its arguments."""

    reader: Reader
    ranks: tuple[int, ...]
    n_trains: int
    tol: float | None
    sweeps: int
    generator: torch.Generator
    n_probes: int
    adaptive: bool
    callback: Callable[[CrossState], object] | None

    def __post_init__(self):
        self.start, self.halves = time.perf_counter(), 0
        self.errors: list[Tensor] = []
        reader, n_trains = self.reader, self.n_trains
        sizes, device = reader.sizes, reader.weights.device
        # With only a tolerance, half of them are used first, and the error is measured on new ones.
        n = max(1, self.n_probes // 2) if self.adaptive else self.n_probes
        whole = math.prod(sizes) <= max(_SMALL, sum(sizes))  # the first fibers have as many
        both = raw = torch.empty(0)
        if not whole:
            count = n if self.adaptive else 2 * n
            both = random_points(sizes, count, n_trains=n_trains, generator=self.generator)
            both = both.to(device)
            raw = reader.points(both)
            blank = not bool(raw.any(-1).all())
            whole = blank and math.prod(sizes) <= _LOOKED_THROUGH
        if whole:
            both = all_points(sizes, device=device).expand(n_trains, -1, -1)
            raw, n = reader.points(both), both.shape[1]
        self.whole, self.settled = whole, False
        self.probes, self.held_out = both[:, :n], both[:, -n:]
        seen, truth = raw[:, :n], raw[:, -n:]
        # Zeros say nothing about the entries that were not read.
        self.unknown = ~truth.any(-1) & (n < math.prod(sizes))
        peak = raw.abs().amax(-1, keepdim=True)
        largest = math.frexp(torch.finfo(peak.dtype).max)[1] - 1  # the next power of two overflows
        exponent = torch.where(peak > 0, torch.frexp(peak).exponent.clamp_max(largest), 0)
        self.factor = torch.ldexp(torch.ones_like(peak), exponent)
        reader.scale = self.factor
        self.seen, self.truth = seen / self.factor, truth / self.factor

    def _note(
        self, train: TensorTrain, sets: Callable[[], IndexSets], error: Tensor | None = None
    ) -> None:
        self.train, self.sets = train, sets
        if error is None:
            error = relative_error(self.truth, train.entries(self.held_out))
        self.errors.append(torch.where(self.unknown & (error == 0), torch.nan, error))
        self.halves += 1
        if self.callback is not None:
            state = CrossState(
                self.halves, sets(), self._rescaled(train), self.errors[-1], self.reader.asked
            )
            self.callback(state)

    def _rescaled(self, train: TensorTrain) -> TensorTrain:
        *first, last = train.cores
        return TensorTrain([*first, last * self.factor[:, :, None, None]])

    def square(self, sets: IndexSets | None, *, hasty: bool) -> None:
        """Run the square search; `hasty` stops after a sweep that is far from any low rank."""
        if self.adaptive:
            self._grow(sets)
            return
        if sets is None:
            start = draw_points(self.probes, self.seen**2, max(self.ranks), self.generator)
            known = {"n_trains": self.n_trains, "points": start, "generator": self.generator}
            sets = IndexSets.random(self.reader.sizes, self.ranks, **known)
        extra = max(1, max(self.ranks) // 5)
        for number in range(self.sweeps):
            sets = self._half_sweep(sets, "left")
            last = number == self.sweeps - 1
            if not last and number % 2 == 0:  # probes with large errors compete with the old pivots
                missed = (self.seen - self.train.entries(self.probes)) ** 2
                points = draw_missed(self.probes, missed, extra, self.generator)
                sets = with_points(sets, points)
            sets = self._half_sweep(sets, "right")
            fine = self.tol is not None and bool((self.errors[-1] <= self.tol).all())
            lost = hasty and number == 1 and bool((self.errors[-1] > 0.05).all())
            if sets.square and (fine or lost):
                break

    def _half_sweep(self, sets: IndexSets, towards: Towards) -> IndexSets:
        choose = partial(pick_rows, generator=self.generator)
        read = partial(self.reader.points, by=ask_unchecked)
        matrices, choices, sets = sweep(read, sets, towards, self.ranks[1:-1], choose)
        parts = [*(choice.coeffs for choice in choices), matrices[-1]]
        self._note(as_train(parts, sets.sizes, towards), lambda: sets)
        return sets

    def _grow(self, sets: IndexSets | None) -> None:
        assert self.tol is not None
        reader = self.reader
        if self.whole:
            self._compress(self.truth.unflatten(1, reader.sizes))
            return
        search = AdaptiveSearch(reader, self.ranks, len(self.truth), self.generator, sets)
        misses = Misses(reader, self.held_out, self.truth, self.tol, self.generator)
        if sets is None:
            search.add(misses.worst())
        # The truncation errors of the sites add up to the error of the train.
        floor = misses.tol / 4 * (self.truth.square().mean(-1) / len(reader.sizes)).sqrt()
        before, n_fresh = torch.full_like(floor, torch.inf), self.n_probes
        for _ in range(6 * self.sweeps):
            if self._read_rest(2 * reader.asked):
                return
            train = search.round(floor)
            error = misses.compare(train)
            self._note(train, search.sets_now(), error)
            if bool((error <= 0.7 * misses.tol).all()):
                found, error = misses.confirm(n_fresh)
                self.errors[-1] = torch.maximum(
                    torch.where(self.unknown & (error == 0), torch.nan, error), misses.floor
                )
                if bool((error <= misses.tol).all()):
                    return
                last = bool((found <= misses.tol).all()) or n_fresh == 16 * self.n_probes
                if last and misses.draws_wanted() > _DRAWS * self.n_probes:
                    self.settled = True  # and no fit to samples would find more
                    self._read_rest(max(4 * _DRAWS * self.n_probes, 8 * reader.asked))
                    return
                # With a constant number, chance would end the search sooner or later.
                n_fresh = min(2 * n_fresh, 16 * self.n_probes)
            if not search.add(misses.worst()) or bool((error > before / 2).any()):
                floor = floor / 2
            before = error

    def _read_rest(self, most: int) -> bool:
        """Read and compress a tensor of at most `most` entries; false for a larger one."""
        if not isinstance(self.reader, Table) or self.reader.size > most:
            return False
        self._compress(self.reader.whole())
        return True

    def _compress(self, dense: Tensor) -> None:
        """Compress tensors `(K, *sizes)` that were read completely by TT-SVD."""
        assert self.tol is not None
        self.settled = True
        train = tt_svd(dense, tol=self.tol / 2, max_rank=max(self.ranks))
        error = relative_error(dense.flatten(1), train.full().flatten(1))
        self.unknown = torch.zeros_like(self.unknown)
        self._note(train, partial(sets_of, train, n_columns=4 * max(train.ranks)), error)

    def unlike_low_rank(self) -> bool:
        """Whether the error of the square search is far above that of exact interpolation."""
        bound = 0.01 if self.tol is None else max(0.01, self.tol)
        return not self.settled and bool((self.errors[-1] > bound).any())

    def sampled(self, max_entries: int | None) -> None:
        """Fit by least squares; retain an earlier square train if it is better."""
        before = (self.train, self.errors[-1]) if self.errors else None
        most = max(self.ranks)
        rank = min(8, most) if self.adaptive else most
        while True:
            if self.adaptive and self._read_rest(2 * self.reader.asked):
                return
            train = self._fit(rank, max_entries)
            error = relative_error(self.truth, train.entries(self.held_out))
            if rank == most or self.tol is None or bool((error <= self.tol).all()):
                break
            rank = min(2 * rank, most)
        if before is not None:
            if bool((before[1] < error).all()):
                return
            train = _better(before[0], train, before[1] < error)
        self._note(train, partial(sets_of, train, n_columns=4 * max(train.ranks)))

    def _fit(self, rank: int, max_entries: int | None) -> TensorTrain:
        sizes = self.reader.sizes
        plan = make_plan(sizes, rank=rank, max_entries=max_entries)
        odds = {"points": self.probes, "weights": self.seen.abs()}
        train = fit_sampled(self.reader.points, sizes, plan, **odds, generator=self.generator)
        # If a lower rank suffices, the components beyond it are the noise of the fit.
        noise = 64 * torch.finfo(self.truth.dtype).eps
        tol = noise if self.tol is None else max(noise, self.tol / 4)
        return train.round(tol, [min(rank, most) for most in self.ranks])

    def result(self) -> CrossResult:
        """The last train, its sets and errors, and the ledger."""
        errors = torch.stack(self.errors)
        converged = errors[-1] <= (1e-6 if self.tol is None else self.tol)
        ledger = self.reader.ledger(self.halves / 2, time.perf_counter() - self.start)
        train = self._rescaled(self.train)
        return CrossResult(train, self.sets(), errors, errors[-1], converged, ledger)


def _better(first: TensorTrain, second: TensorTrain, use_first: Tensor) -> TensorTrain:
    """The first or the second train of each tensor, with ranks padded to the larger ones."""
    cores = []
    for a, b in zip(first.cores, second.cores, strict=True):
        shape = [max(m, n) for m, n in zip(a.shape, b.shape, strict=True)]
        chosen = use_first[:, None, None, None]
        cores.append(torch.where(chosen, padded(a, shape), padded(b, shape)))
    return TensorTrain(cores)
