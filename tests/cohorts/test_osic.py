"""The tree of OSIC: visits as samples, scans, eight features; what is left out and what stops."""

import csv
import hashlib
import json

import numpy as np
import pandas
import pytest
import torch

from cpic._errors import CohortError
from cpic.cohorts import OsicTable, check_cohort, folds, prepare, read_osic
from cpic.cohorts.synthetic import make_osic_like
from cpic.data import read_series
from tests.data.test_dicom import values, write_series

HEADER = "Patient,Weeks,FVC,Percent,Age,Sex,SmokingStatus"
ROWS = [
    "ID1,-4,2315,58.2536487,79,Male,Ex-smoker",
    "ID1,5,2214,55.7121284,79,Male,Ex-smoker",
    "ID1,7,2061,51.8621036,79,Male,Ex-smoker",
    "ID2,8,3660,85.2828642,69,Female,Never smoked",
    "ID2,9,3610,84.1178250,69,Female,Never smoked",
]


def tree(root, rows=ROWS, header=HEADER, *, end="\n", start="", patients=("ID1", "ID2")):
    """A table, and a folder with a file for each patient that no test here opens."""
    root.mkdir(parents=True, exist_ok=True)
    text = start + end.join([header, *rows]) + end
    (root / "train.csv").write_bytes(text.encode())
    for name in patients:
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        (root / "train" / name / "1.dcm").touch()
    return root


