"""Print a page of the built site on one sheet of A4.

python book/print_pdf.py cheat_sheet     _build/html/book/cheat_sheet.html -> _build/cheat_sheet.pdf
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCALES = [1 - 0.05 * step for step in range(11)]  # below half size nobody reads it
MARGIN = "12mm"
# Between tables and headings; the theme is generous, and lists the contents first.
STYLE = """
#jb-print-toc, footer, .prev-next-footer { display: none !important; }
h1 { font-size: 1.6rem !important; margin: 0 0 0.4rem !important; }
h2 { font-size: 1.15rem !important; margin: 0.7rem 0 0.2rem !important; }
p, ol, ul, table, pre, .cell, div.highlight { margin-block: 0.2rem !important; }
th, td { padding: 0.1rem 0.4rem !important; line-height: 1.3; }
pre { padding: 0.4rem !important; }
"""


def chromium() -> str:
    """The path of a browser."""
    found = subprocess.run(
        ["bash", ROOT / "book" / "find_chromium.sh"], stdout=subprocess.PIPE, text=True, check=True
    )
    return found.stdout.strip()


def n_pages(pdf: bytes) -> int:
    """Pages of a PDF file as Chromium writes it."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def print_one_sheet(page: Path, target: Path, chromium: str) -> float:
    """Print an HTML file as large as one sheet allows, and return the scale.

    Raises:
        ValueError: If it needs more than one sheet even at half size.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page.resolve().as_uri())
        tab.evaluate("() => window.MathJax?.startup?.promise")
        tab.add_style_tag(content=STYLE)
        margin = dict.fromkeys(("top", "right", "bottom", "left"), MARGIN)
        for scale in SCALES:
            pdf = tab.pdf(format="A4", scale=scale, margin=margin, tagged=True)
            if n_pages(pdf) == 1:
                target.write_bytes(pdf)
                browser.close()
                return scale
        browser.close()
    raise ValueError(f"{page} does not fit on one sheet at half size; shorten it.")


def main() -> int:
    """Read the arguments and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("page", help="for example cheat_sheet")
    name = parser.parse_args().page
    page, target = ROOT / f"_build/html/book/{name}.html", ROOT / f"_build/{name}.pdf"
    if not page.is_file():
        print(f"error: {page} is not built; run make book", file=sys.stderr)
        return 1
    scale = print_one_sheet(page, target, chromium())
    print(f"{target}: one sheet of A4, at {scale:.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
