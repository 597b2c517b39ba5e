"""Unpack a zip or tar file that may be hostile: all of it into one new folder, or nothing."""

import contextlib
import dataclasses
import functools
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from _fetch import FetchError, check_space, size_text
from filelock import FileLock
from tqdm import tqdm

_BLOCK = 2**20
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    struct.error,
    ValueError,
)


class ArchiveError(RuntimeError):
    """An archive cannot be unpacked; nothing of it has been."""


@dataclasses.dataclass(frozen=True)
class _Member:
    name: str
    size: int
    folder: bool
    open: Callable[[], IO[bytes] | None]


def extract(archive: Path, folder: Path, *, progress: bool = True) -> Path:
    """Unpack `archive` into the new folder `folder`, which appears when all is there.

    Rights, owners and times stored in the archive are not taken over.

    Args:
        archive: zip or tar, packed or not; its content decides, not its name.
        folder: must not exist.
        progress: show a bar.

    Returns:
        `folder`.

    Raises:
        ArchiveError: if a member would land outside the folder, is a link or a device, or appears
            twice; the archive is damaged; or the disk is too small.
    """
    if not archive.is_file():
        raise ArchiveError(f"there is no file {archive}; check the path.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.part")
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            raise ArchiveError(f"{folder} exists; choose a folder that does not, or remove it.")
        # Of a run that was killed; with the lock held nobody works there.
        shutil.rmtree(part, ignore_errors=True)
        try:
            with _opened(archive) as members:
                checked = _check(archive, members)
                total = sum(member.size for member in checked.values())
                check_space(folder.parent, total, f"unpacking {archive.name}")
                part.mkdir()
                _write(checked, part, total, archive, progress)
            part.replace(folder)
        except FetchError as error:
            raise ArchiveError(str(error)) from None
        except _DAMAGED as error:
            raise ArchiveError(
                f"{archive} is damaged ({error or type(error).__name__}); fetch it again."
            ) from error
        except OSError as error:
            raise ArchiveError(
                f"{archive} cannot be unpacked into {folder} ({error.strerror or error}); nothing "
                "is kept, free or permit space there."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[Iterator[_Member]]:
    """The members of an archive, while it is open."""
    # A tar file may end with a zip file and then passes for one: tar is tried first.
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            yield _of_tar(archive, tar)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _of_zip(archive, packed)
    else:
        raise ArchiveError(f"{archive} is neither zip nor tar, or truncated; fetch it again.")


def _of_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar.getmembers():
        if not (info.isfile() or info.isdir()):
            kind = "link" if info.issym() or info.islnk() else "device"
            raise _refused(archive, info.name, f"is a {kind}")
        yield _Member(info.name, info.size, info.isdir(), functools.partial(tar.extractfile, info))


def _of_zip(archive: Path, packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "link" if kind == stat.S_IFLNK else "device"
            raise _refused(archive, info.filename, f"is a {what}")
        if info.flag_bits & 1:
            raise _refused(archive, info.filename, "is encrypted")
        yield _Member(
            info.filename, info.file_size, info.is_dir(), functools.partial(packed.open, info)
        )


def _refused(archive: Path, name: str, reason: str) -> ArchiveError:
    return ArchiveError(
        f"{archive} has the member {name[:200]!r}, which {reason}; nothing is unpacked, fetch the "
        "archive from its publisher."
    )


def _check(archive: Path, members: Iterator[_Member]) -> dict[tuple[str, ...], _Member]:
    """Members by the parts of their path, all of them inside the folder."""
    found: dict[tuple[str, ...], _Member] = {}
    for member in members:
        # Archives made on Windows may use its separator.
        name = member.name.replace("\\", "/")
        if name.startswith("/") or re.match("[A-Za-z]:", name):
            raise _refused(archive, member.name, "has an absolute name")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            raise _refused(archive, member.name, "lies outside the folder")
        if "\0" in name or (not parts and not member.folder):
            raise _refused(archive, member.name, "has no usable name")
        if parts in found and not (member.folder and found[parts].folder):
            raise _refused(archive, member.name, "is there twice")
        if parts:
            found[parts] = member
    for parts, member in found.items():
        above = (found.get(parts[:k]) for k in range(1, len(parts)))
        if any(one is not None and not one.folder for one in above):
            raise _refused(archive, member.name, "lies inside another file")
    return found


def _write(
    members: dict[tuple[str, ...], _Member], part: Path, total: int, archive: Path, progress: bool
) -> None:
    bar = tqdm(total=total, unit="B", unit_scale=True, desc=size_text(total), disable=not progress)
    with bar:
        for parts, member in members.items():
            path = part.joinpath(*parts)
            if member.folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = member.open()
            if stream is None:
                raise _refused(archive, member.name, "has no content")
            with stream, path.open("xb") as file:
                n_bytes = 0
                while block := stream.read(_BLOCK):
                    n_bytes += len(block)
                    if n_bytes > member.size:
                        raise _refused(archive, member.name, "is longer than announced")
                    file.write(block)
                    bar.update(len(block))
            if n_bytes < member.size:
                raise ArchiveError(f"{archive} is damaged: {member.name} is cut; fetch it again.")
