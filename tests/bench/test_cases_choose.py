"""The cases of the choosers run, on the smallest of them."""

import pytest

from tests.bench.cases_choose import choose_cases


@pytest.mark.bench
def test_ours_and_the_rivals_read_as_much():
    case = choose_cases()["camera, 2% of the entries"]
    ours = case.ours(0)
    grids = [run(0) for peer, run in case.peers.items() if peer.startswith("grid")]
    assert all(0.9 * case.goals["entries"] < one["entries"] for one in (ours, *grids))
    assert all(ours["error"] < 0.9 * one["error"] for one in grids)
    assert ours["entries"] <= case.goals["entries"]
