"""What is believed of a file: its kind, how much it may hold, how deep its metadata may go.

A file that somebody else made may be a pipe that nobody writes to, announce terabytes, or unpack to
a thousand times its size. Every reader of the package and every download asks here, so that the
answers are the same everywhere. A reader turns `DoubtError` into its own error, which names the
file and says what to do.
"""

import json
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

# Metadata, settings and answers of a server, as text; pixels are bounded by what they must hold.
METADATA_BYTES = 2**24
# Nesting of metadata and settings.
DEPTH = 64
_BLOCK = 2**20
# What parsers and unpackers raise over bytes that are not what they announce.
DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError,
    RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class DoubtError(ValueError):
    """What a file is, or says of itself, is not believed; the message goes on after its name."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writable(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading, without waiting for anybody.

    Raises:
        DoubtError: If it is a pipe, a device, a socket or a folder, or a link to one.
        OSError: As `open` does.
    """
    handle, _ = open_handle(path)
    return os.fdopen(handle, "rb")


def open_handle(path: str | os.PathLike) -> tuple[int, int]:
    """As `open_regular`, where it must be quick: a handle of `os.open`, and the file's bytes."""
    # Opening a pipe waits for its writer unless told not to; of a regular file it changes nothing.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(handle)
        check_kind(found.st_mode)
        return handle, found.st_size
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike) -> int:
    """Bytes of a regular file, for a library that opens files itself.

    Raises:
        DoubtError: If it is a pipe, a device, a socket or a folder, or a link to one.
        OSError: If it is not there.
    """
    found = Path(path).stat()
    check_kind(found.st_mode)
    return found.st_size


def check_kind(mode: int) -> None:
    """Raise `DoubtError` unless the mode of `os.stat` is that of a regular file."""
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
        raise DoubtError(f"is a {kinds.get(stat.S_IFMT(mode), 'device')}, a file is needed")


def read_regular(
    path: str | os.PathLike, limit: int = METADATA_BYTES, *, what: str = "content"
) -> bytes:
    """All bytes of a regular file of at most `limit` bytes.

    Raises:
        DoubtError: If it is no regular file, or longer.
        OSError: As `open` does.
    """
    with open_regular(path) as file:
        return read_at_most(file, limit, what=what)


def read_at_most(source: _Readable, limit: int, *, what: str = "content") -> bytes:
    """All that comes from a stream (a file, an unpacker, an answer), at most `limit` bytes.

    Raises:
        DoubtError: If more would come; no more than `limit` and a block are in memory then.
    """
    blocks: list[bytes] = []
    left = limit
    while block := source.read(min(_BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            raise DoubtError(_longer(what, limit))
        blocks.append(block)
    return b"".join(blocks)


def copy_at_most(source: _Readable, target: _Writable, limit: int, *, what: str = "content") -> int:
    """Copy a stream of at most `limit` bytes and return their number.

    Raises:
        DoubtError: If more would come; at most `limit` bytes are written.
    """
    copied = 0
    while block := source.read(min(_BLOCK, limit - copied + 1)):
        if copied + len(block) > limit:
            raise DoubtError(_longer(what, limit))
        target.write(block)
        copied += len(block)
    return copied


def parse_json(raw: bytes | str, *, depth: int = DEPTH) -> Any:
    """JSON of a stranger.

    Raises:
        DoubtError: If it is no JSON in UTF-8, nested deeper than `depth`, or says a key twice.
    """
    try:
        # The parser descends by recursion, so what is far too deep ends it early.
        found = json.loads(raw, object_pairs_hook=_unique)
    except RecursionError:
        raise DoubtError(f"is nested deeper than {depth} levels") from None
    except UnicodeDecodeError as error:
        raise DoubtError(f"is no text in UTF-8 ({error.reason})") from None
    except DoubtError:
        raise
    except ValueError as error:
        raise DoubtError(f"is no JSON ({error})") from None
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
            raise DoubtError(f"says {key[:80]!r} twice")
        found[key] = value
    return found


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _longer(what: str, limit: int) -> str:
    return f"has {what} of more than {limit:,} bytes"
