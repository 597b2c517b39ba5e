"""Rows of the lean step: what it starts, and the same step and a prediction beside it.

The first rows are counted, so they are exact: see `tests.bench.counted`. The others are processor
seconds of one thread, of a step by this code and by the code of an earlier commit in turn.
"""

import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial

from tests.bench import counted
from tests.bench.harness import ROOT, Case
from tests.bench.timing import processor_clock
from tests.bench.training import Setting, Training

FIELDS = ("shape", "n_dims", "rank", "batch")
SMALL = Setting(shape=(32,) * 3, n_dims=4, rank=8)
LARGE = Setting(shape=(256,) * 3)
# Visits between selections: none in a step that is counted.
NEVER = 1000
# Times as many operations that pass for none more: contrasts are put side by side at each site.
GROWTH = 1.1


def counts(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """Operations and reads of a step."""
    found = counted.counted(setting, seed=seed)
    return {unit: found[unit] for unit in ("operations", "host reads")}


def grown(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """Times as many for larger ones."""
    return counted.growth(setting, seed=seed)


def steps(
    setting: Setting, before: bool, n: int, seed: int, *, check: bool = True
) -> dict[str, float]:
    """The median of steps by this code, or by that of the earlier commit."""
    tree = counted.tree_of() if before else ROOT
    seconds = counted.seconds_of_steps(tree, setting, n=n, seed=seed, fields=FIELDS)
    return {"seconds": statistics.median(seconds)}


def predicted(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """A whole batch never seen."""
    return {"seconds": both(setting)[1]}


def trained(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """A step of the same batch."""
    return {"seconds": both(setting)[0]}


@cache
def both(setting: Setting) -> tuple[float, float]:
    """Medians of three seeds: where chunks lie among the threads that decode them varies."""
    seconds = []
    for seed in range(3):
        training = Training(setting, seed=seed)
        clock = processor_clock()
        training.step()
        step = clock()
        training.predict(setting.batch)
        seconds.append((step, clock() - step))
    step, prediction = (statistics.median(part) for part in zip(*seconds, strict=True))
    return step, prediction


def lean_cases(small: Setting = SMALL, large: Setting = LARGE) -> dict[str, Case]:
    """Every case by its name."""
    cases = [
        _counted(large, "selecting", {"operations": 4000, "host reads": 60}),
        _counted(large, "on known sets", {"operations": 800, "host reads": 8}),
        _grown(small, "selecting"),
        _grown(small, "on known sets"),
        _beside_before(small, 1 / 3, n=5, repeats=5),
        _beside_before(large, 1 / 1.5, n=3, repeats=3),
        _prediction(large),
    ]
    return {case.name: case for case in cases}


def _title(setting: Setting) -> str:
    return f"{setting.shape[0]}^{len(setting.shape)}, rank {setting.rank}"


def _kind(setting: Setting, kind: str) -> Setting:
    return replace(setting, select=NEVER) if kind == "on known sets" else setting


def _counted(setting: Setting, kind: str, goals: Mapping[str, float]) -> Case:
    return Case(
        name=f"operations of a step {kind}, {_title(setting)}",
        ours=partial(counts, _kind(setting, kind)),
        peers={},
        goals=goals,
        repeats=1,
        peak="none",
    )


def _grown(setting: Setting, kind: str) -> Case:
    return Case(
        name=f"growth of the operations of a step {kind}, {_title(setting)}",
        ours=partial(grown, _kind(setting, kind)),
        peers={},
        goals=dict.fromkeys(counted.LARGER, GROWTH),
        repeats=1,
        peak="none",
    )


def _beside_before(setting: Setting, share: float, *, n: int, repeats: int) -> Case:
    before, known = counted.BEFORE, counted.has_history()
    return Case(
        name=f"training step {_title(setting)}" + ("" if known else f", no {before} in this clone"),
        ours=partial(steps, setting, False, n),
        peers={before: partial(steps, setting, True, n)} if known else {},
        goals={},
        shares={("seconds", before): share},
        repeats=repeats,
        peak="none",
    )


def _prediction(setting: Setting) -> Case:
    return Case(
        name=f"prediction of {setting.batch} beside a step, {_title(setting)}",
        ours=partial(predicted, setting),
        peers={"training step": partial(trained, setting)},
        goals={},
        shares={("seconds", "training step"): 4.0},
        repeats=1,
        peak="none",
    )
