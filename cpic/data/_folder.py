"""Folders: the user's cache, and clear errors if one cannot be written or read."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from cpic._errors import CacheError, CohortError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def user_cache(cache: str | os.PathLike | None = None) -> Path:
    """The given folder, or for None the user's: `cpic` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        CacheError: If there is no home folder.
    """
    if cache is not None:
        return Path(cache)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "cpic"
    try:
        return Path.home() / ".cache" / "cpic"
    except RuntimeError as error:
        raise CacheError(
            "there is no home folder for a cache: set HOME, or choose a folder with cache=."
        ) from error


@contextlib.contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turn a failed write in this block into one clear error about the cache."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise CacheError(
            f"the cache {cache} cannot be written ({reason}): free space there "
            "or allow writing, or choose another folder with cache=; finished work is kept."
        ) from error


@contextlib.contextmanager
def looking(folder: str | os.PathLike) -> Iterator[None]:
    """Turn a failure to list a folder in this block into one clear error."""
    try:
        yield
    except OSError as error:
        raise CohortError(
            f"{folder} cannot be read ({error.strerror or error}): check the path and your "
            "permissions."
        ) from error


def is_full(error: OSError) -> bool:
    """Whether the error is due to the disk, not to the file being read."""
    return error.errno in _FULL
