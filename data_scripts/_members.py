"""What a zip or tar file says that it holds, believed within bounds."""

import bz2
import dataclasses
import functools
import io
import itertools
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from cpic._trust import DoubtError

# The largest set has 33,000 files, and a tenth of its size in zeros.
MEMBERS = 100_000
RATIO, SMALL_BYTES = 250, 2**28
# A name, or what a tar file says of one member; the list of a zip file; what unpacking may hold.
_HEADER_BYTES, _DIRECTORY_BYTES, _MEMORY_BYTES = 2**16, 2**24, 2**28
# Zeros behind the end, and headers before one member.
_PADDING_BYTES, _HEADERS = 2**26, 8
_TAR, _BLOCK = 512, 2**20
_PACKERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": functools.partial(zlib.decompressobj, 16 + zlib.MAX_WBITS),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": functools.partial(lzma.LZMADecompressor, memlimit=_MEMORY_BYTES),
    b"]\0\0": functools.partial(lzma.LZMADecompressor, memlimit=_MEMORY_BYTES),
}
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar"}
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_ATTRIBUTES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)


@dataclasses.dataclass(frozen=True)
class Member:
    """A file or folder; `blocks` are its bytes, to be read before the next member is asked for."""

    name: str
    size: int
    folder: bool
    blocks: Iterable[bytes]


def members(file: BinaryIO) -> Iterator[Member]:
    """The members of an open archive from its beginning; its content decides what it is.

    When all are taken, the checksum of a packed tar file has been verified.

    Raises:
        DoubtError: if what it announces is not believed, or it is no archive.
        tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError: if it is
            damaged; what these modules raise besides when they stumble, is the same to the caller.
    """
    file.seek(0)
    head = file.read(_TAR)
    file.seek(0)
    # A tar file may end with a zip file and then passes for one: tar is tried first.
    if _is_tar(head):
        yield from _of_tar(file)
        return
    for magic, begin in _PACKERS.items():
        if head.startswith(magic):
            yield from _of_tar(io.BufferedReader(_Unpacked(file, begin)))
            return
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            raise DoubtError(f"is packed by {kind}, only zip and tar are read")
    if not zipfile.is_zipfile(file):
        raise DoubtError("is neither zip nor tar, or truncated")
    yield from _of_zip(file)


def refusal(name: str, reason: str) -> DoubtError:
    """The error for one member."""
    return DoubtError(f"has the member {name[:200]!r}, which {reason}")


def check_ratio(n_bytes: int, packed: int) -> None:
    """Raise `DoubtError` for more than can have been packed into so few bytes."""
    if n_bytes > SMALL_BYTES + RATIO * packed:
        raise DoubtError(f"unpacks to more than {RATIO} times its {packed:,} bytes")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


class _Sparing:
    """A file that gives no more at once than the list of a zip file may have."""

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


