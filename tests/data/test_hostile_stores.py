"""Zarr stores of strangers: one sentence that names the store, at once and in little memory."""

import bz2
import copy
import gzip
import json
import os
import struct
import time
import tracemalloc
import zipfile

import google_crc32c
import numcodecs
import numpy as np
import pytest
import torch
import zarr
from zarr.codecs import (
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.codecs import numcodecs as codecs

from cpic import data
from cpic._errors import VolumeError
from cpic._trust import DoubtError
from cpic.data.chunked._unpack import Unpacker
from cpic.data.stores import OnDemandVolume

SHAPE, CHUNKS = (16, 16, 16), (8, 8, 8)
VALUES = np.arange(16**3, dtype="f4").reshape(SHAPE)
# A few bytes that unpack to this many would have taken them.
BOMB, LITTLE = 2**27, 2**24
CODECS = ("zstd", "gzip", "zlib", "bz2", "lzma", "lz4", "blosc")
pytestmark = pytest.mark.timeout(300)


def make(path, **options):
    array = zarr.create_array(path, shape=SHAPE, chunks=CHUNKS, dtype="f4", **options)
    array[...] = VALUES
    return path


def change(path, *keys, to, name="zarr.json"):
    """Put another value into the metadata; no keys: in the place of all of them."""
    known = json.loads((path / name).read_text())
    at, last = known, keys[-1] if keys else None
    for key in keys[:-1]:
        at = at[key]
    if keys:
        at[last] = to
    (path / name).write_text(json.dumps(known if keys else to))
    return path


def refused(path, match=".", **options):
    """The one sentence of opening and reading a store."""
    with pytest.raises(VolumeError, match=match) as caught:
        data.ZarrVolume(path, **options).voxels(torch.zeros(1, 3, dtype=torch.int64))
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def grid(*edges):
    return {"name": "regular", "configuration": {"chunk_shape": edges}}


def codec(name, **options):
    return {"name": name, "configuration": options}


SENSELESS = [
    (("shape",), [2**63, 16, 16], "shape"),
    (("shape",), [2**62, 16, 16], "fewer than 2.62 voxels"),
    (("shape",), [2**70, 16, 16], "shape"),
    (("shape",), [-1, 16, 16], "shape"),
    (("shape",), [16.0, 16, 16], "shape"),
    (("shape",), [True, 16, 16], "shape"),
    (("shape",), ["16", 16, 16], "shape"),
    (("shape",), [[16], 16, 16], "shape"),
    (("shape",), "16", "a text"),
    (("shape",), None, "null"),
    (("shape",), [], "shape"),
    (("shape",), [1] * 40, "shape"),
    (("shape",), [16, 16], "axes"),
    (("chunk_grid",), 8, "a number"),
    (("chunk_grid",), {"name": "regular"}, "chunk_shape"),
    (("chunk_grid",), {"name": 7}, "a text is needed"),
    (("chunk_grid",), {"name": "hexagonal"}, "regular"),
    (("chunk_grid",), grid(8, 8), "axes"),
    (("chunk_grid",), grid(0, 8, 8), "chunk_shape"),
    (("chunk_grid",), grid(2**40, 8, 8), "bytes each"),
    (("chunk_grid",), grid(2**13, 2**13, 2**13), "bytes each"),
    (("data_type",), "string", "numbers are needed"),
    (("data_type",), 4, "a number"),
    (("data_type",), codec("fixed_length_utf32", length_bytes=2**40), "numbers are needed"),
    (("fill_value",), "abc", "fill|float"),
    (("fill_value",), None, "."),
    (("fill_value",), [1], "."),
    (("fill_value",), {}, "."),
    (("codecs",), {}, "a list is needed"),
    (("codecs",), [], "codecs"),
    (("codecs",), [codec("bytes")] * 40, "codecs"),
    (("codecs",), [None], "null"),
    (("codecs",), [codec("crc32c")], "."),
    (("codecs",), [codec("vlen-bytes")], "makes no numbers"),
    (("codecs",), [codec("nothing-known")], "nothing-known"),
    (("codecs", 0, "configuration"), {"endian": 7}, "."),
    (("codecs", 1, "configuration"), {"level": "high"}, "."),
    (("codecs", 1, "configuration"), [], "configuration|."),
    (("attributes",), 3, "attributes"),
    (("attributes",), [], "attributes"),
    (("dimension_names",), ["x"], "."),
    (("chunk_key_encoding",), {"name": "other"}, "."),
    (("zarr_format",), 4, "."),
    (("node_type",), "tree", "."),
    ((), [], "a list"),
    ((), 7, "a number"),
    ((), None, "null"),
    ((), "text", "a text"),
]


@pytest.mark.parametrize(("keys", "to", "match"), SENSELESS)
def test_metadata_that_make_no_sense(tmp_path, keys, to, match):
    refused(change(make(tmp_path / "odd.zarr"), *keys, to=to), match)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"chunk_shape": [3, 8, 8]}, "no multiples"),
        ({"chunk_shape": [0, 8, 8]}, "chunk_shape"),
        ({"chunk_shape": [8, 8]}, "axes"),
        ({"index_codecs": [codec("bytes"), codec("zstd", level=1, checksum=False)]}, "crc32c"),
        ({"index_location": "middle"}, "."),
        ({"codecs": "bytes"}, "a list is needed"),
        ({"codecs": [codec("crc32c")]}, "."),
    ],
)
def test_shards_that_make_no_sense(tmp_path, options, match):
    path = make(tmp_path / "odd.zarr", shards=SHAPE)
    for key, value in options.items():
        change(path, "codecs", 0, "configuration", key, to=value)
    refused(path, match)


