"""Bounds of settings: said in the signatures, and the same for calls, flags and files."""

import inspect
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from cpic import cli, train
from cpic.options import _kinds
from cpic.options._groups import GROUPS

COMMANDS = ("brats", "osic", "baseline")
NAN, INF = float("nan"), float("inf")
# What no run can have, in the order of the settings.
BAD = {
    "batch_size": (0, -1, 1.5, NAN, INF, True, "ten", [1], 10**400),
    "use_encoder": (1, None, "maybe", -1),
    "root": ("", 3, True, ["a"], "a\0b"),
    "results_folder": ("", 3, None),
    "num_epochs": (0, -1, 0.5),
    "experiment_name": (
        *("", "..", ".", "../away", "/away", "a/b", "a\\b", "C:x", "a\n", " a", "a ", "a.", ".a"),
        *("-a", "~", "con", "NUL.txt", "none", "a\0b", "x" * 101, 3, ["a"]),
    ),
    "only_fold": (-1, 0.5),
    "ndims": (0, -4, 2.5, 10**6),
    "ngpus": (-1, 0.5),
    "rank": (0, -1),
    "layers": ("sn", 3),
    "layers_rank": (0, -1, 1.5),
    "num_workers": (-1, 10**6),
    "num_nodes": (0, -1),
    "use_extra_features": (1,),
    "pretrain": ("", 3),
    "resume": (1, "maybe"),
    "resolution": ([8, 8], [8, 8, 8, 8], [8, 8, 0], [8, 8, -8], [8, 8, 1.5], 8, [8, 8, 10**9]),
    "contrasts": ([""], [3], "", 3),
    "intensity": ("max", 3, True),
    "encoder": ("big", 3),
    "scales": ([0], [1.5], ["x"]),
    "bias": (NAN, INF, "x", True),
    "activation": ("tanh", 3),
    "last": ("tanh", 3, None),
    "positions": ("nowhere", 3),
    "budget": (0, -1, 1.5),
    "correction": (-1, 0.5),
    "residual": (-1, NAN, INF, "x"),
    "features": (["colors"], "colors", 3),
    "norm": ("group", 3),
    "optimizer": ("lbfgs", 3),
    "weight_decay": (-1, NAN, INF, "x"),
    "more": (3, "x", [1]),
    "chunk": (0, -1),
    "precision": (16, 32.5, True, "x"),
    "lr": (0, -1, NAN, INF, -INF, "x", True, 10**400),
    "schedule": ("step", 3),
    "standardize": (1, "maybe"),
    "flips": ([3], [-1], [0.5], 0.5),
    "clip": (0, -1, NAN, INF),
    "nan": (NAN, INF, "x"),
    "selection": (-0.1, 1, NAN, INF, "x"),
    "patience": (0, -1),
    "folds": (1, 0, -1),
    "patients": (0, -1),
    "cache": ("", 3),
    "seed": (-1, 0.5, 2**63),
    "max_faults": (-1, 0.5),
    "max_minutes": (0, -1, NAN, INF),
    "save_every": (0, -1),
    "progress": (1,),
    "wandb": (1,),
}
CASES = [(name, value) for name, values in BAD.items() for value in values]
# Written in a file or a flag, a number that should be text is text.
TEXTUAL = ("root", "pretrain", "results_folder", "experiment_name", "cache", "contrasts")
WRITTEN = [
    (name, value)
    for name, value in CASES
    if "\0" not in str(value)
    and (name not in TEXTUAL or isinstance(value, str | None) or value == [""])
]


@pytest.fixture
def seen(monkeypatch):
    """What would have been run."""
    calls = []

    def fake(task, model, *groups):
        calls.append({name: value for group in groups for name, value in vars(group).items()})
        return []

    monkeypatch.setattr("cpic.train.tasks._cross_validation.cross_validate", fake)
    return calls


def test_every_setting_has_senseless_values_here():
    assert set(BAD) == set(inspect.signature(train.brats).parameters) - set(GROUPS)


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: repr(value)[:20])
def test_a_call_is_refused(name, value, seen):
    with pytest.raises(ValueError, match=rf"^{name} needs .*, got ") as caught:
        train.brats(**{name: value})
    assert len(str(caught.value).splitlines()) == 1
    assert not seen


@pytest.mark.parametrize(("name", "value"), WRITTEN, ids=lambda value: repr(value)[:20])
def test_a_file_is_refused(name, value, seen, tmp_path, capsys):
    if value == 10**400:
        value = "1" + "0" * 5000
    file = tmp_path / "a.yml"
    file.write_text(yaml.safe_dump({name: value}))
    assert cli.main(["brats", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cpic brats: {file}")
    assert re.search(rf": {name} needs .*, got |cannot be read as YAML", said)
    assert len(said.splitlines()) == 1
    assert not seen


@pytest.mark.parametrize(("name", "value"), WRITTEN, ids=lambda value: repr(value)[:20])
def test_a_flag_is_refused(name, value, seen, capsys):
    text = json.dumps(value) if isinstance(value, list | bool | None) else str(value)
    assert cli.main(["brats", f"--{name}={text}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cpic brats: {name} needs ")
    assert len(said.splitlines()) == 1
    assert not seen


@pytest.mark.parametrize("command", COMMANDS)
def test_all_commands_have_the_same_bounds(command, seen):
    mine, first = (one.command.options for one in (getattr(train, command), train.brats))
    for name in set(mine) & set(BAD):
        assert mine[name].kind == first[name].kind, name
        with pytest.raises(ValueError, match=name):
            getattr(train, command)(**{name: BAD[name][0]})


GOOD = {
    "batch_size": (np.int64(4), 4), "rank": (3.0, 3), "lr": (1, 1.0),
    "bias": (np.float32(0.5), 0.5),
    "clip": (None, None), "resolution": ([8, 8, 8], (8, 8, 8)), "flips": ((), ()),
    "experiment_name": ("run 3, lr=1e-3 (é)", "run 3, lr=1e-3 (é)"), "seed": (0, 0),
    "root": (Path("a"), Path("a")), "more": ({"looks": 3}, {"looks": 3}),
    "cache": ("~/x", os.path.expanduser("~/x")), "precision": (64, 64), "max_minutes": (0.1, 0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_fits_is_a_plain_value(name, seen):
    given, wanted = GOOD[name]
    train.brats(**{name: given})
    found = seen[-1][name]
    assert found == wanted
    # Not a kind of a library: checkpoints hold these, and are read without trusting them.
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("options", "name"), [({"clip": -1}, "clip"), ({"precision": 16}, "precision")]
)
def test_one_fold_has_the_same_bounds(options, name):
    with pytest.raises(ValueError, match=f"^{name} needs "):
        _kinds.checked(train.fit_fold, options)