def _of_zip(file: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(_Sparing(file)) as packed:
        found, size = packed.infolist(), _size(file)
        check_ratio(sum(info.file_size for info in found), size)
        # Without local names and extra fields: what is left out here only lies between them.
        spans = [(i.header_offset, i.header_offset + 30 + i.compress_size, i) for i in found]
        spans.sort(key=lambda span: span[:2])
        for (_, end, info), (begin, *_) in itertools.pairwise([*spans, (size, size, None)]):
            if end > begin:
                raise refusal(info.filename, "lies over another one, or beyond the end")
        for info in found:
            # What zipfile makes of the name ends at a NUL.
            name = info.orig_filename
            folder = name.replace("\\", "/").endswith("/")
            _check_zipped(info, folder)
            yield Member(name, info.file_size, folder, _zipped(packed, info))


def _check_zipped(info: zipfile.ZipInfo, folder: bool) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    reasons = {
        "is a link": kind == stat.S_IFLNK,
        "is a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK),
        "is encrypted": info.flag_bits & 1,
        "is a folder with content": folder and info.file_size,
        # zipfile does not bound what other methods unpack at once.
        f"is packed by method {info.compress_type}, where deflate is read": info.compress_type
        not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    }
    for reason, here in reasons.items():
        if here:
            raise refusal(info.orig_filename, reason)


def _zipped(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with packed.open(info) as stream:
        yield from iter(functools.partial(stream.read, _BLOCK), b"")


class _Unpacked(io.RawIOBase):
    """The bytes that a packed file holds, forwards."""

    def __init__(self, file: BinaryIO, begin: Callable[[], Any]) -> None:
        self._blocks, self._rest = _unpacked(file, begin), memoryview(b"")
        self._packed, self._read = _size(file), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or memoryview(next(self._blocks, b""))
        n_bytes = min(len(buffer), len(self._rest))
        buffer[:n_bytes], self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        self._read += n_bytes
        check_ratio(self._read, self._packed)
        return n_bytes


def _unpacked(file: BinaryIO, begin: Callable[[], Any]) -> Iterator[bytes]:
    """Blocks of all that was packed one after the other; the unpackers verify their checksums.

    The modules gzip, bz2 and lzma have readers too: they bound neither the memory that a file
    asks for nor the length of its header, and two of them pass over what follows the end.
    """
    data = file.read(_BLOCK)
    while data:
        unpacker = begin()
        while not unpacker.eof:
            try:
                block = unpacker.decompress(data, _BLOCK)
            except OSError as error:  # so bz2 says that its data is no such data
                raise tarfile.ReadError(str(error)) from None
            data = getattr(unpacker, "unconsumed_tail", b"")
            if block:
                yield block
            if not data and getattr(unpacker, "needs_input", True) and not unpacker.eof:
                data = file.read(_BLOCK)
                if not (data or block):
                    raise EOFError("it is cut")
        padding, data = 0, unpacker.unused_data.lstrip(b"\0")
        while not data and (more := file.read(_BLOCK)):
            data, padding = more.lstrip(b"\0"), padding + len(more)
            _check_padding(padding)


def _check_padding(n_bytes: int) -> None:
    if n_bytes > _PADDING_BYTES:
        raise DoubtError(f"goes on for more than {_PADDING_BYTES:,} bytes after its end")


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(head) == _TAR and not any(head)
    return True


@dataclasses.dataclass
class _Content:
    """Bytes of one member of a tar file, with what is left of them."""

    stream: BinaryIO
    left: int

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            block = self.stream.read(min(_BLOCK, self.left))
            if not block:
                raise EOFError("it is cut")
            self.left -= len(block)
            yield block

    def skip(self) -> None:
        if self.stream.seekable():
            at = self.stream.tell() + self.left
            if at > _size(self.stream):
                raise EOFError("it is cut")
            self.left = 0
            self.stream.seek(at)
        for _ in self:
            pass


def _of_tar(stream: Any) -> Iterator[Member]:
    """Members read forwards, header by header.

    tarfile.TarFile believes all lengths, knows six ways to write holes, and takes a damaged
    header for the end.
    """
    known: dict[str, str] = {}
    headers = 0
    while any(head := _exactly(stream, _TAR)):
        info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        headers += 1
        if info.size < 0 or headers > _HEADERS:
            raise refusal(info.name, "has a header that is not believed")
        if info.type in _NAMES + _ATTRIBUTES:
            known |= _said(info, stream)
            continue
        size = int(known.get("size", info.size))
        name = known.get("path", info.name)
        _check_tarred(info, name, known)
        folder = info.isdir() or (name.endswith("/") and not size)
        content = _Content(stream, 0 if info.isdir() else size)
        yield Member(name, content.left, folder, content)
        content.left += -size % _TAR if not info.isdir() else 0
        content.skip()
        known, headers = {}, 0
    padding = 0
    while block := stream.read(_BLOCK):
        padding += len(block)
        _check_padding(padding)
        if any(block):
            raise DoubtError("goes on after its end")


def _check_tarred(info: tarfile.TarInfo, name: str, known: dict[str, str]) -> None:
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in known):
        raise refusal(name, "is stored with holes")
    if not (info.isreg() or info.isdir()):
        raise refusal(name, f"is a {'link' if info.issym() or info.islnk() else 'device'}")


def _said(info: tarfile.TarInfo, stream: BinaryIO) -> dict[str, str]:
    """What a header says of the member that follows: path, size and more."""
    if info.size > _HEADER_BYTES:
        raise DoubtError(
            f"has a header of {info.size:,} bytes for one member, {_HEADER_BYTES:,} are the most"
        )
    raw = _exactly(stream, info.size + -info.size % _TAR)[: info.size]
    if info.type in _NAMES:
        name = raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return {"path": name} if info.type == tarfile.GNUTYPE_LONGNAME else {}
    said = dict(_records(raw))
    if not re.fullmatch(r"[0-9]{1,18}", said.get("size", "0")):
        raise DoubtError(f"has a member of {said['size'][:40]!r} bytes")
    if info.type == tarfile.XGLTYPE:
        if said.keys() & {"path", "size"}:
            raise DoubtError("gives all its members one name or size")
        return {}
    return said


def _records(raw: bytes) -> Iterator[tuple[str, str]]:
    """Pairs of an extended header: records "LENGTH KEY=VALUE", each with its line end."""
    at = 0
    while at < len(raw):
        found = re.compile(rb"([0-9]{1,5}) ").match(raw, at)
        end = at + int(found[1]) if found else 0
        if not found or end <= found.end() or raw[end - 1 : end] != b"\n":
            raise tarfile.InvalidHeaderError("invalid header")
        key, _, value = raw[found.end() : end - 1].partition(b"=")
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        at = end


def _exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    raw = stream.read(n_bytes)
    if len(raw) < n_bytes:
        raise EOFError("it is cut")
    return raw