def test_an_index_of_terabytes_is_not_read(tmp_path):
    path = make(tmp_path / "odd.zarr", shards=SHAPE)
    change(path, "shape", to=[2**40, 16, 16])
    change(path, "chunk_grid", to=grid(2**40, 16, 16))
    refused(path, "too many for an index")


@pytest.mark.parametrize(
    ("key", "to", "match"),
    [
        ("shape", [2**63, 1, 1], "shape"),
        ("chunks", [2**40, 8, 8], "bytes each"),
        ("chunks", None, "null"),
        ("dtype", "|O", "numbers are needed"),
        ("dtype", "<U9999999", "numbers are needed"),
        ("dtype", [["a", "<f4"]], "numbers are needed"),
        ("compressor", "zstd", "a text"),
        ("compressor", {"id": "pickle"}, "makes no numbers"),
        ("compressor", {"id": "nothing-known"}, "nothing-known"),
        ("filters", [{"id": "json2"}], "makes no numbers"),
        ("filters", [{"id": "astype", "encode_dtype": "u1", "decode_dtype": "S9999999"}], "no num"),
        ("filters", {"id": "delta"}, "a list is needed"),
        ("order", 5, "."),
        ("fill_value", "abc", "."),
        ("dimension_separator", ":", "."),
    ],
)
def test_metadata_of_version_2_that_make_no_sense(tmp_path, key, to, match):
    path = make(tmp_path / "odd.zarr", zarr_format=2)
    refused(change(path, key, to=to, name=".zarray"), match)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zarr.json", "[" * 100_000),
        ("zarr.json", '{"a":' * 100_000),
        ("zarr.json", "{"),
        ("zarr.json", ""),
        ("zarr.json", '{"shape": ' + "9" * 9999 + "}"),
        ("zarr.json", '"' + "x" * 2**23 + '"'),
        (".zattrs", "[" * 100_000),
        (".zattrs", "[]"),
    ],
)
def test_metadata_that_are_no_json_of_a_sane_size(tmp_path, name, text):
    path = make(tmp_path / "odd.zarr", zarr_format=3 if name == "zarr.json" else 2)
    (path / name).write_text(text)
    refused(path)


