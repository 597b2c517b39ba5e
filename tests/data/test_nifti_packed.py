"""Packed NIfTI files: names, members, what is announced, and caches that cannot be made."""

import gzip
import os
import resource
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import CacheError, VolumeError
from cpic.data.nifti._header import read_stored
from cpic.data.nifti._unpacked import check_packed
from tests.data.test_conformance import stored

VALUES = stored(dtype=np.int16)


def content(values=VALUES):
    return nibabel.Nifti1Image(values, np.eye(4)).to_bytes()


def packed(raw):
    return gzip.compress(raw, mtime=0)


def left_in(cache):
    return [p.name for p in cache.rglob("*")] if cache.exists() else []


@pytest.mark.parametrize(
    "name", ["a.nii", "a.NII", "a.Nii.Gz", "a.NII.GZ", "a.nii.GZ", "a.b.nii.gz", "A B.nii.gz"]
)
@pytest.mark.parametrize("pack", [packed, bytes], ids=["packed", "plain"])
def test_the_content_tells_whether_a_file_is_packed_and_not_its_name(tmp_path, name, pack):
    path = tmp_path / name
    path.write_bytes(pack(content()))
    volume = data.open_volume(path, cache=tmp_path / "cache")
    assert torch.equal(volume.read(), torch.from_numpy(VALUES))


MEMBERS = {
    "one": lambda raw: [raw],
    "two": lambda raw: [raw[:900], raw[900:]],
    "in the header": lambda raw: [raw[:100], raw[100:]],
    "the last one empty": lambda raw: [raw[:900], raw[900:], b""],
    "all empty but one": lambda raw: [b"", raw, b"", b""],
    "blocks": lambda raw: [raw[k : k + 512] for k in range(0, len(raw), 512)],
}


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize("end", [b"", bytes(7)], ids=["", "zeros"])
def test_any_number_of_members_is_whole(tmp_path, members, end):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"".join(map(packed, MEMBERS[members](content()))) + end)
    check_packed(read_stored(path))
    volume = data.open_volume(path, cache=tmp_path / "cache")
    assert torch.equal(volume.read(), torch.from_numpy(VALUES))


@pytest.mark.parametrize("members", MEMBERS)
@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-30], lambda raw: raw[: len(raw) // 2], lambda raw: raw + b"garbage"],
    ids=["cut", "halved", "followed"],
)
def test_what_is_not_whole_is_named_by_reader_and_check(tmp_path, members, damage):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(damage(b"".join(map(packed, MEMBERS[members](content())))))
    for look in (
        lambda: check_packed(read_stored(path)),
        lambda: data.open_volume(path, cache=tmp_path / "cache"),
    ):
        with pytest.raises(VolumeError, match=r"a\.nii\.gz (is truncated|holds much more)"):
            look()
    assert left_in(tmp_path / "cache") == []


