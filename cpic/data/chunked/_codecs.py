"""Build layouts from zarr's description of an array, with bounded decompression of chunks.

Imported when an array is opened, as zarr is. Known compressors (`_NUMCODECS`, and those of
numcodecs) decompress within bounds; other codecs run as zarr runs them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.abc.codec import ArrayArrayCodec, Codec
from zarr.codecs import BytesCodec, ShardingCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.codec_pipeline import codecs_from_list
from zarr.core.sync import sync

from cpic.data.chunked._layout import SHARE, Codecs, Layout
from cpic.data.chunked._shards import NOT_THERE, ShardIndex
from cpic.data.chunked._unpack import WIDER, Unpacker, unfilter

# Compressors of version 3 that numcodecs has by the same name, with the options it accepts.
_NUMCODECS = {"zstd": ("level", "checksum"), "gzip": ("level",), "blosc": (), "crc32c": ()}
# Bytes that a codec adds, if known.
_ADDED = {"shuffle": 0}
_ADDED |= dict.fromkeys(("crc32", "crc32c", "adler32", "fletcher32", "jenkins_lookup3"), 4)


def layout_of(array: zarr.Array) -> Layout:
    """The layout of an array.

    Raises:
        TypeError, ValueError, LookupError: If its codecs are inconsistent.
    """
    known: Any = array.metadata
    index = None
    if known.zarr_format == 2:
        chunk, codecs = known.chunks, _of_version_2(known, array.dtype)
    else:
        spec = known.get_chunk_spec((), array.config, default_buffer_prototype())
        inner = known.codecs
        if len(inner) == 1 and isinstance(inner[0], ShardingCodec):
            index, inner, spec = _within(inner[0], spec)
        chunk, codecs = spec.shape, _of_version_3(inner, spec)
    return Layout(
        shape=array.shape,
        dtype=array.dtype.newbyteorder("="),
        chunk=chunk,
        index=index,
        codecs=codecs,
        fill=0 if array.fill_value is None else array.fill_value,
        key=lambda at: known.encode_chunk_key(tuple(at)),
        attributes=dict(array.attrs),
        described=str(known),
    )


def _of_version_2(known: Any, dtype: np.dtype) -> Codecs:
    n_bytes = math.prod(known.chunks) * dtype.itemsize
    filters, packer = known.filters or (), known.compressor

    def values(raw: Any) -> np.ndarray:
        for codec in reversed(filters):
            raw = unfilter(codec, raw, n_bytes)
        return np.frombuffer(raw, dtype).reshape(known.chunks, order=known.order)

    packers = (Unpacker(packer, None if filters else 0),) if packer else ()
    return Codecs(n_bytes * WIDER if filters else n_bytes, packers, values)


def _of_version_3(codecs: tuple[Codec, ...], spec: ArraySpec) -> Codecs:
    before, serializer, after = codecs_from_list(codecs)
    filters: list[tuple[ArrayArrayCodec, ArraySpec]] = []
    for codec in before:
        filters.append((codec, spec))
        spec = codec.resolve_metadata(spec)
    dtype = spec.dtype.to_native_dtype()
    n_bytes, more, stored = math.prod(spec.shape) * dtype.itemsize, 0, None
    if isinstance(serializer, BytesCodec):
        stored = dtype.newbyteorder(
            ">" if getattr(serializer.endian, "value", "") == "big" else "<"
        )
        read = _numbers(stored, spec.shape)
    elif isinstance(serializer, ShardingCodec):
        index, inner, one = _within(serializer, spec)
        n_bytes += index.n_bytes + SHARE * math.prod(index.per_shard)
        read, more = _shard(index, _of_version_3(inner, one), spec), None
    else:
        read, more = _ByZarr(serializer, spec).decode, None

    def values(raw: Any) -> np.ndarray:
        found = read(raw)
        for codec, at in reversed(filters):
            found = _ByZarr(codec, at).decode(found)
        return found

    return Codecs(n_bytes, _packers(after, spec, more), values, None if filters else stored)


def _numbers(stored: np.dtype, shape: tuple[int, ...]) -> Callable[[Any], np.ndarray]:
    return lambda raw: np.frombuffer(raw, stored).reshape(shape)


def _within(
    codec: ShardingCodec, spec: ArraySpec
) -> tuple[ShardIndex, tuple[Codec, ...], ArraySpec]:
    """The index of a shard, the codecs of its chunks, and the known properties of a chunk."""
    said: list[Any] = [one.to_dict() for one in codec.index_codecs]
    big = any(one.get("configuration", {}).get("endian") == "big" for one in said)
    index = ShardIndex(
        tuple(n // edge for n, edge in zip(spec.shape, codec.chunk_shape, strict=True)),
        at_end=codec.index_location.value == "end",
        n_checksums=sum(one["name"] == "crc32c" for one in said),
        order=">" if big else "<",
    )
    return index, codec.codecs, replace(spec, shape=codec.chunk_shape)


def _shard(index: ShardIndex, inner: Codecs, spec: ArraySpec) -> Callable[[Any], np.ndarray]:
    """Reads a shard that was compressed as a whole, or is inside another one."""

    def read(raw: Any) -> np.ndarray:
        view = memoryview(raw).cast("B")
        out = np.full(spec.shape, spec.fill_value, spec.dtype.to_native_dtype())
        edges = [n // count for n, count in zip(spec.shape, index.per_shard, strict=True)]
        for number, (start, length) in enumerate(index.all(index.within(view)).tolist()):
            if start == length == NOT_THERE:
                continue
            at = np.unravel_index(number, index.per_shard)
            box = tuple(slice(k * e, (k + 1) * e) for k, e in zip(at, edges, strict=True))
            out[box] = inner.decode(view[start : start + length])
        return out

    return read


def _packers(codecs: tuple[Codec, ...], spec: ArraySpec, more: int | None) -> tuple[Unpacker, ...]:
    """Decompressors in the order of compression; `more` as in `Unpacker`, for the first of them."""
    found = []
    for codec in codecs:
        packer = _numcodec(codec) or _ByZarr(codec, spec)
        found.append(Unpacker(packer, more))
        added = _ADDED.get(packer.codec_id)
        more = None if added is None or more is None else more + added
    return tuple(found)


def _numcodec(codec: Codec) -> Any:
    """The numcodecs codec that corresponds to one of zarr; None if there is none."""
    given: Any = codec.to_dict()
    name, options = given["name"], given.get("configuration", {})
    if name in _NUMCODECS:
        options = {key: options[key] for key in _NUMCODECS[name]}
    elif not name.startswith("numcodecs."):
        return None
    return numcodecs.get_codec({"id": name.removeprefix("numcodecs."), **options})


@dataclass(frozen=True)
class _ByZarr:
    """A codec that zarr runs, for arrays or bytes described by `spec`."""

    codec: Codec
    spec: ArraySpec
    codec_id = "zarr"

    def decode(self, raw: Any) -> np.ndarray:
        """The decoded input of the codec."""
        prototype = self.spec.prototype
        if isinstance(self.codec, ArrayArrayCodec):
            given: Any = prototype.nd_buffer.from_numpy_array(raw)
        else:
            given = prototype.buffer.from_bytes(bytes(raw))
        found: Any = next(iter(sync(self.codec.decode([(given, self.spec)]))))
        return found.as_numpy_array()
