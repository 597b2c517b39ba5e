"""The benchmark runs, so that it cannot rot; what it measures is shown, not asserted."""

import json
from functools import partial

import pytest

from tests.bench import harness
from tests.bench.cases import all_cases

SMALL = ["1/(1+i1+...+i10) rank 10", "20 functions, QTT rank 10, 4 sweeps"]


@pytest.mark.bench
@pytest.mark.parametrize("name", SMALL)
def test_our_side_of_a_case_runs(name):
    figures = all_cases()[name].ours(0)
    assert {"error", "entries", "seconds"} <= set(figures)
    assert figures["error"] < 0.1


def test_rows_say_whether_the_goal_is_met(tmp_path):
    case = harness.Case(
        name="two",
        ours=lambda seed, check=True: {"error": 2.0 + seed, "seconds": 1.0},
        peers={"other": lambda seed, check=True: {"error": 8.0, "seconds": 1.0}},
        goals={"error": 3.0, "seconds": 0.5},
    )
    error, seconds = (row for row in harness.measure(case, 3) if row.peer == "other")
    error, seconds = sorted((error, seconds), key=lambda row: row.unit)
    assert (error.value, error.peer_value, error.ratio, error.met) == (3.0, 8.0, 0.375, True)
    assert seconds.met is False
    assert "MISSED" in harness.table([error, seconds])
    harness.write([error, seconds], tmp_path / "new" / "bench.json")
    kept = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert [set(row) for row in kept] == [set(harness.Row.__dataclass_fields__)] * 2
    assert not list(tmp_path.rglob("*.part"))


def test_a_goal_may_be_a_share_of_a_peer():
    case = harness.Case(
        name="two",
        ours=lambda seed, check=True: {"seconds": 1.0},
        peers={
            "slow": lambda seed, check=True: {"seconds": 90.0},
            "fast": lambda seed, check=True: {"seconds": 2.0},
        },
        goals={"seconds": 3.0},
        shares={("seconds", "slow"): 1 / 80, ("seconds", "fast"): 0.25},
        repeats=2,
        peak="none",
    )
    rows = {row.peer: row for row in harness.measure(case, 5)}
    assert {name: (row.goal, row.met) for name, row in rows.items()} == {
        "slow": (90 / 80, True),
        "fast": (0.5, False),
    }
    assert harness.memory(case) == []


def test_a_case_that_has_used_its_time_is_not_run_once_more(monkeypatch):
    seeds = []

    def run(seed, check=True):
        seeds.append(seed)
        begin = harness.spent()
        while harness.spent() - begin < 0.02:
            pass
        return {"seconds": 1.0}

    case = harness.Case(name="slow", ours=run, peers={"other": run}, goals={})
    assert [row.runs for row in harness.measure(case, 5, seconds=0.01)] == [2]
    assert seeds == [0, 0, 1, 1]
    assert [row.runs for row in harness.measure(case, 3, seconds=10)] == [3]
    monkeypatch.setattr(harness, "LONG", 0.01)
    assert [row.runs for row in harness.measure(case, 3, seconds=10)] == [1]


def test_memory_is_measured_where_it_is_bounded(monkeypatch):
    measured = []
    monkeypatch.setattr(harness, "_PEAKS", {})
    monkeypatch.setattr(
        harness, "peak_in_fresh_process", lambda case, who: measured.append(who) or 3.0
    )
    run = {"ours": partial(dict, a=1), "peers": {"other": partial(dict, a=2)}}
    free = harness.Case(name="free", **run, goals={"seconds": 1.0})
    bounds = {"goals": {"MB": 2.0}}, {"goals": {}, "shares": {("MB", "other"): 2.0}}
    assert harness.memory(free) == []
    assert [row.value for row in harness.memory(free, always=True)] == [3.0]
    for bound, met in zip(bounds, (False, True), strict=True):
        assert [row.met for row in harness.memory(harness.Case(name="b", **run, **bound))] == [met]
    assert measured == ["", "other"]
