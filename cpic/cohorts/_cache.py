"""A cache folder: names derived from content, and its location."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from cpic._errors import CacheError
from cpic._files import write_json

# Increment whenever the same files and options give different values.
VERSION = 2
PART = ".part"
# A file changed this recently may change again with the same time stamp.
_SETTLED_SECONDS = 5


def cache_key(files: Mapping[str, Path], options: Mapping, *, memo: Path | None = None) -> str:
    """A name for the result of processing some files with some options.

    Args:
        files: Input files or folders, in the order of the channels.
        options: Everything else that the result depends on; must be JSON.
        memo: Folder for cached hashes of content, so that an unchanged file is read only once; None
            reads it every time.

    Returns:
        32 hexadecimal digits; they differ for another content, name, order or option, or a version
        of this package that computes different values. The location of the files does not matter.

    Raises:
        OSError: If a file cannot be read.

    Example:
        >>> cache_key({}, {"order": 3}) == cache_key({}, {"order": 1})
        False
    """
    content = [[name, content_hash(path, memo=memo)] for name, path in files.items()]
    whole = {"version": VERSION, "files": content, "options": dict(options)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def content_hash(path: Path, *, memo: Path | None = None) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a folder."""
    path = path.resolve()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stamps = [(str(p.relative_to(path)), *_stamp(p)) for p in files]
    note = memo and memo / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    stamp = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    if note is not None and (known := _recall(note, stamp)):
        return known
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            inner = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(os.fsencode(file.relative_to(path)) + f"\0{inner}\n".encode())
    latest = max((max(changed) for _, _, *changed in stamps), default=0)
    if note is not None and latest < time.time_ns() - _SETTLED_SECONDS * 10**9:
        # Only saves time: a cache that cannot be written is not an error here.
        with contextlib.suppress(OSError):
            write_json(note, {"path": str(path), "stamp": stamp, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _recall(note: Path, stamp: str) -> str:
    try:
        known = json.loads(note.read_bytes())
        return known["sha256"] if known["stamp"] == stamp else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def check_outside(cache: Path, root: Path) -> None:
    """Raise CacheError if the cache would be inside the data folder."""
    if is_inside(cache, root):
        raise CacheError(
            f"the cache {cache} is inside the data folder {root}, which is never written: choose "
            "a folder elsewhere with cache=."
        )


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path is a folder or below it, with links resolved."""
    inner, outer = path.resolve(), root.resolve()
    return inner == outer or outer in inner.parents
