"""What a launcher says of the processes of a run, and what a cluster says besides."""

import os
import subprocess
import sys

import pytest

from cpic.train.loop._distributed import is_first, launched

from . import cohorts
from .test_ddp import words

NAMES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_PROCID"),
)
MEETING = {"MASTER_ADDR": "here", "MASTER_PORT": "29500"}
BATCH = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
}  # fmt: skip


@pytest.fixture
def told(monkeypatch):
    def tell(variables):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return tell


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, (0, 1)),
        ({"RANK": "", "WORLD_SIZE": ""}, (0, 1)),
        ({"WORLD_SIZE": "1", "RANK": "0"}, (0, 1)),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", **MEETING}, (3, 4)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0", **MEETING}, (1, 2)),
        # Lightning, when a fold is over.
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", **MEETING}, (1, 1)),
        (BATCH, (0, 1)),
        ({**BATCH, "SLURM_STEP_NUM_TASKS": "1"}, (0, 1)),
    ],
)
def test_what_a_launcher_says(variables, wanted, told):
    told(variables)
    assert launched() == wanted
    assert is_first() == (wanted[0] == 0)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "1"}, "needs what torchrun sets, got RANK=1; start by torchrun"),
        ({"LOCAL_RANK": "1"}, "needs what torchrun sets, got LOCAL_RANK=1"),
        ({"WORLD_SIZE": "4"}, "needs what torchrun sets, got WORLD_SIZE=4"),
        ({"RANK": "1", "WORLD_SIZE": "4"}, "got RANK=1 WORLD_SIZE=4"),
        (
            {"RANK": "4", "LOCAL_RANK": "0", "WORLD_SIZE": "4", **MEETING},
            "needs what torchrun sets",
        ),
        ({"RANK": "x"}, "numbers, got RANK=x"),
        ({"WORLD_SIZE": "-1"}, "numbers, got WORLD_SIZE=-1"),
        ({**BATCH, "SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 processes .*; start one on each"),
    ],
)
def test_half_of_it_is_refused(variables, words, told):
    told(variables)
    with pytest.raises(ValueError, match=words) as caught:
        launched()
    assert len(str(caught.value).splitlines()) == 1


def test_several_machines_need_a_launcher(told):
    told({})
    with pytest.raises(ValueError, match="got none of it; start by torchrun"):
        launched(2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "code"), [(BATCH, 0), ({**BATCH, "SLURM_STEP_NUM_TASKS": "4"}, 2)]
)
def test_a_batch_job_of_several_tasks(variables, code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "cpic.cli", "brats", *words(cohorts.options("brats", tmp_path))],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert bool(list(tmp_path.rglob("latest.ckpt"))) == (code == 0)
