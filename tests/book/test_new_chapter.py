"""`make new-chapter` writes a chapter that passes the lint, and never overwrites one."""

import importlib.util
import json
import shutil

import pytest

from tests.book.conftest import ROOT
from tests.book.lint import check, read


@pytest.fixture
def new_chapter(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("new_chapter", ROOT / "book" / "new_chapter.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copy(ROOT / "book" / "_template.ipynb", tmp_path)
    monkeypatch.setattr(module, "BOOK", tmp_path)
    return module


def test_skeleton_passes_and_has_its_own_labels(new_chapter, tmp_path):
    assert new_chapter.main(["18_many_gradients"]) == 0
    path = tmp_path / "18_many_gradients.ipynb"
    assert check(read(path)) == []
    text = path.read_text(encoding="utf-8")
    assert "template" not in text
    assert "(ch-many-gradients)=" in text
    assert "# Many gradients" in text
    before = json.loads(text)
    assert new_chapter.main(["18_many_gradients"]) == 2
    assert json.loads(path.read_text(encoding="utf-8")) == before


@pytest.mark.parametrize(
    "arguments", [[], [""], ["gradients"], ["5_x"], ["05_X"], ["../05_x"], ["05_a", "b"]]
)
def test_bad_names_are_refused(new_chapter, tmp_path, arguments, capsys):
    assert new_chapter.main(arguments) == 2
    assert "needs a name such as 05_gradients" in capsys.readouterr().err
    assert [p.name for p in tmp_path.glob("*.ipynb")] == ["_template.ipynb"]
