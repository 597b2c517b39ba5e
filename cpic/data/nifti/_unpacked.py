"""Decompress a NIfTI file completely: to check it, or once into a cache folder."""

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from cpic import _trust
from cpic._errors import VolumeError
from cpic._files import replace_file
from cpic.data._folder import writing
from cpic.data.nifti._header import SLACK, Stored, Unpacking

# An active decompression is younger than this; an older unfinished file is from a dead process.
_STALE_SECONDS = 600


def unpack(stored: Stored, target: BinaryIO) -> None:
    """Decompress a file to its end, so that its checksums are verified.

    Raises:
        VolumeError: If it is damaged, or much shorter or longer than declared.
        OSError: If `target` cannot be written.
    """
    with _trust.open_regular(stored.path) as file:
        try:
            source = Unpacking(stored.path, file)
            copied = _trust.copy_at_most(source, target, stored.needed + SLACK)
        except _trust.DoubtError as error:
            raise stored.too_long() from error
    if copied < stored.needed:
        raise stored.truncated(f"it holds {copied:,}")


def check_packed(stored: Stored) -> None:
    """Check whether a compressed file is complete, by its end only if possible.

    Raises:
        VolumeError: If it is not.
    """
    with _trust.open_regular(stored.path) as file:
        file.seek(-4, os.SEEK_END)
        end = int.from_bytes(file.read(4), "little")
    # The decompressed size, modulo 4 GiB: of the last part only, if there are several.
    if end != stored.needed % 2**32:
        with open(os.devnull, "wb") as nowhere:
            unpack(stored, nowhere)


def unpacked(stored: Stored, cache: Path) -> Path:
    """The decompressed copy in `cache`, created unless it is there.

    Raises:
        VolumeError: As in `unpack`, or if the cache has too little space.
        CacheError: If the cache cannot be written.
    """
    with _trust.open_regular(stored.path) as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()[:32]  # type: ignore[arg-type]
    target = cache / f"{name}.nii"
    with contextlib.suppress(OSError):
        if target.stat().st_size >= stored.needed:
            return target
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if free < stored.needed:
            raise VolumeError(
                f"{stored.path} unpacks to {stored.needed:,} bytes, and the cache {cache} has "
                f"{free:,} free: free space there, or choose another folder with cache=."
            )
        for left in cache.glob(f"*{name}*.part"):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink(missing_ok=True)
        replace_file(target, lambda file: unpack(stored, file))
    return target
