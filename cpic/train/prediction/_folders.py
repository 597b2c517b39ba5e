"""The contents of a folder tree: scan files, and folders of slices."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SCAN = re.compile(r"(.+?)\.nii(?:\.gz)?", re.IGNORECASE | re.DOTALL)
_SLICE = ".dcm"
# Created by archivers on macOS, next to the folders of the user.
_TWINS = "__MACOSX"
Place = tuple[str, ...]


class Folder(NamedTuple):
    """One folder.

    Attributes:
        path: Its path.
        place: Names of the folders from the root of the search.
        scans: Files with the extension of a scan, whatever their content.
        slices: Whether it holds slices of a series.
        others: Names of its other files.
        fault: Reason why it could not be read.
    """

    path: Path
    place: Place
    scans: tuple[Path, ...] = ()
    slices: bool = False
    others: tuple[str, ...] = ()
    fault: str = ""


def walk(root: Path) -> Iterator[Folder]:
    """A folder and all folders below it, parents first, each once; hidden folders are skipped."""
    waiting: list[tuple[Path, Place]] = [(root, ())]
    seen: set[Path] = set()
    for path, place in waiting:
        # A link may point to a parent.
        if (real := path.resolve()) in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(entry for entry in path.iterdir() if entry.name[0] != ".")
            folders = [entry for entry in entries if entry.is_dir()]
        except OSError as error:
            yield Folder(path, place, fault=f"its folder cannot be read ({error.strerror})")
            continue
        waiting += [(entry, (*place, entry.name)) for entry in folders if entry.name != _TWINS]
        files = [entry for entry in entries if entry not in set(folders)]
        yield Folder(
            path,
            place,
            tuple(entry for entry in files if stem_of(entry)),
            any(entry.suffix.lower() == _SLICE and entry.is_file() for entry in files),
            tuple(entry.name for entry in files if not stem_of(entry)),
        )


def stem_of(path: Path) -> str:
    """The name without the extension of a scan; empty for other files."""
    found = _SCAN.fullmatch(path.name)
    return found[1] if found else ""
