"""The book as EPUB and PDF: two chapters here, the whole of it in the weekly workflow."""

import re
import subprocess
import sys
import zipfile
from xml.etree import ElementTree

import pytest
from pypdf import PdfReader

from tests.book.conftest import ROOT
from tests.book.lint import formulas, read
from tests.book.offline_checks import epub_faults, pdf_faults

pytestmark = pytest.mark.book

CHAPTERS = ["01_low_rank", "03_cross"]


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def rewritten(path, target, change) -> None:
    """A copy of an archive, each member as `change` gives it back; None leaves it out."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            content = change(member.filename, old.read(member))
            if content is not None:
                new.writestr(member, content)


def test_every_formula_has_its_mathml(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from cpic_epub import to_mathml

    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "book").rglob("*.md")]
    for path in (ROOT / "book").glob("*.ipynb"):
        texts += [text for _, text, _ in read(path).of("markdown")]
    found = [formula for text in texts for formula in formulas(text)]
    assert len(found) > 1000
    failed = []
    for formula in found:
        tex = re.sub(r"^:label:.*$", "", formula, flags=re.MULTILINE)
        try:
            ElementTree.fromstring(to_mathml(tex, block="\n" in formula))
        except Exception:
            failed.append(formula)
    assert failed == []


def test_epub_is_whole(site, tmp_path):
    run("book/epub.py", "--to", str(tmp_path), *CHAPTERS)
    path, pages = tmp_path / "part.epub", [f"book/{name}" for name in CHAPTERS]
    assert epub_faults(path, pages) == []
    with zipfile.ZipFile(path) as book:
        chapter = book.read("book/03_cross.xhtml").decode()
    address = "https://cpic-book.github.io/cpic/book/03_cross.html"
    assert chapter.count(f'href="{address}">Use it on the page.') == 3  # sliders and one explorable
    assert "<input" not in chapter
    assert chapter.count("<math") > 100

    broken = tmp_path / "broken.epub"
    for fault, change in {
        "no picture": lambda n, c: None if n.startswith("_images/") else c,
        "book/03_cross is missing": lambda n, c: None if "03_cross" in n else c,
        "mismatched tag": lambda n, c: c.replace(b"</section>", b"") if "03_cross" in n else c,
        "wrong about its formulas": lambda n, c: c.replace(b' properties="mathml"', b""),
        "is not set": lambda n, c: c.replace(
            b"</body>", b'<code class="cpic-unread">x</code></body>'
        ),
        "has a script": lambda n, c: c.replace(b"</body>", b"<script>1</script></body>"),
        "is not in the index": lambda n, c: re.sub(rb"<item .*?03_cross.*?/>", b"", c),
    }.items():
        rewritten(path, broken, change)
        assert any(fault in found for found in epub_faults(broken, pages)), fault


def test_pdf_is_whole(site, chromium, tmp_path):
    run("book/print_book.py", "--to", str(tmp_path), *CHAPTERS)
    path, pages = tmp_path / "part.pdf", [site / "book" / f"{name}.html" for name in CHAPTERS]
    assert pdf_faults(path, pages) == []
    reader = PdfReader(path)
    sheets = reader.pages
    assert 20 < len(sheets) < 60
    text = "\n".join(sheet.extract_text() for sheet in sheets)
    assert "Move it on the page." in text
    folded = "Nothing. A permutation of rows is an orthogonal map."
    assert folded in " ".join(text.split())
    # Chapter 3 names chapter 1 among what it needs.
    number = {sheet.indirect_reference.idnum: i for i, sheet in enumerate(sheets)}
    _, second = [one for one in reader.outline if not isinstance(one, list)]
    targets = {
        number[link.get_object()["/Dest"][0].idnum]
        for sheet in sheets[reader.get_destination_page_number(second) :]
        for link in sheet.get("/Annots", ())
        if "/Dest" in link.get_object()
    }
    assert 0 in targets
    other = site / "book" / "02_tensor_trains.html"
    assert pdf_faults(path, [pages[0], other])[0].startswith("02_tensor_trains: the outline has")
    assert len(pdf_faults(path, [*pages, other])) == 1
