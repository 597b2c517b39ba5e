"""Settings of `cpic gan` and `cpic imgcls`: bounds, presets, and published files."""

import inspect
import json

import pytest
import yaml

from cpic import cli, train
from cpic.options import _aistats21, _presets, _published
from cpic.options._groups import GROUPS

NAN, INF = float("nan"), float("inf")
COUNT, SHARE, POSITIVE = (0, -1, 1.5, "x"), (-0.1, 1, NAN), (0, -1, NAN, INF, "x")
SIDE = {
    "layers": ("tt", 3, None),
    "rank": COUNT,
    "spectrum": ("free", 1),
    "penalty": ("l2", None),
    "penalty_weight": (-1, NAN, INF),
    "ignored": ([""],),
    "layer_options": (3, [1]),
}
STEPS = {"batch_size": COUNT, "num_steps": COUNT, "schedule": ("cosine", 3)}
RUN = {
    **dict.fromkeys(("log_every", "evaluate_every", "spectra_every", "top"), COUNT),
    "batch_size_inference": COUNT,
    "results_folder": ("", 3, None),
    "experiment_name": ("..", "a/b", 3),
    "seed": (-1, 0.5),
    "max_minutes": POSITIVE,
    **dict.fromkeys(("max_faults", "num_workers", "ngpus"), (-1, 0.5)),
    **dict.fromkeys(("num_nodes", "save_every"), COUNT),
    **dict.fromkeys(("resume", "progress", "wandb"), (1, "maybe")),
}
DATA = {"dataset": ("mnist", 3), "root": ("", 3)}
BAD = {
    "gan": {
        **DATA,
        **STEPS,
        **RUN,
        **{f"{side}_{name}": values for side in "gd" for name, values in SIDE.items()},
        "g_layers": ("sn", "sr", 3),
        "size": (28, "x", True),
        "conditional": (1, "maybe"),
        "n_latent": (0, 10**6),
        "z_type": ("cauchy",),
        **dict.fromkeys(("g_width", "d_width"), (0, 10**6)),
        "ema": SHARE,
        "loss": ("wasserstein",),
        "d_steps": COUNT,
        **dict.fromkeys(("g_optimizer", "d_optimizer"), ("radam", 3)),
        **dict.fromkeys(("g_lr", "d_lr"), POSITIVE),
        **dict.fromkeys(("g_optimizer_options", "d_optimizer_options", "fidelity"), (3, [1])),
        **dict.fromkeys(("sheets_every", "num_samples"), COUNT),
        "interpolation": ("arc",),
        "metrics": ("fid",),
        "leading_metric": ("", 3),
        "reference": ("all",),
        "onnx": (1,),
    },
    "imgcls": {
        **DATA,
        **STEPS,
        **RUN,
        **SIDE,
        "size": (1, 0.5, 10**6),
        "augment": ("flip", None),
        "network": ("vgg",),
        "depth": (0, 10**6, 1.5),
        "widen": (0, 0.4, 10**6, NAN),
        "dropout": SHARE,
        "optimizer": ("radam",),
        "lr": POSITIVE,
        "weight_decay": (-1, NAN),
        "decay": ("none",),
        "optimizer_options": (3,),
        "selection": SHARE,
    },
}
CASES = [(c, n, v) for c, table in BAD.items() for n, values in table.items() for v in values]


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """A setting that is not refused trains for hours."""

    def fail(*groups):
        raise AssertionError("training has started")

    monkeypatch.setattr("cpic.train.tasks._adversarial.train_adversaries", fail)
    monkeypatch.setattr("cpic.train.tasks._classifier.train_classifier", fail)


@pytest.mark.parametrize("command", BAD)
def test_every_setting_has_senseless_values_here(command):
    assert set(BAD[command]) == set(inspect.signature(getattr(train, command)).parameters) - {
        *GROUPS
    }


@pytest.mark.parametrize(("command", "name", "value"), CASES, ids=lambda v: repr(v)[:20])
def test_a_call_is_refused(command, name, value):
    with pytest.raises(ValueError, match=rf"^{name} needs .*, got "):
        getattr(train, command)(**{name: value})


