"""What a page does for its reader: figures that compute, guesses that stay, sources of numbers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup

from cpic import linalg
from cpic.linalg._powerm import divided_differences
from tests.book import site_checks
from tests.book.conftest import ROOT

STATIC = ROOT / "book" / "_static"

CONF = """
import sys
sys.path.insert(0, {extensions!r})
extensions = ["myst_nb", "sphinxcontrib.bibtex", "cpic_explorables", "cpic_guess"]
extensions += ["cpic_provenance"]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "A small site"
language = "en"
html_static_path = {static!r}
html_css_files = ["book.css"]
nb_execution_mode = "off"
bibtex_bibfiles = ["references.bib"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
mathjax_path = "none.js"
"""
PREDICT = """# A page

:::{admonition} Predict first
:class: tip
How much? Write your guess in the next cell.
:::
"""
TEXT = """## Answer

A built number is {glue:text}`x-built` {guess}`(you guessed # or #)`, a recorded one is
{glue:text}`x-old`.
Others have [0.13]{.cited} {cite}`someone`.

| Published {cite}`someone` | Error |
|---|---|
| A network | [0.12]{.cited} |

```{glue:figure} x-figure
:alt: A small gray square without content

A figure, drawn from a record.
```

```{explorable} maxvol
A slice of a brain.
```

```{explorable} spectrum
Five eigenvalues.
```

```{bibliography}
```
"""
BIB = (
    """@article{someone, author = {Ann One}, title = {On Numbers}, journal = {J}, year = {2020}}"""
)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def glued(key: str, text: str, **more: str) -> nbformat.NotebookNode:
    data = {"text/plain": text, **more}
    prefix = "application/papermill.record/"
    return nbformat.v4.new_output(
        "display_data",
        data={prefix + mime: value for mime, value in data.items()},
        metadata={"scrapbook": {"mime_prefix": prefix, "name": key}},
    )


def code(source: str, *outputs: nbformat.NotebookNode, tags: tuple[str, ...] = ()):
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": [*tags]})
    cell.outputs, cell.execution_count = [*outputs], 1
    return cell


def said(text: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page with everything, built without running a cell."""
    root = tmp_path_factory.mktemp("site")
    results = root / "book" / "results"
    results.mkdir(parents=True)
    made = {"commit": "0123456789", "machine": "a machine", "cpus": 2}
    record = {"rows": [{"value": 1, "seed": 3, "provenance": made}], "date": "2026-01-02"}
    (results / "old.json").write_text(json.dumps(record))
    (root / "references.bib").write_text(BIB)
    static = [str(path) for path in STATIC.iterdir() if path.suffix in (".js", ".css")]
    conf = CONF.format(extensions=str(ROOT / "book" / "_ext"), static=static)
    (root / "conf.py").write_text(conf)
    cells = [
        nbformat.v4.new_markdown_cell(PREDICT),
        code('my_guesses = {"one": None, "two": None}'),
        code('record = json.loads(Path("results/old.json").read_text())\nfresh = 2'),
        code("print(record)", said("a table")),
        code("print(fresh)", said("another table")),
        code(
            'glue("x-built", fresh)\nglue("x-old", record["rows"])',
            glued("x-built", "'2'"),
            glued("x-old", "'1'"),
        ),
        code(
            'figure = draw(record)\nglue("x-figure", figure)',
            glued("x-figure", "<Figure>", **{"image/png": PIXEL}),
        ),
        nbformat.v4.new_markdown_cell(TEXT),
        code("print(run.provenance())", said("mode quick, seed 7\n9 s"), tags=("provenance",)),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nbformat.write(notebook, root / "index.ipynb")
    out = root / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(root), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "index.html"


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_numbers_say_where_they_come_from(page):
    html = soup(page)
    built, old = html.select(".pasted-text")
    assert (built.text, old.text) == ("2", "1")
    mark = built.find_next_sibling("a")
    assert mark["class"] == ["cpic-badge", "cpic-built"]
    assert mark["data-tip"].endswith("mode quick, seed 7; 9 s")
    mark = old.find_next_sibling("a")
    assert mark["class"] == ["cpic-badge", "cpic-recorded"]
    for part in ("old.json", "date 2026-01-02", "commit 0123456;", "a machine", "seed 3"):
        assert part in mark["data-tip"]
    # The badge leads to an entry of the list at the end.
    assert mark["data-tip"] in html.find(id=mark["href"][1:]).text
    assert html.select_one("figcaption .cpic-recorded")["href"] == mark["href"]


def test_no_space_is_left_where_a_guess_is_hidden(page):
    span = soup(page).select_one(".cpic-guessed")
    assert span.previous_sibling.name == "a"  # the badge, and no text between
    assert span.next_sibling.startswith(", a recorded")


def test_only_outputs_of_records_are_marked(page):
    html = soup(page)
    marked = {
        cell.select_one(".cell_input").text.strip(): cell.select_one(".cpic-origin")
        for cell in html.select("div.cell")
    }
    assert marked["print(record)"].text.endswith("uses the record old.json")
    assert [key for key, mark in marked.items() if mark] == ["print(record)"]


def test_cited_numbers_lead_to_their_source(page):
    marks = soup(page).select(".cited .cpic-cited")
    assert [mark.parent.text[:4] for mark in marks] == ["0.13", "0.12"]
    for mark in marks:
        assert mark["data-tip"].startswith("cited: Ann One. On numbers")
        assert soup(page).find(id=mark["href"][1:])


def test_each_source_is_one_stop_of_the_tab_key(page):
    stops = [a["href"] for a in soup(page).select("article a.cpic-badge:not([tabindex])")]
    assert sorted(stops) == ["#from-built", "#from-old-1"]


@pytest.fixture
def trace(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from cpic_records import Trace

    for name in ("a.json", "b.json", "tables/t-1.json", "tables/t-2.json", "tables/u.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    return Trace(tmp_path)


READ = 'a = json.loads(Path("results/a.json").read_text())\n'
TRACED = {
    "a value that follows from a record": (READ + "x = a['rows']\ny = f(x)\nglue('k', y)", "a"),
    "a value beside a record": (READ + "x = 1\nglue('k', x)", ""),
    "a name that is assigned anew": (READ + "a = 2\nglue('k', a)", ""),
    "a file in a folder": ("b = read(Path('results') / 'b.json')\nglue('k', b)", "b"),
    "files by a pattern": (
        "for n in names:\n    d[n] = read(Path('results/tables') / f't-{n}.json')\nglue('k', d)",
        "t-1 t-2",
    ),
    "all files of a folder": (
        "d = [read(p) for p in Path('results/tables').glob('*.json')]\nglue('k', d)",
        "t-1 t-2 u",
    ),
    "a file of another folder": ("c = read(made / 'c.json')\nglue('k', c)", ""),
    "a function that uses it": (READ + "def f():\n    return a\nx = f()\nglue('k', x)", "a"),
    "a function of a function": (
        READ + "def f():\n    return a\ndef g():\n    return f()\nglue('k', g())",
        "a",
    ),
    "a parameter of the same name": (READ + "def f(a):\n    return a\nglue('k', f(1))", ""),
    "a comprehension of the same name": (READ + "x = [a for a in (1, 2)]\nglue('k', x)", ""),
    "one item of a dictionary": (
        READ + "d = {'k': 1, 'l': a}\nfor key, v in d.items():\n    glue(key, v)",
        "",
    ),
    "the other item": (
        READ + "d = {'j': 1, 'k': a}\nfor key, v in d.items():\n    glue(f'{key}', v)",
        "a",
    ),
    "a loop over names": (
        READ
        + "x = {}\nfor n in ('j', 'k'):\n    x[n] = a\nfor n in ('j', 'k'):\n    glue(n, x[n])",
        "a",
    ),
    "an item under a key that is computed": (
        READ + "d = {'k': 1}\nfor n in a:\n    d[f'{n}-more'] = a[n]\nglue('k', d['k'])",
        "",
    ),
    "the closest of two patterns": (
        READ + "for n in f():\n    glue(f'{n}', a)\nglue('k', 1)",
        "",
    ),
    "a text chosen by a record": (
        READ + "if a:\n    t = 'x'\nelse:\n    t = 'y'\nglue('k', t)",
        "a",
    ),
    "either of two branches": ("x = 1\n" + READ + "if y:\n    x = a\nglue('k', x)", "a"),
    "a list that is extended": (READ + "x = []\nx.append(a)\nglue('k', x)", "a"),
    "a line for the shell": ("%matplotlib inline\n" + READ + "glue('k', a)", "a"),
}


@pytest.mark.parametrize("case", TRACED)
def test_records_follow_the_code(trace, case):
    source, records = TRACED[case]
    trace.cell(source)
    assert trace.of("k") == frozenset(records.split())


def test_records_follow_across_cells_and_into_figures(trace):
    assert trace.cell(READ) == {"a"}
    assert trace.cell("glue('x', a)\nfigure = plt.figure()\nfigure.plot(1)\nglue('k', figure)") == {
        "a"
    }
    assert trace.of("k", figure=True) == frozenset()
    trace.cell("figure = plt.figure()\nfigure.plot(a)\nglue('l', figure)")
    assert trace.of("l", figure=True) == {"a"}
    assert trace.cell("print(1)") == frozenset()


def test_chapters_tell_records_from_what_they_compute(monkeypatch):
    """Values whose origin is plain from the text, in the code of the book as it is."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from cpic_provenance import code_cells
    from cpic_records import Trace

    expected = {
        "03_cross": {"cross-loss": "choosers", "cross-fell": "", "cross-hook": ""},
        "09_cpic": {"cpic-mni": "cpic_toy", "cpic-error": "", "cpic-base-8": "cpic_toy"},
        "12_costs": {"costs-faster": "profile", "costs-noise": "", "costs-hook": "profile"},
        "15_patches": {"patches-winners": "patches", "patches-here": ""},
    }
    for chapter, values in expected.items():
        trace = Trace(ROOT / "book" / "results")
        for _, source in code_cells(ROOT / "book" / f"{chapter}.ipynb"):
            trace.cell(source)
        for key, records in values.items():
            found = trace.of(key, figure=key.endswith("-hook"))
            assert found == frozenset(records.split()), key
            assert any(re.fullmatch(one.key, key) for one in trace.glued)


@pytest.fixture
def js(browser):
    """A blank page with the linear algebra of the figures: call a function of it by name."""
    context = browser.new_context()
    blank = context.new_page()
    blank.add_script_tag(path=str(STATIC / "matrix.js"))

    def call(name: str, *given):
        plain = [x.tolist() if isinstance(x, np.ndarray) else x for x in given]
        script = "([name, given]) => name.split('.').reduce((o, k) => o[k], cpicMath)(...given)"
        return blank.evaluate(script, [name, plain])

    yield call
    context.close()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_determinants_and_solutions_are_those_of_numpy(js, rng, n):
    a, b = rng.standard_normal((n, n)), rng.standard_normal((n, 3))
    assert js("determinant", a) == pytest.approx(np.linalg.det(a), rel=1e-12)
    np.testing.assert_allclose(js("solve", a, b), np.linalg.solve(a, b), rtol=1e-9, atol=1e-12)
    a[0, 0] = 0  # needs a pivot from another row
    assert js("determinant", a) == pytest.approx(np.linalg.det(a), rel=1e-12, abs=1e-15)
    assert not js("isSingular", a + np.eye(n))
    assert js("isSingular", np.outer(a[0], a[0])) == (n > 1 or a[0, 0] == 0)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
def test_singular_values_and_norms_are_those_of_numpy(js, rng, shape):
    a = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))
    values = np.linalg.svd(a, compute_uv=False)
    np.testing.assert_allclose(js("singularValues", a), values, rtol=1e-12, atol=1e-13)
    assert js("norm", a) == pytest.approx(np.linalg.norm(a))
    assert js("largest", -a) == np.abs(a).max()


def test_the_cross_is_that_of_numpy_and_exact_where_it_is_read(js, rng):
    a, rows, cols = rng.standard_normal((9, 12)), [7, 0, 3], [1, 11, 5]
    found = np.array(js("cross", a, rows, cols))
    expected = a[:, cols] @ np.linalg.inv(a[np.ix_(rows, cols)]) @ a[rows]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found[rows], a[rows], atol=1e-12)
    np.testing.assert_allclose(found[:, cols], a[:, cols], atol=1e-12)


def volume(a, rows, cols) -> float:
    return abs(np.linalg.det(a[np.ix_(rows, cols)]))


def test_an_exchange_is_the_best_of_all(js, rng):
    a, rows, cols = rng.standard_normal((8, 9)), [0, 1, 2], [0, 1, 2]
    before, best = volume(a, rows, cols), 0.0
    for place in range(3):
        for to in range(3, 8):
            best = max(best, volume(a, [*rows[:place], to, *rows[place + 1 :]], cols))
        for to in range(3, 9):
            best = max(best, volume(a, rows, [*cols[:place], to, *cols[place + 1 :]]))
    found = js("exchange", a, rows, cols)
    assert found["factor"] == pytest.approx(best / before, rel=1e-10)
    kept = rows if found["side"] == "row" else cols
    kept[found["place"]] = found["to"]
    assert volume(a, rows, cols) == pytest.approx(best, rel=1e-10)


def test_exchanges_of_rows_end_where_maxvol_does(js, rng):
    """Of a tall matrix all columns are taken: only rows can be exchanged."""
    a = rng.standard_normal((40, 4))
    found = linalg.maxvol(torch.from_numpy(a), tol=1.0 + 1e-9)
    rows, cols = found.rows.tolist(), [0, 1, 2, 3]
    np.testing.assert_allclose(
        np.abs(js("coefficients", a, rows)), found.coeffs.abs().numpy(), atol=1e-10
    )
    assert js("exchange", a, rows, cols)["factor"] <= 1 + 1e-9
    rows = [0, 1, 2, 3]
    for _ in range(40):
        step = js("exchange", a, rows, cols)
        if step["factor"] <= 1 + 1e-9:
            break
        rows[step["place"]] = step["to"]
    assert np.abs(a @ np.linalg.inv(a[rows])).max() <= 1 + 1e-8
    assert volume(a, rows, cols) > 0.5 * volume(a, found.rows.tolist(), cols)


def test_elimination_finds_the_rank(js, rng):
    a = rng.standard_normal((9, 3)) @ rng.standard_normal((3, 7))
    found = js("eliminatePivots", a, 5)
    assert len(found["rows"]) == len(found["cols"]) == 3
    np.testing.assert_allclose(js("cross", a, found["rows"], found["cols"]), a, atol=1e-12)
    assert abs(a[found["rows"][0], found["cols"][0]]) == np.abs(a).max()


@pytest.mark.parametrize("method", ["original", "trunc", "taylor", "power", "pade"])
def test_inverse_gaps_are_those_of_the_package(js, method):
    for gap in (0.0, 1e-17, 1e-15, 1e-12, 1e-9, 1e-4, 0.01, 0.3, 1.0, 1.9):
        high, low = 1 + gap / 2, 1 - gap / 2
        pair = torch.tensor([high, low], dtype=torch.float64)
        expected = float(linalg.inverse_gap(pair, method)[0, 1])
        assert js(f"inverseGap.{method}", high, low) == pytest.approx(expected, rel=1e-12), gap


@pytest.mark.parametrize("power", [0.05, 0.5, 1.0])
def test_exact_factors_are_those_of_the_package(js, power):
    for gap in (0.0, 1e-15, 1e-6, 0.1, 1.5):
        high, low = 1 + gap / 2, 1 - gap / 2
        pair = torch.tensor([high, low], dtype=torch.float64)
        expected = float(divided_differences(pair, power)[0, 1])
        assert js("dividedDifference", high, low, power) == pytest.approx(expected, rel=1e-13)


@pytest.fixture
def visit(page, browser):
    with site_checks.Visit(browser, page) as opened:
        yield opened


def text(visit, selector: str) -> str:
    return visit.page.locator(selector).inner_text()


def facts(visit) -> dict[str, str]:
    rows = visit.page.locator("[data-explorable=maxvol] .cpic-facts div")
    return dict(row.inner_text().split("\n") for row in rows.all())


def rows_and_columns(visit) -> list[int]:
    pivots = visit.page.locator("[data-explorable=maxvol] .cpic-pivot").all()
    return [int(pivot.get_attribute("aria-valuenow") or 0) for pivot in pivots]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole_and_accessible(page, browser, scheme):
    with site_checks.Visit(browser, page, scheme) as opened:
        assert opened.requests == []
        assert [e for e in opened.errors if "none.js" not in e and "ERR_FILE" not in e] == []
        # Of the empty theme around it: the page is a small one, without logo and index.
        assert [f for f in site_checks.axe_faults(opened) if "cpic" in f] == []
        opened.page.set_viewport_size({"width": 390, "height": 844})
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 390


def test_pivots_move_by_keys_and_never_meet(visit):
    before, caption = rows_and_columns(visit), text(visit, "[data-explorable=maxvol] figcaption")
    pivot = visit.page.get_by_role("slider", name="pivot row 1 of 4")
    pivot.press("ArrowDown")
    assert rows_and_columns(visit) == [before[0] + 1, *before[1:]]
    assert pivot.get_attribute("aria-valuetext") == f"row {before[0] + 1} of 30"
    assert text(visit, "[data-explorable=maxvol] figcaption") != caption
    for _ in range(before[1] - before[0] - 1):
        pivot.press("ArrowDown")
    assert rows_and_columns(visit)[:2] == [before[1] + 1, before[1]]  # past the other
    pivot.press("Home")
    assert rows_and_columns(visit)[0] == 1
    pivot.press("ArrowUp")
    assert rows_and_columns(visit)[0] == 1
    assert visit.page.locator("[data-explorable=maxvol] [role=status]").inner_text() == ""
    visit.page.wait_for_timeout(800)
    assert "Rows 1, " in visit.page.locator("[data-explorable=maxvol] [role=status]").inner_text()


def test_pivots_are_dragged(visit):
    field = visit.page.locator(".cpic-matrix .cpic-box")
    field.scroll_into_view_if_needed()
    box, before = field.bounding_box(), rows_and_columns(visit)
    cell = box["width"] / 42
    x, y = box["x"] + (before[5] - 0.5) * cell, box["y"] + 10 * cell  # on a column, between rows
    visit.page.mouse.move(x + 1, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 4.2 * cell, y + 2, steps=5)
    visit.page.mouse.up()
    visit.page.mouse.move(x, y)
    moved = rows_and_columns(visit)
    assert moved[5] == before[5] + 4
    assert [*moved[:5], *moved[6:]] == [*before[:5], *before[6:]]


def test_a_maxvol_step_takes_the_exchange_that_was_announced(visit):
    volumes = []
    for _ in range(3):
        now = facts(visit)
        visit.page.get_by_role("button", name="maxvol step").click()
        caption = text(visit, "[data-explorable=maxvol] figcaption")
        assert f"grew by a factor of {now['best exchange'].removeprefix('× ')}" in caption
        volumes.append(facts(visit)["volume |det P|"])
    assert len(set(volumes)) == 3
    visit.page.get_by_role("button", name="until it stops").click()
    assert "No exchange" in text(visit, "[data-explorable=maxvol] figcaption")
    assert float(facts(visit)["best exchange"].removeprefix("× ")) <= 1
    assert float(facts(visit)["relative error"]) < 2 * float(facts(visit)["best of rank 4"])


def test_a_singular_block_is_said_and_left(visit):
    visit.page.get_by_role("button", name="three Gaussians").click()
    assert facts(visit)["relative error"] == "not defined"  # rank 4 of a matrix of rank 3
    assert "singular" in text(visit, "[data-explorable=maxvol] figcaption")
    visit.page.get_by_role("button", name="maxvol step").click()
    assert "has rank 3" in text(visit, "[data-explorable=maxvol] figcaption")
    visit.page.get_by_role("slider", name="rank", exact=True).press("ArrowLeft")
    assert (
        float(facts(visit)["relative error"].split(" ")[0]) < 1e-8
        or "10⁻" in facts(visit)["relative error"]
    )


def test_the_spectrum_follows_its_sliders(visit):
    figure = "[data-explorable=spectrum]"
    rows = visit.page.locator(f"{figure} tbody tr")
    digits = lambda: {  # noqa: E731
        r.locator("th").inner_text().strip(): int(r.locator("td").last.inner_text())
        for r in rows.all()
    }
    gap = visit.page.get_by_role("slider", name="gap of the first two")
    caption = text(visit, f"{figure} figcaption")
    curve = visit.page.locator(f"{figure} svg[role=img]").last.get_attribute("aria-label")
    gap.evaluate("(e) => { e.value = -6; e.dispatchEvent(new Event('input')); }")
    assert digits()["Original"] == digits()["Padé"] in (9, 10)
    assert digits()["Taylor"] == 0
    assert gap.get_attribute("aria-valuetext") == "gap 1e-6"
    assert text(visit, f"{figure} figcaption") != caption
    assert visit.page.locator(f"{figure} svg[role=img]").last.get_attribute("aria-label") != curve
    gap.press("ArrowLeft")
    assert gap.get_attribute("aria-valuetext") != "gap 1e-6"
    gap.evaluate("(e) => { e.value = -17; e.dispatchEvent(new Event('input')); }")
    assert "same floating-point number" in text(visit, f"{figure} figcaption")
    exact = rows.first.locator("td").nth(1)
    assert float(exact.inner_text()) == 0.5
    visit.page.get_by_role("slider", name="power p").press("Home")
    assert float(exact.inner_text()) == 0.05


def test_a_guess_is_shown_only_to_those_who_guessed(page, browser):
    with site_checks.Visit(browser, page) as opened:
        told, cell = opened.page.locator(".cpic-guessed"), opened.page.locator(".cpic-guess-cell")
        assert not told.is_visible()
        assert not cell.is_visible()
        words = "".join(text(opened, "#answer").split())
        assert "Abuiltnumberis2○built,arecordedoneis" in words
        opened.page.get_by_label("Your guess: one").fill("0.5")
        assert not told.is_visible()  # one of two
        opened.page.get_by_label("Your guess: two").fill("<b>7")
        opened.page.get_by_label("Your guess: two").press("Enter")
        assert told.inner_text().strip() == "(you guessed 0.5 or <b>7)"
        assert told.text_content().startswith(" (")
        opened.page.reload()
        assert told.inner_text().strip() == "(you guessed 0.5 or <b>7)"
        assert opened.page.get_by_label("Your guess: one").input_value() == "0.5"
        opened.page.get_by_label("Your guess: one").fill("")
        assert not told.is_visible()
        assert opened.requests == []


def test_without_scripts_the_page_still_says_what_it_has(page, browser):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(page.as_uri())
    assert plain.get_by_text(
        "This figure needs scripts. It shows: A slice of a brain."
    ).is_visible()
    assert plain.locator(".cpic-guess-cell").is_visible()
    assert not plain.locator("form.cpic-guess").is_visible()
    assert not plain.locator(".cpic-guessed").is_visible()
    context.close()


def test_the_source_is_shown_on_focus(visit):
    badge = visit.page.locator(".cpic-origin .cpic-recorded")
    shown = "(e) => getComputedStyle(e, '::after').content"
    assert badge.evaluate(shown) == "none"
    visit.page.get_by_label("Your guess: two").focus()
    for _ in range(20):
        visit.page.keyboard.press("Tab")
        if badge.evaluate("(e) => e === document.activeElement"):
            break
    assert "commit 0123456" in badge.evaluate(shown)
    visit.page.keyboard.press("Enter")
    assert visit.page.url.endswith("#from-old-1")
