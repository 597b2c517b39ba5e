"""Members of an untrusted tar file, compressed or not, read sequentially within limits."""

import bz2
import dataclasses
import functools
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from _member import BLOCK, Member, check_ratio, refusal, size_of_file

from cpic._trust import DoubtError

# Limits: a name, or a header of one member; headers before a member; zeros after the end.
_HEADER_BYTES, _HEADERS, _PADDING_BYTES = 2**16, 8, 2**26
_MEMORY_BYTES = 2**28
_TAR = tarfile.BLOCKSIZE
# Small, since the unused part of a short stream is copied for the next one.
_PACKED_BYTES = 2**14
GZIP = functools.partial(zlib.decompressobj, 16 + zlib.MAX_WBITS)
_PACKERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": GZIP,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": functools.partial(lzma.LZMADecompressor, memlimit=_MEMORY_BYTES),
    b"]\0\0": functools.partial(lzma.LZMADecompressor, memlimit=_MEMORY_BYTES),
}
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_ATTRIBUTES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)


def of_tar(file: BinaryIO) -> Iterator[Member] | None:
    """The members in order, or None if it is not a tar file.

    After the last one, the checksum of a compressed file has been verified.

    Raises:
        DoubtError: if a header declares implausible content.
        tarfile.TarError, zlib.error, lzma.LZMAError, EOFError: if the file is damaged.
    """
    file.seek(0)
    head = file.read(_TAR)
    file.seek(0)
    if _is_header(head):
        return _members(file)
    for magic, begin in _PACKERS.items():
        if head.startswith(magic):
            return _members(io.BufferedReader(Unpacked(file, begin)))
    return None


class Unpacked(io.RawIOBase):
    """The decompressed bytes of a file, read sequentially."""

    def __init__(self, file: BinaryIO, begin: Callable[[], Any]) -> None:
        self._blocks, self._rest = _unpacked(file, begin), memoryview(b"")
        self._packed, self._read = size_of_file(file), 0

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
    """Decompressed blocks of concatenated streams; the decompressors verify the checksums.

    The readers of the modules gzip, bz2 and lzma bound neither the memory that a file requests nor
    the length of its header, and two of them ignore trailing data.
    """
    data = file.read(_PACKED_BYTES)
    while data:
        unpacker = begin()
        while not unpacker.eof:
            try:
                block = unpacker.decompress(data, BLOCK)
            except OSError as error:  # raised by bz2 for invalid data
                raise tarfile.ReadError(str(error)) from None
            data = getattr(unpacker, "unconsumed_tail", b"")
            if block:
                yield block
            if not data and getattr(unpacker, "needs_input", True) and not unpacker.eof:
                data = file.read(_PACKED_BYTES)
                if not (data or block):
                    raise EOFError("it is cut")
        padding, data = 0, unpacker.unused_data.lstrip(b"\0")
        while not data and (more := file.read(_PACKED_BYTES)):
            data, padding = more.lstrip(b"\0"), padding + len(more)
            _check_padding(padding)


def _check_padding(n_bytes: int) -> None:
    if n_bytes > _PADDING_BYTES:
        raise DoubtError(f"goes on for more than {_PADDING_BYTES:,} bytes after its end")


def _is_header(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return len(head) == _TAR and not any(head)
    return True


@dataclasses.dataclass
class _Content:
    """Bytes of one member of a tar file, and its remaining size."""

    stream: BinaryIO
    left: int

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            block = self.stream.read(min(BLOCK, self.left))
            if not block:
                raise EOFError("it is cut")
            self.left -= len(block)
            yield block

    def skip(self) -> None:
        if self.stream.seekable():
            at = self.stream.tell() + self.left
            if at > size_of_file(self.stream):
                raise EOFError("it is cut")
            self.left = 0
            self.stream.seek(at)
        for _ in self:
            pass


def _members(stream: Any) -> Iterator[Member]:
    """Members read sequentially, header by header.

    tarfile.TarFile trusts all sizes, supports six encodings of holes, and takes a damaged header
    for the end.
    """
    known: dict[str, str] = {}
    headers = 0
    while any(head := _exactly(stream, _TAR)):
        info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        headers += 1
        if info.size < 0 or headers > _HEADERS:
            raise refusal(info.name, "has an implausible header")
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
    while block := stream.read(BLOCK):
        padding += len(block)
        _check_padding(padding)
        if any(block):
            raise DoubtError("has data after its end")


def _check_tarred(info: tarfile.TarInfo, name: str, known: dict[str, str]) -> None:
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in known):
        raise refusal(name, "is stored with holes")
    if not (info.isreg() or info.isdir()):
        raise refusal(name, f"is a {'link' if info.issym() or info.islnk() else 'device'}")


def _said(info: tarfile.TarInfo, stream: BinaryIO) -> dict[str, str]:
    """The extended headers before a member: path, size and more."""
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
