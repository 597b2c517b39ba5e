"""The index of a shard: the byte range of each chunk in its file."""

import math
import struct
from dataclasses import dataclass

import numpy as np

from cpic.data.chunked._reads import Piece

NOT_THERE = 2**64 - 1
_CHECKSUM = 4


@dataclass(frozen=True)
class ShardIndex:
    """Spans of the chunks of a shard: first byte and length of each, in its file.

    Attributes:
        per_shard: Number of chunks along each axis.
        at_end: Whether the index is at the end of the file, or at its start.
        n_checksums: Number of CRC32C after the spans.
        order: Byte order of a number, "<" or ">".
    """

    per_shard: tuple[int, ...]
    at_end: bool = True
    n_checksums: int = 1
    order: str = "<"

    @property
    def n_bytes(self) -> int:
        """Length of the index in bytes."""
        return 16 * math.prod(self.per_shard) + _CHECKSUM * self.n_checksums

    def piece(self, key: str) -> Piece:
        """Position of the index in the file of a shard."""
        return Piece(key, last=self.n_bytes) if self.at_end else Piece(key, 0, self.n_bytes)

    def within(self, shard: bytes | memoryview) -> bytes:
        """The index from all bytes of a shard."""
        return bytes(shard[-self.n_bytes :] if self.at_end else shard[: self.n_bytes])

    def place(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the shards of chunks at `positions` (n, d), and chunk numbers in them."""
        within = (positions % self.per_shard).T
        return positions // self.per_shard, np.asarray(np.ravel_multi_index(within, self.per_shard))

    def some(self, index: bytes, numbers: list[int]) -> list[tuple[int, int]]:
        """First byte and length of a few chunks, faster than an array of all.

        Raises:
            ValueError: If the index is damaged.
        """
        body, span = self._checked(index), struct.Struct(f"{self.order}QQ")
        return [span.unpack_from(body, 16 * number) for number in numbers]

    def all(self, index: bytes) -> np.ndarray:
        """First byte and length of each chunk, (n, 2); `ValueError` as for `some`."""
        return np.frombuffer(self._checked(index), f"{self.order}u8").reshape(-1, 2)

    def _checked(self, index: bytes) -> bytes:
        """The index without its checksum, after verifying it."""
        if len(index) != self.n_bytes:
            raise ValueError(f"the index of the shard has {len(index):,} of {self.n_bytes:,} bytes")
        for _ in range(self.n_checksums):
            index, checksum = index[:-_CHECKSUM], index[-_CHECKSUM:]
            if checksum != _crc32c(index):
                raise ValueError("the index of the shard does not have its checksum")
        return index

    def with_chunks(self, shard: bytes | None, new: dict[int, bytes]) -> tuple[bytes, int]:
        """Append chunks to a shard, whose existing bytes stay at their positions.

        Args:
            shard: All bytes of it, None for a new one.
            new: Bytes of chunks by their number in the shard; existing chunks are kept.

        Returns:
            The bytes, and the number of added chunks.
        """
        parts = []
        spans = np.full((math.prod(self.per_shard), 2), NOT_THERE, "<u8")
        if shard is not None:
            parts, spans = [shard[: -self.n_bytes]], self.all(self.within(shard)).copy()
        at, before = sum(map(len, parts)), len(parts)
        for number, chunk in sorted(new.items()):
            if spans[number, 0] == NOT_THERE:
                spans[number] = at, len(chunk)
                parts.append(chunk)
                at += len(chunk)
        body = spans.tobytes()
        return b"".join([*parts, body, _crc32c(body)]), len(parts) - before


def _crc32c(body: bytes) -> bytes:
    import google_crc32c

    return google_crc32c.value(body).to_bytes(_CHECKSUM, "little")
