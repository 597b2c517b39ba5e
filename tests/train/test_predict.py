"""Predictions of checkpoints for folders of scans of every kind."""

import csv
import hashlib
import math
import shutil

import nibabel
import numpy as np
import pytest
import torch

from cpic import cli, train
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.prediction._scans import find_scans

from . import cohorts


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of one tiny run of each task."""
    results = tmp_path_factory.mktemp("results")
    plain = train.brats(**cohorts.options("brats", results))
    told = cohorts.options("brats", results) | {"contrasts": ("t1", "t2")}
    two = train.brats(**told, use_extra_features=True, experiment_name="two")
    weeks = train.osic(**cohorts.options("osic", results))
    extra = train.osic(
        **cohorts.options("osic", results), use_extra_features=True, experiment_name="extra"
    )
    dense = train.baseline("histogram", task="osic", **cohorts.options("osic", results, dense=True))
    runs = {"plain": plain, "two": two, "weeks": weeks, "extra": extra, "dense": dense}
    return {name: one[0].latest for name, one in runs.items()}


def predict(checkpoint, scans, tmp_path, **options):
    out = tmp_path / "out.csv"
    train.predict(checkpoint, scans, out=out, cache=cohorts.folder() / "cache", **options)
    return read(out)


def read(out):
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_tree_of_brats_from_the_command_line(checkpoints, tmp_path, capsys):
    before = contents(cohorts.brats())
    out = tmp_path / "days.csv"
    cache = str(cohorts.folder() / "cache")
    arguments = ["--checkpoint", str(checkpoints["plain"]), "--scans", str(cohorts.brats())]
    assert cli.main(["predict", *arguments, "--out", str(out), "--cache", cache]) == 0
    assert str(out) in capsys.readouterr().out
    rows = read(out)
    assert [row["patient"] for row in rows] == [f"BraTS20_Training_{k:03d}" for k in range(1, 15)]
    assert all(math.isfinite(float(row["days"])) and not row["reason"] for row in rows)
    assert contents(cohorts.brats()) == before


def test_a_folder_without_any_scan_that_can_be_read_is_a_failed_command(
    checkpoints, tmp_path, capsys
):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a_t1.nii").write_bytes(b"no scan")
    places = [str(checkpoints["plain"]), str(tmp_path / "scans"), "--out", str(tmp_path / "o.csv")]
    with pytest.warns(FutureWarning, match="predict: 'starts' is now 'n_warm_starts'"):
        assert cli.main(["predict", *places, "--starts", "2", "--cache", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == f"predictions: {tmp_path / 'o.csv'}\n"
    assert said.err.splitlines()[-1].startswith("cpic predict: no patient could be predicted")
    assert [row["patient"] for row in read(tmp_path / "o.csv")] == ["a"]


def test_the_same_scans_give_the_same_in_any_folder(checkpoints, tmp_path):
    tree = predict(checkpoints["plain"], cohorts.brats(), tmp_path)
    flat = tmp_path / "flat"
    flat.mkdir()
    for k, path in enumerate(sorted(cohorts.brats().rglob("*_t1.nii.gz"))[:3]):
        shutil.copy(path, flat / (path.name if k else "first.nii.gz"))
    rows = {row["patient"]: row["days"] for row in predict(checkpoints["plain"], flat, tmp_path)}
    # A file without the name of its contrast is not mixed up with those that have one.
    assert rows == {row["patient"]: row["days"] for row in tree[1:3]}
    shutil.move(flat / "first.nii.gz", tmp_path / "one.nii.gz")
    shutil.rmtree(flat)
    flat.mkdir()
    shutil.move(tmp_path / "one.nii.gz", flat / "one.nii.gz")
    (row,) = predict(checkpoints["plain"], flat, tmp_path)
    assert (row["patient"], row["days"]) == ("one", tree[0]["days"])


def test_validation_patients_as_in_training(checkpoints, tmp_path):
    """The root mean square error of the written days is the metric of the run."""
    import pandas

    folder = checkpoints["plain"].parent
    rows = {row["patient"]: float(row["days"]) for row in predict(
        checkpoints["plain"], cohorts.brats(), tmp_path
    )}  # fmt: skip
    truth = pandas.read_csv(cohorts.brats() / "truth.csv").set_index("Brats20ID")["survival_days"]
    validation = pandas.read_json(folder.parent / "folds.json")["folds"][0]["validation"]
    squares = [(rows[name] - truth[name]) ** 2 for name in validation]
    metrics = pandas.read_csv(folder / "metrics.csv")
    wanted = float(metrics.filter(regex="rmse").iloc[-1, 0])
    assert math.sqrt(sum(squares) / len(squares)) == pytest.approx(wanted, abs=0.1)


def test_more_warm_starts_search_wider(checkpoints, tmp_path):
    known = read_checkpoint(checkpoints["plain"])
    usual = known["config"]["more"].get("n_warm_starts", 4)
    days = {
        starts: [
            row["days"] for row in predict(checkpoints["plain"], cohorts.brats(), tmp_path, **o)
        ]
        for starts, o in {n: {"n_warm_starts": n} if n else {} for n in (None, 1, usual)}.items()
    }
    assert days[usual] == days[None] != days[1]
    with pytest.warns(FutureWarning, match="'starts' is now 'n_warm_starts'"):
        old = predict(checkpoints["plain"], cohorts.brats(), tmp_path, starts=1)
    assert [row["days"] for row in old] == days[1]


@pytest.mark.parametrize(
    ("name", "starts", "words"),
    [
        ("plain", 0, "n_warm_starts needs a whole number of at least 1 or null, got 0"),
        ("dense", 2, "`n_warm_starts` for models.*got 2 for"),
    ],
)
def test_warm_starts_that_do_not_fit(checkpoints, tmp_path, name, starts, words):
    scans = cohorts.brats() if name == "plain" else cohorts.osic()
    with pytest.raises(ValueError, match=words):
        predict(checkpoints[name], scans, tmp_path, n_warm_starts=starts)


def test_reasons_for_what_cannot_be_read(checkpoints, tmp_path):
    scans = tmp_path / "scans"
    tree = cohorts.brats() / "MICCAI_BraTS2020_TrainingData"
    names = [f"BraTS20_Training_{k:03d}" for k in (1, 3, 4)]
    for name in names:
        shutil.copytree(tree / name, scans / name)
    (scans / names[1] / f"{names[1]}_t2.nii.gz").unlink()
    (scans / names[2] / f"{names[2]}_t1.nii.gz").write_bytes(b"no scan")
    (scans / "empty").mkdir()
    shutil.copy(tree / "survival_info.csv", scans)
    rows = {row["patient"]: row for row in predict(checkpoints["two"], scans, tmp_path)}
    assert list(rows) == [*names, "empty"]
    assert not rows[names[0]]["reason"]
    assert math.isfinite(float(rows[names[0]]["days"]))
    assert rows[names[1]]["reason"] == "t2 is missing"
    assert rows[names[2]]["reason"].startswith("t1: ")
    assert rows["empty"]["reason"] == "its folder holds no scan"
    assert not any(rows[name]["days"] for name in (*names[1:], "empty"))


@pytest.mark.parametrize("name", ["weeks", "extra", "dense"])
def test_the_tree_of_osic(checkpoints, name, tmp_path):
    rows = predict(checkpoints[name], cohorts.osic(), tmp_path)
    with (cohorts.osic() / "train.csv").open() as file:
        visits = list(csv.DictReader(file))
    good = [row for row in rows if not row["reason"]]
    (bad,) = [row for row in rows if row["reason"]]
    assert len(good) == sum(visit["Patient"] != bad["patient"] for visit in visits)
    assert {row["unit"] for row in good} == {"ml"}
    assert all(float(r["low"]) <= float(r["median"]) <= float(r["high"]) for r in good)


def test_a_table_changes_nothing_by_its_form(checkpoints, tmp_path, caplog):
    tree = cohorts.brats() / "MICCAI_BraTS2020_TrainingData"
    text = (tree / "survival_info.csv").read_text()
    header, *lines = [line.split(",") for line in text.splitlines()]
    known = [[line[0], line[1], line[3]] for line in lines]
    forms = {
        "spaces": text.replace(",", ", "),
        "names": "\n".join(map(",".join, [["BraTS20ID", "Age", "ResectionStatus"], *known])),
        "unknown": "\n".join([",".join(header), *(f"{line[0]},NA,0,NA" for line in lines)]),
    }
    days = {"tree": predict(checkpoints["two"], tree, tmp_path)}
    for form, content in forms.items():
        table = tmp_path / f"{form}.csv"
        table.write_text(content)
        days[form] = predict(checkpoints["two"], tree, tmp_path, table=table)
    assert days["spaces"] == days["names"] == days["tree"] != days["unknown"]
    assert f"the age of 14 patients ({lines[0][0]}, " in caplog.text


def test_names_of_another_year_and_a_folder_deeper(checkpoints, tmp_path, caplog):
    tree, scans = cohorts.brats() / "MICCAI_BraTS2020_TrainingData", tmp_path / "scans"
    ends = {"t1": "t1n", "t2": "t2w", "t1ce": "t1c", "flair": "t2f"}
    places = {1: "BraTS-GLI-00001-000", 3: "BraTS-GLI-00003-000/first"}
    for k, place in places.items():
        (scans / place).mkdir(parents=True)
        for old, new in ends.items():
            path = tree / f"BraTS20_Training_{k:03d}" / f"BraTS20_Training_{k:03d}_{old}.nii.gz"
            shutil.copy(path, scans / place / f"BraTS-GLI-0000{k}-000-{new}.nii.gz")
    with caplog.at_level("INFO", "cpic"):
        rows = {r["patient"]: r["days"] for r in predict(checkpoints["plain"], scans, tmp_path)}
    old = {r["patient"]: r["days"] for r in predict(checkpoints["plain"], tree, tmp_path)}
    assert rows == {f"BraTS-GLI-0000{k}-000": old[f"BraTS20_Training_{k:03d}"] for k in places}
    assert "6 files and folders are not used" in caplog.text
    assert f"2 patients in {scans}, 0 of them without prediction" in caplog.text


def test_voxels_that_are_nan_and_scans_without_content(checkpoints, tmp_path):
    values = np.random.default_rng(0).integers(1, 900, (24, 24, 24)).astype(np.float32)
    scans, out = tmp_path / "scans", tmp_path / "days.csv"
    scans.mkdir()
    zero, hurt = values.copy(), values.copy()
    zero[:3], hurt[:3] = 0, np.nan
    for name, one in {"zero": zero, "nan": hurt, "one": 0 * values + 7}.items():
        nibabel.save(nibabel.Nifti1Image(one, np.eye(4)), scans / f"{name}_t1.nii")
    places = ["--scans", str(scans), "--out", str(out), "--cache", str(tmp_path / "cache")]
    arguments = ["predict", "--checkpoint", str(checkpoints["plain"]), *places]
    assert cli.main(arguments) == 0
    rows = {row["patient"]: row for row in read(out)}
    assert "NaN voxels among" in rows["nan"]["reason"]
    assert "(in a command: --nan 0.0)" in rows["nan"]["reason"]
    reason = "every voxel of t1 has one value: nothing to learn from"
    assert rows["one"]["reason"] == reason
    assert cli.main([*arguments, "--nan", "0"]) == 0
    rows = {row["patient"]: row for row in read(out)}
    assert rows["nan"]["days"] == rows["zero"]["days"] != ""
    assert rows["one"]["reason"] == reason


def test_weeks_that_cannot_be(checkpoints, tmp_path):
    finite = r"weeks needs a list of values, each a finite number, got \("
    between = "weeks between -2000 and 2000, got "
    for week, said in ((math.nan, finite), (math.inf, finite), (-2001.0, between)):
        with pytest.raises(ValueError, match=f"{said}{week}"):
            predict(checkpoints["weeks"], cohorts.osic(), tmp_path, weeks=(week,))


def test_a_checkpoint_whose_settings_or_weights_are_something_else(checkpoints, tmp_path):
    good = torch.load(checkpoints["plain"], weights_only=True)
    config, weights = good["config"], good["model"]
    key = next(name for name, value in weights.items() if value.dtype == torch.float32)
    hurt = {
        "needs model, there is none": {"model": None},
        "does not say how its scans were prepared": {"config": {**config, "shape": None}},
        "config of a checkpoint cannot be used here": {"config": {**config, "task": "x"}},
        "config of a checkpoint cannot be used": {"config": {**config, "conversion": {"a": 1}}},
        "config of a checkpoint cannot be": {"config": {**config, "table": {"kind": "brats"}}},
        "config of a checkpoint cannot": {"config": {**config, "precision": 8}},
        "model of a checkpoint cannot be used here": {"config": {**config, "rank": 2}},
    }
    path = tmp_path / "best.ckpt"
    for message, change in hurt.items():
        state = {**good, **change}
        state["config"] = {k: v for k, v in state["config"].items() if k != "shape" or v}
        torch.save({k: v for k, v in state.items() if v is not None}, path)
        with pytest.raises(ValueError, match=message) as caught:
            predict(path, cohorts.brats(), tmp_path)
        assert str(path) in str(caught.value)
    torch.save({**good, "model": {**weights, key: weights[key] * math.nan}}, path)
    rows = predict(path, cohorts.brats(), tmp_path)
    assert all(row["reason"] and not row["days"] for row in rows)


def test_weeks_and_no_table(checkpoints, tmp_path):
    scans = tmp_path / "series"
    patient = next(p for p in sorted((cohorts.osic() / "train").iterdir()) if p.is_dir())
    shutil.copytree(patient, scans / "anyone")
    rows = predict(checkpoints["weeks"], scans, tmp_path, weeks=(0, 12.5))
    assert [row["weeks"] for row in rows] == ["0", "12.5"]
    assert rows[0]["unit"] == "share of first FVC"
    out = tmp_path / "weeks.csv"
    places = f"--scans {scans} --out {out} --cache {cohorts.folder() / 'cache'}".split()
    arguments = ["--checkpoint", str(checkpoints["weeks"]), *places, "--weeks", "-3", "0", "12.5"]
    assert cli.main(["predict", *arguments]) == 0
    assert [row["weeks"] for row in read(out)] == ["-3", "0", "12.5"]
    assert read(out)[1] == rows[0]
    (row,) = predict(checkpoints["weeks"], scans, tmp_path)
    assert row["reason"] == "no table has weeks for it; give a table, or weeks"
    (row,) = predict(checkpoints["extra"], scans, tmp_path, weeks=(1.0,))
    assert "needs finite numbers" in row["reason"]
    assert "anyone" in find_scans(scans, ["ct"])


def test_what_cannot_be_predicted_is_one_sentence(checkpoints, tmp_path):
    (tmp_path / "nothing").mkdir()
    good, scans = checkpoints["plain"], cohorts.brats()
    text = tmp_path / "text.ckpt"
    text.write_text("no checkpoint")
    other = tmp_path / "other.ckpt"
    torch.save({**torch.load(good, weights_only=True), "config": {"task": "brats"}}, other)
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    cases = [
        (text, scans, {}, "text.ckpt cannot be read as a checkpoint"),
        (other, scans, {}, "does not say how its scans were prepared"),
        (tmp_path / "none.ckpt", scans, {}, "there is no checkpoint"),
        (good, tmp_path / "none", {}, "there is no folder"),
        (good, tmp_path / "nothing", {}, "holds no scans"),
        (
            good,
            scans,
            {"table": table},
            "needs each of the columns Brats20ID, Age, .* once, got a, b",
        ),
        (good, scans, {"out": scans / "out.csv"}, "outside that of the scans"),
        (good, scans, {"out": tmp_path / "no" / "out.csv"}, "a folder that exists"),
        (good, scans, {"cache": scans / "cache"}, "is inside the data folder"),
    ]
    for checkpoint, folder, options, message in cases:
        arguments = {"out": tmp_path / "x.csv", "cache": tmp_path / "cache", **options}
        with pytest.raises(ValueError, match=message):
            train.predict(checkpoint, folder, **arguments)
    assert not (tmp_path / "x.csv").exists()


def test_predictions_never_replace_what_they_are_made_from(checkpoints, tmp_path):
    own = tmp_path / "own.ckpt"
    shutil.copy(checkpoints["plain"], own)
    table = tmp_path / "table.csv"
    table.write_text("Brats20ID,Age,Extent_of_Resection\n")
    link = tmp_path / "link.csv"
    link.symlink_to(table)
    before = contents(tmp_path)
    for out in (own, table, link):
        with pytest.raises(ValueError, match="which they are made from"):
            train.predict(own, cohorts.brats(), out=out, table=table, cache=tmp_path / "cache")
    assert contents(tmp_path) == before
