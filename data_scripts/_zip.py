"""Members of an untrusted zip file, with limits on its directory and their positions."""

import functools
import itertools
import stat
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from _member import BLOCK, Member, check_ratio, refusal, size_of_file

from cpic._trust import DoubtError

_DIRECTORY_BYTES = 2**24


class _Sparing:
    """A file that returns no more at once than the directory of a zip file may have."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, n_bytes: int = -1) -> bytes:
        if n_bytes > _DIRECTORY_BYTES:
            raise DoubtError(
                f"has a list of members of {n_bytes:,} bytes, {_DIRECTORY_BYTES:,} are the most"
            )
        return self._file.read(n_bytes)


def of_zip(file: BinaryIO) -> Iterator[Member]:
    """The members in directory order; each is verified against its checksum when read.

    Raises:
        DoubtError: if the directory is too long, or members overlap.
        zipfile.BadZipFile: if the file is damaged.
    """
    with zipfile.ZipFile(_Sparing(file)) as packed:
        found, size = packed.infolist(), size_of_file(file)
        if _count(file, size) not in (len(found) % 2**16, 2**16 - 1):
            raise zipfile.BadZipFile("its list has lost members")
        check_ratio(sum(info.file_size for info in found), size)
        # Local names and extra fields are ignored: they only lie in between.
        spans = [(i.header_offset, i.header_offset + 30 + i.compress_size, i) for i in found]
        spans.sort(key=lambda span: span[:2])
        for (_, end, info), (begin, *_) in itertools.pairwise([*spans, (size, size, None)]):
            if end > begin:
                raise refusal(info.filename, "lies over another one, or beyond the end")
        for info in found:
            # zipfile ends names at a NUL.
            name = info.orig_filename
            folder = name.replace("\\", "/").endswith("/")
            _check_zipped(info, folder)
            yield Member(name, info.file_size, folder, _zipped(packed, info))


def _count(file: BinaryIO, size: int) -> int:
    """The number of members in the last record, which zipfile ignores; 65,535 means more."""
    file.seek(max(0, size - 2**16 - zipfile.sizeEndCentDir))
    tail = file.read()
    at = tail.rfind(zipfile.stringEndArchive)
    return int.from_bytes(tail[at + 10 : at + 12], "little")


def _check_zipped(info: zipfile.ZipInfo, folder: bool) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    reasons = {
        "is a link": kind == stat.S_IFLNK,
        "is a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK),
        "is encrypted": info.flag_bits & 1,
        "is a folder with content": folder and info.file_size,
        # zipfile does not bound the memory of other methods.
        f"is packed by method {info.compress_type}, where deflate is read": info.compress_type
        not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    }
    for reason, here in reasons.items():
        if here:
            raise refusal(info.orig_filename, reason)


def _zipped(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with packed.open(info) as stream:
        yield from iter(functools.partial(stream.read, BLOCK), b"")
