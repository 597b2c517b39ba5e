"""Description of a Zarr array: where its chunks are, and how their bytes are decoded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpic.data.chunked._reads import Piece, Reads
from cpic.data.chunked._shards import NOT_THERE, ShardIndex
from cpic.data.chunked._unpack import Unpacker, room

# Upper bound on the overhead of a chunk in a shard: headers of compressors, its span.
SHARE = 128


class DamagedError(Exception):
    """Bytes that are not a chunk; `number` is the index of the chunk among those requested."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


@dataclass(frozen=True)
class Codecs:
    """How the bytes of a chunk are decoded.

    Attributes:
        n_bytes: Maximum size of the values before compression.
        packers: Compressors applied, in order.
        values: Converts the decompressed bytes to an array with the sizes of a chunk.
        plain: Dtype of the values, with byte order, if there is no further conversion.
    """

    n_bytes: int
    packers: tuple[Unpacker, ...]
    values: Callable[[Any], np.ndarray]
    plain: np.dtype | None = None

    def decode(self, raw: Any) -> np.ndarray:
        """The values of a chunk."""
        for packer in reversed(self.packers):
            raw = packer.decode(raw, self.n_bytes)
        return self.values(raw)


@dataclass(frozen=True)
class Layout:
    """An array in chunks, in files of their own or in shards.

    Attributes:
        shape: Sizes of the array, all axes.
        dtype: Type of the values in memory.
        chunk: Sizes of a chunk, all axes.
        index: Index of a shard; None without shards.
        codecs: How chunks are encoded.
        fill: Value of the voxels of chunks that are not stored.
        key: Maps the position of a chunk or shard to its file name.
        attributes: Further attributes of the array.
        described: Its metadata, to distinguish it from others.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]
    index: ShardIndex | None
    codecs: Codecs
    fill: Any
    key: Callable[[Sequence[int]], str]
    attributes: dict[str, Any]
    described: str

    @property
    def file_bytes(self) -> int:
        """Maximum size of a file in bytes."""
        n_chunks = math.prod(self.index.per_shard) if self.index else 1
        return room(n_chunks * (self.codecs.n_bytes + SHARE))

    def read(self, reads: Reads, positions: np.ndarray) -> list[Any]:
        """Encoded bytes of the chunks at `positions` (n, d), None for missing ones."""
        if self.index is None:
            return reads.many([Piece(self.key(at)) for at in positions.tolist()])
        shards, numbers = self.index.place(positions)
        members: dict[str, list[int]] = {}
        for k, at in enumerate(shards.tolist()):
            members.setdefault(self.key(at), []).append(k)
        pieces, parts = self._pieces(reads, self.index, members, numbers.tolist())
        found = reads.many(pieces)
        raw: list[Any] = [None] * len(numbers)
        for k, piece, start, stop in parts:
            if found[piece] is not None:
                low = pieces[piece].start
                raw[k] = memoryview(found[piece])[start - low : stop - low]
        return raw

    def _pieces(
        self, reads: Reads, index: ShardIndex, members: dict[str, list[int]], numbers: list[int]
    ) -> tuple[list[Piece], list[tuple[int, int, int, int]]]:
        """The pieces to read; and for each chunk its piece, and first and last byte in it.

        Chunks that are adjacent in a file form one piece.
        """
        pieces: list[Piece] = []
        parts, limit = [], room(self.codecs.n_bytes)
        indices = reads.indices([index.piece(key) for key in members])
        for (key, chunks), raw in zip(members.items(), indices, strict=True):
            if raw is None:
                continue
            try:
                spans = index.some(raw, [numbers[k] for k in chunks])
            except ValueError as error:
                raise DamagedError(chunks[0], str(error)) from error
            for (start, length), k in sorted(zip(spans, chunks, strict=True)):
                if start == length == NOT_THERE:
                    continue
                stop = start + length
                if not 0 < length <= limit or stop >= 2**63:
                    raise DamagedError(k, f"its shard places it at bytes {start:,} to {stop:,}")
                last = pieces[-1] if pieces else None
                if last and last.key == key and last.stop == start:
                    pieces[-1] = last._replace(stop=stop)
                else:
                    pieces.append(Piece(key, start, stop))
                parts.append((k, len(pieces) - 1, start, stop))
        return pieces, parts

    def decode(self, raw: Any, out: np.ndarray) -> None:
        """Write the values of a chunk into `out`; its last axis may be shorter."""
        out[...] = self.codecs.decode(raw)[..., : out.shape[-1]]

    def encode(self, values: np.ndarray) -> bytes:
        """The bytes of a chunk whose values are only compressed."""
        raw: Any = np.ascontiguousarray(values, self.codecs.plain)
        for packer in self.codecs.packers:
            raw = packer.encode(raw)
        return bytes(raw)
