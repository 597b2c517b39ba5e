"""Generated brains have the real tree, are the same bytes for a seed, and need detail and place."""

import gzip
import json
import math
import pickle
import runpy
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from cpic import _errors
from cpic.cohorts import synthetic
from cpic.cohorts.synthetic import _brain, _brats, _fields

SHAPE = (40, 44, 32)
ROOT = Path(__file__).parents[2]
CONTRASTS = ("flair", "t1", "t1ce", "t2", "seg")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("brats") / "cohort"
    assert synthetic.make_brats_like(root, n_patients=4, shape=SHAPE, seed=7) == root / _brats.TREE
    return root


def load(root, patient, contrast):
    return nibabel.load(root / _brats.TREE / patient / f"{patient}_{contrast}.nii.gz")


def scans(root, patient):
    return {name: np.asarray(load(root, patient, name).dataobj) for name in CONTRASTS}


def contents(root):
    hidden = (".lock",)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in hidden
    }


def patients(n):
    return [f"BraTS20_Training_{k:03d}" for k in range(1, n + 1)]


def test_tree_and_tables_are_those_of_the_real_set(root):
    tree = root / "MICCAI_BraTS2020_TrainingData"
    expected = {f"{p}/{p}_{c}.nii.gz" for p in patients(4) for c in CONTRASTS}
    found = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert found == expected | {"survival_info.csv", "name_mapping.csv"}
    survival = (tree / "survival_info.csv").read_text().splitlines()
    assert survival[0] == "Brats20ID,Age,Survival_days,Extent_of_Resection"
    assert [line.split(",")[0] for line in survival[1:]] == patients(4)
    assert [line.split(",")[2] for line in survival].count("ALIVE (361 days later)") == 1
    table = pd.read_csv(tree / "survival_info.csv", keep_default_na=False)
    assert set(table["Extent_of_Resection"]) <= {"GTR", "STR", "NA"}
    days = [int(d) for d in table["Survival_days"] if not d.startswith("ALIVE")]
    assert min(days) >= 5
    mapping = pd.read_csv(tree / "name_mapping.csv")
    assert list(mapping["BraTS_2020_subject_ID"]) == patients(4)


@pytest.mark.parametrize("patient", patients(4))
def test_files_are_scans_in_the_real_format(root, patient):
    for name in CONTRASTS:
        image = load(root, patient, name)
        assert image.shape == SHAPE
        assert image.get_data_dtype() == (np.uint8 if name == "seg" else np.int16)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_allclose(image.header.get_zooms(), (6, 240 / 44, 155 / 32), rtol=1e-6)
    values = scans(root, patient)
    assert set(np.unique(values["seg"])) == {0, 1, 2, 4}
    brain = values["t1"] > 0
    assert 0.1 < brain.mean() < 0.45
    for name in CONTRASTS[:-1]:
        np.testing.assert_array_equal(values[name] > 0, brain)
    assert brain[values["seg"] > 0].all()


def test_default_affine_is_that_of_the_real_set():
    data = gzip.decompress(_brats._nifti(np.zeros((240, 240, 155), np.uint8)))
    image = nibabel.Nifti1Image.from_bytes(data)
    np.testing.assert_array_equal(
        image.affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]
    )


@pytest.mark.parametrize("patient", patients(4))
def test_tumour_shows_as_in_patients(root, patient):
    values = scans(root, patient)
    labels, brain = values["seg"], values["t1"] > 0
    healthy = brain & (labels == 0)

    def mean(name, where):
        return values[name][where].mean() / np.median(values[name][healthy])

    assert mean("t1ce", labels == 4) > 1.4 * mean("t1", labels == 4)
    assert mean("t1ce", labels == 4) > 1.4 * mean("t1ce", labels == 1)
    assert mean("flair", labels == 2) > 1.5
    assert mean("t2", labels == 1) > 1.2
    white = np.quantile(values["t1"][healthy], 0.9)
    assert values["t1"][labels == 2].mean() < 0.85 * white
    core = (labels == 1) | (labels == 4)
    assert 0.44 < (labels == 4).sum() / core.sum() < 0.54


