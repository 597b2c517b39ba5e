"""Upsample a volume that need not fit in memory, shard by shard, into a Zarr store."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._progress import shown
from cpic.data._resample import along, as_floating, check_order, floating, weights, width_of
from cpic.data._volume import Volume
from cpic.data.chunked._save import check_chunks, new_array
from cpic.data.stores._making import probe

# Windows are read as cubes of about this size: much cheaper than voxel by voxel.
_TILES = range(13, 27, 2)


def upsample(
    volume: Volume,
    path: str | os.PathLike,
    *,
    factor: int | Sequence[int] = 2,
    order: int = 3,
    chunks: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
    progress: bool = False,
) -> Path:
    """Write `resample(volume, factor * shape)` as a sharded Zarr v3 array, holding neither.

    For each shard a window of the volume is read, with a margin within which the influence of a
    voxel on the spline {cite}`unser1999splines` falls below 1e-6 (cubic: 13 voxels, by `2 -
    sqrt(3)` each); at the ends of the volume the window ends as well. So the result equals that of
    `resample` up to about 1e-6 of the largest value. Memory is that of one shard: about 16 times
    its bytes, 135 MB for the default shards and one channel of float32, in addition to the memory
    of the volume itself.

    The store appears under its name only when it is complete. A run that is killed or fails leaves
    its finished shards next to it in `.NAME.part`; the same call continues from there, while other
    options, or a volume that differs in 27 probed voxels, start again.

    Args:
        volume: Any volume.
        path: Folder to create; must not exist.
        factor: Upsampling factor, one number or one per axis.
        order: Order of the spline, 0 (nearest voxel) to 5.
        chunks: Sizes of a chunk, the unit of reading; at most 32 voxels per axis by default.
        shards: Sizes of a file, a multiple of `chunks`; at most 128 voxels per axis by default.
        progress: Show a progress bar of shards.

    Returns:
        `path`; `ZarrVolume(path, channels=volume.channels)` opens it. The dtype is as in
        `resample`.

    Raises:
        VolumeError: If `path` exists or is being written, an option is invalid, or a value is not
            finite.

    Example:
        >>> import tempfile, torch
        >>> from cpic.data import ArrayVolume, open_volume
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = upsample(ArrayVolume(torch.rand(8, 9, 10)), f"{folder}/large.zarr")
        ...     open_volume(path)
        ZarrVolume(16x18x20, float32)
    """
    path = Path(path)
    n_axes = len(volume.shape)
    factors = tuple(factor) if isinstance(factor, Sequence) else (factor,) * n_axes
    if len(factors) != n_axes or any(not isinstance(f, int) or f < 1 for f in factors):
        raise VolumeError(
            f"upsample needs one whole factor of at least 1, or one for each of the {n_axes} axes, "
            f"got factor={factor}; use resample for sizes between."
        )
    check_order("upsample", order)
    shape = tuple(f * n for f, n in zip(factors, volume.shape, strict=True))
    chunks = chunks or tuple(min(32, n) for n in shape)
    shards = shards or tuple(
        c * max(1, min(128 // max(1, c), -(-n // max(1, c))))
        for c, n in zip(chunks, shape, strict=False)
    )
    check_chunks("upsample", shape, chunks, shards)
    kept = order == 0 and volume.dtype != torch.bfloat16
    options = {
        "shape": shape,
        "channels": volume.channels,
        "dtype": str(volume.dtype if kept else floating(volume.dtype)).removeprefix("torch."),
        "order": order,
        "chunks": chunks,
        "shards": shards,
    }
    with _part(path) as part:
        array = _resumed(part, options | {"probe": probe(volume)}, options)
        _fill(array, part / "array", volume, options, progress)
        os.replace(part / "array", path)
    return path


def _fill(array: Any, folder: Path, volume: Volume, options: dict, progress: bool) -> None:
    shape, shards, order = options["shape"], options["shards"], options["order"]
    dtype = getattr(torch, options["dtype"])

    @cache
    def taken(axis: int, start: int) -> tuple[int, Tensor]:
        stop = min(start + shards[axis], shape[axis])
        first, weight = weights(volume.shape[axis], shape[axis], order, start, stop)
        return first, weight.to(dtype) if order else weight

    starts = [range(0, n, b) for n, b in zip(shape, shards, strict=True)]
    corners = [
        corner
        for corner in itertools.product(*starts)
        if not _file(folder, corner, shards, volume.channels).is_file()
    ]
    for corner in shown(progress, corners, unit="shard"):
        firsts, matrices = zip(*(taken(k, start) for k, start in enumerate(corner)), strict=True)
        widths = [width_of(matrix) for matrix in matrices]
        values = _window(volume, firsts, widths)
        values = as_floating(values).to(dtype) if order else values.to(dtype)
        for axis in sorted(range(len(shape)), key=lambda k: len(matrices[k]) / widths[k]):
            values = along(values, matrices[axis], axis + 1)
        box = tuple(slice(s, s + n) for s, n in zip(corner, values.shape[1:], strict=True))
        values = values.movedim(0, -1) if volume.channels > 1 else values[0]
        array[box] = values.cpu().numpy()


def _window(volume: Volume, low: Sequence[int], widths: Sequence[int]) -> Tensor:
    """Voxels (c, *widths) from `low` on, read as adjacent cubes of odd size."""
    n_axes = len(widths)
    padded = {size: [-(-width // size) * size for width in widths] for size in _TILES}
    size = min(padded, key=lambda s: torch.tensor(padded[s]).prod())
    counts = [length // size for length in padded[size]]
    edges = [
        first + size // 2 + size * torch.arange(n) for first, n in zip(low, counts, strict=True)
    ]
    cubes = volume.cubes(
        torch.stack(torch.meshgrid(*edges, indexing="ij"), -1).flatten(0, -2), size=size
    )
    cubes = cubes.reshape(*counts, volume.channels, *[size] * n_axes)
    pairs = [axis for k in range(n_axes) for axis in (k, n_axes + 1 + k)]
    values = cubes.permute(n_axes, *pairs).reshape(volume.channels, *padded[size])
    return values[(slice(None), *(slice(0, width) for width in widths))]


def _file(folder: Path, corner: Sequence[int], shards: Sequence[int], channels: int) -> Path:
    """The file of a shard; the store writes it atomically, so it is complete."""
    parts = [str(s // b) for s, b in zip(corner, shards, strict=True)]
    return folder.joinpath("c", *parts, *(["0"] if channels > 1 else []))


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """The folder of unfinished work, locked for this process."""
    from filelock import FileLock, Timeout

    part = path.parent / f".{path.name}.part"
    if path.exists():
        raise VolumeError(f"{path} exists; upsample does not overwrite, choose another name.")
    part.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(part / "lock", timeout=0):
            try:
                if path.exists():
                    raise VolumeError(f"{path} was just written by another process; open it.")
                yield part
            finally:
                if not (part / "array" / "c").exists():
                    shutil.rmtree(part, ignore_errors=True)
    except Timeout as error:
        raise VolumeError(
            f"{path} is being written by another process; wait until it is there and open it."
        ) from error


def _resumed(part: Path, key: dict, options: dict) -> Any:
    """The array of an earlier run with the same key, or a new one."""
    import zarr

    noted, text = part / "options.json", json.dumps(key)
    if not noted.exists() or noted.read_text() != text:
        shutil.rmtree(part / "array", ignore_errors=True)
        noted.write_text(text)
    for left in part.glob("array/**/*.partial"):
        left.unlink()
    if (part / "array" / "zarr.json").exists():
        array = zarr.open_array(part / "array", mode="r+")
        return array.with_config({"write_empty_chunks": True})
    sizes = {name: value for name, value in options.items() if name != "order"}
    return new_array(part / "array", **sizes, config={"write_empty_chunks": True})
