"""Answers to exercises: right ones pass, wrong ones get a hint that names what is wrong."""

import json
import re
from pathlib import Path

import pytest
import torch

from cpic import check
from cpic.tt import TensorTrain

BOOK = Path(__file__).parents[1] / "book"
LINE = torch.eye(6)
TRAIN = TensorTrain([torch.arange(1.0, 4.0).view(1, 1, 3, 1), torch.ones(1, 1, 2, 1)])
SPECTRA = (torch.tensor([1.0, 0.09, 0.05, 0.04, 0.01]), torch.tensor([1.0, 0.09, 0.06, 0.01, 0.0]))

CASES = [
    ("ex-low-rank-storage", 256, (512, 512), ""),
    ("ex-low-rank-storage", torch.tensor(256.0), (512, 512), ""),
    ("ex-low-rank-storage", 255, (512, 512), "still take fewer"),
    ("ex-low-rank-storage", 258, (512, 512), "one rank lower"),
    ("ex-low-rank-storage", "many", (512, 512), "is a number"),
    ("ex-low-rank-shear", LINE[:, [0] * 6] * 0 + (torch.arange(6) == 2), LINE, ""),
    ("ex-low-rank-shear", LINE.flip(0), LINE, "the rank is 6"),
    ("ex-low-rank-shear", torch.ones(6, 6), LINE, "lost or invented"),
    ("ex-low-rank-shear", torch.ones(2), LINE, "an image of (6, 6)"),
    ("ex-tt-mean", 2.0, TRAIN, ""),
    ("ex-tt-mean", 12.0, TRAIN, "this is the sum"),
    ("ex-tt-mean", 2.1, TRAIN, "differs from the mean"),
    ("ex-tt-mean", None, TRAIN, "one number"),
    ("ex-tt-choose", [2, 2], SPECTRA, ""),
    ("ex-tt-choose", [1, 1], SPECTRA, "squares of errors add"),
    ("ex-tt-choose", [5, 5], SPECTRA, "could have a lower rank"),
    ("ex-tt-choose", [2], SPECTRA, "each of the 2 bonds"),
]


@pytest.mark.parametrize(("exercise", "given", "about", "hint"), CASES, ids=lambda v: str(v)[:24])
def test_right_and_wrong_answers(exercise, given, about, hint):
    verdict = check.answer(exercise, given, about=about)
    assert bool(verdict) == (not hint), verdict
    assert hint in verdict.hint
    assert repr(verdict) == ("Right." if not hint else f"Not yet: {verdict.hint}")


def test_every_check_has_a_right_and_a_wrong_case():
    for exercise in check._CHECKS:
        assert {not hint for name, _, _, hint in CASES if name == exercise} == {True, False}


def test_unknown_exercise():
    with pytest.raises(ValueError, match=r"answer knows the exercises ex-.*, got 'ex-none'"):
        check.answer("ex-none", 1)


def test_checks_belong_to_exercises_whose_chapters_name_them():
    text = "".join(
        "".join(cell["source"]) + "\n"
        for path in BOOK.glob("*.ipynb")
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    )
    labels = set(re.findall(r"^:label: (\S+)", text, re.MULTILINE))
    named = set(re.findall(r'check\.answer\(\s*"([^"]+)"', text))
    assert set(check._CHECKS) <= labels
    assert named == set(check._CHECKS)
