"""Choosers at equal reading: a search beside grids and random positions, on heads and a photograph.

The goals are shares of the errors of the rivals: at 2 and 5 per cent of the entries at most 0.9.
"""

from functools import cache, partial

import torch
from torch import Tensor

from cpic import data
from cpic.choose import choose
from cpic.tt import dense_entries
from tests.bench.harness import Case
from tests.bench.timing import processor_clock

GRIDS = {f"grid, {phase}": {"by": "grid", "phase": phase} for phase in (0.0, 0.5, "ends")}
RIVALS = GRIDS | {
    "random": {"by": "random", "rule": "nearest"},
    "cross": {"by": "cross-least-squares"},
}


@cache
def array(name: str) -> Tensor:
    """A head or a photograph."""
    heads = ("t1", "gm", "wm")
    return data.mni152(name).read() if name in heads else data.photograph(name).float()


def read(name: str, budget: float, options: dict, seed: int, *, check: bool = True) -> dict:
    """The error of the whole picture."""
    truth = array(name)
    entries, shape = dense_entries(truth[None]), tuple(truth.shape)
    clock = processor_clock()
    seeded = torch.Generator().manual_seed(seed)
    found = choose(entries, shape, budget=budget, generator=seeded, **options)
    seconds = clock()
    error = float((found.dense()[0] - truth).norm() / truth.norm()) if check else 0.0
    return {"error": error, "entries": int(found.asked), "seconds": seconds}


def choose_cases() -> dict[str, Case]:
    """Coarse-to-fine beside its rivals."""
    cases = [
        Case(
            name=f"{name}, {budget:.0%} of the entries",
            ours=partial(read, name, budget, {"by": "coarse-to-fine"}),
            peers={peer: partial(read, name, budget, options) for peer, options in RIVALS.items()},
            goals={"entries": int(budget * array(name).numel())},
            shares={("error", peer): 0.9 for peer in RIVALS},
            repeats=3,
            peak="none",
        )
        for name in ("t1", "gm", "camera")
        for budget in (0.02, 0.05)
    ]
    return {case.name: case for case in cases}
