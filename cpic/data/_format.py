"""Where the chunks of a Zarr array of version 3 lie, and how their bytes become values."""

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cpic.data._store import Piece, Reads
from cpic.data._unpack import Unpacker, room

NOT_THERE = 2**64 - 1
# Pieces of one file that lie no further apart are read as one.
_GAP = 0
_CHECKSUM = 4
_SPAN = struct.Struct("<QQ")


class DamagedError(Exception):
    """Bytes that are no chunk; `number` is the place of the chunk among those asked for."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


@dataclass(frozen=True)
class Layout:
    """Chunks in files of their own, or in shards with their index at the end.

    Attributes:
        chunk: sizes of a chunk, all axes.
        per_shard: chunks along each axis of a shard; None without shards.
        stored: type of the values in the store, with the order of its bytes.
        codecs: what the bytes of a chunk went through, in that order.
        fill: value of what is not stored.
        key: name of a chunk or shard by its position.
    """

    chunk: tuple[int, ...]
    per_shard: tuple[int, ...] | None
    stored: np.dtype
    codecs: tuple[Unpacker, ...]
    fill: Any
    key: Callable[[Sequence[int]], str]

    @property
    def index_bytes(self) -> int:
        """Length of a shard's index."""
        assert self.per_shard is not None
        return 16 * math.prod(self.per_shard) + _CHECKSUM

    @cached_property
    def packed_bytes(self) -> int:
        """What a chunk can have in the store."""
        return room(math.prod(self.chunk) * self.stored.itemsize)

    def shard_of(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the shards of chunks at `positions` (n, d), and their numbers therein."""
        assert self.per_shard is not None
        edges = np.asarray(self.per_shard)
        return positions // edges, np.asarray(
            np.ravel_multi_index((positions % edges).T, self.per_shard)
        )

    def read(self, reads: Reads, positions: np.ndarray) -> list[Any]:
        """Encoded bytes of the chunks at `positions` (n, d), None where there are none."""
        if self.per_shard is None:
            keys = [self.key(at) for at in positions.tolist()]
            found = reads.many([Piece(key) for key in keys])
            _count(reads, zip(keys, found, strict=True))
            return found
        shards, numbers = self.shard_of(positions)
        keys = [self.key(at) for at in shards.tolist()]
        members: dict[str, list[int]] = {}
        for number, key in enumerate(keys):
            members.setdefault(key, []).append(number)
        known = reads.known(list(members))
        indices = dict(zip(members, reads.index(list(members), self.index_bytes), strict=True))
        _count(reads, ((key, indices[key]) for key in members if key not in known))
        return self._read_shards(reads, members, indices, numbers.tolist())

    def _read_shards(
        self, reads: Reads, members: dict, indices: dict[str, Any], numbers: list[int]
    ) -> list[Any]:
        pieces, parts = [], []
        for key, chunks in members.items():
            if indices[key] is None:
                continue
            try:
                body = checked(indices[key], self.index_bytes)
            except ValueError as error:
                raise DamagedError(chunks[0], str(error)) from error
            # A shard gives a few chunks, for which arrays would take longer than this.
            spans = sorted((*_SPAN.unpack_from(body, 16 * numbers[k]), k) for k in chunks)
            for start, length, k in spans:
                if start == length == NOT_THERE:
                    continue
                stop = start + length
                if length > self.packed_bytes or stop >= 2**63:
                    raise DamagedError(k, f"its shard says that it lies at {start:,} to {stop:,}")
                last = pieces[-1] if pieces else None
                if last and last.key == key and last.stop <= start <= last.stop + _GAP:
                    pieces[-1] = last._replace(stop=stop)
                else:
                    pieces.append(Piece(key, start, stop))
                parts.append((k, len(pieces) - 1, start, stop))
        found = reads.many(pieces)
        _count(reads, zip((piece.key for piece in pieces), found, strict=True))
        raw: list[Any] = [None] * len(numbers)
        for number, at, start, stop in parts:
            if found[at] is not None:
                low = pieces[at].start
                raw[number] = memoryview(found[at])[start - low : stop - low]
        return raw

    def decode(self, raw: Any, out: np.ndarray) -> None:
        """Write the values of a chunk into `out`, of its sizes."""
        for codec in reversed(self.codecs):
            raw = codec.decode(raw, out.nbytes)
        values = np.frombuffer(raw, self.stored)
        if values.size != out.size:
            raise ValueError(f"{values.size} values came, {out.size} are needed")
        out[...] = values.reshape(out.shape)

    def encode(self, values: np.ndarray) -> bytes:
        """The bytes of a chunk."""
        raw: Any = np.ascontiguousarray(values, self.stored)
        for codec in self.codecs:
            raw = codec.encode(raw)
        return bytes(raw)


def parsed(index: bytes, n_chunks: int) -> np.ndarray:
    """First byte and length of each chunk of a shard, (n, 2)."""
    return np.frombuffer(checked(index, 16 * n_chunks + _CHECKSUM), "<u8").reshape(-1, 2)


def checked(index: bytes, length: int) -> bytes:
    """The index of a shard without its checksum, which is right."""
    import google_crc32c

    body, checksum = index[:-_CHECKSUM], index[-_CHECKSUM:]
    if len(index) != length:
        raise ValueError(f"the index of the shard has {len(index):,} of {length:,} bytes")
    if google_crc32c.value(body).to_bytes(_CHECKSUM, "little") != checksum:
        raise ValueError("the index of the shard does not have its checksum")
    return body


def with_chunks(shard: bytes | None, new: dict[int, bytes], n_chunks: int) -> tuple[bytes, int]:
    """A shard with more chunks behind those that it holds, whose bytes stay where they are.

    Args:
        shard: all bytes of it, None for a new one.
        new: bytes of chunks by their number in the shard; those that are there already stay.
        n_chunks: chunks of a full shard.

    Returns:
        The bytes, and how many chunks were added.
    """
    import google_crc32c

    if shard is None:
        parts, spans = [], np.full((n_chunks, 2), NOT_THERE, "<u8")
    else:
        length = 16 * n_chunks + _CHECKSUM
        parts, spans = [shard[:-length]], parsed(shard[-length:], n_chunks).copy()
    at, before = sum(map(len, parts)), len(parts)
    for number, chunk in sorted(new.items()):
        if spans[number, 0] == NOT_THERE:
            spans[number] = at, len(chunk)
            parts.append(chunk)
            at += len(chunk)
    body = spans.tobytes()
    checksum = google_crc32c.value(body).to_bytes(_CHECKSUM, "little")
    return b"".join([*parts, body, checksum]), len(parts) - before


def _count(reads: Reads, found: Any) -> None:
    """Note what came from files, and keys that are missing; a server's are noted as they come."""
    if reads.folder is not None:
        for key, raw in found:
            if raw is None:
                reads.missing.add(key)
            else:
                reads.n_bytes += len(raw)
