"""The cases about covariance pooling run, and measure what they say."""

import pytest
import torch

from tests.bench import cases_pooling as cases
from tests.bench.cases import all_cases, all_parts

pytestmark = pytest.mark.bench


def test_the_part_is_complete():
    assert set(all_parts()["pooling"]) == {case.name for case in cases.pooling_cases()}
    assert len(all_cases()) == sum(map(len, all_parts().values()))


@pytest.mark.parametrize("name", [case.name for case in cases.pooling_cases()])
def test_our_side_of_a_case_runs(name):
    figures = all_cases()[name].ours(0, check=False)
    assert all(value >= 0 for value in figures.values())


def test_errors_are_those_of_the_roots():
    exact = cases.rooted({}, 16, "1e3", 0, runs=1)
    assert exact["error"] < 1e-12
    published = cases.rooted({"method": "pade"}, 64, "1e1", 0, runs=1)
    assert 5e-3 < published["error"] < 5e-2
    for condition in cases.CONDITIONS:
        assert cases.rooted({"method": "auto"}, 64, condition, 0, runs=1)["error"] <= 1e-4


def test_the_goal_of_time_is_where_another_root_is_close():
    """Few eigenvalues that differ, or low rank: the iteration converges; 1e-6 takes more steps."""
    assert [cases.within_reach(16, one) for one in cases.CONDITIONS] == [True, True, False, True]
    for condition, unit in (("1e1", "share"), ("1e6", "share, 1e-4 beyond others")):
        assert unit in cases.rooted({"method": "auto"}, 16, condition, 0, runs=1)
    auto = [case for case in cases.pooling_cases() if ", auto, " in case.name]
    assert len(auto) == 12
    assert all(case.goals == {"error": 1e-4, "share": 0.5} for case in auto)


def test_times_are_those_of_both_passes():
    figures = cases.differentiated({"gradient": "pade"}, 16, 0, runs=1)
    assert figures["of eigh forward"] > 1
    for call in (cases.by_torch, cases.iterated_by_autograd):
        assert call(16, 0, runs=1)["seconds"] > 0


def test_gradients_against_many_digits():
    assert cases.gap_errors({}, torch.float64, 0)["gradient error"] < 1e-13
    assert cases.gap_errors({"gradient": "taylor"}, torch.float64, 0)["gradient error"] > 1e-3


def test_covariances_agree():
    assert cases.covariances(False, 0, runs=1)["difference"] < 1e-12


def test_degenerate_gradients_are_counted():
    assert cases.degenerate({}, 0) == {"not finite": 0}
