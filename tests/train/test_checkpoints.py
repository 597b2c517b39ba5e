"""What is in a checkpoint is what was saved, or it is refused by its name."""

import os
import random
import zipfile

import pytest
import torch

from cpic.train import fit_fold, read_checkpoint
from tests.train.equal import assert_equal
from tests.train.tiny import make_data, make_task


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The state of a run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    result = fit_fold(make_task(), make_data(), folder=folder, num_epochs=2)
    return torch.load(result.latest, weights_only=True)


def set_deep(state, place, value):
    """Put a value where some keys lead, or take away what is there."""
    keys = [int(key) if key.isdigit() else key for key in place.split("/")]
    for key in keys[:-1]:
        state = state[key]
    if value is None:
        del state[keys[-1]]
    else:
        state[keys[-1]] = value


EVERYWHERE = [
    ("config", 3, "needs settings by name as its config, got 3"),
    ("config", {"a": torch.ones(1)}, "as its config"),
    ("config", {1: 2}, "as its config"),
    ("model", [1], "needs weights by name as its model, got list"),
    ("optimizer", "x", "as its optimizer, got 'x'"),
    ("random", {}, "needs the generators of each process as its random"),
    ("random/processes", [], "as its random"),
    ("random/processes/0/torch", "x", "as its random"),
    ("random/processes/0/own", None, "as its random"),
    ("random/processes/0/cuda", 0, "as its random"),
    ("sums", {"loss": "x"}, "as its sums"),
    ("history", "x", "needs one row per epoch as its history, got 'x'"),
    ("history", [], "of 2 epochs needs one row per epoch"),
    ("history/1/epoch", 7, "needs one row per epoch as its history, got list"),
    ("history/1/train_loss", None, "as its history"),
    ("times/0/seconds", "x", "as its times"),
    ("stopped", 1, "needs a word as its stopped, got 1"),
    ("best_epoch", -2, "needs a number from -1 as its best_epoch, got -2"),
    ("best_epoch", 2, "of 2 epochs has no best epoch of number 2"),
    *((name, -3, f"needs a number from 0 as its {name}, got -3") for name in ("epoch", "position")),
    *((name, True, f"as its {name}, got True") for name in ("step", "faults")),
    ("stale", 2**60, "as its stale"),
    ("epoch", "x", "as its epoch, got 'x'"),
    ("epoch", 1.0, "as its epoch, got 1.0"),
    ("epoch", 10**9, "of 1000000000 epochs needs one row per epoch"),
    *((name, float("nan"), f"as its {name}, got nan") for name in ("seconds", "spent")),
    ("step_seconds", -1.0, "needs a number of seconds as its step_seconds"),
    ("format", 7, "is not a checkpoint of cpic.train of format 1"),
]


def changed(saved, path, place, value):
    """A file of what was saved, with another value in one place."""
    torch.save(saved, path)
    state = torch.load(path, weights_only=True)
    set_deep(state, place, value)
    torch.save(state, path)
    return path


@pytest.mark.parametrize(("place", "value", "message"), EVERYWHERE)
def test_a_part_that_is_something_else_is_refused(saved, tmp_path, place, value, message):
    path = changed(saved, tmp_path / "latest.ckpt", place, value)
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


TO_GO_ON = [
    *((name, None, f"needs {name}, there is none") for name in ("config", "model", "random")),
    *((name, None, f"needs {name}, there is none") for name in ("epoch", "optimizer", "sums")),
    ("config", {}, "has another configuration"),
    ("position", 10**6, "position in the run .*batch 1000000 of 3"),
    ("sums", {}, "position in the run"),
    ("history/0/val_rmse", None, "as its history"),
    ("optimizer/state", None, "optimizer of a checkpoint cannot be used"),
    ("optimizer/param_groups", [], "optimizer of a checkpoint cannot be used"),
    ("optimizer/state/0/exp_avg", torch.ones(3), "optimizer of a checkpoint cannot be used"),
    ("random/processes/0/torch", torch.ones(3), "random of a checkpoint cannot be used"),
    ("random/processes/0/torch", torch.ones(3, dtype=torch.uint8), "random of a checkpoint"),
    ("model/out.weight", None, r"model of a checkpoint .* Missing key.*out\.weight"),
    ("model/out.weight", 3, r"model of a checkpoint .*out\.weight.*make the model with"),
    ("model/norm.num_batches_tracked", 3, "model of a checkpoint cannot be used"),
    ("model/_extra_state", 3, "model of a checkpoint cannot be used"),
]


@pytest.mark.parametrize(("place", "value", "message"), TO_GO_ON)
def test_a_run_does_not_go_on_from_it(saved, tmp_path, place, value, message):
    path = changed(saved, tmp_path / "latest.ckpt", place, value)
    with pytest.raises(ValueError, match=message) as caught:
        fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=3, resume=True)
    assert str(path) in str(caught.value)


def test_flipped_bits_change_nothing_or_are_refused(saved, tmp_path):
    path = tmp_path / "latest.ckpt"
    torch.save(saved, path)
    raw, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        changed = bytearray(raw)
        changed[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            found = read_checkpoint(path)
        except ValueError:
            refused += 1
        else:
            assert_equal(found, saved)
    assert refused > 75


def test_a_flipped_bit_of_a_weight_is_seen(tmp_path):
    path = tmp_path / "best.ckpt"
    weights = torch.arange(1.0, 1000.0)
    torch.save({"format": 1, "model": {"w": weights}}, path)
    raw = path.read_bytes()
    at = raw.index(weights.numpy().tobytes())
    for k in (0, 1, 1998, 3995):
        changed = bytearray(raw)
        changed[at + k] ^= 1
        path.write_bytes(changed)
        with pytest.raises(
            ValueError, match=r"best.ckpt cannot be read .*record .* does not match its CRC-32"
        ):
            read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("method", "twice", "message"),
    [
        (zipfile.ZIP_DEFLATED, "nothing", "is compressed"),
        (zipfile.ZIP_STORED, "data/0", "two records of the same name"),
    ],
)
def test_records_that_torch_does_not_write(tmp_path, method, twice, message):
    path = tmp_path / "best.ckpt"
    torch.save({"format": 1, "model": {"w": torch.arange(100.0)}}, path)
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records:
            archive.writestr(name, content)
            if name.endswith(twice):
                archive.writestr(name, bytes(len(content)))
    with pytest.raises(ValueError, match=f"best.ckpt cannot be read .*{message}"):
        read_checkpoint(path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "named pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "device"),
        (lambda path: path.mkdir(), "folder"),
    ],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, make, what):
    path = tmp_path / "latest.ckpt"
    make(path)
    with pytest.raises(
        ValueError, match=f"latest.ckpt cannot be read as a checkpoint .is a {what}"
    ):
        read_checkpoint(path)
