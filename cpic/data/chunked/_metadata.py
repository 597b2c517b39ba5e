"""Checks of untrusted Zarr metadata, before zarr parses it or memory is allocated.

Zarr checks only for errors of well-meaning writers. An untrusted file may declare anything: sizes
beyond 64 bits, chunks of terabytes, codecs that create objects from bytes. After these checks it is
an array of numbers whose chunks fit in memory; whether zarr can read it is left to zarr.
"""

import math
import re
from typing import Any

import numpy as np

from cpic._trust import DoubtError, parse_json

# Size limit of a metadata file in bytes.
METADATA_BYTES = 2**22
# Memory limit of a chunk, and of the index of a shard in its file.
CHUNK_BYTES = 2**34
INDEX_BYTES = 2**28
_VOXELS = 2**62
_CODECS = 32
_DICTIONARY_BYTES = 2**27
# Codecs of objects and texts: no volume has them, and some execute what they read.
_OF_OBJECTS = {"pickle", "json2", "msgpack2", "categorize", "vlen-utf8", "vlen-bytes", "vlen-array"}
_NUMBER = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_NUMBER_OF_2 = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16))")
_NUMBER_OR_2 = re.compile(f"{_NUMBER.pattern}|{_NUMBER_OF_2.pattern}")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
_KINDS |= {list: "a list", dict: "an object", type(None): "null"}


def check_metadata(name: str, raw: bytes) -> dict[str, Any]:
    """The metadata in the file `name` of a Zarr node, if it is of a kind that zarr may be given.

    Raises:
        DoubtError: If it is not a JSON object, or belongs to an array whose sizes, dtype or codecs
            cannot be those of a volume.
    """
    found = parse_json(raw)
    _need(isinstance(found, dict), f"is {_KINDS[type(found)]}, an object is needed")
    if name == ".zarray":
        _check_2(found)
    elif name == "zarr.json":
        if found.get("attributes") is not None:
            _is(found["attributes"], dict, "attributes")
        if found.get("node_type") == "array":
            _check_3(found)
    return found


def _check_3(found: dict[str, Any]) -> None:
    shape = _shape(found)
    kind, _ = _named(found.get("data_type"), "data_type")
    _need(_NUMBER.fullmatch(kind), f"has values of type {kind[:40]!r}, numbers are needed")
    grid, options = _named(found.get("chunk_grid"), "chunk_grid")
    _need(grid == "regular", f"has a chunk_grid named {grid[:40]!r}, a regular one is needed")
    chunk = _sizes(options.get("chunk_shape"), "chunk_shape", like=shape)
    _check_codecs(found.get("codecs"), chunk, np.dtype(kind).itemsize)


def _check_codecs(codecs: Any, chunk: list[int], itemsize: int, *, inner: bool = False) -> None:
    _is(codecs, list, "codecs")
    _need(0 < len(codecs) <= _CODECS, f"has {len(codecs)} codecs, 1 to {_CODECS} can be")
    named = [_check_codec(codec) for codec in codecs]
    # The whole chunk is held in memory, unless it is a shard, which is read in parts.
    if inner or [name for name, _ in named] != ["sharding_indexed"]:
        _need_room(chunk, itemsize)
    for name, options in named:
        if name == "sharding_indexed":
            _check_shards(options, chunk, itemsize)


