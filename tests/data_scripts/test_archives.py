"""Archives: what is harmless lands whole, what is hostile or broken not at all."""

import errno
import shutil
import stat
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import _archive
import pytest
from _archive import ArchiveError, extract

from tests.data_scripts.archives import FILES, found, make_tar, make_zip, refuses


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_all_of_it_lands(tmp_path, make):
    archive = make(tmp_path / "archive", FILES)
    before = archive.read_bytes()
    out = extract(archive, tmp_path / "new" / "out", progress=False)
    assert found(out) == FILES
    assert archive.read_bytes() == before
    with pytest.raises(ArchiveError, match="out exists; choose a folder that does not"):
        extract(archive, out, progress=False)
    assert found(out) == FILES


def test_separators_of_windows_and_rights_that_are_not_taken_over(tmp_path):
    files = {"set\\a.txt": b"a", "./run": b"b"}
    archive = make_zip(tmp_path / "z", files, modes={"./run": stat.S_IFREG | 0o6777})
    out = extract(archive, tmp_path / "out", progress=False)
    assert found(out) == {"set/a.txt": b"a", "run": b"b"}
    assert not (out / "run").stat().st_mode & 0o7111


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "lies outside the folder"),
        ("set/../../evil", "lies outside the folder"),
        ("..\\evil", "lies outside the folder"),
        ("/evil", "has an absolute name"),
        ("\\\\host\\evil", "has an absolute name"),
        ("C:evil", "has an absolute name"),
        ("c:/evil", "has an absolute name"),
        ("set/a.txt", "is given twice"),
        ("set//a.txt", "is given twice"),
        ("set/./a.txt", "is given twice"),
        ("set/a.txt/b", "lies inside another file"),
        ("set/deep", "lies inside another file|is given twice"),
        (".", "has no usable name"),
    ],
)
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_members_that_would_land_elsewhere(tmp_path, make, name, reason):
    archive = tmp_path / "archive"
    if name in FILES and make is make_zip:
        with zipfile.ZipFile(make_zip(archive, FILES), "a") as packed:
            packed.writestr(zipfile.ZipInfo(name), b"other")
    elif name in FILES:
        with tarfile.open(archive, "w") as tar:
            for _ in range(2):
                tar.addfile(tarfile.TarInfo(name))
    else:
        make(archive, {**FILES, name: b"evil"})
    refuses(archive, reason)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "FIFOTYPE", "CHRTYPE", "BLKTYPE"])
def test_links_and_devices_in_tar(tmp_path, kind):
    kinds = {"odd": getattr(tarfile, kind)}
    refuses(
        make_tar(tmp_path / "t", {**FILES, "odd": b""}, kinds=kinds), "which is a (link|device)"
    )


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_zip(tmp_path, kind):
    modes = {"odd": kind | 0o777}
    archive = make_zip(tmp_path / "z", {**FILES, "odd": b"/etc/passwd"}, modes=modes)
    refuses(archive, "which is a (link|device)")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.98])
def test_truncated(tmp_path, make, keep):
    archive = make(tmp_path / "archive", FILES)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content))])
    refuses(archive, "damaged|neither zip nor tar")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_flipped_bytes_are_refused_or_harmless(tmp_path, make):
    """Whatever a flipped byte does, the outcome is a whole folder or one sentence."""
    content = make(tmp_path / "whole", FILES).read_bytes()
    outcomes = set()
    for at in range(0, len(content), max(1, len(content) // 120)):
        archive, out = tmp_path / "archive", tmp_path / f"out{at}"
        archive.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            extract(archive, out, progress=False)
            outcomes.add("whole")
        except ArchiveError:
            outcomes.add("refused")
            assert not out.exists()
        assert not list(tmp_path.glob(".*.part"))
    assert outcomes == {"whole", "refused"}


def test_encrypted_is_named(tmp_path):
    archive = make_zip(tmp_path / "z", {"a": b"x"}, compression=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    refuses(archive, "which is encrypted")


def test_too_little_disk_is_known_before(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "z", {"a": bytes(10**6)})
    usage = namedtuple("usage", "total used free")(0, 0, 10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refuses(archive, r"unpacking z needs 976.6 KiB, .* has 97.7 KiB free")


def test_disk_that_is_full_in_the_middle(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "z", {"a": b"x", "b": b"y"})
    whole = Path.open

    def full(self, *options, **more):
        if self.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, *options, **more)

    monkeypatch.setattr(_archive.Path, "open", full)
    refuses(archive, "No space left on device.*nothing is kept")


def test_what_a_killed_run_left_is_replaced(tmp_path):
    left = tmp_path / ".out.part" / "set"
    left.mkdir(parents=True)
    (left / "old").touch()
    archive = make_zip(tmp_path / "z", FILES)
    assert found(extract(archive, tmp_path / "out", progress=False)) == FILES
    assert not (tmp_path / ".out.part").exists()


def test_no_archive(tmp_path):
    with pytest.raises(ArchiveError, match="there is no file"):
        extract(tmp_path / "none", tmp_path / "out")
    (tmp_path / "page.html").write_text("<html>")
    refuses(tmp_path / "page.html", "neither zip nor tar")
