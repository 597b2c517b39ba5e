"""Reads of a Zarr store that survive a bad connection, are counted, and fetch an index once."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cpic._errors import VolumeError
from cpic._trust import DoubtError, open_handle
from cpic.data._described import FILES, METADATA_BYTES, check_metadata
from cpic.data._failed import failures, may_pass, sentence

# Seconds before the second attempt; each further pause is twice as long, up to the longest.
_PAUSE, _LONGEST = 0.1, 2.0
# Shard indices held; 16 bytes a chunk.
_INDEX_BYTES = 2**26
# Requests under way at once: to a server, where each waits for the way there and back, and threads
# that read files, where a disk with many heads or a network may lie behind the folder.
_REQUESTS, _FILES = 64, 8


class Piece(NamedTuple):
    """Bytes of one key: all of it, from `start` on (`stop` excluded), or the `last` ones."""

    key: str
    start: int = 0
    stop: int | None = None
    last: int | None = None


class Reads:
    """Attempts, bytes, missing keys and shard indices of one store.

    Args:
        retries: further attempts after one that failed by its connection.
        timeout: seconds an attempt may take.
        address: of the store, for errors: without what is secret in it.
        secrets: what no error may hold.

    Attributes:
        steady: the store that reads through this.
        folder: where it lies, if its keys are files here.
        file_bytes: what a file that is no metadata may have, unpacked by a server or a zip file.
    """

    steady: Any
    folder: Path | None

    def __init__(
        self, retries: int, timeout: float, address: str, secrets: Iterable[str] = ()
    ) -> None:
        self.retries, self.timeout, self.address = retries, timeout, address
        self.file_bytes = METADATA_BYTES
        self.secrets = frozenset(secrets)
        self.n_bytes = 0
        self.missing: set[str] = set()
        self._indices: dict[str, Any] = {}
        self._under_way: dict[str, asyncio.Future] = {}

    def limit(self, key: str) -> int:
        """Bytes that the file of a key may have."""
        return METADATA_BYTES if _name(key) in FILES else self.file_bytes

    async def get(self, key: str, byte_range: Any, fetch: Callable[[], Awaitable[Any]]) -> Any:
        """What the store holds, or None; an index of a shard is fetched once."""
        from zarr.abc.store import SuffixByteRequest

        if not isinstance(byte_range, SuffixByteRequest):
            return await self._fetched(key, byte_range, fetch)
        # Only a shard's index is asked for by its distance from the end. Readers of one shard
        # come together: the first fetches it, the others wait and share what it gets, or why not.
        if key in self._indices:
            return self._indices[key]
        if key not in self._under_way:
            self._under_way[key] = asyncio.ensure_future(self._fetched(key, byte_range, fetch))
            self._under_way[key].add_done_callback(lambda _: self._under_way.pop(key))
        index = await asyncio.shield(self._under_way[key])
        if index is not None:
            self._keep(key, index)
        return index

    def many(self, pieces: Sequence[Piece]) -> list[Any]:
        """The bytes of each piece, or None where its key is missing; all at once."""
        if self.folder is None:
            from zarr.core.sync import sync

            return sync(self._gathered(pieces))
        if len(pieces) < 2 * _FILES:
            return [self._of_file(piece) for piece in pieces]
        with ThreadPoolExecutor(_FILES) as pool:
            found = list(pool.map(self._of_files, [pieces[k::_FILES] for k in range(_FILES)]))
        return [found[k % _FILES][k // _FILES] for k in range(len(pieces))]

    def stamp(self) -> int:
        """Changes when another array is written in the place of this one; 0 where unknown."""
        if self.folder is None:
            return 0 if "://" in self.address else id(self)
        described = self.folder / "zarr.json"
        return described.stat().st_mtime_ns if described.exists() else id(self)

    def known(self, keys: Sequence[str]) -> set[str]:
        """Which of the keys have an index that is held."""
        return self._indices.keys() & set(keys)

    def index(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """The last `length` bytes of each key, or None; those seen before are not read again."""
        held = {key: self._indices[key].to_bytes() for key in self.known(keys)}
        new = [key for key in keys if key not in held]
        for key, index in zip(
            new, self.many([Piece(key, last=length) for key in new]), strict=True
        ):
            held[key] = index
            if index is not None:
                self.keep(key, index)
        return [held[key] for key in keys]

    def keep(self, key: str, index: bytes) -> None:
        """Hold an index."""
        from zarr.core.buffer import default_buffer_prototype

        self._keep(key, default_buffer_prototype().buffer.from_bytes(index))

    def forget(self, key: str | None = None) -> None:
        """Drop the index of `key`, or all: they may be damaged, or out of date."""
        if key is None:
            self._indices.clear()
        else:
            self._indices.pop(key, None)

    def _of_files(self, pieces: Sequence[Piece]) -> list[Any]:
        return [self._of_file(piece) for piece in pieces]

    def _of_file(self, piece: Piece) -> Any:
        try:
            return self.file(piece)
        except OSError:
            # A folder of a network comes back, perhaps: with pauses, and a sentence at the end.
            from zarr.core.sync import sync

            found = sync(self._gathered([piece]))[0]
            self.n_bytes -= len(found or b"")  # whoever asked counts what files gave
            return found
        except DoubtError as error:
            raise VolumeError(sentence(self, piece.key, error, 1)) from error

    def file(self, piece: Piece) -> bytes | None:
        """Bytes of a file in the folder, or None where there is none; it is tried once."""
        try:
            # As text: joining paths would take as long as reading.
            handle, size = open_handle(f"{self.folder}/{piece.key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            start = piece.start if piece.last is None else max(0, size - piece.last)
            length = max(0, min(size, piece.stop or size) - start)
            if length > self.limit(piece.key):
                raise DoubtError(f"has {length:,} bytes, {self.limit(piece.key):,} can be")
            return _read(handle, start, length)
        finally:
            os.close(handle)

    async def _gathered(self, pieces: Sequence[Piece]) -> list[Any]:
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype

        turn = asyncio.Semaphore(_REQUESTS)

        async def one(piece: Piece) -> Any:
            asked = None
            if piece.last is not None:
                asked = SuffixByteRequest(piece.last)
            elif piece.stop is not None:
                asked = RangeByteRequest(piece.start, piece.stop)
            async with turn:
                found = await self.steady.get(piece.key, default_buffer_prototype(), asked)
            return None if found is None else found.to_bytes()

        tasks = [asyncio.ensure_future(one(piece)) for piece in pieces]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _keep(self, key: str, index: Any) -> None:
        self._indices[key] = index
        while len(self._indices) * len(index) > _INDEX_BYTES:
            self._indices.pop(next(iter(self._indices)))

    def take_missing(self) -> list[str]:
        """The keys that were not there since the last call."""
        missing, self.missing = sorted(self.missing), set()
        return missing

    async def _fetched(self, key: str, byte_range: Any, fetch: Callable[[], Awaitable[Any]]) -> Any:
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(_LONGEST, _PAUSE * 2 ** (attempt - 1)))
            try:
                value = await asyncio.wait_for(fetch(), self.timeout)
                if value is None:
                    if _name(key) not in FILES:
                        self.missing.add(key)
                    return None
                if _name(key) in FILES:
                    check_metadata(_name(key), value.to_bytes())
                return self._whole(value, byte_range)
            except failures() as error:
                if attempt == self.retries or not may_pass(error):
                    # Libraries write addresses and headers into what they raise: it is not chained.
                    raise VolumeError(sentence(self, key, error, attempt + 1)) from None
        raise AssertionError  # the last attempt returns or raises

    def _whole(self, value: Any, byte_range: Any) -> Any:
        """The bytes asked for; fewer are a broken connection, more a server without ranges."""
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest

        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
            if wanted <= 0:  # zarr would take no bytes for a chunk that is left out
                raise DoubtError("has an index that makes no sense")
        elif isinstance(byte_range, SuffixByteRequest):
            wanted = byte_range.suffix
        else:
            wanted = len(value)
        if len(value) < wanted:
            raise ConnectionError(f"{len(value)} of {wanted} bytes came")
        self.n_bytes += len(value)
        if len(value) > wanted:
            first = getattr(byte_range, "start", len(value) - wanted)
            value = value[first : first + wanted]
        return value


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _read(handle: int, start: int, length: int) -> bytes:
    """`length` bytes from `start` on; fewer where the file ends."""
    if start and length:
        os.lseek(handle, start, os.SEEK_SET)
    parts = []
    while length > 0 and (part := os.read(handle, length)):
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
