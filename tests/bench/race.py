"""Races: every library with all its settings on one problem, and what its best run reaches.

A library is a curve here, not a point: each of its ranks and tolerances is one run, and of the runs
that read at most so many entries the most exact one counts, or of those that are exact enough the
one that reads least. Entries are counted once each, as a table in front of the function makes
repeats free. Each kind of setting runs in a process of its own. A run may take `limit` seconds, and
settings are repeated with further seeds for as long; what a library does not finish, or cannot do,
is kept with its reason.
"""

import contextlib
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from threadpoolctl import threadpool_limits

from cpic import tt
from cpic.tt._ledger import key_weights
from tests.bench import harness, problems
from tests.bench.peers import PEERS, missing, run_peer
from tests.bench.timing import processor_clock

OURS = "cpic"
SEEDS = 3
LIMIT = 2.5
PATIENCE = 1.6  # limits of processor time after which a run is stopped, evaluation included
HANGING = 5.0  # the same in wall time, as a multiple of that
MEMORY = 6 * 2**30  # bytes a process may add: one peer asks for 78 GiB at rank 40


@dataclass(frozen=True, kw_only=True)
class Race:
    """A problem, the settings to run, and where the curves are read.

    `settings` go to all peers and `own` to us; `budgets` are numbers of entries, `targets` errors.
    """

    name: str
    make: Callable[[], tuple]
    settings: Sequence[Mapping[str, Any]]
    own: Sequence[Mapping[str, Any]]
    budgets: Sequence[int]
    targets: Sequence[float]
    layout: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A library with one setting: medians over its seeds; or the reason why it has none."""

    race: str
    library: str
    setting: str
    seeds: int = 0
    error: float | None = None
    worst: float | None = None
    entries: float | None = None
    asked: float | None = None
    seconds: float | None = None
    reason: str | None = None


class Counted:
    """A numpy function of `(n, d)` indices that keeps what it is asked, outside the clock."""

    def __init__(self, entries: tt.Entries, sizes: Sequence[int]):
        self.entries, self.sizes, self.asked = entries, sizes, 0
        self.keys: list[np.ndarray] = []
        self.weights = key_weights(sizes).numpy()
        self.spent = 0.0

    def __call__(self, index: np.ndarray) -> np.ndarray:
        index = np.ascontiguousarray(index, dtype=np.int64)
        clock = processor_clock()
        self.asked += len(index)
        self.keys.append(index @ self.weights)
        self.spent += clock()
        return self.entries(torch.from_numpy(index)[None])[0].numpy()

    def distinct(self) -> int:
        keys = np.sort(np.concatenate([*self.keys, np.array([-1])]))  # ten times faster than unique
        return int(np.count_nonzero(np.diff(keys)))


def _ours(function: Counted, sizes: Sequence[int], *, seed: int, **options: Any) -> tt.TensorTrain:
    generator = torch.Generator().manual_seed(seed)
    return tt.cross(
        lambda index: torch.from_numpy(function(index[0].numpy()))[None],
        sizes,
        generator=generator,
        **options,
    ).train


def peer_train(
    name: str, function: Counted, sizes: Sequence[int], *, seed: int, **options: Any
) -> tt.TensorTrain:
    """What a peer finds."""
    cores = run_peer(name, function, sizes, seed=seed, **options)
    return tt.TensorTrain([torch.from_numpy(np.ascontiguousarray(core))[None] for core in cores])


def run_once(
    race: Race, library: str, setting: Mapping[str, Any], seed: int
) -> tuple[float, int, int, float]:
    """Error, distinct entries, entries asked for, processor seconds."""
    entries, sizes, reference = race.make()
    function = Counted(entries, sizes)
    clock = processor_clock()
    if library == OURS:
        train = _ours(function, sizes, seed=seed, **setting)
    else:
        train = peer_train(library, function, sizes, seed=seed, **setting)
    seconds = clock() - function.spent
    error = problems.error_of(train, entries, reference)
    return error, function.distinct(), function.asked, seconds


def label(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in setting.items())


def _work(
    race: Race,
    library: str,
    settings: Sequence[Mapping],
    limit: float,
    seeds: int,
    pipe: Connection,
) -> None:
    """Send `(setting, figures or reason)` of each run; one seed of all settings comes first."""
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's own threads spin while they wait, on every peer's account
    _bound_memory()
    _warm_up(library)
    spent, cost = 0.0, dict.fromkeys(range(len(settings)), 0.0)
    for seed in range(seeds):
        for k, setting in enumerate(settings):
            if k not in cost or (seed and spent + cost[k] > limit):
                continue
            pipe.send(("begin", k, None))
            try:
                figures = run_once(race, library, setting, seed)
            except Exception as error:  # whatever another library raises is a result here
                pipe.send(("failed", k, f"{type(error).__name__}: {error}"[:120]))
                del cost[k]
                continue
            cost[k] = figures[-1]
            spent += figures[-1]
            pipe.send(("done", k, figures))
    pipe.send(("end", None, None))


def _warm_up(library: str) -> None:
    """What a first call loads is no run's time."""
    tiny = partial(problems.genz, "gaussian", n_modes=4, n=4)
    blank = Race(name="", make=tiny, settings=(), own=(), budgets=(), targets=())
    for setting in ({"rank": 2}, {"tol": 0.1}):
        with contextlib.suppress(Exception):  # a failure shows in the runs
            run_once(blank, library, setting, 0)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))


