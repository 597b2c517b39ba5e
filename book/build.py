"""Build the site, and fail when anything is missing.

    python book/build.py                   the whole book, any warning is an error
    python book/build.py --only 03_cross   one page, for its author; warnings are only shown

Chapters that changed are run first, one a core side by side. The whole book goes to _build/html,
one page to _build/only/NAME/_build/html.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import executed
import twins
import yaml

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
STAMP = ROOT / "_build" / "built"
SOURCES = (".ipynb", ".md", ".json", ".py", ".yml", ".bib", ".css", ".js", ".svg", ".png", ".webp")


def toc_pages(toc: dict) -> list[str]:
    """All pages that a table of contents names, in reading order."""
    pages = []
    for key, value in toc.items():
        if key in ("root", "file"):
            pages.append(str(value))
        elif isinstance(value, list):
            pages += [
                page for entry in value if isinstance(entry, dict) for page in toc_pages(entry)
            ]
    return pages


def missing_pages(toc: dict, site: Path) -> list[str]:
    """The pages of a table of contents that have no HTML."""
    return [page for page in toc_pages(toc) if not (site / f"{page}.html").is_file()]


def read_toc(path: Path = ROOT / "_toc.yml") -> dict:
    """The table of contents as a mapping."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def source_state() -> str:
    """A name for the state of all that the site is made of."""
    names = ("_config.yml", "_toc.yml", "CHANGELOG.md", "constraints.txt")
    paths = [ROOT / name for name in names]
    for folder in ("book", "cpic"):
        paths += [p for p in (ROOT / folder).rglob("*") if p.suffix in SOURCES and p.is_file()]
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        if not {"vendor", ".ipynb_checkpoints", "__pycache__"} & set(path.parts):
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def is_fresh() -> bool:
    """Whether the last full build succeeded with the sources as they are now."""
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == source_state()


def build(*, toc: Path | None = None, output: Path | None = None, strict: bool = True) -> int:
    """Call jupyter-book and return an exit code that tells the truth."""
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", str(ROOT)]
    # -n names every broken reference; without --all a failed notebook is not read again, and a
    # second build would be green.
    command += ["-n", "-W", "--keep-going", "--all"] if strict else ["-n", "--all"]
    if toc is not None:
        command += ["--toc", str(toc)]
    if output is not None:
        command += ["--path-output", str(output)]
    subprocess.run(["bash", str(ROOT / "book" / "vendor_js.sh")], check=True)
    if strict:
        STAMP.unlink(missing_ok=True)
    state, begin = source_state(), time.perf_counter()
    # Small batched matrices are quickest on one thread, and many times slower on several threads
    # of a machine that has other work as well.
    env = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUTF8": "1"}
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    site = (output or ROOT) / "_build" / "html"
    missing = missing_pages(read_toc(toc or ROOT / "_toc.yml"), site)
    for page in missing:
        print(f"error: {page} is in the table of contents but has no HTML", file=sys.stderr)
    seconds = time.perf_counter() - begin
    if code or missing:
        print(f"The build failed after {seconds:.0f} s; the reports are above.", file=sys.stderr)
        return code or 1
    if strict:
        twins.write(site / "notebooks.zip")
        STAMP.write_text(state, encoding="utf-8")
    print(f"Built in {seconds:.0f} s: {site / 'index.html'}")
    return 0


def build_one(name: str) -> int:
    """Build one page beside the reference pages, quickly and leniently."""
    page = f"book/{Path(name).stem}"
    if not [*ROOT.glob(f"{page}.ipynb"), *ROOT.glob(f"{page}.md")]:
        print(f"error: there is no {page}.ipynb and no {page}.md", file=sys.stderr)
        return 2
    output = ROOT / "_build" / "only" / Path(page).name
    output.mkdir(parents=True, exist_ok=True)
    toc = output / "_toc.yml"
    others = [p for p in ("book/notation", "book/bibliography") if p != page]
    toc.write_text(
        yaml.safe_dump(
            {
                "format": "jb-book",
                "root": page,
                "parts": [{"caption": "Reference", "chapters": [{"file": p} for p in others]}],
            }
        ),
        encoding="utf-8",
    )
    return build(toc=toc, output=output, strict=False)


def main() -> int:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", metavar="PAGE", help="build one page, for example 03_cross")
    arguments = parser.parse_args()
    if arguments.only:
        return build_one(arguments.only)
    if is_fresh():
        print(f"Nothing changed since the last build: {SITE / 'index.html'}")
        return 0
    if executed.run_stale(tell=lambda line: print(line, flush=True)):
        print("The build stops: a chapter failed, see above.", file=sys.stderr)
        return 1
    return build()


if __name__ == "__main__":
    sys.exit(main())
