"""The commands from the first to the last file, on generated cohorts."""

import json
import logging
import math

import pytest
import torch

from cpic import cli, train
from cpic._errors import CohortError
from cpic.data import ArrayVolume
from cpic.options import MRData
from cpic.train.tasks._models import make_module
from cpic.train.tasks._source import load_source

from . import cohorts


def words(options):
    return [
        f"--{name}={json.dumps(v) if isinstance(v, tuple) else v}" for name, v in options.items()
    ]


def summary(folder, name):
    return json.loads((folder / name / "summary.json").read_text())


def test_brats_from_the_command_line(tmp_path, capsys):
    options = cohorts.options("brats", tmp_path)
    assert cli.main(["brats", *words(options), "--ngpus", "1", "--use_encoder", "True"]) == 0
    captured = capsys.readouterr()
    assert "1 GPU requested, this machine has none: the run uses the CPU." in captured.err
    assert "left out: BraTS20_Training_002" in captured.err
    assert "rmse" in captured.out
    facts = summary(tmp_path, "brats_cpic")
    assert facts["best_possible"] is None
    assert facts["patients"] == 13
    assert facts["data"] == str(cohorts.brats())
    (fold,) = facts["folds"]
    assert fold["fold"] == 0
    assert fold["metrics"]["rmse"] > 0
    assert fold["metrics"]["mean_error"] > 0
    assert fold["step_seconds"] > 0
    assert fold["peak_bytes"] > 0
    assert len(fold["selection"]) == 1  # 15 % of eight
    split = json.loads((tmp_path / "brats_cpic" / "folds.json").read_text())["folds"][0]
    assert set(fold["selection"]) < set(split["train"])
    assert {"torch", "commit", "machine"} <= set(facts["provenance"])
    files = {path.name for path in (tmp_path / "brats_cpic" / "fold_0").iterdir()}
    assert {"latest.ckpt", "best.ckpt", "metrics.csv", "config.yaml", "tensorboard"} <= files


def test_osic_with_all_tabular_features_and_other_contrasts(tmp_path):
    options = cohorts.options("osic", tmp_path)
    (result,) = train.osic(**options, use_extra_features=True)
    assert result.fold == 1
    assert math.isfinite(result.metrics["mlll"])
    assert -12 < result.metrics["mean_mlll"] < -4.595
    saved = train.read_checkpoint(result.latest)
    assert saved["config"]["n_tabular"] == 8
    options = cohorts.options("brats", tmp_path)
    train.brats(**options, use_extra_features=True, contrasts=("t1", "flair"), precision=64)
    config = train.read_checkpoint(tmp_path / "brats_cpic" / "fold_0" / "best.ckpt")["config"]
    assert (config["n_tabular"], config["channels"]) == (5, 2)
    assert config["contrasts"] == ["t1", "flair"]


@pytest.mark.parametrize("task", ["brats", "osic"])
@pytest.mark.parametrize(
    "name", ["tt_mlp", "downsample", "histogram", "mean", "blocks", "random_voxels"]
)
def test_baselines_on_the_same_folds(task, name, tmp_path):
    (result,) = train.baseline(name, task=task, **cohorts.options(task, tmp_path, dense=True))
    assert math.isfinite(result.metrics["error"])
    folds = json.loads((tmp_path / f"{task}_{name}" / "folds.json").read_text())
    assert len(folds["folds"]) == 3


@pytest.mark.parametrize(("task", "n_tabular"), [("brats", 0), ("brats", 5), ("osic", 1)])
def test_the_residual_network_takes_a_batch(task, n_tabular):
    # Only called: its checkpoints are most of a gigabyte.
    config = {
        "task": task, "model": "resnet34", "shape": (16, 16, 16), "channels": 2,
        "n_tabular": n_tabular, "precision": 32, "lr": 1e-3, "seed": 0, "rank": 3,
        "more": {"stem_pool": False},
    }  # fmt: skip
    module = make_module(config)
    volumes = [ArrayVolume(torch.rand(16, 16, 16, 2), channels=2) for _ in range(2)]
    tabular = torch.rand(3, n_tabular) if n_tabular else None
    rows = torch.tensor([0, 1, 1])
    outputs = module.model(volumes, ["a", "b"], rows=rows, tabular=tabular)
    assert outputs.shape == (3, 3 if n_tabular else 1)
    assert module.loss(outputs, {"target": torch.rand(3)}).isfinite()


def test_all_folds_and_going_on(tmp_path):
    options = cohorts.options("brats", tmp_path) | {
        "only_fold": None,
        "folds": 2,
        "use_encoder": False,
    }
    first = train.brats(**options)
    assert [one.fold for one in first] == [0, 1]
    with pytest.raises(ValueError, match=r"holds a run already .*; continue it by resume"):
        train.brats(**options)
    again = train.brats(**options | {"num_epochs": 2}, resume=True)
    assert [one.epochs for one in again] == [2, 2]
    straight = train.brats(
        **options | {"num_epochs": 2, "only_fold": 1}, experiment_name="straight"
    )
    assert straight[0].metrics == again[1].metrics


