"""A run that was killed at any point goes on exactly."""

import subprocess
import sys
from pathlib import Path

import pytest

from cpic.train import read_checkpoint
from tests.train.equal import assert_equal
from tests.train.killed import CASES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "tests.train.killed", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1].__name__}-{c[2]}")
def test_a_killed_run_ends_as_if_it_had_not_been(runs, case):
    kind, how, n = case
    folder = runs / f"{kind}-{how.__name__}-{n}"
    for name in ("latest.ckpt", "best.ckpt"):
        assert_equal(read_checkpoint(folder / name), read_checkpoint(runs / kind / name))
    for name in ("metrics.csv", "config.yaml"):
        assert (folder / name).read_bytes() == (runs / kind / name).read_bytes()
    assert not list(folder.glob(".*"))


def test_a_checkpoint_holds_sets_optimizer_and_generators(runs):
    saved = read_checkpoint(runs / "cpic" / "latest.ckpt")
    assert len(saved["model"]["memory._extra_state"]["names"]) == 9
    assert "cores" in saved["model"]["components._extra_state"]
    assert saved["optimizer"]["state"][0]["step"] == 4
    assert saved["random"]["processes"][0]["own"]
    assert len(saved["history"]) == 2
