"""The race by tolerance: what is read until a search says that its error is small, and is it?

Functions of ten dimensions, narrow ones and such with a peak in a corner, each with a reference
train, so that the error is that of the whole tensor. Five seeds count as one run: `error` is the
worst of them, ours of those that say `converged`; `entries` (each counted once) and `seconds` are
medians. A peer counts as best where it keeps twice the tolerance on every seed.
"""

import statistics
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch

from cpic import tt
from tests.bench import problems
from tests.bench.harness import Case
from tests.bench.peers import PEERS
from tests.bench.race import Counted, peer_train
from tests.bench.timing import processor_clock

TOL, SEEDS = 1e-6, 5
PROBLEMS: dict[str, tuple[Callable[[], tuple], tuple[str, ...]]] = {
    "1/(1+i1+...+i10)": (problems.reciprocal, tuple(PEERS)),
    "8 Gaussians in QTT": (
        partial(problems.gaussians, "sequential"),
        # The others work for minutes, or run at once into their cap.
        ("torchtt", "seemps", "seemps-dmrg", "seemps-greedy"),
    ),
    "1/(1+|x|^2) in 6 dimensions": (problems.bell, tuple(PEERS)),
    "sines in 20 dimensions": (problems.sines, tuple(PEERS)),
    "rational peak in a corner": (partial(problems.genz, "corner peak"), tuple(PEERS)),
    "3 Gaussians of width 1/64": (problems.narrow, ("tntorch", "teneva", "torchtt")),
}


@cache
def problem(name: str) -> tuple:
    """Entries, sizes and reference, made once and outside the clock."""
    return PROBLEMS[name][0]()


def run_ours(name: str, seeds: int, repeat: int, *, check: bool = True) -> dict[str, float]:
    """Search by tolerance with each seed; `not converged` is the share of those that say so."""
    return _over_seeds(name, seeds, check, _one_of_ours)


def run_theirs(
    name: str, peer: str, seeds: int, repeat: int, *, check: bool = True
) -> dict[str, float]:
    """The same through a peer, whose verdicts cannot be read in the same way."""
    figures = _over_seeds(name, seeds, check, partial(_one_of_theirs, peer))
    return {unit: figure for unit, figure in figures.items() if unit != "not converged"}


def _one_of_ours(entries: tt.Entries, sizes: tuple[int, ...], seed: int) -> tuple:
    clock = processor_clock()
    found = tt.cross(entries, sizes, tol=TOL, generator=torch.Generator().manual_seed(seed))
    seconds = clock()
    return found.train, int(found.ledger.distinct), seconds, bool(found.converged)


def _one_of_theirs(peer: str, entries: tt.Entries, sizes: tuple[int, ...], seed: int) -> tuple:
    function = Counted(entries, sizes)
    clock = processor_clock()
    train = peer_train(peer, function, sizes, seed=seed, tol=TOL)
    seconds = clock() - function.spent
    return train, function.distinct(), seconds, True


def _over_seeds(name: str, seeds: int, check: bool, run: Callable[..., tuple]) -> dict[str, float]:
    entries, sizes, reference = problem(name)
    run(entries, sizes, seeds)  # what a first call loads is no run's time
    runs = [run(entries, sizes, seed) for seed in range(seeds)]
    errors = [
        problems.error_of(train, entries, reference) if check else 0.0
        for train, _, _, converged in runs
        if converged
    ]
    _, counts, seconds, converged = zip(*runs, strict=True)
    return {
        "error": max(errors, default=0.0),
        "entries": statistics.median(counts),
        "seconds": statistics.median(seconds),
        "not converged": 1 - sum(converged) / seeds,
    }


def tolerance_cases(seeds: int = SEEDS) -> dict[str, Case]:
    """A case for each problem."""
    return {case.name: case for case in _cases(seeds)}


def _cases(seeds: int) -> Iterator[Case]:
    for name, (_, peers) in PROBLEMS.items():
        yield Case(
            name=f"race by tolerance: {name}",
            ours=partial(run_ours, name, seeds),
            peers={peer: partial(run_theirs, name, peer, seeds) for peer in peers},
            goals={"error": 2 * TOL, "not converged": 0.0},
            best={"entries": 1.5, "seconds": 2.0},
            repeats=1,
            peak="none",
        )
