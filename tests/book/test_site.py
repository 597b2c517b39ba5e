"""The built pages in a real browser, with the network off."""

import base64
import importlib
import re

import pytest

import cpic
from tests.book import site_checks
from tests.book.conftest import load_build

pytestmark = [pytest.mark.book, pytest.mark.filterwarnings("ignore::ResourceWarning")]

BUILD = load_build()
PAGES = BUILD.toc_pages(BUILD.read_toc())
INTERACTIVE = [p for p in PAGES if p == "book/intro" or re.match(r"book/\d\d_", p)]

TEXT_NOTEBOOKS = ["book/peers"]  # Binder opens them, Colab does not


@pytest.fixture
def visit(site, browser):
    """Open a page of the site; closed after the test."""
    visits = []

    def open_page(name: str, scheme: str = "light") -> site_checks.Visit:
        visits.append(site_checks.Visit(browser, site / f"{name}.html", scheme))
        return visits[-1]

    yield open_page
    for each in visits:
        each.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_without_a_network(visit, name):
    page = visit(name)
    assert page.requests == []
    assert page.errors == []
    assert site_checks.formula_faults(page) == []
    assert site_checks.image_faults(page) == []
    assert site_checks.size_faults(page.path) == []


@pytest.mark.parametrize("name", INTERACTIVE)
def test_page_fits_a_telephone(visit, name):
    page = visit(name)
    page.page.set_viewport_size({"width": 390, "height": 844})
    assert site_checks.formula_faults(page) == []
    assert page.page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("name", INTERACTIVE)
def test_sliders_answer_the_keyboard(visit, name):
    page = visit(name)
    assert site_checks.slider_faults(page) == []
    assert page.errors == []


@pytest.mark.parametrize(
    ("name", "slider"), [("03_cross", "pivot column 2 of 4"), ("06_spectra", "power p")]
)
def test_figures_of_the_chapters_compute(visit, name, slider):
    page = visit(f"book/{name}")
    caption = page.page.locator(".cpic-explorable figcaption")
    before = caption.inner_text()
    page.page.get_by_role("slider", name=slider).press("ArrowRight")
    assert len(before) > 40
    assert caption.inner_text() != before
    assert page.errors == []


@pytest.mark.parametrize("name", INTERACTIVE[1:])
def test_chapters_ask_for_a_guess_and_tell_none(visit, name):
    page = visit(name).page
    assert page.locator("form.cpic-guess input").first.is_visible()
    assert not page.locator(".cpic-guess-cell").first.is_visible()
    assert not any(span.is_visible() for span in page.locator(".cpic-guessed").all())


@pytest.mark.parametrize("name", INTERACTIVE[1:])
def test_numbers_of_the_chapters_lead_to_their_source(site, name):
    html = (site / f"{name}.html").read_text(encoding="utf-8")
    assert 'class="cpic-badge cpic-built" href="#from-built"' in html
    assert 'id="from-built"' in html


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible(visit, name, scheme):
    assert site_checks.axe_faults(visit(name, scheme)) == []


def test_chapters_have_formulas(visit):
    for name in INTERACTIVE[1:]:
        assert visit(name).page.locator("mjx-container").count() > 3


def test_links_and_anchors_resolve(site):
    assert site_checks.link_faults(site) == []


def test_every_page_of_the_contents_is_there(site):
    assert BUILD.missing_pages(BUILD.read_toc(), site) == []
    assert "book/nowhere" in BUILD.missing_pages({"root": "book/nowhere"}, site)


@pytest.mark.parametrize("name", PAGES)
def test_page_has_its_card_and_buttons(site, name):
    html = (site / f"{name}.html").read_text(encoding="utf-8")
    assert 'property="og:title"' in html
    assert 'property="og:description"' in html
    assert 'property="og:image"' in html
    assert 'rel="icon"' in html
    assert "Not for clinical use" in html
    assert f"Version {cpic.__version__} of the book" in html
    assert ("Cite this chapter as The cpic authors: " in html) == (name in INTERACTIVE[1:])
    assert ("colab.research.google.com" in html) == (name in INTERACTIVE)
    assert ("mybinder.org" in html) == (name in [*INTERACTIVE, *TEXT_NOTEBOOKS])


@pytest.mark.parametrize(
    "name",
    [
        "linalg",
        "tt",
        "bottleneck",
        "project",
        "choose",
        "nn",
        "nn.baselines",
        "nn.metrics",
        "nn.patches",
        "nn.spectral",
        "data",
        "cohorts",
        "data.resample",
        "data.stores",
        "cohorts.synthetic",
        "show",
    ],
)
def test_reference_has_every_public_name(site, name):
    package = importlib.import_module(f"cpic.{name}")
    html = (site / f"book/api/{name.split('.')[-1]}.html").read_text(encoding="utf-8")
    assert [n for n in package.__all__ if f'id="cpic.{name}.{n}"' not in html] == []


PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
BROKEN = f"""<!doctype html><html lang="en"><head><title>A broken page</title></head><body><main>
<h1 id="top">Broken</h1>
<img src="data:image/png;base64,{PIXEL}" alt="image">
<img src="gone.png" alt="A picture that is not in the folder">
<span class="math">\\(x\\)</span>
<style>mjx-container {{ display: block; width: 9px; overflow: auto; }}</style>
<div class="math"><mjx-container>wide</mjx-container></div>
<div class="math"><mjx-container>i</mjx-container></div>
<figure class="cpic-explore"><input type="range" min="0" max="2" value="0" aria-valuetext="0">
<img src="data:image/png;base64,{PIXEL}" alt="A picture that never changes"></figure>
<a href="#nowhere">a</a> <a href="gone.html">b</a> <a href="#top">c</a>
<script src="https://example.org/x.js"></script>
<script>undefined_name</script>
</main></body></html>"""


def test_checks_find_what_is_broken(browser, tmp_path):
    assert len(base64.b64decode(PIXEL)) > 50
    path = tmp_path / "broken.html"
    path.write_text(BROKEN, encoding="utf-8")
    with site_checks.Visit(browser, path) as page:
        assert page.requests == ["https://example.org/x.js"]
        assert any("undefined_name" in error for error in page.errors)
        assert site_checks.formula_faults(page) == ["\\(x\\)", "wide"]
        images = " ".join(site_checks.image_faults(page))
        assert "alt 'image'" in images
        assert "gone.png: not shown" in images
        sliders = " ".join(site_checks.slider_faults(page))
        assert "picture stays" in sliders
        assert "text stays" in sliders
        assert "value stays" in sliders
        assert any(fault.startswith("label: ") for fault in site_checks.axe_faults(page))
    links = " ".join(site_checks.link_faults(tmp_path))
    assert "no anchor #nowhere" in links
    assert "no file gone.html" in links
    assert "no file gone.png" in links
    assert "loads https://example.org/x.js" in links
    assert "#top" not in links
    assert site_checks.size_faults(path) == []
    path.write_text(BROKEN + " " * site_checks.MAX_PAGE, encoding="utf-8")
    assert len(site_checks.size_faults(path)) == 1
