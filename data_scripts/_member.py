"""Limits for the members of an untrusted archive, and for the archive as a whole."""

import dataclasses
import os
from collections.abc import Iterable
from typing import BinaryIO

from cpic._trust import DoubtError

# The largest set has 33,000 files; scans compress to a third, labels alone to a hundredth.
MEMBERS = 100_000
_RATIO, _SMALL_BYTES = 250, 2**28
BLOCK = 2**20


@dataclasses.dataclass(frozen=True)
class Member:
    """A file or folder; read its `blocks` before requesting the next member."""

    name: str
    size: int
    folder: bool
    blocks: Iterable[bytes]


def refusal(name: str, reason: str) -> DoubtError:
    """The error for one member."""
    return DoubtError(f"has the member {name[:200]!r}, which {reason}")


def check_ratio(n_bytes: int, packed: int) -> None:
    """Raise `DoubtError` for more content than can be compressed into so few bytes."""
    if n_bytes > _SMALL_BYTES + _RATIO * packed:
        raise DoubtError(f"unpacks to more than {_RATIO} times its {packed:,} bytes")


def size_of_file(file: BinaryIO) -> int:
    """Bytes of an open file, in blocks."""
    return os.fstat(file.fileno()).st_size