@pytest.mark.parametrize(
    "attributes",
    [
        {"on_demand": 3},
        {"on_demand": []},
        {"on_demand": None},
        {"on_demand": "complete"},
        {"on_demand": {"complete": False}},
        {"attributes": 5, "shape": "round", "ome": [], "_FillValue": float("nan")},
        {"a": {"b": [[[{"c": 1}]]]}},
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_attributes_of_others_are_read(tmp_path, attributes, version):
    path = make(tmp_path / "v.zarr", attributes=attributes, zarr_format=version)
    volume = data.ZarrVolume(path)
    assert json.dumps(volume.attributes) == json.dumps(attributes)
    assert volume.voxels(torch.tensor([[3, 4, 5]])) == VALUES[3, 4, 5]


def valid(path, kind):
    options = {
        "nan": {"fill_value": np.nan},
        "names": {"dimension_names": ("z", "y", None)},
        "checked": {"compressors": [ZstdCodec(), Crc32cCodec()]},
        "checked first": {"compressors": [Crc32cCodec(), ZstdCodec()]},
        "twice": {"compressors": [GzipCodec(), ZstdCodec()]},
        "in shards": {"shards": SHAPE, "filters": TransposeCodec(order=(2, 0, 1))},
        "filters": {
            "zarr_format": 2,
            "filters": [numcodecs.Delta("<f4"), numcodecs.AsType("<f8", "<f4")],
            "compressors": numcodecs.Zlib(),
        },
        "dots": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        "packed shards": {
            "serializer": ShardingCodec(chunk_shape=(1, 1, 1)),
            "compressors": GzipCodec(),
        },
        "shards in shards": {
            "serializer": ShardingCodec(
                chunk_shape=(4, 4, 8),
                codecs=[ShardingCodec(chunk_shape=(2, 4, 4), codecs=[BytesCodec(), ZstdCodec()])],
            ),
            "compressors": None,
        },
        "index first": {
            "serializer": ShardingCodec(
                chunk_shape=(4, 4, 4),
                index_location="start",
                index_codecs=[BytesCodec(endian="big")],
            ),
            "compressors": None,
        },
    } | {f"v2 {name}": {"zarr_format": 2} for name in CODECS}
    given = dict(options[kind])
    if kind.startswith("v2 "):
        given["compressors"] = numcodecs.get_codec({"id": kind[3:]})
    return make(path, **given)


VALID = ["nan", "names", "checked", "checked first", "twice", "in shards", "filters", "dots"]
VALID += ["packed shards", "shards in shards", "index first"]


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.parametrize("kind", [*VALID, *(f"v2 {name}" for name in CODECS)])
def test_what_is_merely_unusual_is_read(tmp_path, kind):
    volume = data.ZarrVolume(valid(tmp_path / "v.zarr", kind))
    assert np.array_equal(volume.read(), VALUES)
    at = torch.tensor([[3, 4, 5], [9, 3, 2]])
    assert volume.voxels(at).tolist() == [VALUES[3, 4, 5], VALUES[9, 3, 2]]
    assert data.ZarrVolume(tmp_path / "v.zarr").cubes(at, size=3)[0, 0, 1, 1, 1] == VALUES[3, 4, 5]


OF_NUMCODECS = {
    "delta": lambda: (
        [TransposeCodec(order=(1, 2, 0)), codecs.Delta(dtype="<f4")],
        [codecs.Zlib()],
    ),
    "wider": lambda: (
        [codecs.AsType(encode_dtype="<f8", decode_dtype="<f4")],
        [codecs.BZ2(), codecs.CRC32()],
    ),
    "scaled": lambda: (
        [codecs.FixedScaleOffset(offset=0, scale=1, dtype="<f4", astype="<i4")],
        [codecs.Shuffle()],
    ),
    "packed": lambda: ([], [codecs.LZMA(), codecs.Adler32()]),
}


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("kind", OF_NUMCODECS)
def test_codecs_of_numcodecs_in_version_3(tmp_path, kind):
    filters, packers = OF_NUMCODECS[kind]()
    path = make(tmp_path / "v.zarr", filters=filters, compressors=packers)
    assert np.array_equal(data.ZarrVolume(path).read(), VALUES)


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("shards", [None, (8, 8, 6)])
def test_channels_in_chunks_of_their_own(tmp_path, chunk, shards):
    values = np.arange(9 * 10 * 3, dtype="f4").reshape(9, 10, 3)
    array = zarr.create_array(
        tmp_path / "v.zarr", shape=values.shape, chunks=(4, 4, chunk), shards=shards, dtype="f4"
    )
    array[...] = values
    volume = data.ZarrVolume(tmp_path / "v.zarr", channels=3)
    assert np.array_equal(volume.read(), values)
    assert np.array_equal(volume.voxels(torch.tensor([[3, 4], [8, 9]])), values[[3, 8], [4, 9]])
    assert volume.ledger.chunks == (9 + 2) * -(-3 // chunk)


def test_what_has_no_fill_value_is_filled_with_0(tmp_path):
    path = change(make(tmp_path / "v.zarr", zarr_format=2), "fill_value", to=None, name=".zarray")
    (path / "0.0.0").unlink()
    assert data.ZarrVolume(path, fill_missing=True).voxels(torch.tensor([[3, 4, 5]])) == 0


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "0x7fc00001", 7])
def test_fill_values_of_the_specification(tmp_path, value):
    path = change(make(tmp_path / "v.zarr"), "fill_value", to=value)
    assert data.ZarrVolume(path).voxels(torch.tensor([[3, 4, 5]])) == VALUES[3, 4, 5]


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path):
    path.unlink()
    path.mkdir()


