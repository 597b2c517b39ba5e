"""What an archive announces is not believed: each is one sentence, and nothing is left."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib

import _archive
import _member
import _tar
import pytest
from _archive import extract

from tests.data_scripts.archives import FILES, found, make_tar, make_zip, refuses

HUGE = 8 * 2**30
END = bytes(1024)


def head(name, size=0, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def padded(raw):
    return raw + bytes(-len(raw) % 512)


def file(name, content=b"1"):
    return head(name, len(content)) + padded(content)


def attributes(content, kind=tarfile.XHDTYPE):
    return head("x", len(content), kind) + padded(content)


def record(key, value):
    text = f" {key}={value}\n".encode()
    length = len(text) + len(str(len(text) + 2))
    return str(length).encode() + text


def resummed(raw, at, field):
    """A header with another field, and the checksum that fits."""
    raw = raw[:at] + field + raw[at + len(field) :]
    raw = raw[:148] + b" " * 8 + raw[156:]
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def sparse(more):
    """A header of GNU tar for a file with holes, whose list goes on."""
    raw = head("holes", 512, tarfile.GNUTYPE_SPARSE)
    return resummed(raw, 482, b"\1" if more else b"\0")


LONG, LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
TAR = {
    "long name": (head("n", HUGE, LONG) + END, "header of 8,589,934,592 bytes"),
    "long link": (head("n", HUGE, LINK) + END, "header of 8,589,934,592 bytes"),
    "attributes": (head("n", HUGE, tarfile.XHDTYPE) + END, "header of 8,589,934,592 bytes"),
    "global": (head("n", HUGE, tarfile.XGLTYPE) + END, "header of 8,589,934,592 bytes"),
    "solaris": (head("n", HUGE, tarfile.SOLARIS_XHDTYPE) + END, "header of 8,589,934,592 bytes"),
    "long names": (
        (head("n", 512, LONG) + padded(b"a")) * 9 + file("a") + END,
        "an implausible header",
    ),
    "negative": (resummed(head("n"), 124, b"\xff" * 12) + END, "an implausible header"),
    "size of attributes": (attributes(record("size", -1024)) + file("a") + END, "'-1024' bytes"),
    "long size": (attributes(record("size", "9" * 5000)) + file("a") + END, "'9{40}' bytes"),
    "one name for all": (
        attributes(record("path", "a"), tarfile.XGLTYPE) + file("b") + END,
        "all its members one name",
    ),
    "digits": (attributes(b"1" * 60_000) + file("a") + END, "is damaged .invalid header"),
    "records over each other": (
        attributes(b"2 " * 30_000 + b"=") + file("a") + END,
        "is damaged .invalid header",
    ),
    "record of no length": (attributes(b"0 a=b\n") + file("a") + END, "invalid header"),
    "record without end": (attributes(b"99 a=b\n") + file("a") + END, "invalid header"),
    "holes": (sparse(False) + bytes(512) + END, "stored with holes"),
    "holes without end": (sparse(True) + b"\1" * 512, "stored with holes"),
    "holes by map": (attributes(record("GNU.sparse.map", "0,1")) + file("a") + END, "with holes"),
    "holes by size": (attributes(record("GNU.sparse.size", "9")) + file("a") + END, "with holes"),
    "holes, version 1": (
        attributes(record("GNU.sparse.major", 1) + record("GNU.sparse.minor", 0))
        + file("a", b"999999999999\n" + b"1\n" * 999)
        + END,
        "with holes",
    ),
    "no name": (file("") + END, "has no usable name"),
    "NUL by attributes": (attributes(record("path", "a\0b")) + file("c") + END, "no usable name"),
    "damaged header": (file("a") + b"x" + file("b")[1:] + END, "is damaged .bad checksum"),
    "no end": (file("a"), "is damaged .it is cut"),
    "no end of the last": (file("a", b"1" * 600)[:-512], "is damaged .it is cut"),
    "cut header": (file("a") + file("b")[:100], "is damaged .it is cut"),
    "two in one": (file("a") + END + file("b") + END, "has data after its end"),
    "too large": (head("a", 2**60) + END, r"needs 1048576.0 TiB, .* free"),
    "nothing": (bytes(10240), "has no file in it"),
    "folders": (head("a/", 0, tarfile.DIRTYPE) + END, "has no file in it"),
}


def plain(raw):
    return raw


def stored(raw):
    return gzip.compress(raw, 0, mtime=0)


@pytest.mark.parametrize("case", TAR)
@pytest.mark.parametrize("pack", [plain, stored, bz2.compress, lzma.compress])
def test_tar(tmp_path, case, pack):
    raw, match = TAR[case]
    (tmp_path / "archive").write_bytes(pack(raw))
    assert str(tmp_path) in refuses(tmp_path / "archive", match)


@pytest.mark.parametrize("pack", [plain, stored, bz2.compress, lzma.compress])
@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_every_way_to_write_a_tar_file_lands_whole(tmp_path, pack, layout):
    long = "/".join(["folder of many letters"] * 6 + ["c" * 90])
    files = {**FILES, long: b"c" * 512, "schön": b"d" * 513}
    if layout != tarfile.USTAR_FORMAT:
        files |= {"e" * 250: b"e", "/".join(["f" * 200] * 4): bytes(3 * 2**20)}
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w", format=layout) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            tar.addfile(info, io.BytesIO(content))
    (tmp_path / "archive").write_bytes(pack(box.getvalue()))
    assert found(extract(tmp_path / "archive", tmp_path / "out", progress=False)) == files


@pytest.mark.parametrize("pack", [stored, bz2.compress, lzma.compress])
def test_streams_one_after_the_other_and_zeros_behind(tmp_path, pack):
    raw = make_tar(tmp_path / "archive", FILES).read_bytes()
    raw = gzip.decompress(raw)
    parts = [pack(raw[k : k + 5000]) for k in range(0, len(raw), 5000)]
    (tmp_path / "archive").write_bytes(b"".join([*parts, pack(b""), bytes(40_000)]))
    assert found(extract(tmp_path / "archive", tmp_path / "out", progress=False)) == FILES


PACKED = {"gz": stored, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("fault", ["checksum", "length", "garbage", "cut"])
def test_the_end_of_a_packed_file_is_looked_at(tmp_path, kind, fault):
    raw = bytearray(PACKED[kind](file("survival_info.csv", b"A" * 20_000) + END))
    if fault == "checksum" and kind == "gz":
        raw[raw.index(b"A" * 100) + 5000] = ord("B")
    elif fault == "checksum":
        raw[-12 if kind == "bz2" else -40] ^= 1
    elif fault == "length":
        raw[-4] ^= 1
    elif fault == "garbage":
        raw += b"garbage"
    else:
        del raw[-3:]
    (tmp_path / "archive").write_bytes(raw)
    refuses(tmp_path / "archive", "is damaged")


def test_a_dictionary_of_gibibytes(tmp_path):
    alone = bytearray(lzma.compress(file("a") + END, lzma.FORMAT_ALONE))
    alone[1:5] = struct.pack("<I", 2**31)
    packed = bytearray(lzma.compress(file("a") + END))
    size = 4 * (packed[12] + 1)
    packed[16] = 40  # of the second version of LZMA: 4 GiB - 1
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    for raw in (alone, packed):
        (tmp_path / "archive").write_bytes(raw)
        refuses(tmp_path / "archive", "emory usage limit")


@pytest.mark.parametrize("kind", PACKED)
def test_bombs(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(_member, "_SMALL_BYTES", 2**20)
    pack = gzip.compress if kind == "gz" else PACKED[kind]
    piece = pack(bytes(2**22))
    (tmp_path / "archive").write_bytes(pack(head("a", 32 * 2**22)) + piece * 32 + pack(END))
    refuses(tmp_path / "archive", "unpacks to more than 250 times its")


def test_a_bomb_of_zip(tmp_path, monkeypatch):
    monkeypatch.setattr(_member, "_SMALL_BYTES", 2**20)
    refuses(make_zip(tmp_path / "z", {"a": bytes(2**24)}), "unpacks to more than 250 times its")


def test_zeros_without_end_behind_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(_tar, "_PADDING_BYTES", 2**20)
    raw = file("a") + END
    for content in (
        raw + bytes(2**22),
        gzip.compress(raw + bytes(2**22)),
        stored(raw) + bytes(2**22),
    ):
        (tmp_path / "archive").write_bytes(content)
        refuses(tmp_path / "archive", "after its end")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_members(tmp_path, monkeypatch, make):
    monkeypatch.setattr(_archive, "MEMBERS", 5)
    files = {f"f{k}": b"" for k in range(6)}
    refuses(make(tmp_path / "archive", files), "has more than 5 members")


def test_a_list_of_too_many_members(tmp_path):
    """Its length is known before it is read: no list of a million names is made."""
    n, name = 400_000, b"n"
    row = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 9, 1, *[0] * 6) + name
    size = n * len(row)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0)
    (tmp_path / "z").write_bytes(row * n + end)
    refuses(tmp_path / "z", "has a list of members of 18,800,000 bytes")


NAMES = {
    "n" * 256: "a name too long",
    "é" * 200: "a name too long",
    "/".join("a" * 65): "lies too deep",
    "/".join("a" * 10_000): "lies too deep",
    "a\nb": "no usable name",
    "a\x1b[2Jb": "no usable name",
    "a\x85b": "no usable name",
    "//": "absolute name|folder with content",
    "": "no usable name",
    "./.": "no usable name",
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:12])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_names(tmp_path, make, name):
    refuses(make(tmp_path / "archive", {**FILES, name: b"x"}), NAMES[name])


def test_names_that_a_disk_takes_for_one(tmp_path, monkeypatch):
    whole = _archive.Path.open

    def folded(self, *options, **more):
        return whole(self.with_name(self.name.lower()), *options, **more)

    archive = make_zip(tmp_path / "z", {"a": b"1", "A": b"2"})
    assert len(found(extract(archive, tmp_path / "out", progress=False))) == 2
    shutil.rmtree(tmp_path / "out")
    (tmp_path / ".out.lock").unlink(missing_ok=True)
    monkeypatch.setattr(_archive.Path, "open", folded)
    refuses(archive, "the member 'A', which has the name of another one on this disk")


def local(raw, name):
    """Where the local header of a member lies."""
    return next(
        i.header_offset for i in zipfile.ZipFile(io.BytesIO(raw)).infolist() if i.filename == name
    )


def listed(raw, name):
    """Where its row in the list begins."""
    return raw.index(b"PK\1\2", raw.index(name.encode(), raw.index(b"PK\1\2")) - 46)


def test_zip_members_over_each_other(tmp_path):
    """All rows of the list lead to one member."""
    raw = bytearray(make_zip(tmp_path / "z", {"a": bytes(9000), "b": bytes(9000)}).read_bytes())
    row = listed(raw, "b")
    raw[row + 42 : row + 46] = struct.pack("<I", local(bytes(raw), "a"))
    (tmp_path / "z").write_bytes(raw)
    refuses(tmp_path / "z", "which lies over another one")


def test_a_zip_member_that_holds_the_headers_of_the_next_ones(tmp_path):
    """Each member is stored and holds the next one's header, so that all share the last data."""
    files = {name: b"" for name in "abc"}
    raw = bytearray(make_zip(tmp_path / "z", files, compression=zipfile.ZIP_STORED).read_bytes())
    places = [local(bytes(raw), name) for name in files]
    for name, begin, after in zip("ab", places, places[1:], strict=False):
        content = raw[begin + 31 : after + 31]
        for at in (begin + 14, listed(raw, name) + 16):
            raw[at : at + 12] = struct.pack("<3I", zlib.crc32(content), len(content), len(content))
    (tmp_path / "z").write_bytes(raw)
    refuses(tmp_path / "z", "which lies over another one")