def test_older_checkpoints_have_options_in_no_groups(tmp_path):
    options = cohorts.options("brats", tmp_path, dense=True)
    (first,) = train.baseline("histogram", **options)
    saved = torch.load(first.latest, weights_only=True)
    grouped = saved["config"]["options"]
    assert list(grouped) == ["data", "model", "optimization", "run"]
    flat = {key: value for group in grouped.values() for key, value in group.items()}
    saved["config"]["options"] = {"name": "histogram", "task": "brats", **flat}
    torch.save(saved, first.latest)
    out = tmp_path / "days.csv"
    assert train.predict(first.latest, cohorts.brats(), out=out, cache=options["cache"]) == out
    with pytest.raises(ValueError, match=r"lr is 0\.001 there and 0\.5 here"):
        train.baseline("histogram", **options | {"lr": 0.5, "num_epochs": 2}, resume=True)
    (again,) = train.baseline("histogram", **options | {"num_epochs": 2}, resume=True)
    assert again.epochs == 2
    grouped["run"]["experiment_name"] = "again"
    # What a checkpoint says of its run makes the same run again.
    assert train.baseline("histogram", **grouped)[0].metrics == first.metrics


def test_older_checkpoints_chose_on_the_fold_that_is_reported(tmp_path):
    options = cohorts.options("brats", tmp_path, dense=True) | {"selection": 0}
    (first,) = train.baseline("histogram", **options)
    assert first.selection == ()
    saved = torch.load(first.latest, weights_only=True)
    del saved["config"]["selection_patients"]
    del saved["config"]["options"]["optimization"]["selection"]
    torch.save(saved, first.latest)
    with pytest.raises(ValueError, match=r"selection is 0\.0 there and 0\.2 here"):
        train.baseline("histogram", **options | {"selection": 0.2}, resume=True)
    (again,) = train.baseline("histogram", **options | {"num_epochs": 2}, resume=True)
    straight = options | {"num_epochs": 2, "experiment_name": "straight"}
    assert again.metrics == train.baseline("histogram", **straight)[0].metrics


def test_a_run_may_begin_with_other_weights(tmp_path):
    options = cohorts.options("brats", tmp_path)
    (first,) = train.brats(**options)
    (second,) = train.brats(**options, pretrain=first.latest, experiment_name="b", lr=1e-30)
    before, after = (train.read_checkpoint(one.latest)["model"] for one in (first, second))
    weights = [name for name in before if name.endswith("weight") and "encoder" in name]
    assert weights
    assert all(torch.equal(before[name], after[name]) for name in weights)
    with pytest.raises(ValueError, match="model of a checkpoint cannot be used here"):
        train.brats(**options | {"ndims": 4}, pretrain=first.latest, experiment_name="c")


def test_without_root_a_cohort_is_made_once_and_said_so(tmp_path, caplog):
    def load(n):
        options = {"resolution": (24, 24, 24), "intensity": "none", "patients": n}
        return load_source("brats", MRData(cache=tmp_path, **options))

    with caplog.at_level(logging.INFO, "cpic"):
        source = load(3)
    assert "no root is given: the run uses a semi-synthetic cohort of 3 patients" in caplog.text
    assert source.generated
    assert source.best_error > 0
    assert source.prepared.volume(source.prepared.patients[0]).shape == (32, 32, 32)
    (made,) = (tmp_path / "generated").iterdir()
    stamps = {path: path.stat().st_mtime_ns for path in made.rglob("*.nii.gz")}
    load(3)
    assert stamps == {path: path.stat().st_mtime_ns for path in made.rglob("*.nii.gz")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2}, "rank between 1 and batch_size, 2, .*, got 3; lower it or raise"),
        ({"more": {"n_features": 99}}, "more.n_features between 1 and batch_size, 4, .* got 99"),
        ({"more": {"n_features": 0}}, "more.n_features between 1 and batch_size, 4, .* got 0"),
        ({"more": {"components": {"follow": "x"}}}, "more.components.follow needs a .*got 'x'"),
        (
            {"more": {"components": {"follow_": 3}}},
            "more.components: .*'follow_', did you mean 'fol",
        ),
        ({"more": {"components": {"rank": 3}}}, "more.components: there is no setting 'rank'"),
        ({"resolution": (2, 2, 2)}, "resolution of 2x2x2 every voxel of .*give a finer one"),
        ({"only_fold": 3}, "only_fold needs a number from 0 to 2, got 3"),
        ({"folds": 99}, "folds needs n between 2 and the 13 patients"),
        ({"patients": 1}, "folds needs n between 2 and the 1 patients"),
        ({"patients": 0}, "patients needs a whole number of at least 1 or null, got 0"),
        ({"root": "nowhere"}, "nowhere is not a folder"),
        ({"contrasts": ("t3",)}, "out of flair, t1"),
        ({"more": {"rank": 3}}, "there is no setting 'rank'"),
        ({"pretrain": "nowhere.ckpt"}, "there is no checkpoint nowhere.ckpt"),
    ],
)
def test_what_does_not_fit_is_said_before_training(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train.brats(**cohorts.options("brats", tmp_path) | change)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_results_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    options = cohorts.options("brats", tmp_path / "file")
    with pytest.raises(ValueError, match=r"cannot be written .*; choose another results_folder"):
        train.brats(**options)


def test_a_cache_in_the_data_is_refused(tmp_path):
    options = cohorts.options("brats", tmp_path) | {"cache": cohorts.brats() / "cache"}
    with pytest.raises(CohortError, match="is inside the data folder"):
        train.brats(**options)
