"""The cases about gradients run, on our side and the peers', for the smallest of their problems."""

from functools import partial

import pytest

from cpic import tt
from tests.bench import cases_gradient as cases
from tests.bench.cases import all_cases
from tests.bench.peers import plain_forward, tntorch_forward

pytestmark = pytest.mark.bench
NAMES = [case.name for case in cases.gradient_cases()]


@pytest.mark.parametrize("name", NAMES)
def test_our_side_of_a_case_runs(name):
    case = all_cases()[name]
    figures = case.ours(0, check=False)
    assert figures["seconds"] > 0
    assert set(case.goals) <= {"gradient error", "seconds", "share"}


@pytest.mark.parametrize("wide", [False, True])
def test_what_is_measured_meets_its_goal_at_a_small_rank(wide):
    assert cases.by_rank(tt.interpolate, wide, 0, ranks=(5,))["gradient error"] <= 1e-7
    assert cases.deficient(tt.interpolate, wide, 0)["gradient error"] <= 1e-7
    figures = cases.solved(tt.interpolate, wide, 0, rank=5)
    assert figures["value error"] < 1
    assert figures["gradient error"] <= 1e-7


@pytest.mark.parametrize("how", ["lstsq", "pinv"])
def test_peers_compute_the_same_train(how):
    """Of a rank at which all are right."""
    plain = partial(plain_forward, how=how)
    ours = cases.solved(tt.interpolate, False, 0, rank=3)
    theirs = cases.solved(plain, False, 0, rank=3)
    assert theirs["value error"] == pytest.approx(ours["value error"], rel=1e-6)


def test_tntorch_gets_our_sets():
    pytest.importorskip("tntorch")
    assert cases.by_rank(tntorch_forward, False, 0, ranks=(3,))["gradient error"] <= 1e-6