def hashes(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort") / "osic"
    return make_osic_like(root, n_patients=6, shape=(8, 24, 24), seed=0)


def test_every_visit_of_the_generated_cohort_is_a_sample(generated):
    cohort = read_osic(generated)
    with (generated / "truth.csv").open() as file:
        truth = list(csv.DictReader(file))
    assert len(cohort) == 6
    assert len(cohort.samples) == len(truth)
    first = {}
    for row, (_, sample) in zip(truth, cohort.samples.iterrows(), strict=True):
        first.setdefault(row["Patient"], float(row["FVC"]))
        assert sample["patient"] == row["Patient"]
        assert sample["target"] == float(row["FVC"]) / first[row["Patient"]]
        assert abs(sample["target"] - float(row["noise_free_target"])) < 6 * 80 / 500
        assert [sample[c] for c in ("weeks", "fvc", "percent", "age", "sex", "smoking")] == [
            *(float(row[c]) for c in ("Weeks", "FVC", "Percent", "Age")),
            row["Sex"],
            row["SmokingStatus"],
        ]
    assert cohort.skipped == {}
    # Two visits in one week, as in the published table, are two samples.
    assert cohort.samples.duplicated(["patient", "weeks"]).any()


def by_hand(folder):
    """Feet first, with pydicom alone; the generator numbers slices from the top."""
    from pydicom import dcmread

    slices = [dcmread(path) for path in folder.glob("*.dcm")]
    if "ImagePositionPatient" in slices[0]:
        slices.sort(key=lambda s: s.ImagePositionPatient[2])
    else:
        slices.sort(key=lambda s: -s.InstanceNumber)
    hu = np.stack([s.pixel_array.astype(np.float64) for s in slices]) - 1024
    return np.maximum(hu, -1000).astype(np.float32)


def test_scans_of_the_generated_cohort_are_those_in_the_files(generated):
    cohort = read_osic(generated)
    orders = set()
    for k, name in enumerate(cohort.patients):
        if k != 3:
            found = read_series(cohort.files(name)["ct"])
            orders.add(found.report.order)
            assert np.array_equal(found.values.numpy(), by_hand(generated / "train" / name))
            assert torch.equal(found.values, cohort.volume(name).read())
    assert orders == {"position", "instance"}


def test_what_cannot_be_decoded_is_left_out_by_name(generated, tmp_path):
    before = hashes(generated)
    cohort = read_osic(generated)
    undecodable = list(cohort.patients)[3]
    early = read_osic(generated, headers=True)
    assert len(early) == 5
    assert "1.dcm stores its pixels as JPEG Lossless" in early.skipped[undecodable]
    assert undecodable not in set(early.samples["patient"])
    late = prepare(cohort, cache=tmp_path / "cache", shape=(6, 12, 12), intensity="minmax")
    assert list(late.skipped) == [undecodable]
    assert "no decoder of that is installed" in late.skipped[undecodable]
    assert late.patients == list(early.patients)
    assert hashes(generated) == before


def test_preparation_resamples_scales_and_fills_up_at_the_end(generated, tmp_path):
    from scipy.ndimage import zoom

    cohort = read_osic(generated).subset(list(read_osic(generated).patients)[:2])
    prepared = prepare(cohort, cache=tmp_path / "cache", shape=(6, 20, 12), intensity="minmax")
    for name in cohort.patients:
        volume = prepared.volume(name)
        assert volume.shape == (8, 32, 16)
        assert volume.attributes["true_shape"] == [6, 20, 12]
        found = volume.read().numpy()
        scan = by_hand(generated / "train" / name)
        factors = [n / m for n, m in zip((6, 20, 12), scan.shape, strict=True)]
        wanted = zoom(scan.astype(np.float64), factors, order=3, mode="nearest")
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
        assert np.abs(found[:6, :20, :12] - wanted).max() < 1e-4
        assert (found.min(), found.max()) == (0, 1)
        found[:6, :20, :12] = 0
        assert not found.any()
    own = prepare(cohort, cache=tmp_path / "cache", shape=None, intensity="none")
    name = own.patients[0]
    assert own.volume(name).attributes["true_shape"] == list(cohort.volume(name).shape)


@pytest.mark.parametrize("place", ["", "osic-pulmonary-fibrosis-progression"])
@pytest.mark.parametrize(
    ("rows", "header", "how"),
    [
        (ROWS, HEADER, {}),
        (ROWS, HEADER, {"start": "\ufeff", "end": "\r\n"}),
        ([f" {row} ".replace(",", " ,\t ") for row in ROWS], HEADER.replace(",", " , "), {}),
        ([*ROWS[:2], "", ",,,,,,", *ROWS[2:]], HEADER.upper(), {}),
        ([f"x,{','.join(row.split(',')[::-1])}" for row in ROWS], None, {}),
        ([row.replace("Male", "MALE").replace("smoker", "SMOKER") for row in ROWS], HEADER, {}),
    ],
)
def test_tables_that_mean_the_same(tmp_path, place, rows, header, how):
    header = header or f"Site,{','.join(HEADER.split(',')[::-1])}"
    tree(tmp_path / place, rows, header, **how)
    cohort = read_osic(tmp_path)
    assert cohort.skipped == {}
    twin = read_osic(tree(tmp_path / "twin"))
    pandas.testing.assert_frame_equal(cohort.samples, twin.samples)
    assert cohort.samples["target"].tolist() == [1, 2214 / 2315, 2061 / 2315, 1, 3610 / 3660]
    assert cohort.samples["first_percent"].tolist() == [58.2536487] * 3 + [85.2828642] * 2


def test_the_baseline_is_the_first_row_not_the_first_week(tmp_path):
    cohort = read_osic(tree(tmp_path, [ROWS[1], ROWS[3], ROWS[0], ROWS[4], ROWS[2]]))
    assert cohort.samples["first_fvc"].tolist() == [2214.0] * 3 + [3660.0] * 2
    assert list(cohort.patients) == ["ID1", "ID2"]


def test_a_repeated_line_is_left_out_and_a_second_visit_in_a_week_is_not(tmp_path):
    second = "ID1,5,2300,57.9,79,Male,Ex-smoker"
    cohort = read_osic(tree(tmp_path, [ROWS[0], ROWS[1], second, ROWS[1], ROWS[0], *ROWS[3:]]))
    assert cohort.samples["fvc"].tolist() == [2315, 2214, 2300, 3660, 3610]
    assert cohort.skipped == {
        "ID1, line 5": "it repeats line 3",
        "ID1, line 6": "it repeats line 2",
    }


BAD_CELLS = [
    ("Weeks", "", "Weeks is '', a number above -1001 and up to 2000 is needed"),
    ("Weeks", "five", "Weeks is 'five'"),
    ("FVC", "0", "FVC is '0', a number above 0 "),
    ("FVC", "-2300", "FVC is '-2300'"),
    ("FVC", "nan", "FVC is 'nan'"),
    ("FVC", "2.3e3", "FVC is '2.3e3'"),
    ("FVC", "٣٢١", "FVC is '٣٢١'"),
    ("FVC", "999999", "FVC is '999999'"),
    ("Percent", "inf", "Percent is 'inf'"),
    ("Age", "200", "Age is '200'"),
    ("Sex", "", "Sex is '', one of Female, Male is needed"),
    ("SmokingStatus", "Vapes", "SmokingStatus is 'Vapes', one of Ex-smoker, Never smoked, "),
]


@pytest.mark.parametrize(("column", "cell", "reason"), BAD_CELLS)
def test_a_row_that_cannot_be_used_is_left_out(tmp_path, column, cell, reason):
    cells = ROWS[1].split(",")
    cells[HEADER.split(",").index(column)] = cell
    cohort = read_osic(tree(tmp_path, [ROWS[0], ",".join(cells), *ROWS[2:]]))
    assert len(cohort.samples) == 4
    assert list(cohort.skipped) == ["ID1, line 3"]
    assert cohort.skipped["ID1, line 3"].startswith(reason)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("ID1,5,none,55.7,79,Male,Ex-smoker", "FVC is 'none'"),
        ("ID1,5,2214", "it has 3 cells, not 7"),
        ("ID1,5,2214,55.7,79,Male,Ex-smoker,1", "it has 8 cells, not 7"),
    ],
)
def test_without_baseline_the_patient_is_left_out(tmp_path, row, reason):
    cohort = read_osic(tree(tmp_path, [row, *ROWS]))
    assert list(cohort.patients) == ["ID2"]
    assert set(cohort.samples["patient"]) == {"ID2"}
    assert list(cohort.skipped) == ["ID1"]
    assert f"the baseline, cannot be used: {reason}" in cohort.skipped["ID1"]


