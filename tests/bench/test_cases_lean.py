import subprocess

import pytest
import torch

from cpic.bottleneck import _half_sweep
from cpic.nn import VolumeEntries
from tests.bench import cases_lean, counted, harness
from tests.bench.training import Setting

TINY = Setting(shape=(16,) * 3, n_dims=4, rank=3, batch=4)
N_SITES = 14


@pytest.fixture(autouse=True)
def volumes_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "_build").mkdir()
    for owner in ("training", "counted"):
        monkeypatch.setattr(f"tests.bench.{owner}.ROOT", tmp_path)


@pytest.mark.parametrize("kind", ["selecting", "on known sets"])
def test_a_step_starts_few_operations_and_no_more_for_more_volumes(kind):
    setting = cases_lean._kind(TINY, kind)
    few = counted.counted(setting)
    bound = (700, 8) if kind == "on known sets" else (600 + N_SITES * 110, N_SITES + 8)
    assert few["operations"] <= bound[0]
    assert few["host reads"] <= bound[1]
    assert max(counted.growth(setting).values()) <= cases_lean.GROWTH


def test_a_site_that_loops_over_its_volumes_is_noticed(monkeypatch):
    inner = VolumeEntries._embed

    def one_by_one(self, cubes):
        return torch.cat(
            [inner(self, part) for part in cubes.split(-(-len(cubes) // len(self.volumes)))]
        )

    monkeypatch.setattr(VolumeEntries, "_embed", one_by_one)
    assert counted.growth(TINY, ["twice the batch"])["twice the batch"] > cases_lean.GROWTH


def test_reads_of_single_tensors_are_noticed(monkeypatch):
    inner = _half_sweep._choose

    def reading(tol, matrix, bound):
        assert all(bool(part.isfinite().all()) for part in matrix)
        return inner(tol, matrix, bound)

    monkeypatch.setattr(_half_sweep, "_choose", reading)
    assert counted.growth(TINY, ["twice the batch"])["twice the batch"] > cases_lean.GROWTH


@pytest.mark.bench
@pytest.mark.parametrize("word", ["operations", "growth", "prediction"])
def test_our_side_of_a_case_runs(word):
    cases = cases_lean.lean_cases(TINY, TINY)
    for case in (case for name, case in cases.items() if name.startswith(word)):
        figures = {
            **case.ours(0),
            **{k: v for run in case.peers.values() for k, v in run(0).items()},
        }
        assert min(figures.values()) > 0


@pytest.mark.bench
def test_steps_before_and_now_run_from_trees_of_their_own():
    if not counted.has_history():
        pytest.skip(f"this clone has no {counted.BEFORE}")
    case = cases_lean.lean_cases(TINY, TINY)["training step 16^3, rank 3"]
    (row,) = (row for row in harness.measure(case, 1) if row.unit == "seconds")
    assert row.peer == counted.BEFORE
    assert row.goal == pytest.approx((row.peer_value or 0) / 1.5)


def test_without_history_the_row_says_so(tmp_path, monkeypatch):
    assert not counted.has_history(root=tmp_path)
    monkeypatch.setattr(counted, "has_history", lambda: False)
    case = cases_lean.lean_cases(TINY, TINY)["training step 16^3, rank 3, no 8c004ad in this clone"]
    assert case.peers == {}


def test_an_archive_is_unpacked_once(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    for name in ("cpic", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("before")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "cpic" / "a.py").write_text("now")
    assert counted.has_history(commit, tmp_path)
    assert not counted.has_history("0" * 40, tmp_path)
    for _ in range(2):
        tree = counted.tree_of(commit, tmp_path)
        assert (tree / "cpic" / "a.py").read_text() == "before"


def test_steps_that_fail_say_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)the steps of .* failed: .*Error"):
        counted.seconds_of_steps(tmp_path, TINY, n=1, seed=0, fields=cases_lean.FIELDS)
