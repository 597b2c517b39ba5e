"""Count the voxels requested of a volume, and the cost of reading them."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

# Shared by all ledgers, since they are pickled and compared.
_turn = threading.Lock()


class _Sized(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass
class Ledger:
    """Running totals of one volume; every `cubes`, `voxels` and `read` adds to them.

    Ledgers can be added (`a + b`), for the totals of several volumes or workers.

    Example:
        >>> ledger = Ledger(asked=10, voxels=8, bytes=32) + Ledger(asked=2, voxels=2, bytes=8)
        >>> ledger
        Ledger(12 asked, 10 voxels, 40 bytes, 0 chunks)
    """

    asked: int = 0
    """Positions requested: duplicates and padding count each time."""
    voxels: int = 0
    """Distinct voxels inside the volume per call, summed over the calls."""
    bytes: int = 0
    """Bytes read: stored bytes of a chunked store, else the bytes of the distinct voxels."""
    chunks: int = 0
    """Chunks read and decoded; 0 if the file has none."""

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(
            self.asked + other.asked,
            self.voxels + other.voxels,
            self.bytes + other.bytes,
            self.chunks + other.chunks,
        )

    def add(self, *, asked: int = 0, voxels: int = 0, bytes: int = 0, chunks: int = 0) -> None:
        """Add to the totals, with a lock for threads."""
        with _turn:
            self.asked += asked
            self.voxels += voxels
            self.bytes += bytes
            self.chunks += chunks

    @contextmanager
    def passing_on(self, ledgers: Sequence["Ledger"]) -> Iterator[None]:
        """Add the bytes and chunks that other ledgers count in the block: the parts of a view."""
        before = sum(ledgers, Ledger())
        yield
        after = sum(ledgers, Ledger())
        self.add(bytes=after.bytes - before.bytes, chunks=after.chunks - before.chunks)

    def reset(self) -> None:
        """Set all totals to 0."""
        self.asked = self.voxels = self.bytes = self.chunks = 0

    def fraction(self, volume: _Sized) -> float:
        """Voxels read, divided by those of `volume`; may exceed 1 if calls overlap."""
        return self.voxels / max(1, math.prod(volume.shape))

    def __repr__(self) -> str:
        return (
            f"Ledger({self.asked:,} asked, {self.voxels:,} voxels, "
            f"{self.bytes:,} bytes, {self.chunks:,} chunks)"
        )
