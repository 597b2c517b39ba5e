"""The races of all libraries: Gaussians up to 8192^3, anatomy, Genz's functions, a lone spike.

Every library gets the same ranks and tolerances; ours get them once by interpolation and once by
least squares, as `cpic.tt.cross` offers both.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tests.bench import problems
from tests.bench.cases import problem
from tests.bench.peers import PEERS
from tests.bench.race import LIMIT, OURS, SEEDS, Race, Run, run_library

BITS = {"ranks": (5, 10, 20, 40), "tols": (1e-3, 1e-6)}
WIDE = {"ranks": (5, 10, 20), "tols": (1e-3, 1e-6)}
FULL = {"ranks": (5, 10, 20), "tols": ()}  # measured data is of full rank: no tolerance is in reach
FEW = {"ranks": (3, 6, 12), "tols": (1e-3, 1e-6)}


def race(
    name: str,
    make: Callable[[], tuple],
    *,
    ranks: Sequence[int],
    tols: Sequence[float],
    **reads: Any,
) -> Race:
    """A race over ranks and tolerances, cheap settings first."""
    by_tol = [{"tol": tol} for tol in tols]
    return Race(
        name=name,
        make=make,
        settings=[*({"rank": rank} for rank in ranks), *by_tol],
        own=[
            *by_tol,
            *({"rank": rank, "method": "square"} for rank in ranks),
            *({"rank": rank, "method": "least_squares"} for rank in ranks),
        ],
        **reads,
    )


def sampled(name: str, *args: str, **options: int) -> tuple:
    """A problem whose error is taken on random entries: a full tensor costs more than a run."""
    entries, sizes, _ = problem(name, *args, **options)
    return entries, sizes, None


def peer_races() -> list[Race]:
    """All races, in the order of the tables."""
    smooth = {"budgets": (20_000, 100_000), "targets": (1e-2, 1e-6), "layout": "bits in sequence"}
    return [
        *(
            race(
                f"8 Gaussians, {side}^3",
                partial(sampled, "gaussians", "sequential", side=side),
                **BITS,
                **smooth,
            )
            for side in (256, 1024, 8192)
        ),
        race(
            "8 Gaussians, 256^3, three modes",
            partial(sampled, "gaussians"),
            **WIDE,
            budgets=(50_000, 500_000),
            targets=(1e-6,),
            layout="three modes",
        ),
        race(
            "MNI152, three modes",
            partial(sampled, "brain"),
            **FULL,
            budgets=(100_000, 500_000),
            targets=(0.35, 0.25),
            layout="three modes",
        ),
        race(
            "MNI152, bits",
            partial(sampled, "brain", "sequential"),
            **FULL,
            budgets=(20_000, 200_000),
            targets=(0.5, 0.35),
            layout="bits in sequence",
        ),
        *(
            race(
                f"Genz, {family}",
                partial(problem, "genz", family),
                **FEW,
                budgets=(5_000, 20_000),
                targets=(1e-6,),
                layout="ten modes of 20",
            )
            for family in problems.GENZ
        ),
        race(
            "spike far away, three modes",
            partial(problem, "spike"),
            **WIDE,
            budgets=(50_000, 500_000),
            targets=(0.05,),
            layout="three modes",
        ),
    ]


def run_race(one: Race, *, limit: float = LIMIT, seeds: int = SEEDS) -> Iterator[Run]:
    """Every library in turn."""
    one.make()  # what a problem makes once is no library's time
    for library in (OURS, *PEERS):
        yield from run_library(one, library, limit=limit, seeds=seeds)
