"""Options of `cpic ips`: senseless values, published keys, and the published settings."""

import pytest
import yaml

from cpic import cli, train
from cpic.options import _presets

NAN, INF = float("nan"), float("inf")
BAD = {
    "dataset": ("cifar", 3),
    "root": ("", 3),
    "cache": ("", 3),
    "train_file": ("", 3),
    "test_file": ("", 3),
    "images": (0, -1, 1.5),
    "canvas": ([300], 300, [1, 300], [300, 10**6]),
    "strokes": (0, 1.5),
    "patch": (0, -1, 1.5, [50, 50]),
    "stride": (0, 1.5),
    "eager": (1, "maybe"),
    "together": (0, 1.5),
    "tasks": ([""], "max", 3),
    "method": ("best", 3),
    "m": (0, -1, 2.5),
    "i": (0, -1),
    "by": ("one", 3),
    "shuffle": ("all", True),
    "encoder": ("vit", 3),
    "pretrained": (1,),
    "in_channels": (0, 10**6),
    "stages": (0, 5, 2.5),
    "norm": ("layer", 3),
    "layers": ("sn", True),
    "rank": (0, 2.5),
    "width": (0, 10**5),
    "heads": (0, 1.5),
    "key_width": (0, 10**5),
    "value_width": (0,),
    "inner": (0,),
    "dropout": (-0.1, 1, NAN),
    "attention_dropout": (-0.1, 1, "x"),
    "places": ("3d", 3),
    "view": (0,),
    "warmup": (-1, NAN, INF),
    "track_efficiency": (1,),
    "track_epoch": (-1, 0.5),
    "write_scores": (1, "maybe"),
}
CASES = [(name, value) for name, values in BAD.items() for value in values]
# What brats has in another sense.
OTHERS = {"norm", "encoder"}
# Every key of the three published files, with a value of it.
PUBLISHED = {
    "n_epoch": (150, "num_epochs"),
    "B": (16, "batch_size"),
    "B_seq": (1, "together"),
    "n_epoch_warmup": (10, "warmup"),
    "lr": (3e-4, "lr"),
    "wd": (0.1, "weight_decay"),
    "data_dir": ("data/traffic", "root"),
    "train_fname": ("a.hdf5", "train_file"),
    "test_fname": ("b.hdf5", "test_file"),
    "n_worker": (8, "num_workers"),
    "eager": (True, "eager"),
    "seed": (0, "seed"),
    "track_efficiency": (False, "track_efficiency"),
    "track_epoch": (0, "track_epoch"),
    "enc_type": ("resnet18", "encoder"),
    "pretrained": (True, "pretrained"),
    "n_chan_in": (3, "in_channels"),
    "n_res_blocks": (4, "stages"),
    "shuffle_style": ("batch", "shuffle"),
    "M": (10, "m"),
    "I": (32, "i"),
    "patch_size": (100, "patch"),
    "patch_stride": (100, "stride"),
    "H": (8, "heads"),
    "D": (512, "width"),
    "D_k": (64, "key_width"),
    "D_v": (64, "value_width"),
    "D_inner": (2048, "inner"),
    "attn_dropout": (0.1, "attention_dropout"),
    "dropout": (0.1, "dropout"),
}


@pytest.fixture
def seen(monkeypatch):
    """What would have been run."""
    calls = []

    def fake(dataset, *groups):
        found = {name: value for group in groups for name, value in vars(group).items()}
        calls.append({"dataset": dataset, **found})
        return []

    monkeypatch.setattr("cpic.train.tasks._ips_run.train_on_bags", fake)
    return calls


def test_every_setting_of_its_own_has_senseless_values_here():
    mine, others = (set(one.command.options) for one in (train.ips, train.brats))
    assert mine - others <= set(BAD)
    assert set(BAD) <= mine


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda value: repr(value)[:20])
def test_a_call_is_refused(name, value, seen):
    with pytest.raises(ValueError, match=rf"^{name} needs .*, got "):
        train.ips(**{name: value})
    assert not seen


def test_shared_settings_have_the_same_bounds():
    mine, first = train.ips.command.options, train.brats.command.options
    for name in set(mine) & set(first) - OTHERS:
        assert mine[name].kind == first[name].kind, name


def test_published_keys_are_accepted_under_their_names(seen, tmp_path):
    file = tmp_path / "traffic.yml"
    file.write_text(yaml.safe_dump({key: value for key, (value, _) in PUBLISHED.items()}))
    with pytest.warns(FutureWarning, match="is now"):
        assert cli.main(["ips", "--dataset", "traffic", "--config", str(file)]) == 0
    (found,) = seen
    for value, name in PUBLISHED.values():
        assert found[name] == value, name


@pytest.mark.parametrize("name", ["mnist", "traffic", "camelyon"])
def test_presets_have_the_published_values(name):
    published = {
        "mnist": (150, 16, 16, 1e-3, 100, 100, 50, 128, 16, 512, "index", 2, 1),
        "traffic": (150, 16, 16, 3e-4, 10, 32, 100, 512, 64, 2048, "none", 4, 3),
        "camelyon": (50, 16, 1, 3e-4, 5000, 5000, None, 512, 64, 2048, "none", 2, 2048),
    }
    keys = ("num_epochs", "batch_size", "together", "lr", "m", "i", "patch", "width", "key_width")
    keys += ("inner", "places", "stages", "in_channels")
    command = train.ips.command
    found = _presets.read_settings([_presets.preset_file(f"ips/{name}")], command)
    defaults = {key: one.default for key, one in command.options.items()}
    assert tuple({**defaults, **found}[key] for key in keys) == published[name]
    shared = {"warmup": 10, "weight_decay": 0.1, "by": "official", "norm": "batch", "heads": 8}
    shared |= {"selection": 0, "clip": None, "optimizer": "adamw", "dropout": 0.1}
    shared |= {"attention_dropout": 0.1, "shuffle": "batch", "eager": True, "seed": 0}
    assert found.items() >= shared.items()