def endless(path):
    os.truncate(path, 2**40)


def circle(path):
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("spoil", [pipe, device, folder, endless, circle])
@pytest.mark.parametrize("name", ["zarr.json", "c/0/0/0"])
@pytest.mark.parametrize("shards", [None, SHAPE])
def test_what_is_no_file_of_a_chunk(tmp_path, spoil, name, shards):
    path = make(tmp_path / "odd.zarr", shards=shards)
    spoil(path / name)
    # A shard is asked for its end only, however long it is.
    refused(path, "." if shards and spoil is endless else name)
    with pytest.raises(VolumeError, match=r"odd\.zarr"):
        data.ZarrVolume(path).read()


def announces(name, n_bytes):
    """A few bytes that say they unpack to `n_bytes`."""
    if name == "zstd":
        return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", n_bytes) + b"\x01\x00\x00"
    packer = numcodecs.get_codec({"id": name})
    if name in ("lz4", "blosc"):
        raw, at = bytearray(packer.encode(bytes(2048))), 0 if name == "lz4" else 4
        struct.pack_into("<I", raw, at, n_bytes)
        return bytes(raw)
    return packer.encode(bytes(n_bytes))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("more", [0, 4, None])
def test_a_chunk_is_unpacked_within_its_bytes(name, more):
    packer = numcodecs.get_codec({"id": name})
    unpacker, whole = Unpacker(packer, more), VALUES[:8, :8, :8].tobytes()
    right = packer.encode(whole + bytes(more or 0))
    assert bytes(unpacker.decode(right, 2048)) == whole + bytes(more or 0)
    hostile = announces(name, BOMB)
    tracemalloc.start()
    with pytest.raises(DoubtError):
        unpacker.decode(hostile, 2048)
    assert tracemalloc.get_traced_memory()[1] < LITTLE
    tracemalloc.stop()
    if more is not None:
        with pytest.raises((ValueError, RuntimeError)):
            unpacker.decode(packer.encode(whole[:-4]), 2048)
    for cut in (b"", right[:3], right[:-3])[more is None :]:
        with pytest.raises((ValueError, RuntimeError, EOFError, OSError)):
            unpacker.decode(cut, 2048)


def frame(raw):
    """Bytes in a frame of Zstandard that does not say how many they are."""
    return b"\x28\xb5\x2f\xfd\x00\x58" + struct.pack("<I", len(raw) << 3 | 1)[:3] + raw


