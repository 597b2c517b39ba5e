"""Failed reads: whether a retry may help, and the message about the last attempt."""

import errno
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

from cpic._outgoing import without_secrets
from cpic._trust import DoubtError

if TYPE_CHECKING:
    from cpic.data.chunked._reads import Reads

# Status codes that may be temporary: the server, or a proxy before it, is busy.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
# Permanent errors: wrong addresses, certificates, options or zip files.
_FINAL = (ValueError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)
# Permanent errors of a disk for a name that is not a file.
_LASTING = {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG, errno.EINVAL}
# Too many open files, in this process or on the whole machine.
_MANY = {errno.EMFILE, errno.ENFILE}
_FEWER = "drop other volumes, each holds a file open, or allow more with ulimit -n"


def failures() -> tuple[type[BaseException], ...]:
    """Errors that file systems raise for a failed read; their libraries count once loaded."""
    found: list[type[BaseException]] = [OSError, TimeoutError, *_FINAL]
    for module, name in (("aiohttp", "ClientError"), ("botocore.exceptions", "BotoCoreError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def may_pass(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    status = getattr(error, "status", None)
    if status is not None:
        return status in _PASSING
    lasting = isinstance(error, (PermissionError, *_FINAL))
    return not lasting and getattr(error, "errno", None) not in _LASTING


def sentence(asker: "Reads", key: str, error: BaseException, attempts: int) -> str:
    """The message about the last attempt at a key, without secrets."""
    said = " ".join(without_secrets(str(error), asker.secrets).split())
    if isinstance(error, DoubtError):
        return f"{asker.address} cannot be read: its {key} {said}; copy or export the store again."
    said = f"{type(error).__name__}: {said}".rstrip(": ")
    if isinstance(error, PermissionError) or getattr(error, "status", 0) in (401, 403):
        todo = "check your permissions"
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
    """The message about a file that the operating system does not open."""
    todo = _FEWER if error.errno in _MANY else "check the path and your permissions"
    return f"{name} cannot be opened ({error.strerror or error}); {todo}."
