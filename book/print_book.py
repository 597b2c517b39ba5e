"""Print the built site as one PDF, with a table of contents, links and page numbers.

python book/print_book.py                        _build/html -> _build/cpic.pdf
python book/print_book.py 01_low_rank 03_cross   only these pages -> _build/part.pdf
python book/print_book.py --to FOLDER ...        -> FOLDER/cpic.pdf or FOLDER/part.pdf
"""

import argparse
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from build import SITE, read_toc, toc_pages
from print_pdf import MARGIN, chromium, n_pages

ROOT = Path(__file__).resolve().parents[1]
TOP = 842  # of a sheet, in points
# A printed page shows what a click would: answers and solutions, but no folded code.
OPEN = """() => {
    document.querySelectorAll(".toggle-hidden").forEach((e) => e.classList.remove("toggle-hidden"));
    document.querySelectorAll("details:not(.hide)").forEach((e) => { e.open = true; });
    document.querySelectorAll(".cpic-explore, .cpic-explorable").forEach((figure) => {
        const link = document.createElement("a");
        link.href = document.querySelector("link[rel=canonical]").href;
        link.textContent = "Move it on the page.";
        figure.append(link);
    });
}"""
STYLE = """
#jb-print-toc, footer, .prev-next-footer, .article-header-buttons, .headerlink, details.hide,
button.toggle-button, form.cpic-guess, .cpic-explore input { display: none !important; }
figure, tr, pre, .cell_output img { break-inside: avoid; }
h1, h2, h3 { break-after: avoid; }
h1 { margin-top: 0 !important; }
pre { white-space: pre-wrap !important; }
"""
SCALE = 0.8
NUMBER = '<p style="width: 100%; text-align: center; font-size: 10px" class="pageNumber"></p>'


def print_pages(paths: list[Path], chromium: str) -> tuple[list[bytes], bytes]:
    """Print files of the site, and as many empty sheets with page numbers only."""
    from playwright.sync_api import sync_playwright
    from pypdf import PdfReader

    sides = ("top", "right", "bottom", "left")
    given = {"format": "A4", "scale": SCALE, "margin": dict.fromkeys(sides, MARGIN)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        found = []
        for path in paths:
            tab = browser.new_page()
            tab.goto(path.resolve().as_uri())
            tab.evaluate("() => window.MathJax?.startup?.promise")
            tab.add_style_tag(content=STYLE)
            tab.evaluate(OPEN)
            found.append(tab.pdf(tagged=True, outline=True, **given))
            tab.close()
        total = sum(count_filled(PdfReader(BytesIO(pdf))) for pdf in found)
        tab = browser.new_page()
        tab.set_content('<div style="break-after: page">&nbsp;</div>' * (total - 1) + "&nbsp;")
        numbers = tab.pdf(
            display_header_footer=True, header_template="<p></p>", footer_template=NUMBER, **given
        )
        browser.close()
    return found, numbers


def count_filled(reader: Any) -> int:
    """Sheets without an empty last one, which holds only the space below a page."""
    last = reader.pages[-1]
    empty = not last.extract_text().strip() and not last.get("/Resources", {}).get("/XObject")
    return len(reader.pages) - empty


def join(paths: list[Path], pdfs: list[bytes], numbers: bytes) -> bytes:
    """One PDF of several, whose links between pages of the site lead to their sheets."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import FloatObject

    writer, places, firsts = PdfWriter(), {}, []
    for path, pdf in zip(paths, pdfs, strict=True):
        reader, first = PdfReader(BytesIO(pdf)), len(writer.pages)
        writer.append(reader, pages=(0, count_filled(reader)))
        firsts.append(first)
        places[path.resolve(), ""] = first, FloatObject(TOP)
        for name, target in reader.named_destinations.items():
            sheet = first + reader.get_destination_page_number(target)
            places[path.resolve(), name.removeprefix("/")] = sheet, target.top
    # Each part brought its own names, of which many are the same.
    for names in ("/Dests", "/Names"):
        writer.root_object.pop(names, None)
    for path, first, end in zip(paths, firsts, [*firsts[1:], len(writer.pages)], strict=True):
        for sheet in writer.pages[first:end]:
            for link in sheet.get("/Annots", ()):
                lead(writer, link.get_object(), path.resolve(), places)
    for sheet, number in zip(writer.pages, PdfReader(BytesIO(numbers)).pages, strict=True):
        sheet.merge_page(number)
    writer.compress_identical_objects()
    target = BytesIO()
    writer.write(target)
    return target.getvalue()


def lead(writer: Any, link: Any, path: Path, places: dict[tuple[Path, str], tuple[int, Any]]):
    """Let a link to a file of the site lead to a sheet; links to elsewhere stay."""
    from pypdf.generic import ArrayObject, NameObject, NullObject

    if "/Dest" in link:
        fragment = str(link["/Dest"]).removeprefix("/")
    elif str(address := link.get("/A", {}).get("/URI", "")).startswith("file:"):
        parts = urlsplit(address)
        path, fragment = Path(unquote(parts.path)), unquote(parts.fragment)
    else:
        return
    found = places.get((path, fragment)) or places.get((path, ""))
    if found is None:
        return
    sheet, top = found
    page = writer.pages[sheet].indirect_reference
    ends = [page, NameObject("/XYZ"), NullObject(), top, NullObject()]
    link.pop("/A", None)
    link[NameObject("/Dest")] = ArrayObject(ends)


def main() -> int:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="for example 01_low_rank; all by default")
    parser.add_argument("--to", type=Path, default=ROOT / "_build", metavar="FOLDER")
    given = parser.parse_args()
    pages = [f"book/{name}" for name in given.pages] or toc_pages(read_toc())
    paths = [SITE / f"{page}.html" for page in pages]
    if missing := [str(path) for path in paths if not path.is_file()]:
        print(f"error: {missing[0]} is not built; run make book", file=sys.stderr)
        return 1
    target = given.to / ("part.pdf" if given.pages else "cpic.pdf")
    target.write_bytes(pdf := join(paths, *print_pages(paths, chromium())))
    print(f"{target}: {n_pages(pdf)} sheets of A4, {len(pdf) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
