"""A run that was stopped or finished goes on exactly, or says why it does not."""

import os
import signal
from pathlib import Path

import pytest
import torch

from cpic.train import fit_fold, read_checkpoint
from tests.train.equal import assert_equal
from tests.train.tiny import Means, make_data, make_task


class Signaled(Means):
    """Sends itself a signal in its n-th call."""

    def __init__(self, calls, number):
        super().__init__()
        self.calls, self.number, self.n = calls, number, 0

    def forward(self, *args, **options):
        self.n += 1
        if self.n in self.calls:
            os.kill(os.getpid(), self.number)
        return super().forward(*args, **options)


# An epoch has 3 steps and 1 call of validation.
@pytest.mark.parametrize(
    ("call", "number", "epoch", "steps"),
    [(2, signal.SIGINT, 0, 2), (4, signal.SIGINT, 1, 3), (7, signal.SIGTERM, 2, 6)],
    ids=["step", "validation", "last-step"],
)
def test_a_signal_saves_the_state(tmp_path, call, number, epoch, steps):
    before = signal.getsignal(signal.SIGINT)
    whole = fit_fold(make_task(), make_data(), folder=tmp_path / "whole", num_epochs=2)
    model = Signaled([call], number)
    with pytest.raises(KeyboardInterrupt, match=f"after {steps} steps; the state is saved: .*ckpt"):
        fit_fold(make_task(model), make_data(), folder=tmp_path / "run", num_epochs=2)
    assert signal.getsignal(signal.SIGINT) is before
    saved = read_checkpoint(tmp_path / "run" / "latest.ckpt")
    assert (saved["epoch"], saved["step"]) == (epoch, steps)
    result = fit_fold(make_task(), make_data(), folder=tmp_path / "run", num_epochs=2, resume=True)
    assert result.metrics == whole.metrics
    assert_equal(read_checkpoint(result.latest), read_checkpoint(whole.latest))


# An epoch has 2 steps, 1 call of validation and 1 of the patients who choose.
@pytest.mark.parametrize(("call", "epoch"), [(1, 0), (3, 1), (4, 1), (5, 1)])
def test_a_signal_saves_which_epoch_was_chosen(tmp_path, call, epoch):
    def run(folder, model=None, **options):
        data = make_data(selection=["p05", "p11"])
        return fit_fold(make_task(model), data, folder=tmp_path / folder, num_epochs=3, **options)

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt, match="the state is saved"):
        run("run", Signaled([call], signal.SIGINT))
    assert read_checkpoint(tmp_path / "run" / "latest.ckpt")["epoch"] == epoch
    result = run("run", resume=True)
    assert (result.metrics, result.selection) == (whole.metrics, ("p05", "p11"))
    for name in ("latest", "best"):
        assert_equal(read_checkpoint(getattr(result, name)), read_checkpoint(getattr(whole, name)))


def test_a_second_signal_leaves_at_once(tmp_path):
    class Twice(Means):
        def forward(self, *args, **options):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("went on")

    with pytest.raises(KeyboardInterrupt, match="after 0 steps; the last saved state"):
        fit_fold(make_task(Twice()), make_data(), folder=tmp_path, num_epochs=1)
    assert not (tmp_path / "latest.ckpt").exists()


@pytest.mark.parametrize("selection", [(), ("p05", "p11")], ids=["none", "selection"])
def test_a_finished_run_goes_on_to_more_epochs(tmp_path, selection):
    def run(folder, n, **options):
        data = make_data(selection=selection)
        return fit_fold(make_task(), data, folder=tmp_path / folder, num_epochs=n, **options)

    whole, first = run("whole", 3), run("run", 2)
    again = run("run", 2, resume=True)
    assert again.metrics == first.metrics
    assert again.epochs == 2
    more = run("run", 3, resume=True)
    assert more.metrics == whole.metrics
    assert_equal(read_checkpoint(more.latest), read_checkpoint(whole.latest))
    assert more.seconds > first.seconds


@pytest.mark.parametrize(
    ("options", "data", "model", "message"),
    [
        ({"config": {"rank": 12, "options": {"lr": 1}}}, {}, {}, "rank is 10 there and 12 here"),
        ({"config": {"rank": 10, "options": {"lr": 2}}}, {}, {}, r"options\.lr is 1 there and 2"),
        ({"precision": 64}, {}, {}, "precision is 32 there and 64 here"),
        ({}, {"batch_size": 6}, {}, "batch_size is 4 there and 6 here"),
        ({}, {"n": 15}, {}, "samples is '.*' there and '.*' here"),
        ({}, {}, {"n_outputs": 2}, r"out\.weight: .*\[1, 4\]\) from.*\[2, 4\]"),
    ],
    ids=["rank", "nested", "precision", "batch_size", "samples", "model"],
)
def test_a_run_of_other_settings_is_refused(tmp_path, options, data, model, message):
    config = {"rank": 10, "options": {"lr": 1, "num_workers": 1}, "shape": (8, 8)}
    fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1, config=config)
    options = {"config": config, **options, "num_epochs": 2}
    task = make_task(Means(**model), output=0)
    with pytest.raises(ValueError, match=message):
        fit_fold(task, make_data(**data), folder=tmp_path, resume=True, **options)


def test_what_may_differ_is_no_other_configuration(tmp_path):
    config = {"shape": (8, 8), "options": {"num_workers": 1, "results_folder": "a"}}
    fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1, config=config)
    config = {"shape": [8, 8], "options": {"num_workers": 4, "results_folder": "b"}}
    options = {"folder": tmp_path, "num_epochs": 2, "resume": True, "config": config}
    assert fit_fold(make_task(), make_data(), **options).epochs == 2


def test_a_folder_with_a_run_needs_resume(tmp_path):
    fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1)
    before = (tmp_path / "latest.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"holds a run already.*resume=True"):
        fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1)
    assert (tmp_path / "latest.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no checkpoint"),
        (b"", "cannot be read as a checkpoint"),
        (b"half a checkpoint", "cannot be read as a checkpoint"),
        ({"format": 7}, "is not a checkpoint of cpic.train of format 1"),
        ([1], "is not a checkpoint of cpic.train"),
        ({"format": 1, "path": Path("code")}, "cannot be read as a checkpoint"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "latest.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        read_checkpoint(path)
