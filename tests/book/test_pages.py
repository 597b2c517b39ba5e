"""Pages and links that follow from the code of the chapters."""

import json
import sys
from types import SimpleNamespace

import pytest

from tests.book.conftest import ROOT


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import cpic_pages

    yield cpic_pages
    sys.modules.pop("cpic_pages")


@pytest.fixture
def notebook(tmp_path):
    def write(*cells, name="01_test"):
        path = tmp_path / "book" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        kinds = ("markdown" if text.startswith("#") else "code" for text in cells)
        content = [{"cell_type": k, "source": [t]} for k, t in zip(kinds, cells, strict=True)]
        path.write_text(json.dumps({"cells": content}))
        return path

    return write


def test_sliders_have_their_section_labels_and_caption(pages, notebook):
    path = notebook(
        "# A title\n\n## One",
        "%matplotlib inline\nx = explore(draw, alt='a', caption='C', labels={'b': 'bits'}, "
        "b=[1], c=[2])",
        "## Two",
        "show.explore(draw, alt='b', start={'d': 1}, d=[1])\nexplored(draw, e=[1])",
    )
    assert pages.title(path) == "A title"
    assert pages.sliders(path) == [("One", ("bits", "c"), "C"), ("Two", ("d",), "")]


def test_uses_follow_imports(pages, notebook):
    path = notebook(
        "import cpic\nfrom cpic import choose, tt as trains\nfrom cpic.linalg import maxvol",
        "choose.choose(x)\ntrains.TensorTrain.full\ncpic.run.provenance()\nother.cross",
    )
    found = pages.uses(path)
    assert found >= {
        "cpic.choose.choose",
        "cpic.tt.TensorTrain.full",
        "cpic.linalg.maxvol",
        "cpic.run.provenance",
    }
    assert not any("other" in name for name in found)


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        ({"execution_seconds": 41.6, "peak_mib": 1431.0}, "quick run 42 s on one CPU core, 1.5 GB"),
        (None, "quick run not measured"),
    ],
)
def test_a_badge_says_what_its_run_has_cost(pages, monkeypatch, cost, said):
    role = pages.RunCost()
    role.rawtext, role.text, role.inliner = "", "quick run", SimpleNamespace()
    env = SimpleNamespace(srcdir=".", docname="a", doc2path=lambda name: f"{name}.ipynb")
    role.inliner.document = SimpleNamespace(settings=SimpleNamespace(env=env))
    monkeypatch.setattr(pages, "run_cost", lambda root, path: cost)
    (node,), _ = role.run()
    assert node.astext().startswith(said)


def test_links_go_both_ways(pages, notebook, tmp_path):
    (tmp_path / "book/api").mkdir(parents=True)
    (tmp_path / "book/api/tt.md").write_text("# x\n\n.. automodule:: cpic.tt\n")
    notebook("from cpic import tt\ntt.TensorTrain.full\ntt.cross(1)", name="02_trains")
    notebook("from cpic.tt import cross\nprint(cross)", name="03_cross")
    notebook("from cpic import data", name="peers")
    found = pages.links(tmp_path)
    assert found.names["book/02_trains"] == ["cpic.tt.TensorTrain", "cpic.tt.cross"]
    assert found.chapters["cpic.tt.cross"] == ["book/02_trains", "book/03_cross"]
    assert "book/peers" not in found.names


def test_every_sub_package_has_one_page_and_every_page_is_in_the_contents(pages):
    contents = (ROOT / "_toc.yml").read_text()
    found = pages.modules(ROOT)
    assert len(set(found.values())) == len(found)
    assert [page for page in found.values() if f"file: {page}\n" not in contents] == []


def test_all_sliders_of_the_book_say_what_moves(pages):
    found = {path.stem: pages.sliders(path) for path in pages.chapters(ROOT)}
    assert [name for name, sliders in found.items() if not sliders] == []
    assert all(one.moves and one.section for sliders in found.values() for one in sliders)
