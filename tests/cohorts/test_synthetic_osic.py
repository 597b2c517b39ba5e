"""Generated chests have the real tree, its quirks, the same bytes for a seed, a known decline."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from cpic import _errors
from cpic.cohorts import synthetic
from cpic.cohorts.synthetic import _chest, _fields, _osic, _scan, _slices, _tree

SHAPE = (14, 56, 56)
ROOT = Path(__file__).parents[2]
N = 7


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("osic") / "cohort"
    assert synthetic.make_osic_like(root, n_patients=N, shape=SHAPE, seed=5) == root
    return root


def names(root):
    return sorted(path.name for path in (root / "train").iterdir())


def headers(root, k):
    files = sorted((root / "train" / names(root)[k]).iterdir())
    return {path: pydicom.dcmread(path) for path in files}


def hounsfield(root, k):
    """Slices from the feet up: by position, and without one by falling file number."""

    def place(item):
        path, data = item
        if "ImagePositionPatient" in data:
            return float(data.ImagePositionPatient[2])
        return -int(path.stem)

    slices = [data for _, data in sorted(headers(root, k).items(), key=place)]
    raw = np.stack([data.pixel_array for data in slices]).astype(np.float32)
    return np.where(raw < -1000, np.nan, raw + float(slices[0].RescaleIntercept))


def contents(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_tree_and_table_are_those_of_the_real_set(root):
    assert {path.name for path in root.iterdir() if path.name[0] != "."} == {
        "train", "train.csv", "truth.csv", "truth.json", "recipe.json",
    }  # fmt: skip
    table = pd.read_csv(root / "train.csv")
    columns = "Patient,Weeks,FVC,Percent,Age,Sex,SmokingStatus"
    assert (root / "train.csv").read_text().splitlines()[0] == columns
    assert sorted(set(table["Patient"])) == names(root)
    assert table["Patient"].str.fullmatch(r"ID\d{23}").all()
    assert set(table["Sex"]) <= {"Male", "Female"}
    assert set(table["SmokingStatus"]) <= {"Ex-smoker", "Never smoked", "Currently smokes"}
    assert table[["Weeks", "FVC", "Age"]].dtypes.eq("int64").all()
    assert table["FVC"].between(500, 7000).all()
    assert table["Percent"].between(20, 160).all()
    visits = table.groupby("Patient")["Weeks"]
    assert visits.size().between(8, 10).all()
    assert visits.apply(lambda weeks: weeks.is_monotonic_increasing).all()
    assert visits.apply(lambda weeks: weeks.duplicated().any()).tolist() == [
        k % 5 == 2 for k in range(N)
    ]


@pytest.mark.parametrize("k", range(N))
def test_slices_are_valid_ct_images(root, k):
    found = headers(root, k)
    assert sorted(int(path.stem) for path in found) == list(range(1, len(found) + 1))
    uids = set()
    for path, data in found.items():
        meta = data.file_meta
        assert meta.MediaStorageSOPClassUID == data.SOPClassUID == pydicom.uid.CTImageStorage
        assert meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
        assert data.SOPInstanceUID.is_valid
        uids.add(str(data.SOPInstanceUID))
        assert data.PatientID == names(root)[k]
        assert data.InstanceNumber == int(path.stem)
        assert (float(data.RescaleSlope), float(data.RescaleIntercept)) == (1, -1024)
        if k != 3:
            assert meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
            assert data.pixel_array.shape == (data.Rows, data.Columns)
    assert len(uids) == len(found)
    assert len({data.SeriesInstanceUID for data in found.values()}) == 1


def test_quirks_of_the_real_set_are_there(root):
    counts, sizes = set(), set()
    for k in range(N):
        found = headers(root, k)
        counts.add(len(found))
        ordered = sorted(found.items(), key=lambda item: int(item[0].stem))
        first = ordered[0][1]
        sizes.add(first.Rows)
        assert ("ImagePositionPatient" in first) == ("SliceLocation" in first) == (k % 4 != 1)
        if k % 4 != 1:
            heights = [float(data.ImagePositionPatient[2]) for _, data in ordered]
            steps = np.diff(sorted(heights))
            np.testing.assert_allclose(steps, float(first.SliceThickness), atol=2e-4)
            falls = bool((np.diff(heights) < 0).all())
            assert falls == (k % 2 == 1), "every other patient's file names tell no order"
        if k != 3:
            padded = (first.pixel_array == -2000).mean()
            assert (0.1 < padded < 0.3) == (k % 3 != 2)
    assert len(counts) > 2
    assert len(sizes) > 1


def test_the_unreadable_patient_is_in_the_table_but_cannot_be_decoded(root):
    first = next(iter(headers(root, 3).values()))
    with pytest.raises((RuntimeError, ValueError, NotImplementedError)):
        _ = first.pixel_array
    truth = pd.read_csv(root / "truth.csv")
    assert set(truth[~truth["readable"]]["Patient"]) == {names(root)[3]}
    assert names(root)[3] in set(pd.read_csv(root / "train.csv")["Patient"])


@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_slices_in_order_are_a_chest(root, k):
    values = hounsfield(root, k)
    body = np.nan_to_num(values, nan=-1000)
    # Air is at -1000, there is bone, and the lungs lie between the two.
    assert np.nanmedian(values[:, :3, 25:30]) == pytest.approx(-1000, abs=15)
    assert np.nanmax(values) > 250
    dark = (body[:, 10:-10, 10:-10] < -700).sum((1, 2))
    assert dark[len(dark) // 2] > 2 * dark[0]
    # The heart is below the middle and points to the patient's left, where columns end.
    n, rows, columns = body.shape
    soft = np.abs(body[round(0.29 * n), rows // 4 : rows // 2] - 40) < 60
    soft = soft[:, columns // 4 : -columns // 4].sum(0)
    assert np.average(np.arange(len(soft)), weights=soft) > len(soft) / 2
    steps = np.abs(np.diff(body, axis=0)).mean((1, 2))
    assert steps.max() < 4 * np.median(steps), "neighboring slices are alike"


def test_airways_split_and_vessels_taper():
    chest = _chest.draw_chest(_fields.child(0, 0))
    vessels = chest.vessels
    lengths = np.linalg.norm(vessels.end - vessels.start, axis=1)
    assert (vessels.last <= vessels.first + 1e-9).all()
    assert vessels.first.max() > 6
    assert vessels.last.min() < 1
    assert 1 < np.median(lengths) < 40
    grid = _chest.grid_of(chest, (290, 96, 96))
    lumen = _tree.draw_tubes(chest.airways, grid, 1.0)
    from scipy import ndimage

    height = grid[0]
    above = lumen[np.searchsorted(height, 100)] > 0.5
    below = lumen[np.searchsorted(height, 22)] > 0.5
    assert ndimage.label(above)[1] == 1
    assert ndimage.label(below)[1] >= 2


def test_tubes_have_the_volume_of_cylinders():
    tube = _tree.path([(-20, 0, 0), (20, 0, 0)], [6.0, 6.0])
    axes = [np.arange(-30, 31.0)] * 3
    volume = _tree.draw_tubes(tube, axes, 1.0).sum()
    assert volume == pytest.approx(math.pi * 36 * 40 + 4 / 3 * math.pi * 216, rel=0.02)


def test_painting_by_slices_is_painting_at_once():
    chest = _chest.draw_chest(_fields.child(3, 0))
    grid = _chest.grid_of(chest, (12, 48, 48))
    whole, masks = _scan.paint(chest, grid, slice(0, 12), np.random.default_rng(0))
    rng = np.random.default_rng(0)
    parts = [_scan.paint(chest, grid, slice(k, k + 5), rng) for k in (0, 5, 10)]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), whole, atol=0.02)
    for kind in range(3):
        parted = np.concatenate([p[1][kind] for p in parts])
        assert (parted != masks[kind]).mean() < 1e-4


def test_truth_is_the_formula(root):
    truth = pd.read_csv(root / "truth.csv")
    table = pd.read_csv(root / "train.csv")
    assert (table["FVC"] == truth["FVC"]).all()
    for k, (name, rows) in enumerate(truth.groupby("Patient")):
        first = rows.iloc[0]
        grain = np.clip(math.log2(first["thickness"] / first["medium_thickness"]) / 0.7, -1, 1)
        base = np.clip(-(first["height"] + 0.1) / 0.5, -1, 1)
        spread = np.clip((first["extent"] - 0.19) / 0.07, -1, 1)
        rate = -0.0032 - 0.0026 * grain * base - 0.0008 * spread
        clean = first["FVC"] * (1 + rate * (rows["Weeks"] - first["Weeks"]))
        np.testing.assert_allclose(rows["noise_free_fvc"], clean)
        np.testing.assert_allclose(rows["noise_free_target"], clean / first["FVC"])
        assert (abs(rows["FVC"] - clean) < 5 * 80).all()
        # The masks that the latent factors were measured in, painted anew.
        chest = _chest.draw_chest(_fields.child(5, k, 0))
        sizes, _ = _osic._choose(k, SHAPE, _fields.child(5, k, 1))
        grid = _chest.grid_of(chest, sizes)
        _, masks = _scan.paint(chest, grid, slice(0, sizes[0]), np.random.default_rng(0))
        found = synthetic.measure_fibrosis(*masks, pixel=chest.width / sizes[2])
        assert found.rate == pytest.approx(rate, abs=1e-9), name
    assert json.loads((root / "truth.json").read_text())["noise_ml"] == 80


def test_fibrosis_of_known_shape_is_measured():
    lung = np.zeros((12, 20, 20), bool)
    lung[1:11] = True
    scarred = np.zeros_like(lung)
    scarred[1:3, 4:16, 4:16] = True
    walls = scarred & (np.arange(20) % 6 < 3)[:, None]
    found = synthetic.measure_fibrosis(lung, scarred, walls, pixel=1.5)
    # Rows 6-8 and 12-14 are walls: 6 x 12 voxels that meet cysts along 4 x 12 edges.
    assert found.thickness == pytest.approx(1.5 * 6 / 4)
    assert found.height == pytest.approx((1.5 - 5.5) / 5)
    assert found.extent == pytest.approx(2 * 144 / 4000)


def test_both_grains_have_the_same_mean_density():
    chest = _chest.draw_chest(_fields.child(0, 0))
    import dataclasses

    means = []
    for grain in (-1.0, 1.0):
        one = dataclasses.replace(chest, grain=grain)
        grid = _chest.grid_of(one, (24, 96, 96))
        hu, (lung, scarred, _) = _scan.paint(one, grid, slice(0, 24), np.random.default_rng(0))
        means.append(hu[scarred].mean() - hu[lung & ~scarred].mean())
    assert means[0] == pytest.approx(means[1], rel=0.15)
    assert means[0] > 150


def test_same_seed_same_bytes_and_patients_are_independent(root, tmp_path):
    synthetic.make_osic_like(tmp_path, n_patients=2, shape=SHAPE, seed=5)
    whole, two = contents(root), contents(tmp_path)
    slices = [path for path in two if path.endswith(".dcm")]
    assert len(slices) > 16
    assert all(two[path] == whole[path] for path in slices)
    synthetic.make_osic_like(tmp_path, n_patients=N, shape=SHAPE, seed=5)
    assert contents(tmp_path) == whole


def test_an_interrupted_run_goes_on_and_keeps_what_is_complete(root, tmp_path, monkeypatch):
    write, calls = pydicom.dcmwrite, []

    def stopping(path, *args, **options):
        calls.append(path)
        if len(calls) == 30:
            # Half a file, as after a kill.
            Path(path).write_bytes(b"\0" * 100)
            raise KeyboardInterrupt
        write(path, *args, **options)

    monkeypatch.setattr(pydicom, "dcmwrite", stopping)
    with pytest.raises(KeyboardInterrupt):
        synthetic.make_osic_like(tmp_path, n_patients=N, shape=SHAPE, seed=5)
    monkeypatch.setattr(pydicom, "dcmwrite", write)
    whole = names(root)
    done = [name for name in names(tmp_path) if name[0] != "."]
    assert done == whole[: len(done)]
    assert 1 <= len(done) < N
    assert not (tmp_path / "train.csv").exists()
    before = [(tmp_path / "train" / name).stat().st_mtime_ns for name in done]
    synthetic.make_osic_like(tmp_path, n_patients=N, shape=SHAPE, seed=5)
    assert [(tmp_path / "train" / name).stat().st_mtime_ns for name in done] == before
    assert contents(tmp_path) == contents(root)


def test_a_cohort_of_the_other_kind_is_refused(root):
    with pytest.raises(_errors.CohortError, match="another kind"):
        synthetic.make_brats_like(root, n_patients=N, shape=(24, 24, 24))
    with pytest.raises(_errors.CohortError, match="8x24x24"):
        synthetic.make_osic_like(root, n_patients=N, shape=(4, 56, 56))


def score(fvc, guess, width):
    miss = np.minimum(abs(fvc - guess), 1000)
    return -math.sqrt(2) * miss / width - np.log(math.sqrt(2) * width)


def test_best_score_is_that_of_the_rule(root):
    truth = pd.read_csv(root / "truth.csv")
    truth = truth[truth["readable"]]
    first, later = (truth[truth["visit"].eq(0) == kind] for kind in (True, False))
    given = score(first["FVC"], first["noise_free_fvc"], 70.0)
    assert given.to_numpy() == pytest.approx(-math.log(70 * math.sqrt(2)))
    # No width does better than the one that is used.
    widths = np.linspace(70, 200, 261)
    best = max(score(later["FVC"], later["noise_free_fvc"], w).sum() for w in widths)
    expected = (best + given.sum()) / len(truth)
    assert synthetic.best_error(root) == pytest.approx(expected, abs=1e-4)
    assert -6.0 < synthetic.best_error(root) < -5.3


def test_stored_values_follow_the_scanner():
    hu = np.array([[[-3000.0, 40.2], [500.0, 9000.0]]])
    scanner = _slices.Scanner(signed=False, positions=True, numbers=(1,))
    assert _slices.stored(hu, scanner).tolist() == [[[0, 1064], [1524, 4095]]]
    wide = _slices.stored(np.zeros((1, 40, 40)), _slices.Scanner(True, True, (1,)))
    assert wide.dtype == np.int16
    assert (wide == -2000).mean() == pytest.approx(1 - math.pi / 4, abs=0.03)


def test_script_prints_the_best_score(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "data_scripts" / "make_osic_like.py"))["main"]
    main(str(tmp_path / "x"), n_patients=2, shape=(8, 32, 32), seed=3)
    shown = capsys.readouterr()
    assert f"{synthetic.best_error(tmp_path / 'x'):.4f}" in shown.out
    assert "2/2" in shown.err
    with pytest.raises(SystemExit, match="another seed"):
        main(str(tmp_path / "x"), n_patients=2, shape=(8, 32, 32), seed=4)


@pytest.mark.slow
def test_decline_needs_structure_and_height_together(tmp_path):
    from scipy.ndimage import zoom
    from sklearn.linear_model import LinearRegression, RidgeCV
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    synthetic.make_osic_like(tmp_path, n_patients=80, shape=(16, 48, 48), seed=1)
    truth = pd.read_csv(tmp_path / "truth.csv")
    truth = truth[truth["readable"]]
    people = truth.drop_duplicates("Patient").set_index("Patient")
    histograms, coarse = [], []
    for k in np.flatnonzero(np.arange(80) != 3):
        values = np.nan_to_num(hounsfield(tmp_path, k), nan=-1000)
        histograms.append(np.histogram(values, 48, (-1050, 600))[0] / values.size)
        blocks = zoom(values, np.array((16, 48, 48)) / values.shape, order=1, mode="nearest")
        coarse.append(blocks.reshape(8, 2, 8, 6, 8, 6).mean((1, 3, 5)).ravel())
    weeks = truth["Weeks"] - truth.groupby("Patient")["Weeks"].transform("first")
    start = truth.groupby("Patient")["FVC"].transform("first")
    rates = np.array(
        [
            np.polyfit(weeks[rows.index], rows["FVC"] / rows["FVC"].iloc[0], 1)[0]
            for _, rows in truth.groupby("Patient")
        ]
    )
    later = truth["visit"] > 0

    def reached(features, model):
        guess = cross_val_predict(model, np.array(features), rates, cv=KFold(5))
        rate = truth["Patient"].map(pd.Series(guess, people.index))
        clean = (start * (1 + rate * weeks))[later]
        width = max(70, math.sqrt(2) * abs(truth["FVC"][later] - clean).mean())
        total = score(truth["FVC"][later], clean, width).sum()
        return (total - len(people) * math.log(70 * math.sqrt(2))) / len(truth)

    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 6, 17)))
    sums = people[["grain", "base", "spread"]].to_numpy()
    best = synthetic.best_error(tmp_path)
    oracle = reached(np.c_[sums, sums[:, 0] * sums[:, 1]], LinearRegression())
    weak = {
        "histograms": reached(histograms, ridge),
        "coarse": reached(coarse, ridge),
        "both": reached(np.c_[np.array(histograms), np.array(coarse)], ridge),
        "without the product": reached(sums, ridge),
    }
    assert oracle > best - 0.03, (oracle, best)
    assert max(weak.values()) < best - 0.4, (weak, oracle, best)
