"""Unpack an untrusted zip or tar file: all of it into one new folder, or nothing."""

import lzma
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from _ask import FetchError
from _member import MEMBERS, Member, refusal
from _place import check_space, size_text
from _tar import of_tar
from _zip import of_zip
from filelock import FileLock
from tqdm import tqdm

from cpic._trust import DAMAGED, DEPTH, DoubtError, open_regular

# Raised by the standard library for damaged or hostile archives.
_DAMAGED = (*DAMAGED, zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError)
_NAME_BYTES = 255
_OTHERS = {"zstd": b"\x28\xb5\x2f\xfd", "7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!"}
# Characters that control a terminal; on Windows also those of devices, streams and other names.
_UNUSABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f]"
    + r'|[<>:"|?*]|[. ]$|^(?i:con|prn|aux|nul|com\d|lpt\d)(\.|$)' * (os.name == "nt")
)


class ArchiveError(RuntimeError):
    """An archive cannot be unpacked; nothing of it was."""


def extract(archive: Path, folder: Path, *, progress: bool = True) -> Path:
    """Unpack `archive` into the new folder `folder`, which appears when it is complete.

    Permissions, owners and times stored in the archive are ignored.

    Args:
        archive: zip or tar, compressed or not; detected from its content, not its name.
        folder: must not exist.
        progress: show a progress bar.

    Returns:
        `folder`.

    Raises:
        ArchiveError: if a member would be outside the folder, is a link or a device, or is given
            twice; the archive declares implausible contents, is damaged, or has no file in it; or
            the disk is too small.
    """
    try:
        with _opened(archive) as file:
            _extract(file, archive, folder, progress)
    except DoubtError as error:
        fault = f"{archive} {error}; nothing is unpacked, fetch the archive from its publisher."
        raise ArchiveError(fault) from None
    except FetchError as error:
        raise ArchiveError(str(error)) from None
    except _DAMAGED as error:
        said = error or type(error).__name__
        raise ArchiveError(f"{archive} is damaged ({said}); fetch it again.") from error
    except OSError as error:
        raise ArchiveError(
            f"{archive} cannot be unpacked into {folder} ({error.strerror or error}); nothing is "
            "kept, free space there or allow writing."
        ) from error
    return folder


def _opened(archive: Path) -> BinaryIO:
    try:
        return open_regular(archive)
    except FileNotFoundError:
        raise FetchError(f"there is no file {archive}; check the path.") from None
    except OSError as error:
        raise FetchError(
            f"{archive} cannot be read ({error.strerror}); check the path and your permissions."
        ) from None


def _extract(file: BinaryIO, archive: Path, folder: Path, progress: bool) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.part")
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            raise FetchError(f"{folder} exists; choose a folder that does not, or remove it.")
        # From a run that was killed; with the lock held no other process uses it.
        shutil.rmtree(part, ignore_errors=True)
        try:
            # Everything is checked before anything is written.
            total, n_files = 0, 0
            for _, member in _believed(file):
                total += member.size
                n_files += not member.folder
                check_space(folder.parent, total, f"unpacking {archive.name}")
            if not n_files:
                raise DoubtError("has no file in it")
            part.mkdir()
            _write(_believed(file), part, total, progress)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _believed(file: BinaryIO) -> Iterator[tuple[tuple[str, ...], Member]]:
    """Members with the parts of their paths, all of them inside the folder."""
    # Whether an existing path is a folder.
    found: dict[tuple[str, ...], bool] = {}
    for number, member in enumerate(_members(file)):
        if number >= MEMBERS:
            raise DoubtError(f"has more than {MEMBERS:,} members")
        parts = _parts(member)
        for above in (parts[:k] for k in range(1, len(parts))):
            if not found.setdefault(above, True):
                raise refusal(member.name, "lies inside another file")
        if parts in found and not (member.folder and found[parts]):
            raise refusal(member.name, "is given twice")
        if parts:
            found[parts] = member.folder
            yield parts, member


def _members(file: BinaryIO) -> Iterator[Member]:
    """Members of a zip or tar file; its content determines which it is."""
    # A tar file may end with a zip file and would then pass for one: tar is tried first.
    found = of_tar(file)
    if found is None and not zipfile.is_zipfile(file):
        file.seek(0)
        magic = file.read(6)
        kind = next((kind for kind, begin in _OTHERS.items() if magic.startswith(begin)), "")
        raise DoubtError(
            f"is {f'packed by {kind}, ' * bool(kind)}neither zip nor tar, or truncated"
        )
    return of_zip(file) if found is None else found


def _parts(member: Member) -> tuple[str, ...]:
    """Folders and name of a member; none for the folder itself."""
    # Archives created on Windows may use its separator.
    name = member.name.replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        raise refusal(member.name, "has an absolute name")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refusal(member.name, "lies outside the folder")
    if any(map(_UNUSABLE.search, parts)) or not (parts or member.folder):
        raise refusal(member.name, "has no usable name")
    if len(parts) > DEPTH or any(len(os.fsencode(part)) > _NAME_BYTES for part in parts):
        raise refusal(member.name, "has a name too long or lies too deep")
    return parts


def _write(
    found: Iterator[tuple[tuple[str, ...], Member]], part: Path, total: int, progress: bool
) -> None:
    bar = tqdm(total=total, unit="B", unit_scale=True, desc=size_text(total), disable=not progress)
    with bar:
        for parts, member in found:
            path = part.joinpath(*parts)
            if member.folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            n_bytes = 0
            with _new(path, member) as file:
                for block in member.blocks:
                    n_bytes += len(block)
                    file.write(block)
                    bar.update(len(block))
            if n_bytes != member.size:
                raise refusal(member.name, "is shorter or longer than declared")


def _new(path: Path, member: Member) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:  # where a and A are the same name, or two ways to write é
        raise refusal(member.name, "has the name of another one on this disk") from None