@pytest.mark.parametrize(
    ("frames", "right"),
    [
        ([frame(bytes(2048))], True),
        ([numcodecs.Zstd().encode(bytes(1024))] * 2, True),
        ([numcodecs.Zstd().encode(bytes(1024)), frame(bytes(1024))], True),
        ([frame(bytes(2047))], False),
        ([frame(bytes(2048)), frame(b"x")], False),
        ([numcodecs.Zstd().encode(bytes(1024)), numcodecs.Zstd().encode(bytes(1023))], False),
        ([numcodecs.Zstd().encode(bytes(1024))] * 3, False),
    ],
)
def test_frames_of_zstandard(frames, right):
    unpacker, raw = Unpacker(numcodecs.Zstd()), b"".join(frames)
    if right:
        assert bytes(unpacker.decode(raw, 2048)) == bytes(2048)
    else:
        with pytest.raises((ValueError, RuntimeError)):
            unpacker.decode(raw, 2048)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_unpack_to_much(tmp_path, name, version):
    packer = numcodecs.get_codec({"id": name})
    if version == 3:
        named = {"zstd": ZstdCodec(), "gzip": GzipCodec()}
        if name not in named:
            pytest.skip("not of version 3")
        packer = named[name]
    path = make(tmp_path / "bomb.zarr", zarr_format=version, compressors=packer)
    chunk = path / ("c/0/0/0" if version == 3 else "0.0.0")
    chunk.write_bytes(announces(name, 2**23))
    message = refused(path)
    assert ", 2,048 are needed" in message or "of more than 2,048" in message
    with pytest.raises(VolumeError, match=r"bomb\.zarr"):
        data.ZarrVolume(path).read()


@pytest.mark.parametrize(
    "span",
    [
        (0, 2**40),
        (2**63, 100),
        (2**64 - 2, 100),
        (2**64 - 1, 100),
        (100, 2**64 - 1),
        (10**6, 100),
        (0, 0),
        (0, 5),
    ],
)
@pytest.mark.parametrize("filters", [(), TransposeCodec(order=(2, 0, 1))])
def test_forged_indices_of_shards(tmp_path, span, filters):
    path = make(tmp_path / "forged.zarr", shards=SHAPE, filters=filters)
    file = path / "c/0/0/0"
    whole = file.read_bytes()
    body = struct.pack("<QQ", *span) + whole[-(8 * 16 + 4) : -4][16:]
    checksum = struct.pack("<I", google_crc32c.value(body))
    file.write_bytes(whole[: -(8 * 16 + 4)] + body + checksum)
    direct = not filters and sum(span) > 2**32
    refused(path, "its shard places it at bytes" if direct else ".")


@pytest.mark.parametrize("cut", [0, 3, 100, 131])
def test_a_shard_without_room_for_its_index(tmp_path, cut):
    path = make(tmp_path / "cut.zarr", shards=SHAPE)
    (path / "c/0/0/0").write_bytes((path / "c/0/0/0").read_bytes()[:cut])
    refused(path, "index of the shard")


def zipped(path, level=zipfile.ZIP_STORED, **bombs):
    with zipfile.ZipFile(path, "w", level) as file:
        folder = make(path.parent / "source.zarr")
        for one in sorted(folder.rglob("*")):
            if one.is_file():
                name = one.relative_to(folder).as_posix()
                file.writestr(name, bombs.get(one.name, one.read_bytes()))
    return path


@pytest.mark.parametrize("name", ["v.zarr.zip", "v.zip", "v.ozx"])
def test_a_zip_file_is_a_store(tmp_path, name):
    path = zipped(tmp_path / name)
    for volume in (data.ZarrVolume(path), data.ZarrVolume(zarr.storage.ZipStore(path))):
        assert np.array_equal(volume.read(), VALUES)
    if name != "v.zip":
        assert data.open_volume(path).voxels(torch.tensor([[3, 4, 5]])) == VALUES[3, 4, 5]


