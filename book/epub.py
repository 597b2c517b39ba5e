"""Build the book as EPUB, from the chapters that `make book` has run.

    python book/epub.py                        -> _build/cpic.epub
    python book/epub.py 01_low_rank 03_cross   only these pages -> _build/part.epub

It is made by Sphinx from the same configuration and the same outputs as the site.
"""

import argparse
import os
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
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
    from jupyter_book.sphinx import build_sphinx

    folder = BUILD / target.stem  # beside the outputs of the chapters
    folder.mkdir(parents=True, exist_ok=True)
    config, toc = BUILD / f"{target.stem}.config.yml", ROOT / "_toc.yml"
    config.write_text(yaml.safe_dump(configuration()), encoding="utf-8")
    if pages:
        toc = BUILD / f"{target.stem}.toc.yml"
        chapters = [{"file": f"book/{page}"} for page in [*pages[1:], "notation", "bibliography"]]
        content = {"format": "jb-book", "root": f"book/{pages[0]}"}
        content["parts"] = [{"caption": "Chapters", "numbered": 2, "chapters": chapters}]
        toc.write_text(yaml.safe_dump(content), encoding="utf-8")
    os.chdir(ROOT)
    code = build_sphinx(
        ROOT,
        folder,
        noconfig=True,
        path_config=config,
        confoverrides={
            "external_toc_path": str(toc),
            "epub_basename": target.stem,
            "latex_individualpages": False,
        },
        doctreedir=BUILD / f".doctrees-{target.stem}",
        builder="epub",
        quiet=True,
    )
    if code:
        return 1
    declare_formulas(folder / target.name, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="for example 01_low_rank; all by default")
    pages = parser.parse_args().pages
    return build(pages, BUILD / ("part.epub" if pages else "cpic.epub"))


if __name__ == "__main__":
    sys.exit(main())
