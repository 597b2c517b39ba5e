"""What the book as EPUB and as PDF must satisfy: prints what is wrong with the files it is given.

python tests/book/offline_checks.py _build/cpic.epub _build/cpic.pdf
"""

import posixpath
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from bs4 import BeautifulSoup
from pypdf import PdfReader

SPACE = {
    "c": "urn:oasis:names:tc:opendocument:xmlns:container",
    "o": "http://www.idpf.org/2007/opf",
}
XHTML, MATHML = "{http://www.w3.org/1999/xhtml}", "{http://www.w3.org/1998/Math/MathML}"


def epub_faults(path: Path, pages: list[str]) -> list[str]:
    """What is wrong with an EPUB of these pages, by their place in the site."""
    with zipfile.ZipFile(path) as book:
        members = book.infolist()
        if broken := book.testzip():
            return [f"{broken} is damaged"]
        first = members[0]
        if (first.filename, first.compress_type, book.read(first)) != (
            "mimetype",
            zipfile.ZIP_STORED,
            b"application/epub+zip",
        ):
            return ["the first member is not the plain type of the file"]
        faults, trees = [], {}
        for name in (member.filename for member in members):
            if name.endswith((".xhtml", ".opf", ".ncx", ".xml", ".svg")):
                try:
                    trees[name] = ElementTree.fromstring(book.read(name))
                except ElementTree.ParseError as error:
                    faults.append(f"{name}: {error}")
    names = {member.filename for member in members}
    # Without an index that can be read, nothing can be said about the rest.
    return faults or [*index_faults(trees, names), *page_faults(trees, names, pages)]


def index_faults(trees: dict, names: set[str]) -> Iterator[str]:
    """What the index of an EPUB names and the file does not have, and the other way round."""
    opf = trees["META-INF/container.xml"].find(".//c:rootfile", SPACE).get("full-path")
    items = {e.get("id"): e.get("href") for e in trees[opf].iterfind(".//o:item", SPACE)}
    listed = {posixpath.join(posixpath.dirname(opf), unquote(href)) for href in items.values()}
    known = {"mimetype", "META-INF/container.xml", opf}
    yield from (f"{name} is in the index only" for name in sorted(listed - names))
    yield from (f"{name} is not in the index" for name in sorted(names - listed - known))
    for item in trees[opf].iterfind(".//o:item", SPACE):
        tree = trees.get(item.get("href"))
        has = tree is not None and next(tree.iter(f"{MATHML}math"), None) is not None
        if has != ("mathml" in item.get("properties", "").split()):
            yield f"{item.get('href')}: the index is wrong about its formulas"
    for entry in trees[opf].iterfind(".//o:itemref", SPACE):
        if entry.get("idref") not in items:
            yield f"the order names {entry.get('idref')}, the index does not"


def page_faults(trees: dict, names: set[str], pages: list[str]) -> Iterator[str]:
    """Missing pages and pictures, scripts, and formulas that are not set."""
    yield from (f"{page} is missing" for page in pages if f"{page}.xhtml" not in names)
    for name, tree in trees.items():
        if not name.endswith(".xhtml"):
            continue
        for image in tree.iter(f"{XHTML}img"):
            target = posixpath.join(posixpath.dirname(name), unquote(image.get("src")))
            if posixpath.normpath(target) not in names:
                yield f"{name}: no picture {image.get('src')}"
        if next(tree.iter(f"{XHTML}script"), None) is not None:
            yield f"{name} has a script"
        for code in tree.iter(f"{XHTML}code"):
            if code.get("class") == "cpic-unread":
                yield f"{name}: the formula {code.text} is not set"


def pdf_faults(path: Path, pages: list[Path]) -> list[str]:
    """What is wrong with a PDF of these files of the site."""
    reader = PdfReader(path)
    outline = [one for one in reader.outline if not isinstance(one, list)]
    if len(outline) != len(pages):
        return [f"{len(outline)} pages of the site in the outline, not {len(pages)}"]
    firsts = [reader.get_destination_page_number(one) for one in outline]
    faults = [f"sheet {i} is empty" for i, s in enumerate(reader.pages) if len(words(s)) < 2]
    ends = [*firsts[1:], len(reader.pages)]
    for page, one, first, end in zip(pages, outline, firsts, ends, strict=True):
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        sheets = reader.pages[first:end]
        title = soup.h1.find(string=True, recursive=False)
        # The outline drops the space at which a long title is broken.
        if "".join(title.split()) not in "".join(str(one.title).split()):
            faults.append(f"{page.stem}: the outline has {one.title!r}, not {title!r}")
        wanted = {str(e["src"]) for e in soup.select("article img[src]")}
        wanted = {source for source in wanted if ".svg" not in source[:99]}
        shown = {image for sheet in sheets for image in pictures(sheet)}
        if len(shown) < len(wanted):
            faults.append(f"{page.stem}: {len(shown)} pictures, not {len(wanted)}")
    addresses = {
        str(link.get_object().get("/A", {}).get("/URI", ""))
        for sheet in reader.pages
        for link in sheet.get("/Annots", ())
    }
    inside = {page.resolve() for page in pages}
    lost = [a for a in addresses if Path(unquote(urlsplit(a).path)) in inside]
    return faults + [f"leads out of the book: {address}" for address in lost]


def words(sheet) -> list[str]:
    """The text of a sheet, its number included."""
    return sheet.extract_text().split()


def pictures(part) -> Iterator[int]:
    """The numbers of the pictures that a sheet, or a part of it, draws."""
    for one in (part.get("/Resources", {}).get("/XObject") or {}).values():
        item = one.get_object()
        if item.get("/Subtype") == "/Image":
            yield one.idnum
        else:
            yield from pictures(item)


def main(paths: list[str]) -> int:
    """Check files of the whole book."""
    root = Path(__file__).resolve().parents[2]
    sys.path.insert(0, str(root / "book"))
    from build import SITE, read_toc, toc_pages

    pages, faults = toc_pages(read_toc()), []
    for path in map(Path, paths):
        if path.suffix == ".epub":
            faults += epub_faults(path, pages)
        else:
            faults += pdf_faults(path, [SITE / f"{page}.html" for page in pages])
    print("\n".join([*faults, f"{' and '.join(paths)}: {len(faults)} faults"]))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