def bomb(raw, n_blocks, block=bytes(2**22)):
    """Packed: `raw`, and a block many times, which costs nothing to make."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    start = packer.compress(raw) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    total = zlib.crc32(raw)
    for _ in range(n_blocks):
        total = zlib.crc32(block, total)
    size = len(raw) + n_blocks * len(block)
    end = packer.flush() + struct.pack("<2I", total, size % 2**32)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + start + middle * n_blocks + end


def test_a_file_that_unpacks_to_more_than_it_announces_leaves_nothing(tmp_path):
    path, cache = tmp_path / "a.nii.gz", tmp_path / "cache"
    path.write_bytes(bomb(content(), 8))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Whoever wrote all of it would meet this limit first.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))
    try:
        with pytest.raises(VolumeError, match=r"a\.nii\.gz holds much more than the 3,212 bytes"):
            data.open_volume(path, cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_in(cache) == []
    with pytest.raises(VolumeError, match="holds much more"):
        check_packed(read_stored(path))


EMPTY = {
    "name": b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 2**21,
    "comment": b"\x1f\x8b\x08\x10" + bytes(6) + b"a" * 2**21,
    "members": packed(b"") * 2**17,
    "zeros": packed(b"") + bytes(2**21),
}


@pytest.mark.parametrize("raw", EMPTY.values(), ids=EMPTY)
def test_compressed_bytes_without_content_are_limited(tmp_path, raw):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(raw + packed(content()))
    with pytest.raises(VolumeError, match=r"a\.nii\.gz is damaged: 1,049,656 .* fewer than 540"):
        data.open_volume(path, cache=tmp_path / "cache")


def announcing(sizes, raw=None):
    """A NIfTI-2 header of these sizes, and a few voxels."""
    raw = bytearray(raw or nibabel.Nifti2Image(np.ones((8, 8, 8), np.uint8), np.eye(4)).to_bytes())
    raw[16:80] = struct.pack("<8q", len(sizes), *sizes, *[1] * (7 - len(sizes)))
    return bytes(raw)


HUGE = (2**14, 2**14, 2**13)


def test_a_packed_file_that_cannot_hold_what_it_announces_is_refused_at_once(tmp_path):
    path, cache = tmp_path / "a.nii.gz", tmp_path / "cache"
    path.write_bytes(bomb(announcing(HUGE), 3))
    with pytest.raises(
        VolumeError, match=r"a\.nii\.gz is truncated: .* needs 2,199,023,256,096 by"
    ):
        data.open_volume(path, cache=cache)
    assert not cache.exists()


def test_a_cache_with_too_little_space_is_told_before_it_is_full(tmp_path, monkeypatch):
    path, cache = tmp_path / "a.nii.gz", tmp_path / "cache"
    path.write_bytes(packed(content()))
    small = shutil.disk_usage(tmp_path)._replace(free=3000)
    monkeypatch.setattr("shutil.disk_usage", lambda place: small)
    with pytest.raises(VolumeError, match=r"unpacks to 3,212 bytes, and the cache .* has 3,000 fr"):
        data.open_volume(path, cache=cache)
    assert left_in(cache) == []


def test_what_of_a_copy_was_lost_is_unpacked_again(tmp_path):
    path, cache = tmp_path / "a.nii.gz", tmp_path / "cache"
    path.write_bytes(packed(content()))
    data.open_volume(path, cache=cache)
    (copy,) = cache.iterdir()
    for damage in (lambda: copy.write_bytes(copy.read_bytes()[:-9]), lambda: copy.write_bytes(b"")):
        damage()
        volume = data.open_volume(path, cache=cache)
        assert torch.equal(volume.read(), torch.from_numpy(VALUES))


@pytest.mark.parametrize("where", ["file", "file/below", "file/far/below"])
def test_a_cache_that_is_a_file_or_lies_below_one_is_named(tmp_path, where, monkeypatch):
    path, cache = tmp_path / "a.nii.gz", tmp_path / where
    path.write_bytes(packed(content()))
    (tmp_path / "file").write_text("x")
    with pytest.raises(CacheError, match=rf"the cache {cache} cannot be written .* with cache="):
        data.open_volume(path, cache=cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(CacheError, match=rf"the cache {cache}/cpic cannot be written"):
        data.open_volume(path)


@pytest.mark.parametrize("call", ["pathlib.Path.open", "os.replace", "pathlib.Path.mkdir"])
def test_a_cache_that_nobody_may_write_to_is_named(tmp_path, call, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path, cache = tmp_path / "a.nii.gz", tmp_path / "cache"
    path.write_bytes(packed(content()))
    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        with pytest.raises(CacheError, match=rf"the cache {cache} cannot be .*Permission denied"):
            data.open_volume(path, cache=cache)
    assert left_in(cache) == []


def test_somebody_without_a_home_is_told_to_choose_a_cache(tmp_path, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    path = tmp_path / "a.nii.gz"
    path.write_bytes(packed(content()))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(CacheError, match=r"no home folder for a cache: .* with cache="):
        data.open_volume(path)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    import socket

    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


KINDS = {
    "named pipe": make_pipe,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.npy", "a.raw"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path, kind, name):
    path = tmp_path / name
    KINDS[kind](path)
    options = {"shape": (2, 2, 2), "dtype": "u1"} if name == "a.raw" else {}
    kinds = "device|socket|No such device" if kind == "socket" else kind
    with pytest.raises(VolumeError, match=rf"{name} .*({kinds})"):
        data.open_volume(path, **options)


LIMITED = """
import resource, sys
import torch, nibabel
from cpic import data
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
paths, cache = sys.argv[2:], sys.argv[1]
volumes = [
    data.open_volume(path, **({} if path.endswith(".npy") else {"cache": cache})) for path in paths
]
for _ in range(2):
    for number, volume in enumerate(volumes):
        at = torch.tensor([[1, 1, 1]])
        assert volume.voxels(at).item() == number, (number, volume.voxels(at))
        assert volume.cubes(at, size=3).shape == (1, 1, 3, 3, 3)
"""


@pytest.mark.timeout(300)
def test_more_volumes_than_a_process_may_open_files(tmp_path):
    paths = []
    for number in range(300):
        values = np.full((3, 3, 3), number, np.int16)
        ending = (".nii", ".nii.gz", ".npy")[number % 3]
        paths.append(tmp_path / f"{number}{ending}")
        if ending == ".npy":
            np.save(paths[-1], values)
        else:
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), paths[-1])
    command = [sys.executable, "-c", LIMITED, tmp_path / "cache", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_changes_before_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(content())
    volume = data.open_volume(path)
    path.write_bytes(content(stored((5, 5, 5), dtype=np.int16)))
    with pytest.raises(VolumeError, match=r"a\.nii has changed since it was opened"):
        volume.read()
    path.unlink()
    with pytest.raises(VolumeError, match=r"a\.nii cannot be read"):
        volume.voxels(torch.tensor([[0, 0, 0]]))


SPACE = """
import resource, sys
import torch, nibabel
from cpic import data
from cpic._errors import VolumeError
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**31,) * 2)
try:
    data.open_volume(sys.argv[1])
except VolumeError as error:
    print(error)
"""


def sparse(path):
    path.write_bytes(announcing(HUGE))
    os.truncate(path, 2**41 + 600)
    return path


def test_terabytes_of_holes_are_read_in_parts_and_not_whole(tmp_path):
    path = sparse(tmp_path / "a.nii")
    volume = data.open_volume(path)
    assert volume.voxels(torch.tensor([[0, 0, 0], [2**14 - 1, 9, 9]])).tolist() == [1, 0]
    with pytest.raises(
        VolumeError, match=r"a\.nii is too large to be read completely, it needs 2,199,"
    ):
        volume.read()
    done = subprocess.run(
        [sys.executable, "-c", SPACE, path], capture_output=True, text=True, check=False
    )
    assert "a.nii cannot be mapped" in done.stdout
    assert done.stderr == ""
