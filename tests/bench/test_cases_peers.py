"""The races run on small problems, and lose nothing without a word."""

import json
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.bench import harness, problems, race
from tests.bench.cases_peers import peer_races, run_race
from tests.bench.cases_peers import race as make_race
from tests.bench.peers import PEERS, missing
from tests.bench.race import OURS, Race, Run, best, run_library

SMALL = Race(
    name="small",
    make=partial(problems.genz, "corner peak", n_modes=4, n=6),
    settings=[{"rank": 5}, {"tol": 1e-6}],
    own=[{"rank": 5, "method": "square"}, {"rank": 6, "method": "square"}, {"tol": 1e-6}],
    budgets=[1000, 5000],
    targets=[1e-4],
)


def test_every_library_has_runs_or_a_reason():
    runs = list(run_race(SMALL, limit=2, seeds=1))
    for library in (OURS, *PEERS):
        mine = [run for run in runs if run.library == library]
        if library != OURS and missing(library):
            assert [run.reason for run in mine] == [missing(library)]
            continue
        assert [run.setting for run in mine] in (
            ["rank=5, method=square", "rank=6, method=square", "tol=1e-06"],
            ["rank=5", "tol=1e-06"],
        )
        assert {run.reason for run in mine} == {None}, mine
        assert all(run.error < 1e-3 and 0 < run.entries <= run.asked for run in mine), mine
        assert all(0 < run.seconds < 5 and run.entries <= 6**4 for run in mine), mine
    found = {(what, unit): of for what, unit, of in race.readings(SMALL, runs)}
    assert set(found) == {
        ("1,000 entries", "error"),
        ("5,000 entries", "error"),
        ("error 0.0001", "entries"),
        ("error 0.0001", "seconds"),
    }
    assert found["5,000 entries", "error"][OURS] < 1e-6


@pytest.mark.parametrize("library", PEERS)
def test_a_library_that_is_not_installed_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library.split("-")[0], None)
    monkeypatch.setitem(sys.modules, "torchtt.interpolate", None)
    (run,) = run_library(SMALL, library)
    assert run.library == library
    assert run.reason.startswith("not installed: ")


@pytest.mark.parametrize("family", problems.GENZ)
def test_functions_are_of_the_rank_they_have_in_theory(family):
    entries, sizes, _ = problems.genz(family, n_modes=3, n=7)
    full = entries(torch.cartesian_prod(*map(torch.arange, sizes))[None]).view(7, 49)
    rank = int((torch.linalg.svdvals(full) > 1e-12 * full.norm()).sum())
    assert rank == {"oscillatory": 2, "corner peak": 7}.get(family, 1)


def failing(what: str):
    """A problem whose function fails, hangs or kills its process once the warm-up is over."""
    entries, sizes, _ = problems.genz("gaussian", n_modes=3, n=4)

    def function(indices):
        if what == "hangs":
            time.sleep(600)
        if what == "dies":
            raise SystemExit(3)
        if what == "raises":
            raise RuntimeError("no such scan")
        return entries(indices)

    return function, sizes, None


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("raises", "RuntimeError: no such scan", "RuntimeError: no such scan"),
        ("hangs", "stopped after 0.48 s, or died", "not begun"),
        ("dies", "stopped after 0.48 s, or died", "not begun"),
    ],
)
def test_what_goes_wrong_is_kept_as_a_reason(what, first, second, capfd):
    start = time.monotonic()
    runs = run_library(replace(SMALL, make=partial(failing, what)), OURS, limit=0.3, seeds=2)
    assert time.monotonic() - start < 300
    assert [run.setting for run in runs] == [race.label(own) for own in SMALL.own]
    assert runs[0].reason == first
    assert runs[1].reason.startswith(second)
    assert runs[2].reason == first  # a ladder of its own
    assert {run.error for run in runs} == {None}


def some_runs() -> list[Run]:
    blank = Run(race="small", library=OURS, setting="", seeds=1)
    figures = [(1e-1, 500, 0.3), (1e-3, 900, 0.2), (1e-5, 3000, 0.1), (1e-9, 9000, 9.0)]
    runs = [replace(blank, error=e, worst=e, entries=n, seconds=s) for e, n, s in figures]
    other = replace(blank, library="teneva", error=1e-4, worst=1e-4, entries=700, seconds=0.5)
    return [*runs, other, Run(race="small", library=OURS, setting="late", reason="stopped")]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ({"budget": 100}, {"error": None}),
        ({"budget": 1000}, {"error": 1e-3}),
        ({"budget": 9000}, {"error": 1e-9}),
        ({"target": 1e-2}, {"entries": 900, "seconds": 0.1}),
        ({"target": 1e-12}, {"entries": None, "seconds": None}),
    ],
)
def test_the_best_run_that_fits_is_read(question, answer):
    mine = [run for run in some_runs() if run.library == OURS]
    assert best(mine, **question) == answer


def test_a_row_misses_its_goal_where_a_peer_is_better():
    made = {(row.name, row.peer): row for row in race.rows(SMALL, some_runs())}
    assert {peer for _, peer in made} == {"teneva"}
    error = made["small: error at 1,000 entries", "teneva"]
    assert (error.value, error.goal, error.met) == (1e-3, 1e-4, False)
    assert made["small: error at 5,000 entries", "teneva"].met
    assert not made["small: entries at error 0.0001", "teneva"].met
    assert made["small: seconds at error 0.0001", "teneva"].met
    assert "MISSED" in harness.table(list(made.values()))


def test_the_record_holds_all_runs_and_where_they_ran(tmp_path):
    runs = some_runs()
    race.write(race.record([SMALL], runs, wall=1.0), tmp_path / "new" / "peers.json")
    kept = json.loads((tmp_path / "new" / "peers.json").read_text())
    assert {"machine", "commit", "date", "versions", "python", "limit_seconds"} <= set(kept)
    assert kept["versions"]["torch"] == torch.__version__
    assert len(kept["runs"]) == len(runs)
    assert [run["reason"] for run in kept["runs"] if "reason" in run] == ["stopped"]
    assert kept["readings"][0]["teneva"] == 1e-4
    assert not list(tmp_path.rglob("*.part"))


def test_all_libraries_get_the_same_ranks_and_tolerances():
    races = peer_races()
    assert len({one.name for one in races}) == len(races) > 10
    for one in races:
        shared = [{k: v for k, v in own.items() if k != "method"} for own in one.own]
        assert {race.label(s) for s in shared} == {race.label(s) for s in one.settings}
        assert one.budgets
        assert one.targets
    made = make_race("x", SMALL.make, ranks=[2], tols=[0.1], budgets=[1], targets=[1.0])
    assert [race.label(own) for own in made.own] == [
        "tol=0.1",
        "rank=2, method=square",
        "rank=2, method=least_squares",
    ]
