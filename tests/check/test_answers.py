"""Answers to exercises: right ones pass, wrong ones get a hint that names what is wrong."""

import json
import re
from pathlib import Path

import pytest

from cpic import check
from tests.check import foundations, gradients, learning, systems

BOOK = Path(__file__).parents[2] / "book"
CASES = foundations.CASES + gradients.CASES + learning.CASES + systems.CASES


@pytest.mark.parametrize(
    ("exercise", "given", "about", "hint"),
    CASES,
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
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
