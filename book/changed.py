"""List the pages that a change touches, as Markdown for a review.

    python book/changed.py main   what differs between main and the working tree

A page changes with its source, with the records it reads, and with the sub-packages it uses.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from build import read_toc, toc_pages

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
EVERYWHERE = ("_config.yml", "_toc.yml", "constraints.txt", "book/_ext/", "book/_static/")


def touched(files: Iterable[str], root: Path = ROOT) -> dict[str, list[str]]:
    """Pages in reading order, each with the files because of which it changes."""
    import cpic_pages

    used = {f"book/{path.stem}": cpic_pages.uses(path) for path in cpic_pages.chapters(root)}
    api = cpic_pages.modules(root)
    found: dict[str, list[str]] = {}
    for page in toc_pages(read_toc(root / "_toc.yml")):
        source = next(root.glob(f"{page}.*"))
        text = source.read_text(encoding="utf-8")
        modules = {module for module, at in api.items() if at == page}
        names = [*used.get(page, ()), *(f"{module}." for module in modules)]
        for file in files:
            module = package_of(file)
            if (
                file == source.relative_to(root).as_posix()
                or file.startswith(EVERYWHERE)
                or (file.startswith("book/results/") and Path(file).name in text)
                or (module and any(name.startswith(f"{module}.") for name in names))
            ):
                found.setdefault(page, []).append(file)
    return found


def package_of(file: str) -> str:
    """The public module of a source file: `cpic.tt` of `cpic/tt/_cross.py`; empty for others.

    >>> package_of("cpic/nn/ips/_select.py"), package_of("cpic/check.py"), package_of("README.md")
    ('cpic.nn.ips', 'cpic.check', '')
    """
    path = Path(file)
    if path.suffix != ".py" or path.parts[0] != "cpic":
        return ""
    return ".".join(part for part in path.with_suffix("").parts if not part.startswith("_"))


def listed(found: dict[str, list[str]]) -> str:
    """The pages as a Markdown list."""
    lines = [
        f"- `{page}.html`: {', '.join(files[:3])}" + (", ..." if len(files) > 3 else "")
        for page, files in found.items()
    ]
    return "\n".join([f"## {len(found)} pages change", "", *lines])


def main() -> int:
    """Read the argument and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("base", help="commit or branch to compare with")
    command = ["git", "diff", "--name-only", "--merge-base", parser.parse_args().base]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    print(listed(touched(done.stdout.splitlines())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
