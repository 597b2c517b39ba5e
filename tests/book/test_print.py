"""A page is printed on one sheet, as large as it fits."""

import pytest

from tests.book.conftest import ROOT

pytestmark = [pytest.mark.book, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture
def printer(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book"))
    import print_pdf

    return print_pdf


def page_of(n_lines: int) -> str:
    lines = "".join(f"<p>Line {k}</p>" for k in range(n_lines))
    return f"<!doctype html><html lang='en'><title>Lines</title><body>{lines}</body></html>"


def run(printer, tmp_path, n_lines: int, chromium: str):
    """In a process of its own: playwright allows no second browser beside that of the tests."""
    import multiprocessing

    path, target = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(page_of(n_lines), encoding="utf-8")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        scale = pool.apply(printer.print_one_sheet, (path, target, chromium))
    return scale, target.read_bytes()


def test_a_page_is_as_large_as_one_sheet_allows(printer, tmp_path, chromium):
    scale, pdf = run(printer, tmp_path, 10, chromium)
    assert (scale, printer.n_pages(pdf)) == (1, 1)
    scale, pdf = run(printer, tmp_path, 60, chromium)
    assert 0.5 <= scale < 1
    assert printer.n_pages(pdf) == 1
    with pytest.raises(ValueError, match="does not fit on one sheet"):
        run(printer, tmp_path, 400, chromium)


def test_the_cheat_sheet_fits_on_one_sheet(printer, site, tmp_path, chromium):
    import multiprocessing

    target = tmp_path / "sheet.pdf"
    page = site / "book" / "cheat_sheet.html"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(printer.print_one_sheet, (page, target, chromium))
    assert printer.n_pages(target.read_bytes()) == 1
