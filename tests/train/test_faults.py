"""A failing step is counted and logged, changes nothing, and too many end the run."""

import logging

import pytest
import torch

from cpic._errors import CohortError, RankDeficientError, VolumeError
from cpic.data import ArrayVolume
from cpic.train import fit_fold, read_checkpoint
from tests.train.tiny import Means, Scans, make_cpic, make_data, make_task


class Failing(Means):
    """Raises in its n-th training call, after it changed all that it can."""

    def __init__(self, cause, calls):
        super().__init__()
        self.cause, self.calls, self.n = cause, calls, 0

    def forward(self, *args, **options):
        out = super().forward(*args, **options)
        if self.training:
            self.n += 1
            if self.n in self.calls and callable(self.cause):
                return self.cause(out)
            if self.n in self.calls:
                raise self.cause
        return out


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise FloatingPointError("backward broke")


CAUSES = {
    "value": (ValueError("numbers"), "ValueError: numbers"),
    "rank": (RankDeficientError("rank 2"), "RankDeficientError: rank 2"),
    "scan": (VolumeError("NaN voxels"), "VolumeError: NaN voxels"),
    "disk": (OSError(5, "I/O error"), "I/O error"),
    "algebra": (torch.linalg.LinAlgError("singular"), "singular"),
    "loss": (lambda out: out * torch.nan, "the loss is not finite: nan"),
    "gradient": (_Poison.apply, "the gradient is not finite"),
    "backward": (_Broken.apply, "FloatingPointError: backward broke"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_failing_step_leaves_no_trace_but_its_count(tmp_path, caplog, name):
    cause, message = CAUSES[name]
    model = Failing(cause, {2})
    task, states = make_task(model), []
    step = task.training_step

    def watched(batch, batch_idx):
        step(batch, batch_idx)
        own = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
        states.append({**{k: v.clone() for k, v in own.items()}, **dict(model.places)})
        # A backward pass that breaks has filled some gradients.
        assert all((p.grad is None) == (batch_idx == 1) for p in model.parameters())

    task.training_step = watched
    with caplog.at_level(logging.WARNING, "cpic.train"):
        result = fit_fold(task, make_data(), folder=tmp_path, num_epochs=1, max_faults=1)
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[1][key], states[2][key]) for key in states[1])
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    (record,) = caplog.records
    assert message in record.getMessage()
    assert "epoch 0, batch 1 (p" in record.getMessage()
    saved = read_checkpoint(result.latest)
    assert saved["history"][0]["faults"] == saved["faults"] == 1
    assert saved["step"] == 3
    assert saved["optimizer"]["state"][0]["step"] == 2


def test_too_many_failing_steps_end_the_run_with_the_cause(tmp_path):
    task = make_task(Failing(RankDeficientError("rank 2 of 3"), {2, 3, 5}))
    with pytest.raises(RuntimeError, match=r"after 3 failed.*max_faults=2.*rank 2 of") as e:
        fit_fold(task, make_data(), folder=tmp_path, num_epochs=4, max_faults=2)
    assert isinstance(e.value.__cause__, RankDeficientError)


def test_the_count_of_failing_steps_survives_a_resumed_run(tmp_path):
    options = {"folder": tmp_path, "max_faults": 1}
    fit_fold(make_task(Failing(ValueError("a"), {2})), make_data(), num_epochs=1, **options)
    task = make_task(Failing(ValueError("b"), {1}))
    with pytest.raises(RuntimeError, match="after 2 failed steps"):
        fit_fold(task, make_data(), num_epochs=2, resume=True, **options)


@pytest.mark.parametrize(
    "cause", [TypeError("program"), RuntimeError("shapes"), KeyError("k"), CohortError("cohort")]
)
def test_faults_of_the_program_end_the_run_at_once(tmp_path, cause):
    task = make_task(Failing(cause, {1}))
    with pytest.raises(type(cause)) as caught:
        fit_fold(task, make_data(), folder=tmp_path, num_epochs=1)
    assert caught.value is cause


@pytest.mark.parametrize(
    "cause",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
        MemoryError(),
    ],
    ids=["gpu", "cpu", "python"],
)
def test_out_of_memory_names_the_knobs(tmp_path, cause):
    task = make_task(Failing(cause, {1}))
    with pytest.raises(MemoryError, match=r"chunk=4096.*batch_size or ndims"):
        fit_fold(task, make_data(), folder=tmp_path, num_epochs=1)


def test_a_failing_step_of_the_whole_model_changes_neither_sets_nor_basis(tmp_path):
    model, poison = make_cpic(), {2}
    head, n = model.head.forward, [0]

    def forward(*args):
        n[0] += model.training
        return head(*args) * (torch.nan if n[0] in poison and model.training else 1.0)

    model.head.forward = forward
    states, task = [], make_task(model)
    step = task.training_step

    def watched(batch, batch_idx):
        step(batch, batch_idx)
        memory, components = model.memory.get_extra_state(), model.components.get_extra_state()
        spread = [model.components.mean.clone(), model.components.variance.clone()]
        sets = [part.clone() for part in memory["left"] + memory["right"]]
        visits = [memory["start"], memory["visits"]]
        states.append(
            [memory["names"], components["steps"], *sets, *visits, *spread, *components["cores"]]
        )

    task.training_step = watched
    fit_fold(task, make_data(min_patients=3), folder=tmp_path, num_epochs=1)
    for a, b in zip(states[0], states[1], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    assert states[2][1] == states[1][1] + 1


def test_a_first_epoch_without_a_good_step_says_why(tmp_path):
    """Before a validation that would speak of a model that is not trained."""
    scans = Scans(16)
    scans.volumes = {name: ArrayVolume(torch.zeros(8, 8, 8)) for name in scans.volumes}
    task = make_task(make_cpic())
    with pytest.raises(RuntimeError, match=r"the first epoch failed.*all zero") as caught:
        fit_fold(task, make_data(scans=scans), folder=tmp_path, num_epochs=1, max_faults=9)
    assert caught.value.__cause__ is not None
