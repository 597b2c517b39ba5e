"""Reads of a Zarr store that survive a bad connection, are counted, and fetch an index once."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cpic._errors import VolumeError

# Seconds before the second attempt; each further pause is twice as long, up to the longest.
_PAUSE, _LONGEST = 0.1, 2.0
# Answers of a server that may pass: it is busy, or in front of one that is.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
# Shard indices held; 16 bytes a chunk.
_INDEX_BYTES = 2**26


def open_store(
    store: Any, options: dict | None, *, retries: int, timeout: float
) -> tuple[Any, "Reads"]:
    """A store at a path or address (or the one given), and what its reads go through."""
    from zarr.abc.store import Store
    from zarr.storage import FsspecStore, LocalStore, WrapperStore

    if isinstance(store, Store):
        inner = store
    elif "://" in str(store):
        try:
            inner = FsspecStore.from_url(str(store), storage_options=options, read_only=True)
        except (ImportError, ValueError, TypeError) as error:
            raise VolumeError(
                f"{store} cannot be opened ({error}); install what its kind of address needs, such "
                "as s3fs for s3://, and check storage_options."
            ) from error
    elif Path(store).is_dir():
        inner = LocalStore(Path(store), read_only=True)
    else:
        raise VolumeError(f"there is no Zarr folder {store}; check the path.")

    reads = Reads(retries, timeout, str(store))

    class SteadyStore(WrapperStore):
        """A store that reads through `reads`, copies too; zarr calls it in a thread of its own."""

        async def get(self, key, prototype, byte_range=None):
            async def fetch():
                return await self._store.get(key, prototype, byte_range)

            return await reads.get(key, byte_range, fetch)

    return SteadyStore(inner), reads


class Reads:
    """Attempts, bytes, missing keys and shard indices of one store.

    Args:
        retries: further attempts after one that failed by its connection.
        timeout: seconds an attempt may take.
        address: of the store, for errors.
    """

    def __init__(self, retries: int, timeout: float, address: str) -> None:
        self.retries, self.timeout, self.address = retries, timeout, address
        self.n_bytes = 0
        self.missing: set[str] = set()
        self._indices: dict[str, Any] = {}
        self._under_way: dict[str, asyncio.Future] = {}

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
            self._indices[key] = index
            while len(self._indices) * len(index) > _INDEX_BYTES:
                self._indices.pop(next(iter(self._indices)))
        return index

    def take_missing(self) -> list[str]:
        """The keys that were not there since the last call."""
        missing, self.missing = sorted(self.missing), set()
        return missing

    def forget(self) -> None:
        """Drop the indices: one of them may be damaged."""
        self._indices.clear()

    async def _fetched(self, key: str, byte_range: Any, fetch: Callable[[], Awaitable[Any]]) -> Any:
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(_LONGEST, _PAUSE * 2 ** (attempt - 1)))
            try:
                value = await asyncio.wait_for(fetch(), self.timeout)
                if value is None:
                    if not key.rsplit("/", 1)[-1].startswith((".z", "zarr.json")):
                        self.missing.add(key)
                    return None
                return self._whole(value, byte_range)
            except _failures() as error:
                if attempt == self.retries or not _may_pass(error):
                    raise VolumeError(self._sentence(key, error, attempt + 1)) from error
        raise AssertionError  # the last attempt returns or raises

    def _whole(self, value: Any, byte_range: Any) -> Any:
        """The bytes asked for; fewer are a broken connection, more a server without ranges."""
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest

        if isinstance(byte_range, RangeByteRequest):
            wanted = byte_range.end - byte_range.start
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

    def _sentence(self, key: str, error: BaseException, attempts: int) -> str:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403):
            todo = 'check your rights, or pass storage_options={"anon": True} to a public s3 store'
        elif not _may_pass(error):
            todo = "check the address and storage_options"
        else:
            todo = (
                "check that the server is up and the address is right, or allow more with "
                f"retries= (now {self.retries}) and timeout= (now {self.timeout:g} s)"
            )
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return f"{self.address} cannot be read: {key} failed after {times} ({said}); {todo}."


def _failures() -> tuple[type[BaseException], ...]:
    """What file systems raise when a read fails; their libraries count once they are loaded."""
    found: list[type[BaseException]] = [OSError, TimeoutError]
    for module, name in (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _may_pass(error: BaseException) -> bool:
    status = getattr(error, "status", None)
    if status is not None:
        return status in _PASSING
    # A ValueError too: an address or a certificate that is wrong.
    return not isinstance(error, PermissionError | ValueError)