ROW = {
    "checksum": (16, b"\1\2\3\4", "is damaged .Bad CRC-32"),
    "longer than it is": (24, struct.pack("<I", 10**6), "shorter or longer than declared"),
    "shorter than it is": (24, struct.pack("<I", 7), "is damaged"),
    "packed to more than there is": (20, struct.pack("<I", 10**6), "beyond the end"),
    "packed to 4 GiB": (20, b"\xff" * 4, "is damaged|beyond the end"),
    "beyond the end": (42, struct.pack("<I", 10**6), "beyond the end"),
    "bzip2": (10, struct.pack("<H", 12), "packed by method 12"),
    "lzma": (10, struct.pack("<H", 14), "packed by method 14"),
    "zstd": (10, struct.pack("<H", 93), "packed by method 93"),
    "unknown": (10, struct.pack("<H", 99), "packed by method 99"),
    "encrypted": (8, b"\1", "is encrypted"),
    "patch": (8, b"\x20", "is damaged"),
    "later version": (6, b"\xff", "is damaged"),
    "another name": (46, b"n", "is damaged"),
    "no row": (0, b"PK\7\7", "is damaged"),
}


@pytest.mark.parametrize("case", ROW)
def test_rows_of_a_zip_file(tmp_path, case):
    at, field, match = ROW[case]
    raw = bytearray(make_zip(tmp_path / "z", {"m": b"content " * 40}).read_bytes())
    at += raw.index(b"PK\1\2")
    raw[at : at + len(field)] = field
    (tmp_path / "z").write_bytes(raw)
    refuses(tmp_path / "z", match)


