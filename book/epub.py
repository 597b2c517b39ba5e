"""Build the book as EPUB, from the chapters that `make book` has run.

    python book/epub.py                        -> _build/cpic.epub
    python book/epub.py 01_low_rank 03_cross   only these pages -> _build/part.epub
    python book/epub.py --to FOLDER ...        -> FOLDER/cpic.epub or FOLDER/part.epub

It is made by Sphinx from the same configuration and the same outputs as the site.
"""

import argparse
import os
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import executed
import yaml

ROOT = Path(__file__).resolve().parents[1]
# What differs from the site: no scripts, and pictures in place of what scripts move.
SETTINGS = {
    "html_math_renderer": "mathml",
    "html_static_path": ["book/_static/book.css"],
    "nb_mime_priority_overrides": [["epub", "image/png", 1]],
    "epub_show_urls": "no",
    "epub_tocdepth": 2,
    "epub_exclude_files": [".nojekyll"],
    "suppress_warnings": ["epub.unknown_project_files"],
}


def configuration() -> dict:
    """That of the site, without the buttons, with which Sphinx cannot build an EPUB."""
    found = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    del found["launch_buttons"]
    sphinx = found["sphinx"]
    names = [*sphinx["local_extensions"], "cpic_epub"]
    sphinx["local_extensions"] = dict.fromkeys(names, str(ROOT / "book" / "_ext"))
    sphinx["config"] |= SETTINGS | {
        "epub_title": found["title"],
        "epub_identifier": found["html"]["baseurl"],
        "epub_scheme": "URL",
        "epub_uid": "cpic",
        "nb_execution_cache_path": str(executed.cache().path),
        "version": version("cpic"),
    }
    return found


def declare_formulas(source: Path, target: Path) -> None:
    """Copy an EPUB, and let its index say which pages have MathML, as EPUB 3 requires."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        members = [(member, old.read(member)) for member in old.infolist()]
        pages = [member.filename for member, content in members if b"<math" in content]
        for member, content in members:
            if member.filename.endswith(".opf"):
                for page in pages:
                    item = f'href="{page}" media-type='.encode()
                    content = content.replace(item, b'properties="mathml" ' + item)
            new.writestr(member, content)


def build(pages: list[str], target: Path) -> int:
    """Build the EPUB of all pages, or of some, and return an exit code."""
    with tempfile.TemporaryDirectory() as folder:
        code = build_in(Path(folder), pages, target.stem)
        if not code:
            declare_formulas(Path(folder) / "epub" / target.name, target)
            print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return code


def build_in(folder: Path, pages: list[str], name: str) -> int:
    """Let Sphinx build in an empty folder, and return an exit code."""
    from jupyter_book.sphinx import build_sphinx

    config, toc = folder / "config.yml", ROOT / "_toc.yml"
    config.write_text(yaml.safe_dump(configuration()), encoding="utf-8")
    if pages:
        toc = folder / "toc.yml"
        chapters = [{"file": f"book/{page}"} for page in [*pages[1:], "notation", "bibliography"]]
        content = {"format": "jb-book", "root": f"book/{pages[0]}"}
        content["parts"] = [{"caption": "Chapters", "numbered": 2, "chapters": chapters}]
        toc.write_text(yaml.safe_dump(content), encoding="utf-8")
    os.chdir(ROOT)
    code = build_sphinx(
        ROOT,
        folder / "epub",
        noconfig=True,
        path_config=config,
        confoverrides={
            "external_toc_path": str(toc),
            "epub_basename": name,
            "latex_individualpages": False,
        },
        doctreedir=folder / "doctrees",
        builder="epub",
        quiet=True,
    )
    return int(bool(code))


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="for example 01_low_rank; all by default")
    parser.add_argument("--to", type=Path, default=ROOT / "_build", metavar="FOLDER")
    given = parser.parse_args()
    return build(given.pages, given.to.resolve() / ("part.epub" if given.pages else "cpic.epub"))


if __name__ == "__main__":
    sys.exit(main())
