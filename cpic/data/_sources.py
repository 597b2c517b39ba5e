"""The store at a path or address, read within the bounds that its files can have."""

import asyncio
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cpic._errors import VolumeError
from cpic._outgoing import shown_address, without_secrets
from cpic._trust import DoubtError, check_regular, open_regular
from cpic.data._failed import unopened
from cpic.data._store import Piece, Reads

# Files that say a folder is a node of Zarr.
_NODES = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(path: str | os.PathLike) -> bool:
    """Whether a folder is an array or a group of Zarr, or a file is a zip file that may be one."""
    path = Path(path)
    if path.is_dir():
        return any((path / name).exists() for name in _NODES)
    return path.name.lower().endswith((".zarr.zip", ".ozx"))


def shown(store: Any) -> str:
    """A path, address or store for messages, without what is secret."""
    text = str(getattr(store, "path", store)) if hasattr(store, "fs") else str(store)
    return shown_address(text) if "://" in text else text


def open_store(store: Any, options: dict | None, *, retries: int, timeout: float) -> Reads:
    """What the reads of a store at a path or address (or the one given) go through."""
    from zarr.storage import LocalStore, WrapperStore

    try:
        inner = _store_at(store, options)
    except DoubtError as error:
        raise VolumeError(f"{shown(store)} cannot be read: it {error}.") from error
    except OSError as error:
        raise VolumeError(unopened(shown(store), error)) from error
    reads = Reads(retries, timeout, shown(store), _secrets(store, options))
    reads.folder = inner.root if type(inner) is LocalStore else None

    class SteadyStore(WrapperStore):
        """A store that reads through `reads`, copies too; zarr calls it in a thread of its own."""

        async def get(self, key, prototype, byte_range=None):
            async def fetch():
                return await _fetched(self._store, reads, key, prototype, byte_range)

            return await reads.get(key, byte_range, fetch)

    reads.steady = SteadyStore(inner)
    return reads


def _store_at(store: Any, options: dict | None) -> Any:
    from zarr.abc.store import Store
    from zarr.storage import FsspecStore, LocalStore, ZipStore

    if isinstance(store, Store):
        if isinstance(store, ZipStore):
            check_regular(store.path)
        return _guarded(store)
    if not isinstance(store, str | os.PathLike):
        kind = type(store).__name__
        raise VolumeError(f"a Zarr store is a path, an address or a Store, got {kind}.")
    text = str(store)
    local = re.fullmatch(r"(?:file|local)://(.*)", text, re.DOTALL)
    if "://" in text and not local:
        try:
            return _guarded(FsspecStore.from_url(text, storage_options=options, read_only=True))
        except (ImportError, ValueError, TypeError) as error:
            said = without_secrets(str(error), _secrets(store, options))
            raise VolumeError(
                f"{shown(store)} cannot be opened ({said}); install what its kind of address "
                "needs, such as s3fs for s3://, and check storage_options."
            ) from None
    path = Path(local[1] if local else store)
    try:
        if path.is_dir():
            return LocalStore(path, read_only=True)
        with open_regular(path) as file:
            if zipfile.is_zipfile(file):
                return ZipStore(path, mode="r")
        raise VolumeError(
            f"{path} is a file, but no whole zip file with a Zarr array; copy or download it again."
        )
    except FileNotFoundError:
        pass
    except (DoubtError, VolumeError):
        raise
    except ValueError as error:  # signs that no name can have
        raise VolumeError(f"there is no Zarr folder {text!r} ({error}).") from error
    raise VolumeError(f"there is no Zarr folder {path}; check the path.")


def _guarded(store: Any) -> Any:
    """The same store; one of a web server gives the caller's headers to nobody else."""
    from zarr.storage import FsspecStore

    if not isinstance(store, FsspecStore) or "http" not in store.fs.protocol:
        return store
    from fsspec.implementations.http import HTTPFileSystem

    from cpic.data._http import BoundedHTTP

    if type(store.fs) is not HTTPFileSystem:
        return store
    given = {key: value for key, value in store.fs.storage_options.items() if key != "loop"}
    fs = BoundedHTTP(**{**given, "asynchronous": True})
    return FsspecStore(fs, read_only=store.read_only, path=store.path)


async def _fetched(store: Any, reads: Reads, key: str, prototype: Any, byte_range: Any) -> Any:
    """What the store holds, or None; never more than the key can have."""
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
    from zarr.storage import FsspecStore, ZipStore

    limit = reads.limit(key)
    if reads.folder is not None:
        piece = Piece(key)
        if isinstance(byte_range, RangeByteRequest):
            piece = Piece(key, byte_range.start, byte_range.end)
        elif isinstance(byte_range, OffsetByteRequest):
            piece = Piece(key, byte_range.offset)
        elif isinstance(byte_range, SuffixByteRequest):
            piece = Piece(key, last=byte_range.suffix)
        found = await asyncio.to_thread(reads.file, piece)
        return None if found is None else prototype.buffer.from_bytes(found)
    if isinstance(store, FsspecStore) and "http" in store.fs.protocol:
        from cpic.data._http import LIMIT

        LIMIT.set(limit)
    elif byte_range is None and isinstance(store, FsspecStore | ZipStore):
        # One byte too many is enough to see that there are too many.
        byte_range = RangeByteRequest(0, limit + 1)
    found = await store.get(key, prototype, byte_range)
    if found is not None and len(found) > limit:
        raise DoubtError(f"has more than {limit:,} bytes")
    return found


def _secrets(store: Any, options: dict | None) -> set[str]:
    """What of an address and its options must be in no message."""
    found = set(_texts(options or {}))
    text = str(getattr(store, "path", store))
    if hasattr(store, "fs"):
        found |= set(_texts(store.fs.storage_options))
    try:
        parts = urlsplit(text) if "://" in text else urlsplit("")
        found |= {value for _, value in parse_qsl(parts.query)}
    except ValueError:
        return found
    user = parts.netloc.rpartition("@")[0]
    found |= {part for text in user.split(":", 1) for part in (text, unquote(text))}
    # A server repeats the token without the word before it.
    found |= {word for text in found for word in re.split(r"[\s;,=]+", text)}
    # A sign or two are in every sentence, and no secret.
    return {text for text in found if len(text) > 2}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _texts(one)