def _check_shards(options: dict[str, Any], shard: list[int], itemsize: int) -> None:
    chunk = _sizes(options.get("chunk_shape"), "chunk_shape of a shard", like=shard)
    whole = all(n % edge == 0 for n, edge in zip(shard, chunk, strict=True))
    _need(whole, f"has shards of {shard}, no multiples of their chunks of {chunk}")
    count = math.prod(n // edge for n, edge in zip(shard, chunk, strict=True))
    _need(16 * count < INDEX_BYTES, f"has shards of {count:,} chunks, too many for an index")
    # A compressed index could expand without limit.
    index = _is(options.get("index_codecs", []), list, "index_codecs")
    others = {_check_codec(codec)[0] for codec in index} - {"bytes", "crc32c"}
    _need(not others, f"has index_codecs {sorted(others)}, bytes and crc32c can be")
    _check_codecs(options.get("codecs"), chunk, itemsize, inner=True)


def _check_2(found: dict[str, Any]) -> None:
    shape, kind = _shape(found), found.get("dtype")
    known = isinstance(kind, str) and _NUMBER_OF_2.fullmatch(kind)
    _need(known, f"has values of dtype {str(kind)[:40]!r}, numbers are needed")
    chunk = _sizes(found.get("chunks"), "chunks", like=shape)
    _need_room(chunk, np.dtype(kind).itemsize)
    filters = _is(found.get("filters") or [], list, "filters")
    _need(len(filters) <= _CODECS, f"has {len(filters)} filters, at most {_CODECS} can be")
    for codec in [*filters, found.get("compressor")]:
        if codec is not None:
            options = dict(_is(codec, dict, "a codec"))
            _check_codec({"name": options.pop("id", None), "configuration": options})


def _check_codec(codec: Any) -> tuple[str, dict[str, Any]]:
    """Name and options of a codec that produces numbers."""
    name, options = _named(codec, "a codec")
    plain = name.removeprefix("numcodecs.")
    _need(plain not in _OF_OBJECTS, f"has the codec {name!r}, which makes no numbers")
    for key, kind in options.items():
        if key.endswith(("dtype", "astype")) and kind is not None:
            known = isinstance(kind, str) and _NUMBER_OR_2.fullmatch(kind)
            _need(known, f"has the codec {name!r} with {key} {str(kind)[:40]!r}, no numbers")
        if key == "filters":  # of LZMA, which determine its memory
            _need(_modest(kind), f"has the codec {name!r} with filters that take much memory")
    return name, options


def _modest(filters: Any) -> bool:
    if not isinstance(filters, list):
        return filters is None
    sizes = [one.get("dict_size", 0) if isinstance(one, dict) else None for one in filters]
    return all(isinstance(n, int) and 0 <= n <= _DICTIONARY_BYTES for n in sizes)


def _named(value: Any, what: str) -> tuple[str, dict[str, Any]]:
    """Name and configuration of an extension point of version 3."""
    if isinstance(value, str):
        return value, {}
    given = _is(value, dict, what)
    name = _is(given.get("name"), str, f"{what} with a name")
    return name, _is(given.get("configuration") or {}, dict, f"{what} with a configuration")


def _shape(found: dict[str, Any]) -> list[int]:
    shape = _sizes(found.get("shape"), "shape", least=0)
    _need(math.prod(shape) < _VOXELS, f"has the shape {shape}, fewer than 2^62 voxels can be")
    return shape


def _sizes(value: Any, what: str, *, least: int = 1, like: list[int] | None = None) -> list[int]:
    known = all(type(n) is int and least <= n < 2**63 for n in _is(value, list, what))
    _need(known and 0 < len(value) <= 32, f"has {what} {str(value)[:80]}, no list of sizes")
    if like is not None:
        _need(len(value) == len(like), f"has {what} {value} for {len(like)} axes")
    return value


def _need_room(chunk: list[int], itemsize: int) -> None:
    n_bytes = math.prod(chunk) * itemsize
    _need(
        n_bytes <= CHUNK_BYTES,
        f"has chunks of {chunk}, which take {n_bytes:,} bytes each, {CHUNK_BYTES:,} can be",
    )


def _is(value: Any, kind: type, what: str) -> Any:
    """The value, if it is of this kind."""
    _need(
        isinstance(value, kind),
        f"has {what} that is {_KINDS[type(value)]}, {_KINDS[kind]} is needed",
    )
    return value


def _need(met: Any, otherwise: str) -> None:
    if not met:
        raise DoubtError(otherwise)
