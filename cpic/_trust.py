"""Limits for untrusted files: their kind, their size, and the depth of their metadata.

A file from elsewhere may be a pipe without a writer, declare terabytes, or decompress to a
thousand times its size. All readers of the package and all downloads use these checks. A reader
converts `DoubtError` to its own error, with the name of the file and advice.
"""

import io
import json
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

# Metadata, settings and server responses, as text; pixels are limited by their declared sizes.
METADATA_BYTES = 2**24
# Nesting of metadata and settings.
DEPTH = 64
_BLOCK = 2**20
# Raised by parsers and decompressors for corrupt data.
DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
    RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class DoubtError(ValueError):
    """A file is rejected by its kind or its declared content; the message follows its name."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file for reading, without blocking.

    Raises:
        DoubtError: If it is a pipe, a device, a socket or a folder, or a link to one.
        OSError: As `open` does.
    """
    handle, _ = open_handle(path)
    return os.fdopen(handle, "rb")


def open_handle(path: str | os.PathLike) -> tuple[int, int]:
    """A fast variant of `open_regular`: a handle of `os.open`, and the size of the file."""
    # Opening a pipe would block otherwise; for a regular file the flag has no effect.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(handle)
        check_kind(found.st_mode)
        return handle, found.st_size
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike) -> int:
    """Size of a regular file in bytes, for a library that opens files itself.

    Raises:
        DoubtError: If it is a pipe, a device, a socket or a folder, or a link to one.
        OSError: If it does not exist.
    """
    found = Path(path).stat()
    check_kind(found.st_mode)
    return found.st_size


def check_kind(mode: int) -> None:
    """Raise `DoubtError` unless the mode from `os.stat` is that of a regular file."""
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
        raise DoubtError(f"is a {kinds.get(stat.S_IFMT(mode), 'device')}, a file is needed")


def read_regular(
    path: str | os.PathLike, limit: int = METADATA_BYTES, *, what: str = "content"
) -> bytes:
    """All bytes of a regular file of at most `limit` bytes.

    Raises:
        DoubtError: If it is not a regular file, or is longer.
        OSError: As `open` does.
    """
    with open_regular(path) as file:
        return read_at_most(file, limit, what=what)


def read_at_most(source: _Readable, limit: int, *, what: str = "content") -> bytes:
    """Read a stream (file, decompressor or response) completely, at most `limit` bytes.

    Raises:
        DoubtError: If there is more; at most `limit` bytes and one block have been in memory.
    """
    target = io.BytesIO()
    copy_at_most(source, target, limit, what=what)
    return target.getvalue()


def copy_at_most(source: _Readable, target: _Writable, limit: int, *, what: str = "content") -> int:
    """Copy a stream of at most `limit` bytes and return their number.

    Raises:
        DoubtError: If there is more; at most `limit` bytes are written.
    """
    copied = 0
    while block := source.read(min(_BLOCK, limit - copied + 1)):
        if copied + len(block) > limit:
            raise DoubtError(f"has {what} of more than {limit:,} bytes")
        target.write(block)
        copied += len(block)
    return copied


def parse_json(raw: bytes | str, *, depth: int = DEPTH) -> Any:
    """Parse untrusted JSON.

    Raises:
        DoubtError: If it is not JSON in UTF-8, is nested deeper than `depth`, or repeats a key.
    """
    try:
        # The parser is recursive, so far too deep input ends it early.
        found = json.loads(raw, object_pairs_hook=_unique)
    except RecursionError:
        raise DoubtError(f"is nested deeper than {depth} levels") from None
    except UnicodeDecodeError as error:
        raise DoubtError(f"is not UTF-8 text ({error.reason})") from None
    except DoubtError:
        raise
    except ValueError as error:
        raise DoubtError(f"is not JSON ({error})") from None
    level = [found]
    for _ in range(depth + 1):
        level = [child for value in level for child in _children(value)]
        if not level:
            return found
    raise DoubtError(f"is nested deeper than {depth} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DoubtError(f"has {key[:80]!r} twice")
        found[key] = value
    return found


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