@pytest.mark.parametrize("field", [28, 30, 32])
def test_a_row_of_a_zip_file_that_takes_in_the_next_ones(tmp_path, field):
    """A name, extra field or comment said to be longer hides the members that follow."""
    raw = bytearray(make_zip(tmp_path / "z", {"a": b"1", "b": b"2", "c": b"3"}).read_bytes())
    at = raw.index(b"PK\1\2") + field
    raw[at : at + 2] = struct.pack("<H", raw[at] + 2 * 47)
    (tmp_path / "z").write_bytes(raw)
    refuses(tmp_path / "z", "lost members|damaged")


def test_zip_names_with_a_nul_and_folders_with_content(tmp_path):
    raw = make_zip(tmp_path / "z", {"survival_info.csv": b"x", "c": b""}).read_bytes()
    for name, match in (
        ("survival\0info.csv", "no usable name"),
        ("survival_info.csv"[:-1] + "/", "folder with content"),
    ):
        (tmp_path / "z").write_bytes(raw.replace(b"survival_info.csv", name.encode()))
        refuses(tmp_path / "z", match)


def test_folders_of_windows(tmp_path):
    archive = make_zip(tmp_path / "z", {"set\\": b"", "set\\a": b"x"})
    assert found(extract(archive, tmp_path / "out", progress=False)) == {"set/a": b"x"}


