"""Docstrings tell the truth: examples run, `Args` are the parameters, citations exist."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import cpic

BIB = Path(cpic.__file__).parents[1] / "book" / "references.bib"
PARTS = [m.name for m in pkgutil.walk_packages(cpic.__path__, "cpic.") if m.ispkg]


def public():
    for part in PARTS:
        module = importlib.import_module(part)
        for name in getattr(module, "__all__", []):
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                yield pytest.param(value, id=f"{part}.{name}")


def documented(text):
    """Names under Args, with those of a combined line such as `rows, cols: ...`."""
    block = text.split("\nArgs:\n")[1]
    block = re.split(r"\n\n(?=\S)", block)[0]
    names = re.findall(r"(?m)^    (\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \(.*?\))?:", block)
    return [one.lstrip("*") for line in names for one in line.split(", ")]


def parameters(value):
    names = inspect.signature(value).parameters
    return [name for name in names if name not in ("self", "cls") and name[0] != "_"]


def with_args():
    for case in public():
        (value,) = case.values
        members = []
        if inspect.isclass(value):
            members = [m for n, m in vars(value).items() if inspect.isfunction(m) and n[0] != "_"]
        for one in (value, *members):
            if "\nArgs:\n" in (inspect.getdoc(one) or ""):
                yield pytest.param(one, id=f"{case.id}:{one.__name__}")


@pytest.mark.parametrize("value", list(public()))
def test_examples_run(value):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    names = {"torch": torch, **vars(inspect.getmodule(value))}
    for example in doctest.DocTestFinder(exclude_empty=True).find(value, globs=names):
        runner.run(example)
    assert runner.failures == 0


@pytest.mark.parametrize("value", list(with_args()))
def test_args_are_the_parameters(value):
    assert documented(inspect.getdoc(value)) == parameters(value)


@pytest.mark.parametrize("value", list(public()))
def test_every_public_name_has_a_docstring(value):
    text = inspect.getdoc(value)
    assert text
    assert text.splitlines()[0].endswith((".", "?"))


@pytest.mark.parametrize("path", sorted(Path(cpic.__file__).parent.rglob("*.py")), ids=str)
def test_citations_exist(path):
    if not BIB.exists():
        pytest.skip("no bibliography")
    keys = set(re.findall(r"(?m)^\s*@\w+\{\s*([^,\s]+)", BIB.read_text(encoding="utf-8")))
    cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text(encoding="utf-8"))
    used = {key.strip() for group in cited for key in group.split(",")}
    assert used <= keys, f"missing in {BIB.name}: {sorted(used - keys)}"


# Equations that no single function computes: definitions, derivations, costs, and bounds.
EXPLAINED = {
    *("eq-low-rank-svd", "eq-low-rank-tail", "eq-low-rank-warp", "eq-low-rank-loss"),
    *("eq-tt-sine", "eq-quantics-cost", "eq-gradients-fd", "eq-gradients-pinv"),
    *("eq-gradients-likelihood", "eq-gradients-amplification"),
    *("eq-features-gauge", "eq-features-floor", "eq-data-days", "eq-data-chunks", "eq-brats-loss"),
    *("eq-osic-width", "eq-costs-dense", "eq-scale-epoch"),
    *("eq-budget", "eq-budget-rate", "eq-budget-hit"),
}


def test_equations_that_are_implemented_are_named():
    package, book = Path(cpic.__file__).parent, BIB.parent
    source = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    chapters = "".join(path.read_text(encoding="utf-8") for path in book.glob("[0-9]*.ipynb"))
    named = set(re.findall(r"\{eq\}`(eq-[\w-]+)`", source))
    labels = set(re.findall(r":label: (eq-[\w-]+)", chapters))
    assert named <= labels
    assert labels - named == EXPLAINED


def test_errors_name_sections_that_are_there():
    package, book = Path(cpic.__file__).parent, BIB.parent
    joined = re.compile(r"""["']\s*\n\s*f?["']""")
    found = []
    for path in package.rglob("*.py"):
        source = joined.sub("", path.read_text(encoding="utf-8"))
        found += re.findall(r'See "([^"]+)" in chapter (\d+) of the book', source)
    assert len(found) >= 5
    for section, number in found:
        (chapter,) = book.glob(f"{int(number):02}_*.ipynb")
        assert f"# {section}" in chapter.read_text(encoding="utf-8"), (section, number)
