"""Reads of a Zarr store that survive a bad connection, are counted, and fetch an index once."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cpic._errors import VolumeError
from cpic._trust import DoubtError, open_handle
from cpic.data.chunked._failed import failures, may_pass, sentence
from cpic.data.chunked._metadata import METADATA_BYTES

# Bytes that the answer to the request under way may have, packed for the way or not.
LIMIT: ContextVar[int] = ContextVar("LIMIT", default=METADATA_BYTES)
# Seconds before the second attempt; each further pause is twice as long, up to the longest.
_PAUSE, _LONGEST = 0.1, 2.0
# Shard indices held; 16 bytes a chunk.
_INDEX_BYTES = 2**26
# Requests under way at once: to a server, where each waits for the way there and back, and threads
# that read files, where a disk with many heads or a network may lie behind the folder.
_REQUESTS, _FILES = 64, 8


class Piece(NamedTuple):
    """Bytes of one key: all of it, from `start` to `stop` (excluded), or the `last` ones."""

    key: str
    start: int = 0
    stop: int | None = None
    last: int | None = None


@dataclass(eq=False)
class Reads:
    """Attempts, bytes, missing keys and shard indices of one store.

    Attributes:
        store: of zarr, already guarded.
        prefix: of the keys in it.
        address: of the store, for errors: without what is secret in it.
        secrets: what no error may hold.
        retries: further attempts after one that failed by its connection.
        timeout: seconds an attempt may take.
        limit: bytes that a file of it may have, unpacked by a server or a zip file.
        n_bytes: that came so far.
        folder: where it lies, if its keys are files here.
    """

    store: Any
    prefix: str
    address: str
    secrets: frozenset[str]
    retries: int
    timeout: float
    limit: int = METADATA_BYTES
    n_bytes: int = 0
    folder: Path | None = None
    _missing: set[str] = field(default_factory=set)
    _indices: dict[str, bytes] = field(default_factory=dict)

    def many(self, pieces: Sequence[Piece]) -> list[Any]:
        """The bytes of each piece, or None where its key is missing; all at once."""
        if self.folder is None:
            found = self._waited(pieces)
        elif len(pieces) < 2 * _FILES:
            found = self._of_files(pieces)
        else:
            found = [None] * len(pieces)
            with ThreadPoolExecutor(_FILES) as pool:
                parts = pool.map(self._of_files, [pieces[k::_FILES] for k in range(_FILES)])
                for k, part in enumerate(parts):
                    found[k::_FILES] = part
        self._missing |= {
            piece.key for piece, raw in zip(pieces, found, strict=True) if raw is None
        }
        self.n_bytes += sum(len(raw) for raw in found if raw is not None)
        return found

    def take_missing(self) -> list[str]:
        """The keys that were not there since the last call."""
        missing, self._missing = sorted(self._missing), set()
        return missing

    def stamp(self) -> int:
        """Changes when another array is written in the place of this one; 0 where unknown."""
        if self.folder is None:
            return 0 if "://" in self.address else id(self)
        described = self.folder / "zarr.json"
        return described.stat().st_mtime_ns if described.exists() else id(self)

    def indices(self, pieces: Sequence[Piece]) -> list[bytes | None]:
        """The indices of shards, or None; those seen before are not read again."""
        new = [piece for piece in pieces if piece.key not in self._indices]
        held = {key: self._indices.get(key) for key, *_ in pieces}
        for piece, index in zip(new, self.many(new), strict=True):
            held[piece.key] = index
            if index is not None:
                self.keep(piece.key, index)
        return [held[piece.key] for piece in pieces]

    def keep(self, key: str, index: bytes) -> None:
        """Hold the index of a shard."""
        self._indices[key] = index
        while len(self._indices) * len(index) > _INDEX_BYTES:
            self._indices.pop(next(iter(self._indices)))

    def forget(self) -> None:
        """Drop the indices: they may be damaged, or out of date."""
        self._indices.clear()

    def file(self, piece: Piece) -> bytes | None:
        """Bytes of a file in the folder, or None where there is none; it is tried once."""
        try:
            # As text: joining paths would take as long as reading.
            handle, size = open_handle(f"{self.folder}/{piece.key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            start = piece.start if piece.last is None else max(0, size - piece.last)
            stop = size if piece.stop is None else min(size, piece.stop)
            if stop - start > self.limit:
                raise DoubtError(f"has {stop - start:,} bytes, {self.limit:,} can be")
            return _read(handle, start, stop - start)
        finally:
            os.close(handle)

    def _of_files(self, pieces: Sequence[Piece]) -> list[Any]:
        return [self._of_file(piece) for piece in pieces]

    def _of_file(self, piece: Piece) -> bytes | None:
        try:
            return self.file(piece)
        except OSError:
            # A folder of a network comes back, perhaps: with pauses, and a sentence at the end.
            return self._waited([piece])[0]
        except DoubtError as error:
            raise VolumeError(sentence(self, piece.key, error, 1)) from error

    def _waited(self, pieces: Sequence[Piece]) -> list[Any]:
        from zarr.core.sync import sync

        return sync(self._gathered(pieces))

    async def _gathered(self, pieces: Sequence[Piece]) -> list[Any]:
        turn = asyncio.Semaphore(_REQUESTS)

        async def one(piece: Piece) -> bytes | None:
            async with turn:
                return await self._attempts(piece)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(piece)) for piece in pieces]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _attempts(self, piece: Piece) -> bytes | None:
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(_LONGEST, _PAUSE * 2 ** (attempt - 1)))
            try:
                fetch = asyncio.to_thread(self.file, piece) if self.folder else self._fetched(piece)
                return await asyncio.wait_for(fetch, self.timeout)
            except failures() as error:
                if attempt == self.retries or not may_pass(error):
                    # Libraries write addresses and headers into what they raise: it is not chained.
                    raise VolumeError(sentence(self, piece.key, error, attempt + 1)) from None
        raise AssertionError  # the last attempt returns or raises

    async def _fetched(self, piece: Piece) -> bytes | None:
        """What the store holds; fewer bytes than asked for are a broken connection."""
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import FsspecStore, ZipStore

        asked, wanted = None, piece.last
        if piece.last is not None:
            asked = SuffixByteRequest(piece.last)
        elif piece.stop is not None:
            asked, wanted = RangeByteRequest(piece.start, piece.stop), piece.stop - piece.start
        elif isinstance(self.store, FsspecStore | ZipStore) and not _is_bounded(self.store):
            # One byte too many is enough to see that there are too many.
            asked = RangeByteRequest(0, self.limit + 1)
        LIMIT.set(self.limit)
        await self.store._ensure_open()
        found = await self.store.get(self.prefix + piece.key, default_buffer_prototype(), asked)
        if found is None:
            return None
        raw = found.to_bytes()
        if len(raw) > self.limit:
            raise DoubtError(f"has more than {self.limit:,} bytes")
        if wanted is None or len(raw) == wanted:
            return raw
        if len(raw) < wanted:
            raise ConnectionError(f"{len(raw)} of {wanted} bytes came")
        # All of it came, from a server without ranges.
        self.n_bytes += len(raw) - wanted
        first = piece.start if piece.last is None else len(raw) - wanted
        return raw[first : first + wanted]


def _is_bounded(store: Any) -> bool:
    """Whether a store gives no more than `LIMIT`, so that all of a file can be asked for."""
    return getattr(getattr(store, "fs", None), "bounded", False)


def _read(handle: int, start: int, length: int) -> bytes:
    """`length` bytes from `start` on; fewer where the file ends."""
    if start and length:
        os.lseek(handle, start, os.SEEK_SET)
    parts = []
    while length > 0 and (part := os.read(handle, length)):
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
