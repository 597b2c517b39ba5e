"""Reads that failed: whether another attempt may help, and what is said of the last one."""

import errno
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

from cpic._outgoing import without_secrets
from cpic._trust import DoubtError

if TYPE_CHECKING:
    from cpic.data.chunked._reads import Reads

# Answers of a server that may pass: it is busy, or in front of one that is.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
# What would be raised again: addresses, certificates, options and zip files that are wrong.
_FINAL = (ValueError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
# What a disk says of a name that is no file, however often it is asked.
_LASTING = {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EINVAL}
# Too many files are open, here or on the whole machine.
_MANY = {errno.EMFILE, errno.ENFILE}
_FEWER = "drop other volumes, each holds a file open, or allow more with ulimit -n"


def failures() -> tuple[type[BaseException], ...]:
    """What file systems raise when a read fails; their libraries count once they are loaded."""
    found: list[type[BaseException]] = [OSError, TimeoutError, *_FINAL]
    for module, name in (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may go well."""
    status = getattr(error, "status", None)
    if status is not None:
        return status in _PASSING
    lasting = isinstance(error, (PermissionError, *_FINAL))
    return not lasting and getattr(error, "errno", None) not in _LASTING


def sentence(asker: "Reads", key: str, error: BaseException, attempts: int) -> str:
    """What to tell of the last attempt at a key, without anything secret."""
    said = " ".join(without_secrets(str(error), asker.secrets).split())
    if isinstance(error, DoubtError):
        return f"{asker.address} cannot be read: its {key} {said}; copy or export the store again."
    said = f"{type(error).__name__}: {said}".rstrip(": ")
    if isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403):
        todo = "check your rights"
        if asker.folder is None:
            todo += ', or pass storage_options={"anon": True} to a public s3 store'
    elif getattr(error, "errno", 0) in _MANY:
        todo = _FEWER
    elif asker.folder is not None:
        todo = "check the disk and the names of its files"
    elif not may_pass(error):
        todo = "check the address and storage_options"
    else:
        todo = (
            "check that the server is up and the address is right, or allow more with "
            f"retries= (now {asker.retries}) and timeout= (now {asker.timeout:g} s)"
        )
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    return f"{asker.address} cannot be read: {key} failed after {times} ({said}); {todo}."


def unopened(name: str, error: OSError) -> str:
    """What to tell of a file that the operating system does not open."""
    todo = _FEWER if error.errno in _MANY else "check the path and your rights"
    return f"{name} cannot be opened ({error.strerror or error}); {todo}."