@pytest.mark.parametrize(("command", "name"), [(c, n) for c, table in BAD.items() for n in table])
def test_a_flag_is_refused(command, name, capsys):
    value = BAD[command][name][0]
    text = json.dumps(value) if isinstance(value, list | bool | None) else str(value)
    assert cli.main([command, f"--{name}={text}"]) == 2
    assert capsys.readouterr().err.startswith(f"cpic {command}: {name} needs ")


def settings(name):
    """What the function of a preset would be called with."""
    made = _presets.preset_file(name)
    command = made.settings["command"]
    options = getattr(train, command).command
    found = _presets.read_settings([made], options, list(train.COMMANDS))
    return command, {**{k: one.default for k, one in options.options.items()}, **found}


def test_there_is_a_preset_for_every_published_file():
    folders = [name.split("/")[1] for name in _aistats21.presets()]
    counts = {folder: folders.count(folder) for folder in folders}
    # Two more than the published files in the third: the left half of the table at rank 32.
    assert counts == {
        "table1_gan_reduced_discriminator": 8,
        "table2_gan_full_discriminator": 16,
        "table3_figure6_gan_rank": 16,
        "figure7_classification": 13,
    }
    assert set(_aistats21.presets()) <= set(_presets.preset_names())


@pytest.mark.parametrize("name", _aistats21.presets())
def test_a_preset_is_the_published_experiment(name):
    command, found = settings(name)
    assert found["num_steps"] == 100_000
    assert found["evaluate_every"] == found["spectra_every"] == 5000
    assert found["schedule"] == "linear"
    assert found["seed"] == 2020
    if command == "imgcls":
        assert (found["network"], found["depth"], found["widen"]) == ("wresnet", 28, 10)
        assert (found["optimizer"], found["lr"], found["weight_decay"]) == ("sgd", 0.1, 1e-4)
        assert (found["batch_size"], found["augment"]) == (128, "published")
        return
    assert (found["batch_size"], found["d_steps"], found["g_lr"]) == (64, 5, 2e-4)
    assert found["size"] == {"cifar10": 32, "stl10": 48}[found["dataset"]]
    narrow = {"cifar10": 32, "stl10": 64}[found["dataset"]] if "/t1_" in name else None
    assert found["d_width"] == narrow
    assert not found["conditional"]


SELECTED = {
    "table1_gan_reduced_discriminator/t1_s10u_sngan_sr": {
        "d_layers": "sr",
        "d_layer_options": {"every": 5, "normalize": True},
        "d_width": 64,
    },
    "table2_gan_full_discriminator/t2_c10u_sngan_sttpC": {
        "d_layers": "sttp",
        "d_rank": 64,
        "d_spectrum": "fixed",
        "d_penalty": "none",
    },
    "table2_gan_full_discriminator/t2_c10u_sngan_svdpR": {
        "d_layers": "svdp",
        "d_spectrum": "learned",
        "d_penalty": "d_optimal",
        "d_penalty_weight": 1.0,
    },
    "table3_figure6_gan_rank/t3_c10u_sngan_sttpR_r064": {
        "g_layers": "sttp",
        "g_rank": 64,
        "g_penalty_weight": 0.75,
        "g_ignored": ("noise_to_conv",),
        "d_layers": "svdp",
        "d_rank": 64,
    },
    "table3_figure6_gan_rank/t3_c10u_sngan_svdpR_r004": {"g_rank": 4, "g_penalty_weight": 1.0},
    "figure7_classification/f7_c10_wrn_sttpR_r256": {"layers": "sttp", "rank": 256},
    "figure7_classification/f7_c10_wrn_baseline": {"layers": "plain"},
}


@pytest.mark.parametrize("name", SELECTED)
def test_methods_are_as_published(name):
    _, found = settings(f"aistats21/{name}")
    assert {key: found[key] for key in SELECTED[name]} == SELECTED[name]