def test_truth_is_the_formula_of_what_the_files_show(root):
    truth = pd.read_csv(root / "truth.csv")
    table = pd.read_csv(root / _brats.TREE / "survival_info.csv", keep_default_na=False)
    for k, row in truth.iterrows():
        values = scans(root, row["Brats20ID"])
        lesion = synthetic.measure_lesion(values["seg"], values["t2"] > 0)
        assert lesion.thickness == pytest.approx(row["thickness"], rel=1e-12)
        grain = np.clip(math.log2(lesion.thickness / lesion.medium_thickness) / 0.45, -1, 1)
        side = np.clip(lesion.lateral / 0.45, -1, 1)
        size = np.clip(math.log2(lesion.volume / lesion.medium_volume), -1, 1)
        image = 480 + 330 * grain * side + 30 * size
        assert row["image_days"] == pytest.approx(image)
        assert row["noise_free_days"] == pytest.approx(image - 2.5 * (row["age"] - 60))
        assert abs(row["survival_days"] - row["noise_free_days"]) < 5 * 60
        assert table.loc[k, "Age"] == row["age"]
        if not row["alive"]:
            assert int(table.loc[k, "Survival_days"]) == row["survival_days"]
    assert list(truth["alive"]) == [False, True, False, False]
    assert json.loads((root / "truth.json").read_text())["noise_days"] == 60


def test_lesion_of_known_size_is_measured():
    labels = np.zeros((48, 48, 31), np.uint8)  # voxels of 5 mm
    labels[30:33, 10:20, 10:20] = 4
    labels[33:40, 10:20, 10:20] = 1
    brain = np.zeros(labels.shape, bool)
    brain[4:44] = True
    lesion = synthetic.measure_lesion(labels, brain)
    assert lesion.thickness == pytest.approx(15)
    assert lesion.lateral == pytest.approx((34.5 - 23.5) / 20)
    assert lesion.volume == pytest.approx(1000 * 0.125)
    mirrored = synthetic.measure_lesion(labels[::-1], brain[::-1])
    assert mirrored.lateral == pytest.approx(-lesion.lateral)
    assert mirrored.thickness == lesion.thickness


def test_same_seed_same_bytes_and_patients_are_independent(root, tmp_path):
    synthetic.make_brats_like(tmp_path / "two", n_patients=2, shape=SHAPE, seed=7)
    whole = contents(root)
    for path, data in contents(tmp_path / "two").items():
        if "_00" in path:
            assert whole[path] == data, path
    # Grown from two to four, all files are those of four at once, tables included.
    synthetic.make_brats_like(tmp_path / "two", n_patients=4, shape=SHAPE, seed=7)
    assert contents(tmp_path / "two") == whole
    synthetic.make_brats_like(tmp_path / "other", n_patients=1, shape=SHAPE, seed=8)
    other = contents(tmp_path / "other")
    path = next(path for path in other if path.endswith("_t1.nii.gz"))
    assert other[path] != whole[path]