@pytest.mark.parametrize("name", ["../ID1", "", "/etc", ".", "ID1/../ID2", "x" * 101])
def test_a_name_never_leads_out_of_the_tree(tmp_path, name):
    cohort = read_osic(tree(tmp_path, [*ROWS, ROWS[0].replace("ID1", name, 1)]))
    assert list(cohort.patients) == ["ID1", "ID2"]
    assert list(cohort.skipped) == ["train.csv, line 7"]
    assert "cannot be the name of a patient's folder" in cohort.skipped["train.csv, line 7"]


def test_a_missing_or_empty_folder_is_named(tmp_path):
    rows = [*ROWS, ROWS[0].replace("ID1", "ID3"), ROWS[0].replace("ID1", "ID4")]
    tree(tmp_path, rows)
    (tmp_path / "train" / "ID4").mkdir()
    cohort = read_osic(tmp_path)
    assert list(cohort.patients) == ["ID1", "ID2"]
    assert cohort.skipped["ID3"] == "its folder train/ID3 is missing"
    assert "ID4 holds no .dcm files" in cohort.skipped["ID4"]


def test_a_series_broken_later_is_left_out_by_preparation(tmp_path):
    tree(tmp_path / "osic")
    for name in ("ID1", "ID2"):
        write_series(tmp_path / "osic" / "train" / name, values())
    path = tmp_path / "osic" / "train" / "ID1" / "4.dcm"
    path.write_bytes(path.read_bytes()[:-10])
    cohort = read_osic(tmp_path / "osic", headers=True)
    assert len(cohort) == 2
    prepared = prepare(cohort, cache=tmp_path / "cache", shape=(4, 4, 4))
    assert prepared.patients == ["ID2"]
    assert "ID1/4.dcm cannot be read as a DICOM slice" in prepared.skipped["ID1"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda csv: csv.unlink(), "lacks train.csv: read_osic needs"),
        (lambda csv: csv.write_text(""), "once, got an empty file"),
        (lambda csv: csv.write_text("Patient,FVC\nID1,3\n"), "Weeks, Percent, .*must be put right"),
        (lambda csv: csv.write_text(HEADER.replace("Age", "FVC")), "FVC, Age must be put right"),
        (lambda csv: csv.write_bytes(b"\xff\xfe\x00" * 9), "cannot be read as a table"),
        (lambda csv: csv.write_text(f'{HEADER}\nID1,"5,3\n'), "cannot be read as a table"),
        (lambda csv: csv.write_text(f'{HEADER}\nID1,"5\n",3,4,5,6,7\n'), "inside a cell of line 3"),
        (lambda csv: csv.write_text(f"{HEADER}\n"), "it has no rows"),
        (lambda csv: csv.write_text(f"{HEADER}\n{ROWS[0]}\0\n"), "NUL|cannot be read"),
        (lambda csv: csv.write_bytes(bytes(2**24 + 1)), "has 16,777,217 bytes"),
        (lambda csv: (csv.unlink(), csv.mkdir()), "lacks train.csv"),
        (
            lambda csv: csv.write_text(f"{HEADER}\n{ROWS[0]}".replace("ID1", "ID9")),
            "no patient.*ID9",
        ),
    ],
)
def test_what_stops_everything(tmp_path, spoil, message):
    spoil(tree(tmp_path) / "train.csv")
    with pytest.raises(CohortError, match=message) as caught:
        read_osic(tmp_path)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(CohortError, match="is not a folder"):
        read_osic(tmp_path / "none")


def test_nobody_trains_and_validates(generated):
    cohort = read_osic(generated)
    for train, validation in folds(cohort, 3):
        assert not set(train) & set(validation)
        assert set(train) | set(validation) == set(cohort.patients)


