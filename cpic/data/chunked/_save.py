"""Write a volume as a Zarr store."""

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._array import ArrayVolume
from cpic.data._volume import Volume


def save_zarr(
    volume: Volume | Tensor | np.ndarray,
    path: str | os.PathLike,
    *,
    chunks: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
    attributes: dict[str, Any] | None = None,
) -> Path:
    """Write a volume as a Zarr v3 array, block by block, every chunk stored.

    The folder appears under its name only when it is complete.

    Args:
        volume: A volume, or an array of one (two or three axes).
        path: Folder to create; must not exist.
        chunks: Sizes of a chunk, the unit of reading; at most 64 voxels per axis by default.
        shards: Sizes of a file, a multiple of `chunks`; None writes one file per chunk.
        attributes: JSON values to store; `ZarrVolume.attributes` returns them.

    Returns:
        `path`.

    Raises:
        VolumeError: If `path` exists or cannot be written, `chunks` or `shards` are invalid, the
            dtype cannot be stored, or the attributes are not JSON.

    Example:
        >>> save_zarr(volume, "volume.zarr", chunks=(32, 32, 32))  # doctest: +SKIP
    """
    try:
        json.dumps(dict(attributes or {}))
    except (TypeError, ValueError, RecursionError) as error:
        raise VolumeError(
            f"attributes of {path} need values that JSON has, such as numbers and lists ({error})."
        ) from error
    source = ArrayVolume(volume) if isinstance(volume, Tensor | np.ndarray) else volume
    path = Path(path)
    if path.exists():
        raise VolumeError(f"{path} exists; save_zarr does not overwrite, choose another name.")
    chunks = chunks or tuple(min(64, length) for length in source.shape)
    blocks = shards or chunks
    check_chunks("save_zarr", source.shape, chunks, blocks)
    options = {"attributes": attributes, "config": {"write_empty_chunks": True}}
    try:
        with creating(path, source, chunks, shards, **options) as array:
            for corner in itertools.product(*map(range, [0] * len(blocks), source.shape, blocks)):
                edges = [
                    torch.arange(a, min(a + b, n))
                    for a, b, n in zip(corner, blocks, source.shape, strict=True)
                ]
                grid = torch.stack(torch.meshgrid(*edges, indexing="ij"), -1)
                box = tuple(slice(int(edge[0]), int(edge[-1]) + 1) for edge in edges)
                array[box] = source.voxels(grid).cpu().numpy()
    except OSError as error:
        raise VolumeError(
            f"{path} cannot be written ({error.strerror or error}); free space there or "
            "allow writing, or choose another folder."
        ) from error
    return path


@contextmanager
def creating(
    path: Path,
    source: Volume,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    **options: Any,
) -> Iterator[Any]:
    """A zarr array for the values of a volume, renamed to its final path after the block.

    Args:
        path: Folder of the array.
        source: Volume with the sizes, channels and dtype.
        chunks: Spatial sizes; a chunk holds all channels.
        shards: Spatial sizes of a shard.
        options: Options of `zarr.create_array`.

    Raises:
        OSError: If it cannot be created, or `path` exists by then.
    """
    dtype = stored_dtype(source)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(".part", f".{path.name}-", path.parent))
    try:
        sizes = {"shape": source.shape, "chunks": chunks, "shards": shards}
        yield new_array(part / "array", **sizes, channels=source.channels, dtype=dtype, **options)
        os.replace(part / "array", path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def new_array(
    folder: Path,
    *,
    shape: tuple[int, ...],
    channels: int,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    **options: Any,
) -> Any:
    """A zarr array of spatial sizes, whose chunks hold all channels, with further options."""
    import zarr

    tail = (channels,) if channels > 1 else ()
    sizes = {"shape": (*shape, *tail), "chunks": (*chunks, *tail)}
    return zarr.create_array(folder, **sizes, shards=shards and (*shards, *tail), **options)


def stored_dtype(source: Volume) -> np.dtype:
    """The NumPy dtype in which a store holds the values of a volume."""
    try:
        return torch.empty(0, dtype=source.dtype).numpy().dtype
    except TypeError:
        raise VolumeError(
            f"a Zarr store cannot hold {source.dtype}; convert the volume, for example to float32."
        ) from None


def check_chunks(
    who: str, shape: tuple[int, ...], chunks: tuple[int, ...], shards: tuple[int, ...]
) -> None:
    """Reject chunks and shards without one edge per axis, or shards not multiples of chunks."""
    whole = all(isinstance(n, int | np.integer) and n > 0 for n in (*chunks, *shards))
    if (
        not whole
        or not len(chunks) == len(shards) == len(shape)
        or any(b % c for b, c in zip(shards, chunks, strict=True))
    ):
        raise VolumeError(
            f"{who} needs {len(shape)} chunk edges and shards that are multiples of them, got "
            f"chunks={chunks} and shards={shards}."
        )
