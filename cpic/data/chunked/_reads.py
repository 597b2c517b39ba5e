"""Reads of a Zarr store with retries and counts; each shard index is fetched once."""

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

# Maximum size of the response to the current request, compressed or not.
LIMIT: ContextVar[int] = ContextVar("LIMIT", default=METADATA_BYTES)
# Seconds before the first retry; each further pause is twice as long, up to the maximum.
_PAUSE, _LONGEST = 0.1, 2.0
# Number of cached shard indices; 16 bytes per chunk.
_INDEX_BYTES = 2**26
# Concurrent requests: to a server, where each one waits for the round trip, and threads that read
# files, since the folder may be on a disk array or a network.
_REQUESTS, _FILES = 64, 8


class Piece(NamedTuple):
    """Bytes of one key: all, from `start` to `stop` (excluded), or the `last` ones."""

    key: str
    start: int = 0
    stop: int | None = None
    last: int | None = None


@dataclass(eq=False)
class Reads:
    """Attempts, bytes, missing keys and shard indices of one store.

    Attributes:
        store: Zarr store, already guarded.
        prefix: Prefix of its keys.
        address: Address of the store for errors, without secrets.
        secrets: Texts that must not appear in errors.
        retries: Number of retries after a connection error.
        timeout: Time limit of an attempt in seconds.
        limit: Maximum size of a file, decompressed by a server or a zip file.
        n_bytes: Bytes received so far.
        folder: Its folder, if its keys are local files.
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
        """The bytes of each piece, or None if its key is missing; all concurrently."""
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
        """The keys found missing since the last call."""
        missing, self._missing = sorted(self._missing), set()
        return missing

    def stamp(self) -> int:
        """Changes if the array is replaced by another one; 0 if unknown."""
        if self.folder is None:
            return 0 if "://" in self.address else id(self)
        described = self.folder / "zarr.json"
        return described.stat().st_mtime_ns if described.exists() else id(self)

    def indices(self, pieces: Sequence[Piece]) -> list[bytes | None]:
        """The indices of shards, or None; cached ones are not read again."""
        new = [piece for piece in pieces if piece.key not in self._indices]
        held = {key: self._indices.get(key) for key, *_ in pieces}
        for piece, index in zip(new, self.many(new), strict=True):
            held[piece.key] = index
            if index is not None:
                self.keep(piece.key, index)
        return [held[piece.key] for piece in pieces]

    def keep(self, key: str, index: bytes) -> None:
        """Cache the index of a shard."""
        self._indices[key] = index
        while len(self._indices) * len(index) > _INDEX_BYTES:
            self._indices.pop(next(iter(self._indices)))

    def forget(self) -> None:
        """Clear the cached indices, which may be damaged or outdated."""
        self._indices.clear()

    def file(self, piece: Piece) -> bytes | None:
        """Bytes of a file in the folder, or None if it is missing; a single attempt."""
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
            # A network folder may come back: retry with pauses, and report in a sentence.
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
                    # Libraries put addresses and headers into their exceptions, so they are not
                    # chained.
                    raise VolumeError(sentence(self, piece.key, error, attempt + 1)) from None
        raise AssertionError  # the last attempt returns or raises

    async def _fetched(self, piece: Piece) -> bytes | None:
        """The content of the store; fewer bytes than requested count as a broken connection."""
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype
        from zarr.storage import FsspecStore, ZipStore

        asked, wanted = None, piece.last
        if piece.last is not None:
            asked = SuffixByteRequest(piece.last)
        elif piece.stop is not None:
            asked, wanted = RangeByteRequest(piece.start, piece.stop), piece.stop - piece.start
        elif isinstance(self.store, FsspecStore | ZipStore) and not _is_bounded(self.store):
            # One extra byte is enough to detect that there are too many.
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
        # The whole file, from a server without ranges.
        self.n_bytes += len(raw) - wanted
        first = piece.start if piece.last is None else len(raw) - wanted
        return raw[first : first + wanted]


def _is_bounded(store: Any) -> bool:
    """Whether a store limits responses to `LIMIT`, so that a whole file can be requested."""
    return getattr(getattr(store, "fs", None), "bounded", False)


def _read(handle: int, start: int, length: int) -> bytes:
    """`length` bytes from `start` on; fewer at the end of the file."""
    if start and length:
        os.lseek(handle, start, os.SEEK_SET)
    parts = []
    while length > 0 and (part := os.read(handle, length)):
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
