"""A Zarr array that zarr reads, while its chunks are unpacked within the bytes that they can have.

Imported when an array is opened, as zarr is.
"""

import asyncio
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numcodecs
import zarr
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.array import AsyncArray
from zarr.core.chunk_grids import RegularChunkGrid
from zarr.storage import ZipStore

from cpic._errors import VolumeError
from cpic.data._failed import unopened
from cpic.data._format import Layout
from cpic.data._group import members
from cpic.data._store import Reads
from cpic.data._unpack import WIDER, Compressor, Filter, Unpacker, room

# What zarr raises at metadata that make no sense, RecursionError and NotImplementedError included.
_SENSELESS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError)
_SENSELESS += (MemoryError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile)
# Arrays of a group that an error names.
_NAMED = 10
# Bytes that a codec adds, where that is known.
_ADDED = {"shuffle": 0}
_ADDED |= dict.fromkeys(("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"), 4)


def opened(reads: Reads) -> zarr.Array:
    """The array of a store, with bounds on what its files have and its codecs unpack.

    Raises:
        VolumeError: If there is none, or what is said of it makes no sense.
    """
    try:
        array = _bounded(zarr.open_array(reads.steady, mode="r"))
        reads.file_bytes = _stored_bytes(array)
        return array
    except VolumeError:
        raise
    except _SENSELESS as error:
        raise VolumeError(_otherwise(reads, error)) from None


def _otherwise(reads: Reads, error: BaseException) -> str:
    """What to open instead of a store that holds no array, or one that zarr cannot read."""
    names = members(reads)
    zipped = isinstance(reads.steady._store, ZipStore)
    if names is not None and zipped:
        return (
            f"there is no Zarr array at the top of {reads.address}, but a group; unpack it, and "
            "give the folder of one of its arrays."
        )
    if names is not None:
        shown = (name if name.isprintable() else repr(name) for name in names[:_NAMED])
        known = ", ".join(f"{reads.address}/{name}" for name in shown)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"there is no Zarr array at {reads.address}, but a group; give " + (
            f"one of its arrays: {known}{more}." if names else "the folder of one of its arrays."
        )
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return unopened(reads.address, error)
    if isinstance(error, FileNotFoundError):
        advice = "give the folder that holds zarr.json or .zarray of the array"
        if zipped:
            advice = "its zarr.json or .zarray must be at the top; unpack it, and give the folder"
        return f"there is no Zarr array at {reads.address}; {advice}."
    return (
        f"{reads.address} cannot be opened as a Zarr array ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}); its metadata is damaged or was made by another "
        "version, copy or export it again."
    )


def _bounded(array: zarr.Array) -> zarr.Array:
    known: Any = array.metadata
    if known.zarr_format == 3:
        found = replace(known, codecs=_of_3(known.codecs))
    else:
        n_bytes = math.prod(known.chunks) * array.dtype.itemsize
        filters = known.filters and tuple(Filter(codec, n_bytes) for codec in known.filters)
        packer = known.compressor and Compressor(known.compressor, n_bytes, bool(filters))
        found = replace(known, compressor=packer, filters=filters)
    return zarr.Array(AsyncArray(metadata=found, store_path=array.store_path))


def _stored_bytes(array: zarr.Array) -> int:
    """Bytes that one file of the array has at most."""
    known: Any = array.metadata
    chunk, shards = known.chunk_grid.chunk_shape, getattr(array, "shards", None)
    n_bytes = room(math.prod(chunk) * array.dtype.itemsize)
    if shards is not None:
        n_bytes += 128 * math.prod(n // edge for n, edge in zip(shards, array.chunks, strict=True))
    wider = getattr(known, "filters", None) or any(
        hasattr(codec, "codec_config") for codec in getattr(known, "codecs", ())
    )
    return n_bytes * WIDER if wider else n_bytes


def layout_of(array: zarr.Array) -> Layout | None:
    """The layout of a bounded array; None for one that Zarr's own, slower reader is left to."""
    known: Any = array.metadata
    if known.zarr_format != 3 or not isinstance(known.chunk_grid, RegularChunkGrid):
        return None
    codecs, per_shard = tuple(known.codecs), None
    if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec):
        shard = codecs[0]
        kinds = [type(codec).__name__ for codec in shard.index_codecs]
        if kinds != ["BytesCodec", "Crc32cCodec"] or shard.index_location.value != "end":
            return None
        outer = known.chunk_grid.chunk_shape
        per_shard = tuple(n // edge for n, edge in zip(outer, shard.chunk_shape, strict=True))
        codecs = tuple(shard.codecs)
    packed = [codec for codec in codecs[1:] if isinstance(codec, Bounded)]
    if not codecs or not isinstance(codecs[0], BytesCodec) or len(packed) < len(codecs) - 1:
        return None
    endian = codecs[0].endian
    prefix = f"{array.path}/" if array.path else ""
    return Layout(
        chunk=tuple(array.chunks),
        per_shard=per_shard,
        stored=array.dtype.newbyteorder("<" if endian is None or endian.value == "little" else ">"),
        codecs=tuple(codec.unpacker for codec in packed),
        fill=array.fill_value,
        key=lambda at: prefix + known.encode_chunk_key(tuple(at)),
    )


def _unpackers(codecs: Iterable[Codec], more: int | None = 0) -> list[Unpacker | None]:
    """For packers in their order: one that unpacks them, None for what is no packer.

    `more` is what the values have in bytes before the first of them, as in `Unpacker`.
    """
    found: list[Unpacker | None] = []
    for codec in codecs:
        packer = _packer(codec)
        found.append(packer and Unpacker(packer, more))
        name = getattr(packer, "codec_id", type(codec).__name__.removesuffix("Codec").lower())
        added = _ADDED.get(name)
        more = None if added is None or more is None else more + added
    return found


def _of_3(codecs: tuple[Codec, ...]) -> tuple[Codec, ...]:
    found: list[Codec] = []
    packed = [codec for codec in codecs if isinstance(codec, BytesBytesCodec)]
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            codec = replace(codec, codecs=_of_3(codec.codecs))
        found.append(codec)
    sharded = any(isinstance(codec, ShardingCodec) for codec in codecs)
    # A shard that is packed as a whole has its index too.
    for codec, unpacker in zip(packed, _unpackers(packed, None if sharded else 0), strict=True):
        if unpacker is not None:
            found[found.index(codec)] = Bounded(codec, unpacker)
    return tuple(found)


def _packer(codec: Codec) -> Any:
    """The codec of numcodecs that one of zarr stands for."""
    kind, given = type(codec).__name__, codec.to_dict()
    if not isinstance(codec, BytesBytesCodec):
        return None
    config: Any = given.get("configuration", {})
    if kind == "ZstdCodec":
        return numcodecs.Zstd(level=config["level"], checksum=config["checksum"])
    if kind == "GzipCodec":
        return numcodecs.GZip(level=config["level"])
    if kind == "BloscCodec":
        return numcodecs.Blosc()
    name = str(given["name"])
    if name.startswith("numcodecs."):
        return numcodecs.get_codec({"id": name.removeprefix("numcodecs."), **config})
    return None


@dataclass(frozen=True)
class Bounded(BytesBytesCodec):
    """A packer of version 3 that unpacks what a chunk can have."""

    inner: BytesBytesCodec
    unpacker: Unpacker

    is_fixed_size = False

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        return self.inner.compute_encoded_size(input_byte_length, chunk_spec)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        n_bytes = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        raw = chunk_data.as_numpy_array()
        found = await asyncio.to_thread(self.unpacker.decode, raw, n_bytes)
        return chunk_spec.prototype.buffer.from_bytes(found)
