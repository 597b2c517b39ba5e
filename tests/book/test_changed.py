"""The list of pages that a change touches."""

import sys

import pytest

from tests.book.conftest import ROOT


@pytest.fixture
def changed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import changed

    yield changed
    sys.modules.pop("cpic_pages", None)


@pytest.mark.parametrize(
    ("file", "some", "none"),
    [
        ("book/03_cross.ipynb", {"book/03_cross"}, "book/04_quantics"),
        ("book/notation.md", {"book/notation"}, "book/03_cross"),
        ("cpic/tt/_cross.py", {"book/api/tt", "book/03_cross", "book/04_quantics"}, "book/api/run"),
        ("cpic/check/__init__.py", {"book/api/check", "book/01_low_rank"}, "book/notation"),
        ("book/results/patches.json", {"book/15_patches"}, "book/03_cross"),
        ("book/_static/book.css", {"book/intro", "book/03_cross", "book/api/tt"}, ""),
        ("tests/book/lint.py", set(), "book/intro"),
    ],
)
def test_pages_follow_from_the_file(changed, file, some, none):
    found = changed.touched([file])
    assert some <= set(found)
    assert none not in found
    assert all(files == [file] for files in found.values())


def test_pages_are_listed_in_the_order_of_the_book(changed):
    found = changed.touched(["book/04_quantics.ipynb", "book/02_tensor_trains.ipynb"])
    assert changed.listed(found).splitlines() == [
        "## 2 pages change",
        "",
        "- `book/02_tensor_trains.html`: book/02_tensor_trains.ipynb",
        "- `book/04_quantics.html`: book/04_quantics.ipynb",
    ]
