"""The race by tolerance runs, and its references are what they say."""

import pytest
import torch

from tests.bench.cases_tolerance import PROBLEMS, problem, tolerance_cases
from tests.bench.harness import Case, measure

SMOOTH = [name for name in PROBLEMS if "QTT" not in name]


@pytest.mark.parametrize("name", SMOOTH)
def test_references_are_the_functions(name, generator):
    entries, sizes, reference = problem(name)
    points = torch.stack([torch.randint(0, n, (1, 200), generator=generator) for n in sizes], -1)
    corner = torch.zeros(1, 1, len(sizes), dtype=torch.int64)
    for places in (points, corner):
        truth = entries(places)
        found = reference.entries(places)
        torch.testing.assert_close(found, truth, rtol=1e-7, atol=1e-12 * float(truth.abs().max()))


@pytest.mark.bench
def test_one_seed_of_ours_keeps_the_promise():
    case = tolerance_cases(seeds=1)["race by tolerance: rational peak in a corner"]
    figures = case.ours(0)
    assert figures["not converged"] == 0
    assert figures["error"] <= case.goals["error"]
    assert figures["entries"] > 0


def test_the_best_peer_is_one_that_keeps_the_goal():
    def figures(error, entries):
        return lambda seed, check=True: {"error": error, "entries": entries}

    case = Case(
        name="three",
        ours=figures(1e-7, 140.0),
        peers={"wrong": figures(1.0, 10.0), "good": figures(1e-7, 100.0)},
        goals={"error": 2e-6},
        best={"entries": 1.5},
        repeats=1,
    )
    rows = {(row.unit, row.peer): row for row in measure(case)}
    assert rows["entries", "wrong"].goal == rows["entries", "good"].goal == 150
    assert rows["entries", "wrong"].met
