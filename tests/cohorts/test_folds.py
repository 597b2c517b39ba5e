"""Who trains and who validates: as published, nobody on both sides, saved and checked."""

import json
import os

import numpy as np
import pandas
import pytest
from sklearn.model_selection import GroupKFold, KFold

from cpic._errors import CohortError
from cpic.cohorts import Cohort, folds


def make_cohort(visits):
    """Patients p0, p1, ... with so many samples each, in the order of the table."""
    names = [f"p{k}" for k in range(len(visits))]
    rows = [name for name, n in zip(names, visits, strict=True) for _ in range(n)]
    samples = pandas.DataFrame({"patient": rows, "target": np.arange(len(rows)) / 10})
    return Cohort("some", "root", ("t1",), {name: {} for name in names}, samples)


def visits_of(n_patients, seed=0):
    return np.random.default_rng(seed).integers(1, 10, n_patients).tolist()


@pytest.mark.parametrize(("n_patients", "n"), [(235, 5), (12, 5), (5, 5), (7, 2), (10, 3)])
def test_one_sample_a_patient_gives_contiguous_folds(n_patients, n):
    cohort = make_cohort([1] * n_patients)
    names = np.array(list(cohort.patients))
    for (train, validation), (a, b) in zip(
        folds(cohort, n), KFold(n, shuffle=False).split(names), strict=True
    ):
        assert train == names[a].tolist()
        assert validation == names[b].tolist()


@pytest.mark.parametrize(("n_patients", "n"), [(176, 5), (6, 5), (12, 3)])
def test_several_samples_a_patient_give_grouped_folds(n_patients, n):
    cohort = make_cohort(visits_of(n_patients))
    groups = cohort.samples["patient"].to_numpy()
    parts = GroupKFold(n).split(groups, groups=groups)
    for (train, validation), (a, b) in zip(folds(cohort, n), parts, strict=True):
        assert set(train) == set(groups[a])
        assert set(validation) == set(groups[b])
        order = list(cohort.patients)
        assert train == sorted(train, key=order.index)
        assert validation == sorted(validation, key=order.index)


@pytest.mark.parametrize("visits", [[1] * 11, visits_of(11)])
def test_every_patient_validates_once_and_is_never_on_both_sides(visits):
    cohort = make_cohort(visits)
    result = folds(cohort, 4)
    assert sorted(p for _, validation in result for p in validation) == sorted(cohort.patients)
    for train, validation in result:
        assert not set(train) & set(validation)
        assert len(train) + len(validation) == 11


@pytest.mark.parametrize("visits", [[1] * 11, visits_of(11)])
def test_a_saved_split_is_read_again(tmp_path, visits):
    cohort, path = make_cohort(visits), tmp_path / "new" / "folds.json"
    first = folds(cohort, 4, path=path)
    assert [p.name for p in path.parent.iterdir()] == ["folds.json"]
    written = path.read_bytes()
    # Another split of the same patients is taken from the file, not computed.
    pieces = json.loads(written)
    pieces["folds"] = pieces["folds"][::-1]
    path.write_text(json.dumps(pieces))
    assert folds(cohort, 4, path=path) == first[::-1]
    path.unlink()
    folds(cohort, 4, path=path)
    assert path.read_bytes() == written


def damage_leak(pieces):
    pieces["folds"][0]["train"] += pieces["folds"][0]["validation"]


def damage_twice(pieces):
    pieces["folds"][0]["validation"].append("p9")
    pieces["folds"][0]["train"].remove("p9")


def damage_again(pieces):
    pieces["folds"][0]["validation"].append("p0")


def damage_lost(pieces):
    pieces["folds"][0]["validation"].remove("p0")
    for piece in pieces["folds"]:
        piece["train"] = [p for p in piece["train"] if p != "p0"]


def damage_strange(pieces):
    pieces["folds"][1]["train"].append("q")


def damage_fewer(pieces):
    pieces["folds"].pop()


def damage_empty(pieces):
    first, second = pieces["folds"][:2]
    moved = first["validation"]
    second["validation"] = moved + second["validation"]
    second["train"] = [p for p in second["train"] if p not in moved]
    first["train"], first["validation"] = moved + first["train"], []


DAMAGES = [
    (damage_leak, "is not a cross-validation"),
    (damage_twice, "is not a cross-validation"),
    (damage_again, "is not a cross-validation"),
    (damage_lost, "1 differ, the first is p0"),
    (damage_strange, "is not a cross-validation"),
    (damage_fewer, "has 3 folds, 4 are needed"),
    (damage_empty, "is not a cross-validation"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=lambda d: getattr(d, "__name__", ""))
def test_a_file_that_is_no_split_of_these_patients_is_refused(tmp_path, damage, message):
    cohort, path = make_cohort([1] * 10), tmp_path / "folds.json"
    folds(cohort, 4, path=path)
    pieces = json.loads(path.read_text())
    damage(pieces)
    path.write_text(json.dumps(pieces))
    before = path.read_bytes()
    with pytest.raises(CohortError, match=message):
        folds(cohort, 4, path=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[",
        b"[]",
        b"{}",
        b"\xff",
        b"null",
        b'{"folds": 3}',
        b'{"folds": [3]}',
        b'{"folds": [{"train": [[]], "validation": [[]]}]}',
        b"[" * 100_000,
        b'{"folds": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_file_that_is_no_folds_at_all_is_refused(tmp_path, content):
    path = tmp_path / "folds.json"
    path.write_bytes(content)
    with pytest.raises(CohortError, match=r"folds.json cannot be read as saved folds"):
        folds(make_cohort([1] * 4), 2, path=path)


@pytest.mark.timeout(120)
def test_a_pipe_in_the_place_of_folds_is_refused_at_once(tmp_path):
    path = tmp_path / "folds.json"
    os.mkfifo(path)
    with pytest.raises(CohortError, match=r"folds.json cannot be read .*is a named pipe"):
        folds(make_cohort([1] * 4), 2, path=path)


def test_a_split_of_another_cohort_is_refused(tmp_path):
    path = tmp_path / "folds.json"
    folds(make_cohort([1] * 10), path=path)
    with pytest.raises(CohortError, match=r"other patients than those of some: 1 differ"):
        folds(make_cohort([1] * 11), path=path)


@pytest.mark.parametrize("n", [0, 1, 4, -5])
def test_folds_need_patients(n):
    with pytest.raises(CohortError, match=f"between 2 and the 3 patients of some, got {n}"):
        folds(make_cohort([1, 1, 1]), n)