KILLED = """
import os, signal, sys
from cpic.cohorts.synthetic import _brats, make_brats_like
write, calls = _brats._nifti, []
def killing(values):
    calls.append(1)
    if len(calls) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(values)
_brats._nifti = killing
make_brats_like(sys.argv[1], n_patients=4, shape=(40, 44, 32), seed=7)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_keeps_what_is_complete(root, tmp_path):
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "cohort")], cwd=ROOT)
    assert run.returncode == -9
    tree = tmp_path / "cohort" / _brats.TREE
    done = sorted(path.name for path in tree.iterdir() if path.name[0] != ".")
    assert done == patients(2)
    assert all(len(list((tree / name).iterdir())) == 5 for name in done)
    with pytest.raises(_errors.CohortError, match="not finished"):
        synthetic.best_error(tmp_path / "cohort")
    before = {name: (tree / name).stat().st_mtime_ns for name in done}
    synthetic.make_brats_like(tmp_path / "cohort", n_patients=4, shape=SHAPE, seed=7)
    assert {name: (tree / name).stat().st_mtime_ns for name in done} == before
    assert contents(tmp_path / "cohort") == contents(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 8}, "another seed"),
        ({"shape": (40, 44, 33)}, "another shape"),
        ({"n_patients": 3}, "1 patients more than the 3"),
        ({"n_patients": 0}, "at least 1, got 0"),
        ({"shape": (40, 44)}, "three sizes"),
        ({"shape": (40, 44, 8)}, "24x24x24"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(root, options, message):
    before = contents(root)
    with pytest.raises(_errors.CohortError, match=message):
        synthetic.make_brats_like(root, **{"n_patients": 4, "shape": SHAPE, "seed": 7, **options})
    assert contents(root) == before


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(_errors.CohortError, match=r"thesis\.txt"):
        synthetic.make_brats_like(tmp_path, n_patients=1, shape=SHAPE)
    with pytest.raises(_errors.CohortError, match="no generated cohort"):
        synthetic.best_error(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {"thesis.txt"}


def test_best_error_is_that_of_the_rule(root):
    truth = pd.read_csv(root / "truth.csv")
    known = truth[~truth["alive"]]
    for age, column in ((True, "noise_free_days"), (False, "image_days")):
        squares = [(d - r) ** 2 for d, r in zip(known["survival_days"], known[column], strict=True)]
        expected = math.sqrt(sum(squares) / len(squares))
        assert synthetic.best_error(root, age=age) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_deformation_is_one_to_one(seed):
    head = _brain.draw_head(_fields.child(seed, 0))
    points = _brain.warp(head, (60, 60, 40)).astype(float)
    steps = _brain.spacing((60, 60, 40))
    slopes = [np.gradient(p, *steps) for p in points]
    volume = np.linalg.det(np.moveaxis(np.array(slopes), (0, 1), (-2, -1)))
    assert volume.min() > 0.1
    assert volume.max() < 3


def test_a_patient_is_the_same_at_every_resolution():
    head = _brain.draw_head(_fields.child(0, 0))
    coarse, fine = (_brain.tissue(head, (n, n, n))[1] for n in (30, 60))
    fine = fine.reshape(30, 2, 30, 2, 30, 2).mean((1, 3, 5))
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.98


def test_progress_may_be_any_bar(tmp_path):
    seen = []

    def bar(names, *, total, desc):
        for name in names:
            seen.append((name, total, desc))
            yield name

    synthetic.make_brats_like(tmp_path / "x", n_patients=2, shape=(24, 24, 24), progress=bar)
    assert seen == [(name, 2, "x") for name in patients(2)]


def test_patients_may_be_made_in_processes(root, tmp_path):
    def run(make, *args):
        return map(pickle.loads(pickle.dumps(make)), *args)

    other = tmp_path / "cohort"
    synthetic.make_brats_like(other, n_patients=4, shape=SHAPE, seed=7, run=run)
    assert contents(other) == contents(root)


def test_script_prints_the_best_error(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "data_scripts" / "make_brats_like.py"))["main"]
    main(str(tmp_path / "x"), n_patients=2, shape=(24, 24, 24), seed=3)
    shown = capsys.readouterr()
    assert f"{synthetic.best_error(tmp_path / 'x'):.1f} days" in shown.out
    assert "2/2" in shown.err
    with pytest.raises(SystemExit, match="another seed"):
        main(str(tmp_path / "x"), n_patients=2, shape=(24, 24, 24), seed=4)


@pytest.mark.slow
def test_survival_needs_fine_structure_and_place_together(tmp_path):
    from sklearn.linear_model import LinearRegression, RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    root, n = tmp_path / "cohort", 110
    synthetic.make_brats_like(root, n_patients=n, shape=(40, 40, 32), seed=3)
    truth = pd.read_csv(root / "truth.csv")
    truth = truth[~truth["alive"]]
    days = truth["survival_days"].to_numpy(float)
    values = [scans(root, patient) for patient in truth["Brats20ID"]]
    images = [np.stack([one[c] for c in CONTRASTS[:-1]]).astype(np.float32) for one in values]
    histograms = np.array(
        [
            np.concatenate([np.histogram(c[c > 0], 48, (1, 1000))[0] for c in image])
            for image in images
        ]
    )
    coarse = np.array([i.reshape(4, 8, 5, 8, 5, 8, 4).mean((2, 4, 6)).ravel() for i in images])
    lesions = [synthetic.measure_lesion(one["seg"], one["t1"] > 0) for one in values]
    sums = np.array([[x.grain, x.side, x.size] for x in lesions])
    product = sums[:, :1] * sums[:, 1:2]

    def error(features, model):
        guess = cross_val_predict(model, features, days, cv=KFold(5))
        return float(np.sqrt(np.mean((guess - days) ** 2)))

    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 6, 17)))
    best = synthetic.best_error(root)
    assert 50 < best < 85
    oracle = error(np.concatenate([product, sums], 1), LinearRegression())
    assert oracle < 1.15 * best
    weak = {
        "histograms": error(histograms, ridge),
        "coarse": error(coarse, ridge),
        "both": error(np.concatenate([histograms, coarse], 1), ridge),
        "without the product": error(sums, ridge),
    }
    assert min(weak.values()) > 2 * best, (weak, oracle, best)