def test_nothing_in_it(tmp_path):
    for content in ({}, {"folder/": b""}):
        refuses(make_zip(tmp_path / "z", content), "has no file in it")
    (tmp_path / "z").write_bytes(gzip.compress(bytes(2**20)))
    refuses(tmp_path / "z", "has no file in it")
    for content in (b"", gzip.compress(b""), gzip.compress(b"no tar file" * 99)):
        (tmp_path / "z").write_bytes(content)
        refuses(tmp_path / "z", "damaged|neither zip nor tar")


@pytest.mark.parametrize("magic", [b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"])
def test_what_is_not_read_is_named(tmp_path, magic):
    (tmp_path / "z").write_bytes(magic + bytes(1000))
    refuses(tmp_path / "z", "is packed by (zstd|7z|rar), neither zip nor tar")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refuses(tmp_path / "pipe", "is a named pipe")
    (tmp_path / "pipe").unlink()
    (tmp_path / "endless").symlink_to("/dev/zero")
    refuses(tmp_path / "endless", "is a device")
    (tmp_path / "endless").unlink()
    (tmp_path / "folder").mkdir()
    refuses(tmp_path / "folder", "is a folder")


def test_hundreds_of_flips(tmp_path):
    """Whatever is flipped: what lands is as announced, or there is one sentence."""
    import random

    draw = random.Random(0)
    zipped = make_zip(tmp_path / "z", FILES, compression=zipfile.ZIP_STORED).read_bytes()
    packed = gzip.decompress(make_tar(tmp_path / "t", FILES).read_bytes())
    for number, raw in enumerate(itertools.islice(itertools.cycle([zipped, packed]), 600)):
        broken = bytearray(raw)
        for _ in range(draw.choice([1, 2, 8])):
            # Mostly headers: they fill the first and the last kibibyte.
            at = draw.choice([draw.randrange(600), -1 - draw.randrange(600)])
            broken[at] = draw.randrange(256)
        (tmp_path / "broken").write_bytes(broken)
        try:
            out = extract(tmp_path / "broken", tmp_path / f"out{number}", progress=False)
        except _archive.ArchiveError:
            continue
        assert len(found(out)) == len(FILES)
