"""The scripts are no package: they find each other because they lie in one folder."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from cpic import cli
from cpic.cohorts.synthetic import make_brats_like, make_osic_like

SCRIPTS = Path(__file__).parents[2] / "data_scripts"
sys.path.insert(0, str(SCRIPTS))


@pytest.fixture(scope="session")
def brats_made(tmp_path_factory):
    """Five usable patients; the second of six is still alive."""
    root = tmp_path_factory.mktemp("brats")
    make_brats_like(root, n_patients=6, shape=(24, 24, 24))
    return root


@pytest.fixture(scope="session")
def osic_made(tmp_path_factory):
    """Four patients, of whom the last cannot be decoded."""
    root = tmp_path_factory.mktemp("osic")
    make_osic_like(root, n_patients=4, shape=(8, 32, 32))
    return root


@pytest.fixture
def brats(brats_made, tmp_path):
    """A copy to break."""
    return shutil.copytree(brats_made, tmp_path / "data")


@pytest.fixture
def osic(osic_made, tmp_path):
    """A copy to break."""
    return shutil.copytree(osic_made, tmp_path / "data")


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Run a command whole, and stopped and resumed, compare both, and return the summary."""
    # Here, since most tests of scripts need no training.
    from cpic.train.tasks._patches import PatchTask

    def run(words, *, at):
        def main(name, *more):
            options = [f"--results_folder={tmp_path}", f"--experiment_name={name}", *more]
            return cli.main([*words, "--num_workers=0", "--save_every=1", *options])

        assert main("whole") == 0
        step, calls = PatchTask.training_step, []

        def stop(self, batch, batch_idx):
            calls.append(batch_idx)
            if len(calls) == at:
                raise KeyboardInterrupt
            return step(self, batch, batch_idx)

        with monkeypatch.context() as patched:
            patched.setattr(PatchTask, "training_step", stop)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                main("part")
        assert main("part", "--resume=true") == 0
        whole, part = (
            torch.load(tmp_path / name / "fold_0" / "latest.ckpt", weights_only=True)
            for name in ("whole", "part")
        )
        for name, value in whole["model"].items():
            assert torch.equal(value, part["model"][name])
        one, other = (
            json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "part")
        )
        assert one["mean"] == other["mean"]
        return one

    return run