def run_library(race: Race, library: str, *, limit: float = LIMIT, seeds: int = SEEDS) -> list[Run]:
    """All settings of one library on one problem."""
    blank = Run(race=race.name, library=library, setting="")
    if library != OURS and (reason := missing(library)) is not None:
        return [replace(blank, reason=reason)]
    # Each kind is a ladder of growing cost in a process of its own; a run that is stopped ends it.
    ladders: dict[tuple, list[Mapping]] = {}
    for setting in race.own if library == OURS else race.settings:
        ladders.setdefault((*setting, setting.get("method")), []).append(setting)
    return [
        run
        for ladder in ladders.values()
        for run in _run_ladder(race, blank, ladder, limit=limit, seeds=seeds)
    ]


def _run_ladder(
    race: Race, blank: Run, settings: Sequence[Mapping], *, limit: float, seeds: int
) -> list[Run]:
    context = multiprocessing.get_context("fork")  # what is imported stays imported
    receive, send = context.Pipe(duplex=False)
    work = (race, blank.library, settings, limit, seeds, send)
    process = context.Process(target=_work, args=work)
    process.start()
    send.close()
    figures: dict[int, list[tuple]] = {k: [] for k in range(len(settings))}
    reasons = dict.fromkeys(figures, "not begun, as a cheaper setting did not end")
    for what, k, found in _messages(receive, process.pid, PATIENCE * limit):
        if what == "begin":
            reasons[k] = f"stopped after {PATIENCE * limit:g} s, or died"
        elif what == "failed":
            reasons[k] = found
        else:
            figures[k].append(found)
    process.kill()  # nothing when it has ended by itself
    process.join()
    receive.close()
    runs = []
    for k, setting in enumerate(settings):
        one = replace(blank, setting=label(setting))
        runs.append(_summed(one, figures[k]) if figures[k] else replace(one, reason=reasons[k]))
    return runs


def _messages(pipe: Connection, pid: int, patience: float) -> Iterator[tuple]:
    """What the process sends until it ends, dies, or works or hangs for too long."""
    process = psutil.Process(pid)
    last, begin = _worked(process), time.monotonic()
    # Other load on the machine delays a run without its fault; one that sleeps is stopped later.
    while _worked(process) - last <= patience and time.monotonic() - begin <= HANGING * patience:
        if not pipe.poll(0.05):
            continue
        try:
            message = pipe.recv()
        except EOFError:
            return
        if message[0] == "end":
            return
        yield message
        last, begin = _worked(process), time.monotonic()


