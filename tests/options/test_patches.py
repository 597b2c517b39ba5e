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
# Every key of the three published files, with its values for MNIST, traffic signs and slides.
PUBLISHED = {
    "n_epoch": (150, 150, 50),
    "B": (16, 16, 16),
    "B_seq": (16, 16, 1),
    "n_epoch_warmup": (10, 10, 10),
    "lr": (1e-3, 3e-4, 3e-4),
    "wd": (0.1, 0.1, 0.1),
    "n_class": (10, 4, 1),
    "data_dir": ("mnist", "traffic", "camelyon"),
    "train_fname": (None, None, "feat_train_500ep.hdf5"),
    "test_fname": (None, None, "feat_test_500ep.hdf5"),
    "n_worker": (8, 8, 64),
    "pin_memory": (True, True, False),
    "eager": (True, True, True),
    "eps": (1e-6, 1e-6, 1e-6),
    "seed": (0, 0, 0),
    "track_efficiency": (False, False, False),
    "track_epoch": (0, 0, 0),
    "is_image": (True, True, False),
    "enc_type": ("resnet18", "resnet18", "resnet50"),
    "pretrained": (False, True, False),
    "n_chan_in": (1, 3, 2048),
    "n_res_blocks": (2, 4, None),
    "shuffle": (True, True, True),
    "shuffle_style": ("batch", "batch", "batch"),
    "n_token": (4, 1, 1),
    "N": (900, 192, None),
    "M": (100, 10, 5000),
    "I": (100, 32, 5000),
    "patch_size": ([50, 50], [100, 100], None),
    "patch_stride": ([50, 50], [100, 100], None),
    "use_pos": (True, False, False),
    "H": (8, 8, 8),
    "D": (128, 512, 512),
    "D_k": (16, 64, 64),
    "D_v": (16, 64, 64),
    "D_inner": (512, 2048, 2048),
    "attn_dropout": (0.1, 0.1, 0.1),
    "dropout": (0.1, 0.1, 0.1),
}
TASKS = {
    "mnist": ("majority", "max", "top", "multi"),
    "traffic": ("sign",),
    "camelyon": ("metastases",),
}


def published(name, **changes):
    """The content of a published file."""
    column = list(TASKS).index(name)
    found = {key: values[column] for key, values in PUBLISHED.items() if values[column] is not None}
    # The order is that of the numbers.
    tasks = [{"id": k, "name": task} for k, task in enumerate(TASKS[name])]
    found["tasks"] = {f"task{part['id']}": part for part in tasks[::-1]}
    return found | changes


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


@pytest.mark.parametrize("name", TASKS)
def test_published_files_are_read_as_they_are(name, seen, tmp_path):
    file = tmp_path / "published.yml"
    file.write_text(yaml.safe_dump(published(name)))
    preset = ["ips", "--preset", f"ips/{name}"]
    for words in (preset, [*preset, "--config", str(file)]):
        assert cli.main(words) == 0
    wanted, found = seen
    assert found == {**wanted, "root": name}
    # What the file says is not what the preset says.
    changes = {"M": 7, "shuffle": False, "use_pos": True, "B": 3, "n_worker": 1}
    file.write_text(yaml.safe_dump(published(name, **changes)))
    assert cli.main([*preset, "--config", str(file), "--D_k=9"]) == 0
    changed = {"m": 7, "shuffle": "none", "places": "index", "batch_size": 3, "num_workers": 1}
    assert seen[-1] == {**wanted, "root": name, **changed, "key_width": 9}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_size": [50, 40]}, "two equal numbers"),
        ({"tasks": {"task0": {"id": 0}}}, "a name for each task"),
        ({"M": 0}, "m needs a whole number"),
        ({"shuffle": "both"}, "shuffle needs one of"),
    ],
)
def test_bad_values_of_published_files_are_one_sentence(changes, words, seen, tmp_path, capsys):
    file = tmp_path / "published.yml"
    file.write_text(yaml.safe_dump(published("mnist", **changes)))
    assert cli.main(["ips", "--config", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert not seen


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


def test_the_preset_of_the_notebook_has_its_values():
    command = train.ips.command
    found = _presets.read_settings([_presets.preset_file("ips/digits")], command)
    wanted = {"dataset": "digits", "canvas": (500, 500), "patch": 100, "m": 5, "i": 5, "width": 512}
    wanted |= {"batch_size": 128, "num_epochs": 10, "lr": 1e-3, "weight_decay": 0.1, "seed": 42}
    wanted |= {"encoder": "resnet18", "stages": 4, "pretrained": False, "inner": 2048, "heads": 8}
    wanted |= {"places": "none", "shuffle": "none", "warmup": None, "schedule": "constant"}
    assert found.items() >= wanted.items()
