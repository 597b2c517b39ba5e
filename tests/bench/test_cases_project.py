import pytest

from tests.bench.cases_project import project_cases


@pytest.mark.bench
def test_our_side_of_a_case_runs():
    case = project_cases()["10 features of 20 trains, 18 sites"]
    figures = case.ours(0)
    assert {"energy lost", "Gram error", "seconds"} <= set(figures)
    assert figures["Gram error"] < case.goals["Gram error"]