def _worked(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def _summed(run: Run, figures: list[tuple]) -> Run:
    error, entries, asked, seconds = zip(*figures, strict=True)
    return replace(
        run,
        seeds=len(figures),
        error=statistics.median(error),
        worst=max(error),
        entries=statistics.median(entries),
        asked=statistics.median(asked),
        seconds=statistics.median(seconds),
    )


def best(runs: Sequence[Run], *, budget: float | None = None, target: float | None = None) -> dict:
    """What a library reaches: `error` in a budget, or `entries` and `seconds` for a target.

    Errors are those of the worst seed. None where no run fits. The fewest entries and the least
    seconds may come of two settings.
    """
    done = [run for run in runs if run.reason is None]
    if budget is not None:
        fits = [run.worst for run in done if run.entries <= budget]
        return {"error": min(fits, default=None)}
    fits = [run for run in done if run.worst <= target]
    return {
        "entries": min((run.entries for run in fits), default=None),
        "seconds": min((run.seconds for run in fits), default=None),
    }


def readings(race: Race, runs: Sequence[Run]) -> Iterator[tuple[str, str, dict[str, float | None]]]:
    """`(what, unit, value of each library)` at every budget and target of a race."""
    of = {
        name: [run for run in runs if run.race == race.name and run.library == name]
        for name in (OURS, *PEERS)
    }
    for budget in race.budgets:
        found = {name: best(mine, budget=budget)["error"] for name, mine in of.items()}
        yield f"{budget:,} entries", "error", found
    for target in race.targets:
        reached = {name: best(mine, target=target) for name, mine in of.items()}
        for unit in ("entries", "seconds"):
            yield f"error {target:g}", unit, {name: r[unit] for name, r in reached.items()}


def rows(race: Race, runs: Sequence[Run]) -> list[harness.Row]:
    """The readings as rows of the bench; the goal is what the best peer reaches."""
    made = []
    for what, unit, found in readings(race, runs):
        theirs = {name: v for name, v in found.items() if name != OURS and v is not None}
        goal, value = min(theirs.values(), default=None), found[OURS]
        for peer, other in theirs.items():
            made.append(
                harness.Row(
                    name=f"{race.name}: {unit} at {what}",
                    value=math.inf if value is None else value,
                    unit=unit,
                    peer=peer,
                    peer_value=other,
                    ratio=None if value is None or not other else value / other,
                    goal=goal,
                    met=value is not None and goal is not None and value <= goal,
                    machine=harness.machine(),
                    commit=harness.commit(),
                )
            )
    return made


def record(races: Sequence[Race], runs: Sequence[Run], *, wall: float) -> dict:
    """All that a page needs: where, with what, the problems, the readings and the runs."""
    packages = ("torch", "numpy", "scipy", "tntorch", "teneva", "torchTT", "seemps")
    return {
        "machine": harness.machine(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "commit": harness.commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": {name: _version(name) for name in packages},
        "limit_seconds": LIMIT,
        "stop_seconds": PATIENCE * LIMIT,
        "seeds": SEEDS,
        "wall_seconds": round(wall),
        "libraries": [OURS, *PEERS],
        "races": [
            {
                "name": race.name,
                "layout": race.layout,
                "budgets": list(race.budgets),
                "targets": list(race.targets),
            }
            for race in races
        ],
        "readings": [
            {"race": race.name, "at": what, "unit": unit, **_rounded(found)}
            for race in races
            for what, unit, found in readings(race, runs)
        ],
        "runs": [
            {key: v for key, v in _rounded(asdict(run)).items() if v is not None} for run in runs
        ],
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}


def write(found: Mapping[str, Any], path: Path) -> None:
    """Keep a record, one line a run; the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = []
    for key, value in found.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n  ".join(json.dumps(item) for item in value)
            fields.append(f" {json.dumps(key)}: [\n  {lines}\n ]")
        else:
            fields.append(f" {json.dumps(key)}: {json.dumps(value)}")
    part = path.with_suffix(".part")
    part.write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
    part.replace(path)
