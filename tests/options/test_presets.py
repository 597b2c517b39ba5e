"""The settings that come with the package: all rows of the published tables, and a quick one."""

from importlib import resources

import pytest
import yaml

from cpic import train
from cpic.options import _aistats21, _presets
from cpic.train.tasks._models import make_module

COMMANDS = ("brats", "osic", "baseline")
# Sections of a file.
SECTIONS = (*COMMANDS, "ips", "gcp", "gan", "imgcls")
PARAMETERS = {
    "brats_n32_r10": 37385,
    "brats_n16_r10": 26569,
    "brats_n8_r10": 21161,
    "brats_n8_r10_512": 21161,
    "brats_n8_r12": 21361,
    "brats_n8_r15": 21661,
    "brats_tt_mlp": 3423,
    "osic_n16_r10": 87429,
    "osic_n16_r10_64x1024": 87429,
    "osic_tt_mlp": 64283,
}
PATCHES = ("ips/camelyon", "ips/digits", "ips/mnist", "ips/traffic")
RESNETS = ("brats_resnet34", "osic_resnet34", "osic_resnet34_64x1024")


def settings(name):
    """What the function of a preset would be called with."""
    file = _presets.preset_file(name)
    command = yaml.safe_load(file.read_text())["command"]
    options = getattr(train, command).command
    given = _presets.read_settings([file], options, SECTIONS)
    defaults = {key: one.default for key, one in options.options.items()}
    return command, {**defaults, **given}


def config(name):
    """What its checkpoints would say of the model, but for the sizes, which are small."""
    command, found = settings(name)
    task = found.get("task", command)
    return {
        "task": task,
        "model": found.get("name", "cpic"),
        "shape": (16, 16, 16),
        "channels": 1,
        "n_tabular": int(task == "osic"),
        "ndims": found.get("ndims"),
        "encoder": found.get("encoder"),
        **{key: found[key] for key in ("rank", "chunk", "precision", "lr", "seed")},
        "more": found["more"] or {},
    }


def test_there_is_one_for_every_row():
    # Those of covariance pooling are in the test of its command.
    names = {name for name in _presets.preset_names() if not name.startswith("gcp/")}
    assert names - set(_aistats21.presets()) == {
        *(*PARAMETERS, *RESNETS, *PATCHES),
        *("quick", "recommended", "strided"),
    }


@pytest.mark.parametrize("name", [*PARAMETERS, *RESNETS])
def test_the_published_ones_choose_the_epoch_as_published(name):
    assert settings(name)[1]["selection"] == 0


@pytest.mark.parametrize("task", ["brats", "osic"])
def test_the_quick_one_is_the_recommended_one_but_for_sizes(task):
    quick, recommended = (
        yaml.safe_load(_presets.preset_file(name).read_text())[task]
        for name in ("quick", "recommended")
    )
    sizes = {"budget"}
    assert {key: quick[key] for key in recommended.keys() - sizes} == {
        key: recommended[key] for key in recommended.keys() - sizes
    }


def test_the_strided_network_reads_whole_scans_in_one_cycle():
    command, found = settings("strided")
    assert (command, found["name"], found["schedule"]) == ("baseline", "downsample", "onecycle")
    assert found["selection"] > 0


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_the_models_are_the_published_ones(name):
    module = make_module(config(name))
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", RESNETS)
def test_the_residual_networks_are_made_for_their_task(name):
    command, found = settings(name)
    assert (command, found["name"], found["batch_size"]) == ("baseline", "resnet34", 2)
    assert name.startswith(found["task"])


@pytest.mark.parametrize("name", [*PARAMETERS, *RESNETS])
def test_sizes_are_those_of_the_name(name):
    _, found = settings(name)
    wanted = (256, 256, 256) if name.startswith("brats") else (32, 512, 512)
    if name.endswith(("_512", "64x1024")):
        wanted = tuple(2 * n for n in wanted)
    assert found["resolution"] == wanted
    for letter, key in (("n", "ndims"), ("r", "rank")):
        for part in name.split("_"):
            if part[0] == letter and part[1:].isdigit():
                assert found[key] == int(part[1:])


@pytest.mark.parametrize("command", COMMANDS)
def test_the_quick_one_is_for_every_command(command):
    options = getattr(train, command).command
    found = _presets.read_settings([_presets.preset_file("quick")], options, SECTIONS)
    assert found["batch_size"] >= found["rank"]
    assert max(found["resolution"]) <= 64


def test_files_are_part_of_the_package():
    folder = resources.files("cpic.options") / "presets"
    assert {entry.name for entry in folder.iterdir()} >= {f"{name}.yml" for name in PARAMETERS}


def test_a_section_must_be_a_mapping(tmp_path):
    file = tmp_path / "a.yml"
    file.write_text("osic: 3\n")
    with pytest.raises(ValueError, match="needs a mapping under 'osic', got 3"):
        _presets.read_settings([file], train.brats.command, SECTIONS)
