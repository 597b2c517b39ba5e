"""Decompress chunks within the sizes they must have, whatever their files declare."""

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpic._trust import DoubtError, read_at_most

# Memory for a decompressor besides its input and output; xz needs 64 MiB at its highest level.
_MEMORY = 2**28
_UINT = struct.Struct("<I")
# Filters of version 2 may store wider numbers than they return.
WIDER = 8


def room(n_bytes: int) -> int:
    """Maximum compressed size of `n_bytes`: compressors add little."""
    return n_bytes + n_bytes // 8 + 2**16


@dataclass(frozen=True)
class Unpacker:
    """A numcodecs compressor that decompresses no more than a chunk can have.

    Attributes:
        codec: The compressor.
        more: Bytes that its input has in addition to the values; None if another compressor came
            before it, so that only a bound is known.
    """

    codec: Any
    more: int | None = 0

    def encode(self, raw: Any) -> Any:
        """Compress."""
        return self.codec.encode(raw)

    def decode(self, raw: Any, n_bytes: int) -> Any:
        """Decompress, for a chunk whose values take `n_bytes`.

        Raises:
            DoubtError: If the result is too long, or too short where the length is known.
            RuntimeError, ValueError, EOFError, OSError, zlib.error, lzma.LZMAError: If it is
                damaged.
        """
        exact, limit = self.more is not None, n_bytes + (self.more or 0)
        limit = limit if exact else room(limit)
        unpack = _UNPACK.get(self.codec.codec_id)
        found = self.codec.decode(raw) if unpack is None else unpack(self.codec, raw, limit, exact)
        size = memoryview(found).nbytes
        if size > limit or (exact and size != limit):
            raise DoubtError(f"{size:,} bytes came, {limit:,} are needed")
        return found


def _zstd(codec: Any, raw: Any, limit: int, exact: bool) -> Any:
    said = _content_size(raw)
    if said is None and not exact:
        raise DoubtError("a frame of Zstandard does not say its size")
    if said is not None and said > limit:
        raise DoubtError(f"{said:,} bytes are declared, {limit:,} are needed")
    out = np.empty(limit if exact or said is None else said, np.uint8)
    codec.decode(raw, out)
    if said is not None and said < out.size:
        # Of several frames that declare their sizes, the library fills the front of `out`. They
        # fill all of it if one byte less would not suffice, which it detects before decompression.
        try:
            codec.decode(raw, out[:-1])
        except (ValueError, RuntimeError):
            return out
        raise DoubtError(f"fewer than {limit:,} bytes came")
    return out


def _content_size(raw: Any) -> int | None:
    """The size that the first frame of Zstandard declares; None if it does not."""
    head = bytes(raw[:18])
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = head[4]
    kind, single = flags >> 6, flags >> 5 & 1
    start = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    length = (single, 2, 4, 8)[kind]
    if not length:
        return None
    return int.from_bytes(head[start : start + length], "little") + (256 if kind == 1 else 0)


def _announced(at: int, *, packed_at: int | None = None) -> Callable[..., Any]:
    """For compressors whose header has the size, and that respect it.

    Args:
        at: Offset of the decompressed size.
        packed_at: Offset of the compressed size, which the library trusts.
    """

    def unpack(codec: Any, raw: Any, limit: int, _: bool) -> Any:
        view = memoryview(raw).cast("B")
        said = _UINT.unpack_from(view, at)[0] if len(view) >= at + 4 else 0
        if said > limit:
            raise DoubtError(f"{said:,} bytes are declared, {limit:,} are needed")
        if packed_at is not None and (
            len(view) < packed_at + 4 or _UINT.unpack_from(view, packed_at)[0] > len(view)
        ):
            raise EOFError("the packed bytes end too soon")
        return codec.decode(raw)

    return unpack


def _file(opened: Callable[[io.BytesIO], Any]) -> Callable[..., Any]:
    """For formats of concatenated streams, many of which may be empty: each byte is read once."""

    def unpack(codec: Any, raw: Any, limit: int, _: bool) -> Any:
        with opened(io.BytesIO(raw)) as file:
            return read_at_most(file, limit, what="a chunk")

    return unpack


def _stream(start: Callable[[Any], Any]) -> Callable[..., Any]:
    """For formats of a single stream."""

    def unpack(codec: Any, raw: Any, limit: int, _: bool) -> Any:
        unpacker = start(codec)
        found = unpacker.decompress(raw, limit + 1)
        if len(found) <= limit and not unpacker.eof:
            raise EOFError("the packed bytes end too soon")
        return found

    return unpack


def _xz(codec: Any) -> Any:
    # Without a bound, a header of a few bytes makes the library allocate gigabytes.
    memory = None if codec.format == lzma.FORMAT_RAW else _MEMORY
    return lzma.LZMADecompressor(codec.format, memory, codec.filters)


# A zlib stream with the header of gzip or its own.
inflate = _stream(lambda _: zlib.decompressobj(zlib.MAX_WBITS | 32))

_UNPACK: dict[str, Callable[..., Any]] = {
    "zstd": _zstd,
    "blosc": _announced(4, packed_at=12),
    "lz4": _announced(0),
    "gzip": _file(lambda source: gzip.GzipFile(fileobj=source)),
    "bz2": _file(bz2.BZ2File),
    "zlib": inflate,
    "lzma": _stream(_xz),
}


def unfilter(codec: Any, raw: Any, n_bytes: int) -> Any:
    """Apply a filter of numcodecs to `raw`, for a chunk whose values take `n_bytes`.

    Raises:
        DoubtError: If the result is longer than such a chunk can be between its filters.
    """
    if memoryview(raw).nbytes * _growth(codec) > room(n_bytes * WIDER):
        raise DoubtError("more bytes came than a chunk has")
    return codec.decode(raw)


def _growth(codec: Any) -> float:
    """Ratio of the sizes of a filter's output and input."""
    if codec.codec_id == "packbits":
        return 8
    stored = getattr(codec, "encode_dtype", getattr(codec, "astype", None))
    given = getattr(codec, "decode_dtype", getattr(codec, "dtype", None))
    if isinstance(stored, np.dtype) and isinstance(given, np.dtype):
        return given.itemsize / stored.itemsize
    return 1
