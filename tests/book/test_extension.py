"""The local Sphinx extension: the cache follows the package, docstrings are translated."""

import doctest
import importlib
import sys

import pytest

from tests.book.conftest import ROOT


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import cpic_book

    yield cpic_book
    sys.modules.pop("cpic_book")


def test_digest_changes_with_each_source(extension, tmp_path):
    (tmp_path / "cpic" / "tt").mkdir(parents=True)
    digests = []
    for name in ("cpic/a.py", "cpic/tt/b.py", "cpic/c.js", "cpic/d.css", "constraints.txt"):
        (tmp_path / name).write_text("1")
        digests.append(extension.source_digest(tmp_path))
        (tmp_path / name).write_text("2")
        digests.append(extension.source_digest(tmp_path))
    (tmp_path / "cpic" / "notes.txt").write_text("1")
    assert len(set(digests)) == len(digests)
    assert extension.source_digest(tmp_path) == digests[-1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plain words", "plain words"),
        ("`sizes` of $n_k \\times r$", "``sizes`` of :math:`n_k \\times r`"),
        ("{cite}`a,b` and {func}`x`", ":cite:`a,b` and :func:`x`"),
        ("``code`` stays", "``code`` stays"),
        (":class:`X` stays", ":class:`X` stays"),
        ("(K, *sizes, c)", "(K, \\*sizes, c)"),
        ("*this* and **that**", "*this* and **that**"),
        ("costs 3$ or 4 $", "costs 3$ or 4 $"),
    ],
)
def test_docstring_lines(extension, line, expected):
    assert extension.to_rst(line) == expected


def test_examples_in_docstrings_stay(extension):
    lines = ["Use `f`.", "", "    >>> f('`x`', *args)", "    '`x`'", "", "Then `g`."]
    extension.translate_docstring(None, "function", "f", None, None, lines)
    assert lines[0] == "Use ``f``."
    assert lines[2:4] == ["    >>> f('`x`', *args)", "    '`x`'"]
    assert lines[5] == "Then ``g``."


def test_attributes_keep_words_before_a_colon(extension):
    lines = ["Values: how many were asked for."]
    extension.translate_docstring(None, "property", "p", None, None, lines)
    lines[:] = ["how many were asked for.", "", ":type: Values"]
    extension.restore_attribute(None, "property", "p", None, None, lines)
    assert lines == ["Values: how many were asked for."]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "book" / "_ext").glob("*.py")), ids=lambda p: p.stem
)
def test_examples_of_the_extensions_run(path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))
    assert doctest.testmod(importlib.import_module(path.stem)).failed == 0
