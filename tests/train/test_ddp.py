"""Two processes take the steps that one takes with the whole batch."""

import json
import os
import subprocess
import sys

import pytest
import torch

from cpic import train

from . import cohorts


def words(options):
    return [
        f"--{name}={json.dumps(v) if isinstance(v, tuple) else v}" for name, v in options.items()
    ]


def torchrun(arguments):
    """Run the command in two processes that meet over gloo."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "cpic.cli", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_two_processes_end_with_the_parameters_of_one(tmp_path):
    """Uneven shares, and patients that the other process has seen before."""
    options = cohorts.options("brats", tmp_path)
    options |= {"batch_size": 5, "num_epochs": 3, "precision": 64, "lr": 0.01}
    done = torchrun(["brats", *words(options), "--experiment_name=two"])
    # One of them speaks.
    assert done.stdout.count("mean_error") == 1
    (one,) = train.brats(**options, experiment_name="one")
    both = [
        train.read_checkpoint(tmp_path / name / f"fold_{one.fold}" / "latest.ckpt")
        for name in ("one", "two")
    ]
    assert both[0]["step"] == both[1]["step"] >= 2
    compared = 0
    for name, value in both[0]["model"].items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            other = both[1]["model"][name]
            assert (value - other).abs().max() <= 1e-10, name
            compared += value.numel()
    assert compared > 1000
    rows = [json.loads((tmp_path / n / "summary.json").read_text()) for n in ("one", "two")]
    errors = [row["folds"][0]["metrics"]["error"] for row in rows]
    assert errors[0] == pytest.approx(errors[1], abs=1e-6)
