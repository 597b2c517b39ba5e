"""Chapters to work with: nothing but headings and code, or everything but the solutions."""

import re
import zipfile

import nbformat
import pytest

from cpic.run import find_chapters
from tests.book.conftest import ROOT

TEMPLATE = ROOT / "book" / "_template.ipynb"
CHAPTERS = [*find_chapters(), TEMPLATE]


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def source(request):
    return nbformat.read(request.param, as_version=4)


def texts(notebook, kind: str) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


def test_headings_and_code_are_all_that_is_left(source):
    import twins

    found = twins.clean(source)
    nbformat.validate(found)
    assert all(line.startswith("#") for line in texts(found, "markdown").split("\n") if line)
    assert texts(found, "code") == texts(source, "code")
    prose = re.sub(r"^(`{3,}|:{3,}).*?^\1\s*$", "", texts(source, "markdown"), flags=re.M | re.S)
    assert texts(found, "markdown").count("# ") == len(re.findall(r"^#+ ", prose, re.M)) > 3


def test_exercises_keep_everything_but_their_solutions(source):
    import twins

    found = twins.without_solutions(source)
    nbformat.validate(found)
    before, after = texts(source, "markdown"), texts(found, "markdown")
    assert "{solution" not in after
    assert after.count("{exercise}") == before.count("{exercise}")
    assert re.findall(r"^#+ .*", after, re.M) == re.findall(r"^#+ .*", before, re.M)
    started = re.findall(r"\{solution-start\} *(\S+)", before)
    assert re.findall(r"# Your answer to (\S+)", texts(found, "code")) == started
    outside = [cell for cell in found.cells if "# Your answer" not in cell.source]
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    kept = [cell.source for cell in outside if cell.cell_type == "code"]
    assert len(kept) <= len(code) - len(started)
    assert set(kept) <= set(code)
    assert not any(cell.get("outputs") for cell in found.cells)


def test_solutions_are_taken_out_with_their_cells():
    import twins

    found = twins.without_solutions(nbformat.read(TEMPLATE, as_version=4))
    text = texts(found, "markdown")
    for gone in ("It becomes 3", "each additional term contains only noise", "its singular values"):
        assert gone not in text
    assert "photograph from `cpic.data.photograph`" in text
    assert "## Summary" in text


@pytest.mark.book
def test_the_archive_is_beside_the_pages(site):
    with zipfile.ZipFile(site / "notebooks.zip") as archive:
        names = set(archive.namelist())
        forms = ("executed", "headings_and_code", "exercises")
        assert names == {f"{form}/{path.name}" for form in forms for path in find_chapters()}
        ran = nbformat.reads(archive.read("executed/03_cross.ipynb").decode(), as_version=4)
    assert sum(bool(cell.get("outputs")) for cell in ran.cells) > 10