def test_the_eight_features_by_hand(tmp_path):
    samples = read_osic(tree(tmp_path)).samples
    features = OsicTable.fit(samples).transform(samples)
    assert features.dtype == torch.float64
    wanted = [
        [0, 0, 0, 1, 1, 0, 0, 1],
        [9 / 13, 0, 0, 1, 1, 0, 0, 1],
        [11 / 13, 0, 0, 1, 1, 0, 0, 1],
        [12 / 13, 1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 0, 0],
    ]
    torch.testing.assert_close(features, torch.tensor(wanted, dtype=torch.float64))
    # Rows may come from any subset, under any labels.
    assert torch.equal(
        OsicTable.fit(samples).transform(samples.iloc[[4, 1]]), features[torch.tensor([4, 1])]
    )
    assert OsicTable.fit(samples).transform(samples.iloc[:0]).shape == (0, 8)


def test_percent_of_the_visit_tells_the_target_and_is_not_the_default(generated):
    samples = read_osic(generated).samples
    leak = samples["percent"] / samples["first_percent"]
    assert (leak - samples["target"]).abs().max() < 1e-9
    first = OsicTable.fit(samples).transform(samples)[:, 1]
    visit = OsicTable.fit(samples, percent="visit").transform(samples)[:, 1]
    one = torch.from_numpy((samples["patient"] == samples["patient"][0]).to_numpy(bool, copy=True))
    assert first[one].unique().numel() == 1
    assert visit[one].unique().numel() > 4


def test_extrema_are_those_of_the_training_fold_only(generated):
    cohort = read_osic(generated)
    train, validation = folds(cohort, 3)[0]
    table = OsicTable.fit(cohort.subset(train).samples)
    inside = table.transform(cohort.subset(train).samples)[:, :4]
    assert torch.equal(inside.amin(0), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(inside.amax(0), torch.ones(4, dtype=torch.float64))
    outside = table.transform(cohort.subset(validation).samples)[:, :4]
    ages = cohort.subset(validation).samples["age"].to_numpy()
    known = cohort.subset(train).samples["age"]
    scaled = (ages - known.min()) / (known.max() - known.min())
    assert outside[:, 3].tolist() == pytest.approx(scaled.tolist())


def test_a_constant_column_gives_zero(tmp_path):
    samples = read_osic(tree(tmp_path)).samples
    table = OsicTable.fit(samples[samples["patient"] == "ID1"])
    features = table.transform(samples)
    assert features[:3, 1:4].eq(0).all()
    assert features.isfinite().all()


def test_the_table_is_saved_and_loaded(tmp_path, generated):
    table = OsicTable.fit(read_osic(generated).samples, percent="visit")
    path = table.save(tmp_path / "new" / "table.json")
    assert OsicTable.load(path) == table
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]


GOOD = {"percent": "first", "low": [0, 0, 0, 0], "high": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps(GOOD | {"low": [0, 0, 0]}),
        json.dumps(GOOD | {"low": [2, 0, 0, 0]}),
        json.dumps(GOOD | {"high": [1, 1, 1, float("nan")]}),
        json.dumps(GOOD | {"high": ["x"] * 4}),
        json.dumps(GOOD | {"percent": "last"}),
    ],
)
def test_what_is_no_saved_table_is_refused(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(CohortError, match="OsicTable"):
        OsicTable.load(path)
    with pytest.raises(CohortError, match="cannot be read as a saved OsicTable"):
        OsicTable.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.assign(smoking=["Vapes", *s["smoking"][1:]]), "smoking, row 0 has 'Vapes'"),
        (lambda s: s.assign(sex=[*s["sex"][:-1], None]), "sex, row 4 has '(nan|None)'"),
        (lambda s: s.assign(age=[1, 2, float("nan"), 4, 5]), "finite .* age, row 2 has nan"),
        (lambda s: s.assign(weeks="x"), "numbers in the column weeks"),
        (lambda s: s.drop(columns="first_percent"), "needs the column first_percent, got patient"),
    ],
)
def test_samples_that_have_no_features(tmp_path, change, message):
    samples = read_osic(tree(tmp_path)).samples
    with pytest.raises(CohortError, match=message):
        OsicTable.fit(samples).transform(change(samples))


def test_a_fit_needs_samples_and_a_known_percent(tmp_path):
    samples = read_osic(tree(tmp_path)).samples
    with pytest.raises(CohortError, match="got none"):
        OsicTable.fit(samples[:0])
    with pytest.raises(CohortError, match="'first' or 'visit', got 'last'"):
        OsicTable.fit(samples, percent="last")


def test_a_folder_that_the_system_refuses_is_one_sentence():
    with pytest.raises(
        CohortError, match=r"cannot be read .*; check the path and your permissions"
    ):
        read_osic("a" * 300)
    for kind in ("auto", "osic"):
        (fault,) = check_cohort("a" * 300, kind=kind).general
        assert "cannot be read" in fault