@pytest.mark.parametrize("name", ["zarr.json", "0"])
def test_members_of_a_zip_file_that_unpack_to_much(tmp_path, name):
    path = zipped(tmp_path / "bomb.zarr.zip", zipfile.ZIP_DEFLATED, **{name: bytes(BOMB)})
    tracemalloc.start()
    refused(path, "has more than")
    assert tracemalloc.get_traced_memory()[1] < LITTLE
    tracemalloc.stop()


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"text", b"PK\x05\x06" + bytes(18)])
def test_files_that_are_no_store(tmp_path, raw):
    path = tmp_path / "v.zarr.zip"
    path.write_bytes(raw)
    refused(path)


def test_what_lies_deeper_in_a_zip_file_is_named_and_read(tmp_path):
    path = tmp_path / "v.ozx"
    source = make(tmp_path / "source.zarr")
    with zipfile.ZipFile(path, "w") as file:
        for one in sorted(source.rglob("*")):
            file.write(one, f"image/0/{one.relative_to(source)}")
    refused(path, "there is no Zarr array at .*v.ozx; give the folder that holds zarr.json")
    assert np.array_equal(data.ZarrVolume(path / "image" / "0").read(), VALUES)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("image/zarr.json", '{"zarr_format": 3, "node_type": "group"}')
    refused(path, r"no Zarr array at .*v.ozx; give one of its arrays: .*v\.ozx/image\.")
    with pytest.raises(VolumeError, match=r"but a group; give one of its arrays: .*v.ozx/image/0"):
        data.open_volume(path / "image")
    volume = data.open_volume(path / "image" / "0")
    assert volume.voxels(torch.tensor([[3, 4, 5]])) == VALUES[3, 4, 5]
    with pytest.raises(VolumeError, match=r"no Zarr array at .*v.ozx/image/1"):
        data.open_volume(path / "image" / "1")


def test_an_array_is_no_store(tmp_path):
    array = zarr.open_array(make(tmp_path / "v.zarr"))
    with pytest.raises(VolumeError, match="a path, an address or a Store, got Array"):
        data.ZarrVolume(array)


def test_too_many_open_files_are_one_sentence(tmp_path, monkeypatch):
    path = zipped(tmp_path / "v.zarr.zip")

    def full(*_, **__):
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr("zipfile.ZipFile", full)
    refused(path, "Too many open files.*ulimit -n")
    folder = make(tmp_path / "v.zarr")
    monkeypatch.setattr("cpic.data.chunked._reads.open_handle", full)
    refused(folder, "Too many open files.*ulimit -n", retries=0)