ENVIRONMENT = """
root_datasets: {cifar10: /data/cifar, stl10_48: /data/stl}
root_logs: /logs
root_wandb: /wandb
dataset_download: True
assert_env_set: [CUDA_VISIBLE_DEVICES]
num_log_loss_steps: 10
vis_truncate_singular_values: 32
workers: 4
workers_validation: 4
wandb_project: sttp
"""
EXPERIMENT = """
experiment: gan
experiment_name: __FILENAMEBASE__
log_dir: __FILENAMEBASE__
dataset: stl10_48
conditioning: False
batch_size: 64
batch_size_inference: 64
num_training_steps: 100000
num_log_images_steps: 5000
num_log_sv_steps: 5000
num_checkpoint_steps: 5000
num_validation_images: 50000
model_name: sngan
model_preset: 48
lr_sched: linear
loss_name: hinge
use_canonical_householder: True
fidelity_leading_metric_name: inception_score_mean
fidelity_kwargs: {batch_size: 32, isc: True, fid: True, kid: True, ppl: False,
                  model_z_size: 128, verbose: False}
z_type: normal
z_interp_mode: slerp_any
g_kwargs: {}
g_ema: True
g_ops_name: regular
g_ops_use_factory: True
g_ops_factory_name: sttp
g_ops_factory_stiefel_name: householder
g_ops_factory_rank: 32
g_ops_factory_kwargs: {spectrum_eye: False, init_seed: 2020, init_mode: eye, init_std: 1e-4}
g_ops_factory_ignored: [noise_to_conv]
g_spectral_compensation_frequency: 0
g_spectral_penalty: d_optimal
g_spectral_penalty_weight: 0.75
g_optimizer: adam
g_optimizer_kwargs: {lr: 1e-4, betas: [0, 0.9]}
d_kwargs: {override_ndf: 64}
d_ops_name: regular
d_ops_use_factory: False
d_spectral_compensation_frequency: 5
d_spectral_compensation_kwargs: {normalize: True}
d_spectral_penalty: Null
d_optimizer: adam
d_optimizer_kwargs: {lr: 2e-4, betas: [0, 0.9]}
d_step_repeats: 5
"""
CLASSES = """
experiment: imgcls
experiment_name: x
log_dir: __FILENAMEBASE__
dataset: cifar10
batch_size: 128
num_training_steps: 100000
num_log_sv_steps: 5000
num_checkpoint_steps: 5000
lr_sched: linear
use_canonical_householder: True
model_name: resnet_cifar10
model_name_specific: resnet56
model_name_specific_kwargs: {}
ops_name: regular
ops_use_factory: True
ops_factory_name: svdp
ops_factory_stiefel_name: householder
ops_factory_rank: 8
ops_factory_kwargs: {spectrum_eye: False, init_seed: 2020, init_mode: qr_eye_randn, init_std: 1e-4}
ops_factory_ignored: []
spectral_compensation_frequency: 0
spectral_penalty: d_optimal
spectral_penalty_weight: 1.0
optimizer: sgd
optimizer_kwargs: {lr: 0.1, momentum: 0.9, dampening: 0, weight_decay: 1e-4, nesterov: False}
surgery_kwargs: {disable_bias: True, classes_ignored: [Linear]}
"""


@pytest.fixture
def files(tmp_path):
    """An environment, and an experiment of each command."""
    texts = {"env": ENVIRONMENT, "t3": EXPERIMENT, "f7": CLASSES}
    for name, text in texts.items():
        (tmp_path / f"{name}.yml").write_text(text)
    return {name: str(tmp_path / f"{name}.yml") for name in texts}


def printed(capsys, *words):
    """Settings that a command line stands for, by flat name."""
    assert cli.main([*words, "--print_config"]) == 0, capsys.readouterr().err
    groups = yaml.safe_load(capsys.readouterr().out)
    return {name: value for group in groups.values() for name, value in group.items()}


