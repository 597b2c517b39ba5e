"""The cases of `make bench`: a problem, our options, the peers and the goals.

Goals are upper bounds. `entries` counts what was asked, repeats included, as the peers ask too;
`distinct entries` counts each once.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
import torch

from cpic import tt
from tests.bench import problems
from tests.bench.cases_bottleneck import bottleneck_cases
from tests.bench.cases_choose import choose_cases
from tests.bench.cases_data import data_cases
from tests.bench.cases_gpu import gpu_cases
from tests.bench.cases_gradient import gradient_cases
from tests.bench.cases_ips import ips_cases
from tests.bench.cases_lean import lean_cases
from tests.bench.cases_pooling import pooling_cases
from tests.bench.cases_project import project_cases
from tests.bench.cases_spectral import spectral_cases
from tests.bench.cases_stores import store_cases
from tests.bench.cases_tolerance import tolerance_cases
from tests.bench.cases_training import resolution_cases, training_cases
from tests.bench.harness import Case
from tests.bench.peers import run_peer
from tests.bench.timing import processor_clock

MAXVOL = ("tntorch", "seemps")
ALL = ("tntorch", "teneva", "torchtt", "seemps", "seemps-dmrg")


@cache
def problem(name: str, *args: str, **options: int):
    """A problem of `problems`, made once."""
    return getattr(problems, name)(*args, **options)


class Counted:
    """Entries as a numpy function of `(n, d)` indices that counts what it is asked."""

    def __init__(self, entries: tt.Entries):
        self.entries, self.asked = entries, 0

    def __call__(self, index: np.ndarray) -> np.ndarray:
        self.asked += len(index)
        return self.entries(torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64))[None])[
            0
        ].numpy()


def ours(make: Callable, options: Mapping, seed: int, *, check: bool = True) -> dict[str, float]:
    """Search once; the error is measured outside the clock."""
    entries, sizes, reference = make()
    clock = processor_clock()
    found = tt.cross(entries, sizes, generator=torch.Generator().manual_seed(seed), **options)
    seconds = clock()
    return {
        "error": problems.error_of(found.train, entries, reference) if check else 0.0,
        "entries": found.ledger.asked,
        "distinct entries": int(found.ledger.distinct.max()),
        "seconds": seconds,
    }


def theirs(
    make: Callable, peer: str, options: Mapping, seed: int, *, check: bool = True
) -> dict[str, float]:
    """The same through a peer."""
    entries, sizes, reference = make()
    counted = Counted(entries)
    clock = processor_clock()
    cores = run_peer(peer, counted, sizes, seed=seed, **options)
    seconds = clock()
    train = tt.TensorTrain([torch.from_numpy(np.ascontiguousarray(core))[None] for core in cores])
    return {
        "error": problems.error_of(train, entries, reference) if check else 0.0,
        "entries": counted.asked,
        "seconds": seconds,
    }


def compared(
    name: str, make: Callable, goals: Mapping, peers=MAXVOL, *, peer_options=None, **options
) -> Case:
    """A case in which the peers get the rank or the tolerance that we get."""
    shared = {key: options[key] for key in ("rank", "tol", "sweeps") if key in options}
    given = shared if peer_options is None else peer_options
    return Case(
        name=name,
        ours=partial(ours, make, options),
        peers={peer: partial(theirs, make, peer, given) for peer in peers},
        goals=goals,
    )


def batch_ours(seed: int, *, check: bool = True) -> dict[str, float]:
    """Twenty functions in one call."""
    entries, sizes, _ = problem("many_functions")
    options = {"n_trains": 20, "rank": 10, "sweeps": 4, "method": "square"}
    clock = processor_clock()
    found = tt.cross(entries, sizes, generator=torch.Generator().manual_seed(seed), **options)
    seconds = clock()
    return {
        "error": float(found.error.max()) if check else 0.0,
        "entries": 20 * found.ledger.asked,
        "seconds": seconds,
    }


def batch_theirs(peer: str, seed: int, *, check: bool = True) -> dict[str, float]:
    """The same functions one after the other, as the peers know no batch."""
    entries, sizes, _ = problem("many_functions")
    asked, seconds, worst = 0, 0.0, 0.0
    for k in range(20):
        one = partial(_one_of, entries, k)
        figures = theirs(lambda one=one: (one, sizes, None), peer, {"rank": 10}, seed, check=check)
        asked, seconds = asked + figures["entries"], seconds + figures["seconds"]
        worst = max(worst, figures["error"])
    return {"error": worst, "entries": asked, "seconds": seconds}


def _one_of(entries: tt.Entries, k: int, index: torch.Tensor) -> torch.Tensor:
    return entries(index.expand(20, -1, -1))[k : k + 1]


def spike_ours(seed: int, *, check: bool = True) -> dict[str, float]:
    """`missed in silence` is 1 where the search reports success without the spike."""
    entries, sizes, reference = problem("spike")
    clock = processor_clock()
    found = tt.cross(entries, sizes, tol=1e-3, generator=torch.Generator().manual_seed(seed))
    seconds = clock()
    error = problems.error_of(found.train, entries, reference) if check else 0.0
    silent = float(error > 0.05 and bool(found.converged.all()))
    return {
        "error": error,
        "entries": found.ledger.asked,
        "missed in silence": silent,
        "seconds": seconds,
    }


def spike_theirs(peer: str, seed: int, *, check: bool = True) -> dict[str, float]:
    """Peers return no verdict that we could read in the same way, so only the error counts."""
    return theirs(partial(problem, "spike"), peer, {"tol": 1e-3}, seed, check=check)


def one_pass(seed: int, *, check: bool = True) -> dict[str, float]:
    """Interpolate once on random nested sets of the size that a scan with 16 channels needs."""
    sets = tt.IndexSets.random((2,) * 28, 10, generator=torch.Generator().manual_seed(seed))
    counted = Counted(lambda index: torch.cos(index.double().sum(-1)))
    tt.interpolate(lambda index: torch.from_numpy(counted(index[0].numpy()))[None], sets)
    return {"entries": counted.asked}


def all_parts() -> dict[str, dict[str, Case]]:
    """Every case by the name of its part and its own."""
    return {
        "search": search_cases(),
        "tolerance": tolerance_cases(),
        "choosers": choose_cases(),
        "gradients": {case.name: case for case in gradient_cases()} | bottleneck_cases(),
        "features": project_cases(),
        "spectral": spectral_cases(),
        "pooling": {case.name: case for case in pooling_cases()},
        "volumes": data_cases(),
        "stores": store_cases(),
        "training": training_cases() | lean_cases(),
        "resolution": resolution_cases(),
        "patches": ips_cases(),
        "gpu": gpu_cases(),
    }


def all_cases() -> dict[str, Case]:
    """Every case by its name."""
    return {name: case for part in all_parts().values() for name, case in part.items()}


def search_cases() -> dict[str, Case]:
    """The search beside those of other libraries."""
    brain = partial(problem, "brain")
    brain_s, brain_i = (
        partial(problem, "brain", "sequential"),
        partial(problem, "brain", "interleaved"),
    )
    hills = partial(problem, "gaussians")
    hills_s, hills_i = (
        partial(problem, "gaussians", "sequential"),
        partial(problem, "gaussians", "interleaved"),
    )
    huge = partial(problem, "gaussians", "sequential", side=8192)
    lots = {"entries": 1e6, "seconds": 0.3}
    some = {"entries": 210_000, "seconds": 0.1}
    fit = {"rank": 10, "method": "least_squares"}
    few = {"error": 1e-6, "entries": 40_000, "seconds": 0.3}
    cases = [
        compared("brain TT rank 5", brain, {"error": 0.27, **lots}, rank=5, method="least_squares"),
        compared(
            "brain TT rank 10", brain, {"error": 0.20, "entries": 280_000, "seconds": 0.3}, **fit
        ),
        compared(
            "brain TT rank 20", brain, {"error": 0.14, **lots}, rank=20, method="least_squares"
        ),
        compared("brain QTT sequential rank 10", brain_s, {"error": 0.35, **some}, **fit),
        compared("brain QTT interleaved rank 10", brain_i, {"error": 0.50, **some}, **fit),
        compared(
            "brain QTT sequential rank 40",
            brain_s,
            {},
            ("tntorch",),
            rank=40,
            method="least_squares",
        ),
        compared("8 Gaussians TT rank 10", hills, {"error": 1e-12}, rank=10),
        compared(
            "8 Gaussians QTT sequential rank 10",
            hills_s,
            {"error": 0.06, "entries": 200_000, "seconds": 0.1},
            **fit,
            max_entries=195_000,
        ),
        compared(
            "8 Gaussians QTT interleaved rank 10",
            hills_i,
            {"error": 0.20, "entries": 200_000, "seconds": 0.1},
            **fit,
            max_entries=195_000,
        ),
        compared(
            "8 Gaussians QTT sequential to 1e-6",
            hills_s,
            few,
            ("tntorch", "seemps"),
            tol=1e-6,
            n_probes=500,
        ),
        compared(
            "8 Gaussians QTT sequential to 1e-6, 8192^3",
            huge,
            few,
            ("seemps",),
            tol=1e-6,
            n_probes=500,
        ),
        compared(
            "1/(1+i1+...+i10) rank 10",
            partial(problem, "reciprocal"),
            {"error": 1e-6, "distinct entries": 25_000, "seconds": 0.05},
            ALL,
            rank=10,
            sweeps=2,
            method="square",
        ),
        Case(
            name="one interpolation pass, 256^3 x 16 channels, rank 10",
            ours=one_pass,
            peers={},
            goals={"entries": 4488},
        ),
        Case(
            name="20 functions, QTT rank 10, 4 sweeps",
            ours=batch_ours,
            peers={peer: partial(batch_theirs, peer) for peer in ("seemps", "tntorch")},
            goals={"seconds": 0.35},
        ),
        Case(
            name="isolated spike, TT",
            ours=spike_ours,
            peers={peer: partial(spike_theirs, peer) for peer in ("tntorch", "seemps")},
            goals={"error": 0.05, "entries": 300_000, "missed in silence": 0},
        ),
    ]
    return {case.name: case for case in cases}