@pytest.fixture
def image(tmp_path):
    group = zarr.open_group(tmp_path / "image.ome.zarr", mode="w")
    for level in range(2):
        group.create_array(str(level), data=VALUES[:: level + 1], chunks=CHUNKS)
    levels = [{"datasets": [{"path": "0"}, {"path": "1"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": levels}
    return tmp_path / "image.ome.zarr"


def test_a_level_of_an_image_is_a_volume(image):
    assert np.array_equal(data.open_volume(image / "1").read(), VALUES[::2])
    refused(image, r"a group; give one of its arrays: .*image.ome.zarr/0, .*image.ome.zarr/1")


@pytest.mark.parametrize("listed", [None, 5, [], {"metadata": 5}, {"metadata": {"2": None}}])
@pytest.mark.parametrize("levels", [None, 5, [5], [{"datasets": 5}], [{"datasets": [{"path": 5}]}]])
def test_groups_that_make_no_sense(image, levels, listed):
    store = zarr.storage.MemoryStore()
    known = json.loads((image / "zarr.json").read_text())
    known["attributes"] = {"ome": {"multiscales": levels}}
    known["consolidated_metadata"] = copy.deepcopy(listed)
    raw = zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(json.dumps(known).encode())
    store._store_dict["zarr.json"] = raw
    with pytest.raises(VolumeError, match="but a group; give"):
        data.ZarrVolume(store)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn])
def test_types_that_no_store_holds(tmp_path, kind):
    values = torch.ones(4, 4, 4).to(kind)
    with pytest.raises(VolumeError, match=r"cannot hold torch.*float32"):
        data.save_zarr(values, tmp_path / "v.zarr")


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VolumeError, match=r"file/v.zarr cannot be written .*free space there"):
        data.save_zarr(VALUES, tmp_path / "file" / "v.zarr")
    for wrong in ({"x": object()}, {"x": np.float32(1)}, [1]):
        with pytest.raises(VolumeError, match=r"attributes of .*v.zarr need values that JSON has"):
            data.save_zarr(VALUES, tmp_path / "v.zarr", attributes=wrong)
    with pytest.raises(VolumeError, match="chunk edges"):
        data.save_zarr(VALUES, tmp_path / "v.zarr", chunks=(2.5, 2, 2))


@pytest.mark.parametrize("cache", ["folder", 2.5, [1]])
def test_caches_of_chunks_that_are_none(tmp_path, cache):
    with pytest.raises(VolumeError, match="positive whole number of bytes"):
        data.ZarrVolume(make(tmp_path / "v.zarr"), cache=cache)


@pytest.mark.parametrize("cache", [2**62, 2**90])
def test_a_cache_larger_than_the_memory_is_one_sentence(tmp_path, cache):
    refused(make(tmp_path / "v.zarr"), "more memory than available", cache=cache)


SPOILED = {
    "other chunks": (("codecs", 0, "configuration", "chunk_shape"), [4, 4, 4]),
    "other shards": (("chunk_grid",), grid(64, 64, 64)),
    "index elsewhere": (("codecs", 0, "configuration", "index_location"), "start"),
    "mark": (("attributes", "on_demand"), 3),
    "no marks": (("attributes", "on_demand"), None),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_growing_store_of_another_hand(tmp_path, spoiled):
    source, path = data.ArrayVolume(VALUES), tmp_path / "v.zarr"
    OnDemandVolume(source, path, chunks=CHUNKS, shards=SHAPE)
    keys, to = SPOILED[spoiled]
    change(path, *keys, to=to)
    with pytest.raises(VolumeError, match=r"v\.zarr .*was not made of"):
        OnDemandVolume(source, path, chunks=CHUNKS, shards=SHAPE)


@pytest.mark.parametrize("spoil", [pipe, device, folder, endless])
def test_a_growing_store_whose_shard_is_no_file(tmp_path, spoil):
    source, path = data.ArrayVolume(VALUES), tmp_path / "v.zarr"
    volume = OnDemandVolume(source, path, chunks=CHUNKS, shards=SHAPE)
    volume.voxels(torch.tensor([[3, 4, 5]]))
    spoil(path / "c/0/0/0")
    volume._reads.forget()
    for use in (
        lambda: volume.voxels(torch.tensor([[9, 9, 9]])),
        lambda: volume._write(np.array([[0, 0, 0]]), [b""]),
        volume.fill,
    ):
        with pytest.raises(VolumeError, match=r"v\.zarr.*c/0/0/0"):
            use()


def test_bytes_of_gzip_in_members_are_read(tmp_path):
    path = make(tmp_path / "v.zarr", compressors=GzipCodec())
    chunk = path / "c/0/0/0"
    raw = gzip.decompress(chunk.read_bytes())
    chunk.write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    assert data.ZarrVolume(path).voxels(torch.tensor([[3, 4, 5]])) == VALUES[3, 4, 5]


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bz2", bz2.compress)])
def test_a_hundred_thousand_empty_members_cost_no_minutes(name, pack):
    unpacker, start = Unpacker(numcodecs.get_codec({"id": name})), time.process_time()
    assert bytes(unpacker.decode(pack(b"") * 100_000 + pack(bytes(8)), 8)) == bytes(8)
    assert time.process_time() - start < 20
