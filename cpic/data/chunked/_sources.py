"""Find and guard the store at a path or address, and determine its secrets."""

import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from cpic._errors import VolumeError
from cpic._outgoing import shown_address, without_secrets
from cpic._trust import DoubtError, check_regular
from cpic.data.chunked._failed import unopened
from cpic.data.chunked._reads import Reads

# Files that mark a folder as a Zarr node.
_NODES = ("zarr.json", ".zarray", ".zgroup")
_ZIPS = (".zarr.zip", ".ozx")
# Raised for invalid or damaged zip files.
_NO_ZIP = (zipfile.BadZipFile, struct.error, ValueError, EOFError, NotImplementedError)

_CHAINED = (
    "{} is a chain of file systems, which does not limit responses; give the address alone, "
    "and cache chunks by cache=."
)


def is_zarr(path: str | os.PathLike) -> bool:
    """Whether a folder is a Zarr array or group, or a path is in a zip file."""
    path = Path(path)
    if path.is_dir():
        return any((path / name).exists() for name in _NODES)
    file = _file_of(path) or path
    return file.name.lower().endswith(_ZIPS if file == path else (".zip", ".ozx"))


def shown(store: Any) -> str:
    """A path, address or store for messages, without secrets."""
    text = str(getattr(store, "path", store)) if hasattr(store, "fs") else str(store)
    return shown_address(text) if "://" in text else text


def open_store(store: Any, options: dict | None, *, retries: int, timeout: float) -> Reads:
    """A reader for a store at a path or address (or for the given store).

    Raises:
        VolumeError: If nothing is there, or it cannot be read within bounds.
    """
    from zarr.storage import LocalStore

    try:
        inner, prefix = _store_at(store, options)
    except DoubtError as error:
        raise VolumeError(f"{shown(store)} cannot be read: it {error}.") from error
    except OSError as error:
        raise VolumeError(unopened(shown(store), error)) from error
    secrets = frozenset(_secrets(store, options))
    folder = inner.root if type(inner) is LocalStore else None
    return Reads(inner, prefix, shown(store), secrets, retries, timeout, folder=folder)


def _store_at(store: Any, options: dict | None) -> tuple[Any, str]:
    """The store, and the prefix of its keys."""
    from zarr.abc.store import Store
    from zarr.storage import LocalStore, ZipStore

    if isinstance(store, Store):
        if isinstance(store, ZipStore):
            check_regular(store.path)
        return _guarded(store), ""
    if not isinstance(store, str | os.PathLike):
        kind = type(store).__name__
        raise VolumeError(f"a Zarr store is a path, an address or a Store, got {kind}.")
    text = str(store)
    local = re.fullmatch(r"(?:file|local)://(.*)", text, re.DOTALL)
    if "://" in text and not local:
        return _guarded(_at_address(text, options)), ""
    path = Path(local[1] if local else store)
    if path.is_dir():
        return LocalStore(path, read_only=True), ""
    file = _file_of(path)
    if file is None:
        name = text if text.isprintable() else repr(text)
        raise VolumeError(f"there is no Zarr folder {name}; check the path.")
    return _zipped(file), "".join(f"{part}/" for part in path.relative_to(file).parts)


def _at_address(text: str, options: dict | None) -> Any:
    from zarr.storage import FsspecStore

    if "::" in re.sub(r"\[.*?\]", "", text):  # other than in the brackets of a host
        raise VolumeError(_CHAINED.format(shown(text)))
    try:
        return FsspecStore.from_url(text, storage_options=options, read_only=True)
    except (ImportError, ValueError, TypeError) as error:
        said = without_secrets(str(error), _secrets(text, options))
        raise VolumeError(
            f"{shown(text)} cannot be opened ({said}); install what its kind of address "
            "needs, such as s3fs for s3://, and check storage_options."
        ) from None


def _file_of(path: Path) -> Path | None:
    """The first part of a path that is not a folder; None if there is none."""
    for one in (path, *path.parents):
        try:
            return None if stat.S_ISDIR(one.stat().st_mode) else one
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue  # ValueError: characters that no name can have
    return None


def _zipped(path: Path) -> Any:
    from zarr.core.sync import sync
    from zarr.storage import ZipStore

    check_regular(path)
    try:
        return sync(ZipStore.open(path, mode="r"))
    except _NO_ZIP:
        raise VolumeError(
            f"{path} is a file, but no whole zip file with a Zarr array; copy or download it again."
        ) from None


def _guarded(store: Any) -> Any:
    """The same store; one on a web server does not send the caller's headers to other hosts.

    Raises:
        VolumeError: If a web server is accessed without such bounds.
    """
    from zarr.storage import FsspecStore

    if not isinstance(store, FsspecStore):
        return store
    from fsspec.implementations.http import HTTPFileSystem

    from cpic.data.chunked._http import BoundedHTTP

    if getattr(store.fs, "target_protocol", "") in ("http", "https"):
        raise VolumeError(_CHAINED.format(shown(store)))
    if type(store.fs) is not HTTPFileSystem:
        return store
    given = {key: value for key, value in store.fs.storage_options.items() if key != "loop"}
    fs = BoundedHTTP(**{**given, "asynchronous": True})
    return FsspecStore(fs, read_only=store.read_only, path=store.path)


def _secrets(store: Any, options: dict | None) -> set[str]:
    """Parts of an address and its options that must not appear in messages."""
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
    # One or two characters occur in every sentence, and are no secret.
    return {text for text in found if len(text) > 2}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple | set):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)
