"""Folders: the user's cache, and clear errors if one cannot be written or read."""

import contextlib
import errno
import functools
import os
from collections.abc import Iterator
from pathlib import Path

from cpic._errors import CacheError, CohortError
from cpic.data._faults import reading

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
def writing(folder: Path, what: str = "cache", option: str = " with cache=") -> Iterator[None]:
    """Turn a failed write in this block into one clear error about the cache, or another folder.

    Args:
        folder: The folder.
        what: What it is.
        option: How to choose another one.
    """
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter if there are no file locks
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise CacheError(
            f"the {what} {folder} cannot be written ({reason}): free space there or allow writing, "
            f"or choose another folder{option}; finished work is kept."
        ) from error


# Turns a failure to list a folder into one clear error.
looking = functools.partial(reading, kind=CohortError)


def is_full(error: OSError) -> bool:
    """Whether the error is due to the disk, not to the file being read."""
    return error.errno in _FULL
