"""What a head is told besides the scan, and where scans are found."""

import math

import pandas
import pytest
import torch

from cpic._errors import CohortError
from cpic.train.prediction._scans import find_scans
from cpic.train.tasks._tabular import Table, fit_table


def people(ages, resections):
    return pandas.DataFrame({"age": ages, "resection": resections})


def test_ages_are_scaled_by_the_training_fold_and_may_be_unknown():
    table = fit_table("brats", people([50.0, 70.0, math.nan], ["GTR"] * 3), extra=True)
    features = table(people([50.0, math.nan, 80.0], ["NA", "STR", "GTR"]))
    wanted = [[-1.0, 0, 0, 0, 1], [0, 1, 0, 1, 0], [2, 0, 1, 0, 0]]
    assert torch.equal(features, torch.tensor(wanted, dtype=torch.float64))
    assert table.width == 5
    assert Table.from_json(table.to_json()) == table


@pytest.mark.parametrize("ages", [[60.0, 60.0], [math.nan, math.nan]])
def test_ages_that_tell_nothing(ages):
    table = fit_table("brats", people(ages, ["GTR", "NA"]), extra=True)
    assert table(people(ages, ["GTR", "NA"])).isfinite().all()


def test_only_what_was_asked_for():
    visits = pandas.DataFrame(
        {
            "weeks": [0.0, 10.0],
            "first_percent": [80.0, 80.0],
            "first_fvc": [2000.0, 2000.0],
            "age": [60.0, 61.0],
            "smoking": ["Ex-smoker", "Never smoked"],
            "sex": ["Male", "Female"],
        }
    )
    assert fit_table("brats", people([1.0], ["NA"]), extra=False) is None
    weeks = fit_table("osic", visits, extra=False)
    assert weeks(visits[["weeks"]]).tolist() == [[0.0], [1.0]]
    extra = fit_table("osic", visits, extra=True)
    assert extra(visits).shape == (2, 8)
    assert torch.equal(extra(visits)[:, :1], weeks(visits))


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def test_one_file_a_patient(folder):
    found = find_scans(folder("b.nii.gz", "a.NII", "notes.txt", ".hidden.nii"), ["t1"])
    assert {name: files["t1"].name for name, files in found.items()} == {
        "a": "a.NII",
        "b": "b.nii.gz",
    }


def test_several_contrasts_in_one_folder(folder):
    found = find_scans(folder("x_t1.nii", "x_t2.nii", "y_t1.nii", "x_seg.nii"), ["t1", "t2"])
    assert [found["x"][c].name for c in ("t1", "t2")] == ["x_t1.nii", "x_t2.nii"]
    assert found["y"] == "t2 is missing"
    assert list(found) == ["x", "y"]


def test_folders_of_slices_at_any_depth(folder):
    root = folder("deep/er/p1/1.dcm", "deep/er/p2/1.dcm", "deep/er/list.csv")
    assert find_scans(root, ["ct"]) == {
        name: {"ct": root / "deep" / "er" / name} for name in ("p1", "p2")
    }
    assert find_scans(root / "deep" / "er" / "p1", ["ct"]) == {"p1": {"ct": root / "deep/er/p1"}}
    assert "one series of slices" in find_scans(root, ["t1", "t2"])["p1"]


def test_nothing_to_find(folder):
    with pytest.raises(CohortError, match="holds no scans"):
        find_scans(folder("a/b.txt"), ["t1"])
