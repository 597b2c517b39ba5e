"""Tables beside scans give what they give to the training, or say that they do not."""

import logging

import pytest

from cpic._errors import CohortError
from cpic.cohorts import read_brats
from cpic.train.prediction._patients import read_patients

HEADER = "Brats20ID,Age,Survival_days,Extent_of_Resection"
ROWS = ["A,60.5,300,GTR", "B,NA,200,NA", "C,71,100,STR"]
PLAIN = "\n".join([HEADER, *ROWS]) + "\n"
WANTED = {"A": (60.5, "GTR"), "B": (None, "NA"), "C": (71.0, "STR")}


def people(patients, names="ABC"):
    found = {name: patients.of(name, ()) for name in names}
    return {
        name: one if isinstance(one, str) else (one["age"][0], one["resection"][0])
        for name, one in found.items()
    }


def same(found, wanted):
    """Unknown ages are NaN."""
    return {n: (a if a == a else None, r) for n, (a, r) in found.items()} == wanted


FORMS = {
    "plain": PLAIN,
    "spaces": PLAIN.replace(",", " , "),
    "spaces in front": PLAIN.replace(",", ", "),
    "tabs around words": PLAIN.replace("GTR", "\tGTR\t"),
    "a mark": "\ufeff" + PLAIN,
    "Windows": PLAIN.replace("\n", "\r\n"),
    "quotes": PLAIN.replace("60.5", '"60.5"').replace("GTR", '"GTR"'),
    "quotes after spaces": PLAIN.replace(",GTR", ', "GTR"'),
    "small words": PLAIN.replace("GTR", "gtr").replace("Age", "AGE").replace("Brats", "BRATS"),
    "empty cells": PLAIN.replace("NA", ""),
    "an index": "\n".join(f"{k or ''},{row}" for k, row in enumerate([HEADER, *ROWS])),
    "no days": "Age,Extent_of_Resection,Brats20ID\n60.5,GTR,A\nNA,NA,B\n71,STR,C\n",
    "other names": "BraTS20ID,Age,ResectionStatus\nA,60.5,GTR\nB,,NA\nC,71,STR\n",
    "of 2018": "BraTS18ID,Age,Survival,ResectionStatus\nA,60.5,1,GTR\nB,,2,\nC,71,3,STR\n",
    "more rows": PLAIN + "D,50,1,GTR\n\n",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_one_table_in_many_forms(tmp_path, form):
    path = tmp_path / "ages.csv"
    path.write_bytes(FORMS[form].encode())
    assert same(people(read_patients("brats", "brats", tmp_path, path)), WANTED)


@pytest.mark.parametrize(
    "form", ["plain", "spaces", "quotes after spaces", "small words", "an index"]
)
def test_the_training_reads_the_same(tmp_path, form):
    (tmp_path / "survival_info.csv").write_bytes(FORMS[form].encode())
    for name in WANTED:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_t1.nii").touch()
    samples = read_brats(tmp_path).samples.set_index("patient")
    assert same({n: (samples.age[n], samples.resection[n]) for n in samples.index}, WANTED)
    assert same(people(read_patients("brats", "brats", tmp_path, None)), WANTED)


REFUSED = {
    "semicolons": (PLAIN.replace(",", ";"), "with commas between the cells, got Brats20ID;Age"),
    "tabs": (PLAIN.replace(",", "\t"), "once with commas between the cells"),
    "UTF-16": (PLAIN.encode("utf-16"), "cannot be read as a table"),
    "no age": ("Brats20ID,Extent_of_Resection\nA,GTR\n", "Age must be put right"),
    "age twice": (PLAIN.replace("Survival_days", "age"), "Age must be put right"),
    "two names of one column": (
        PLAIN.replace("Survival_days", "ResectionStatus"), "Extent_of_Resection must be put right"
    ),
    "no id": (PLAIN.replace("Brats20ID", "ID"), "Brats20ID must be put right"),
    "nothing": ("", "got an empty file"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_other_tables_are_refused(tmp_path, form):
    text, message = REFUSED[form]
    path = tmp_path / "ages.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CohortError, match=message):
        read_patients("brats", "brats", tmp_path, path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('A,"60,5",300,GTR', "age is '60,5', a number of years or NA is needed"),
        ("A,60,5,300,GTR", "it has 5 cells, not 4"),
        ("A,-1,300,GTR", "age is '-1'"),
        ("A,60,300,ALL", "resection is 'ALL', GTR, STR or NA is needed"),
        ("A,60,300", "it has 3 cells, not 4"),
        ("A,60,300,GTR\nA,61,300,GTR", "2 rows in ages.csv, one is needed"),
    ],
)
def test_a_row_that_the_training_leaves_out(tmp_path, row, reason):
    path = tmp_path / "ages.csv"
    path.write_text("\n".join([HEADER, row, *ROWS[1:]]))
    found = people(read_patients("brats", "brats", tmp_path, path))
    assert reason in found.pop("A")
    assert same(found, {name: WANTED[name] for name in "BC"})


def test_tables_of_several_trees(tmp_path):
    tables = {
        "T/survival_info.csv": PLAIN.replace("C,71,100,STR\n", ""),
        "V/survival_evaluation.csv": "BraTS20ID,Age,ResectionStatus\nC,71,STR\nB,,NA\nA,33,GTR\n",
    }
    for name, text in tables.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    found = people(read_patients("brats", "brats", tmp_path, None))
    assert found.pop("A").endswith("survival_evaluation.csv and another table differ)")
    assert same(found, {name: WANTED[name] for name in "BC"})


def said(caplog, patients, scans):
    with caplog.at_level(logging.WARNING, "cpic"):
        patients.report(scans)
    return caplog.text


def test_whose_age_is_not_known_is_said(tmp_path, caplog):
    path = tmp_path / "ages.csv"
    path.write_text(PLAIN)
    text = said(caplog, read_patients("brats", "brats", tmp_path, path), ["A", "B/ses-1", "X"])
    assert f"the age of 2 patients (B/ses-1, X) is not known from {path}" in text
    assert f"no scan of 1 patients (C) of {path}" in text


def test_a_table_that_is_not_there_is_said(tmp_path, caplog):
    (tmp_path / "ages.csv").write_text(PLAIN)
    text = said(caplog, read_patients("brats", "brats", tmp_path, None), ["A"])
    assert "the age of 1 patients (A) is not known from a table named survival_info.csv or" in text


def test_a_table_that_the_model_does_not_use_is_said(tmp_path, caplog):
    path = tmp_path / "ages.csv"
    path.write_text(PLAIN.replace("60.5", "old"))
    patients = read_patients("brats", None, tmp_path, path)
    assert f"the model uses the scan alone: {path} has no effect" in caplog.text
    assert not isinstance(patients.of("A", ()), str)
    caplog.clear()
    (tmp_path / "survival_info.csv").write_text("no table")
    assert not said(caplog, read_patients("brats", None, tmp_path, None), ["A"])


OSIC = "Patient,Weeks,FVC,Percent,Age,Sex,SmokingStatus"
VISITS = ["I,-4,2300,60.5,70,Male,Ex-smoker", "I,8,2100,55,70,Male,Ex-smoker"]


def visits(path, kind="osic", weeks=()):
    return read_patients("osic", kind, path.parent, path, weeks).of("I", weeks)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        (lambda text: text, 0),
        (lambda text: text.replace(",", ", "), 0),
        (lambda text: text.replace("Male", "male").replace("Weeks", "WEEKS"), 0),
        (lambda text: text + VISITS[1], 0),
        (lambda text: text.replace("2100,55", ","), 1),
    ],
)
def test_visits_in_many_forms(tmp_path, form, row):
    path = tmp_path / "visits.csv"
    path.write_text(form("\n".join([OSIC, *VISITS]) + "\n"))
    found = visits(path)
    assert list(found["weeks"]) == [-4, 8]
    assert list(found["first_fvc"]) == [2300, 2300]
    assert list(found["first_percent"]) == [60.5, 60.5]
    assert set(found["sex"]) == {"Male"}
    assert list(visits(path, weeks=(1.5,))["weeks"]) == [1.5]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (VISITS[0].replace("2300", "many"), "the baseline, cannot be used: FVC is 'many'"),
        (VISITS[0].replace("-4", "soon"), "Weeks is 'soon'"),
        (VISITS[0].replace("-4", "inf"), "Weeks is 'inf'"),
        (VISITS[0].replace("Male", "M"), "Sex is 'M', one of Female, Male is needed"),
    ],
)
def test_a_first_visit_that_the_training_refuses(tmp_path, row, reason):
    path = tmp_path / "visits.csv"
    path.write_text("\n".join([OSIC, row, VISITS[1]]))
    assert reason in visits(path)


def test_a_model_of_weeks_needs_only_those(tmp_path):
    path = tmp_path / "visits.csv"
    path.write_text("Weeks,Patient\n3,I\n9,I\n")
    found = visits(path, "weeks")
    assert list(found["weeks"]) == [3, 9]
    assert found["first_fvc"].isna().all()
    with pytest.raises(
        CohortError, match="FVC, Percent, Age, Sex, SmokingStatus must be put right"
    ):
        visits(path, "osic")