def test_published_files_are_read_as_they_are(files, capsys):
    found = printed(capsys, "gan", "--cfg", files["env"], "--cfg", files["t3"])
    expected = {
        "dataset": "stl10", "root": "/data/stl", "size": 48, "results_folder": "/logs",
        "experiment_name": "t3", "num_workers": 4, "log_every": 10, "top": 32, "ema": 0.9999,
        "interpolation": "slerp", "n_latent": 128, "num_samples": 50000, "d_width": 64,
        "g_layers": "sttp", "g_rank": 32, "g_spectrum": "learned", "g_penalty": "d_optimal",
        "g_penalty_weight": 0.75, "g_lr": 1e-4, "g_ignored": ["noise_to_conv"],
        "g_layer_options": {"init": "eye", "noise": 1e-4, "seed": 2020},
        "d_layers": "sr", "d_layer_options": {"normalize": True, "every": 5},
        "d_penalty": "none", "leading_metric": "inception_score_mean", "d_steps": 5,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert found["fidelity"]["kid"] is True
    assert "model_z_size" not in found["fidelity"]


def test_published_classifiers_are_read_as_they_are(files, capsys):
    found = printed(capsys, "imgcls", "--config", files["env"], "--config", files["f7"])
    expected = {
        "dataset": "cifar10", "root": "/data/cifar", "network": "resnet", "depth": 56,
        "layers": "svdp", "rank": 8, "lr": 0.1, "weight_decay": 1e-4, "optimizer": "sgd",
        "experiment_name": "f7", "evaluate_every": 5000,
        "optimizer_options": {"momentum": 0.9, "dampening": 0, "nesterov": False},
        "layer_options": {
            "init": "qr_eye_randn", "noise": 1e-4, "seed": 2020,
            "biases": False, "ignore_types": ["Linear"],
        },
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_published_keys_are_flags_at_any_depth_and_take_precedence(files, capsys):
    words = ["gan", "--cfg", files["t3"], "--g_ops_factory_kwargs.init_std", "1e-2"]
    words += ["--num_training_steps", "7", "--fidelity_kwargs.kid", "false", "--d_steps=3"]
    found = printed(capsys, *words)
    assert found["g_layer_options"] == {"init": "eye", "noise": 0.01, "seed": 2020}
    assert (found["num_steps"], found["d_steps"]) == (7, 3)
    assert found["fidelity"]["kid"] is False
    # Separated by dashes, as published.
    words = ["gan", "--cfg", files["t3"], "--g_ops_factory_kwargs-init_std", "1e-2"]
    assert printed(capsys, *words)["g_layer_options"]["noise"] == 0.01
    # Also over an option that a preset sets by its name here.
    found = printed(capsys, "gan", "--preset", "quick", "--num_training_steps", "7")
    assert found["num_steps"] == 7


def test_what_a_later_file_changes_is_said(files, tmp_path, caplog, capsys):
    more = tmp_path / "more.yml"
    more.write_text(
        "g_ops_factory_kwargs: {init_std: 1e-3, init_mode: eye}\nseed: 3\nnum_training_steps: 7\n"
    )
    last = tmp_path / "last.yml"
    last.write_text("seed: 4\ng_lr: 1e-4\n")
    words = [word for name in (files["t3"], more, last) for word in ("--config", str(name))]
    found = printed(capsys, "gan", "--preset", "quick", *words, "--seed", "5")
    assert (found["num_steps"], found["seed"]) == (7, 5)
    # Neither equal values, nor those of presets and flags.
    assert [record.getMessage() for record in caplog.records] == [
        f"{more} changes g_ops_factory_kwargs.init_std from 0.0001 to 0.001.",
        f"{more} changes num_training_steps from 100000 to 7.",
        f"{last} changes seed from 3 to 4.",
    ]


def test_every_published_key_is_used():
    """All keys of the published files have a counterpart, or are dropped for a reason."""
    known = _published.KEYS["gan"] | {*train.gan.command.options}
    keys = {**yaml.safe_load(ENVIRONMENT), **yaml.safe_load(EXPERIMENT)}
    assert set(keys) <= known
    known = _published.KEYS["imgcls"] | {*train.imgcls.command.options}
    assert set(yaml.safe_load(CLASSES)) <= known


WRONG = {
    "unknown key": ("experiment: gan\nnum_trainig_steps: 3", "no setting 'num_trainig_steps'"),
    "other command": ("experiment: imgcls\nnum_training_steps: 3", "are of `cpic imgcls`"),
    "model": ("model_name: biggan", "model_name needs one of sngan"),
    "factory": ("g_ops_factory_name: cp", "g_ops_factory_name needs one of svdp, sttp"),
    "both": (
        "d_ops_name: spectral_norm_pytorch\nd_ops_use_factory: True\nd_ops_factory_name: svdp",
        "d_ops_use_factory needs regular layers",
    ),
    "width": ("d_kwargs: {override_nd: 3}", "d_kwargs has no setting 'override_nd'"),
    "frames": ("use_canonical_householder: False", "needs to be true"),
    "preset": ("model_preset: 40", "size needs one of 16, 32"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_published_file_is_refused(name, tmp_path, capsys):
    text, message = WRONG[name]
    file = tmp_path / "a.yml"
    file.write_text(text)
    assert cli.main(["gan", "--cfg", str(file)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
