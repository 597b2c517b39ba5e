"""Zarr stores: each chunk that a call touches is fetched and decoded once."""

import itertools
import math
import os
import shutil
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cpic._errors import VolumeError
from cpic.data._array import ArrayVolume, _as_tensor, torch_dtype
from cpic.data._store import open_store
from cpic.data._volume import Reader, Volume, spread, windows

# Decoded chunks held at once; what a call touches beyond it is read in rounds.
_HELD_BYTES = 2**28
_READERS = 8


class ZarrVolume(Reader):
    """A Zarr array (version 3, or 2), local or at any fsspec address, sharded or not.

    Clauses in `cpic.data.Volume`. `ledger.bytes` counts the stored (compressed) bytes that came
    from the store, shard indices included, and `ledger.chunks` the chunks decoded.

    Args:
        store: path of the array's folder, address such as "https://host/volume.zarr" or
            "s3://bucket/volume.zarr", or a `zarr.abc.store.Store`.
        channels: length of the last axis when it holds channels.
        fill_missing: take chunks that are not stored as the array's fill value. Writers leave out
            chunks that hold only that value, but a lost chunk looks the same, so this is asked for.
            (Inside a stored shard, a chunk that is left out always reads as the fill value.)
        storage_options: what fsspec needs to open an address, such as `{"anon": True}` for a
            public bucket.
        retries: further attempts at a read that failed by its connection (an error of the server,
            a connection refused, closed or too slow, or fewer bytes than asked for), after pauses
            of 0.1, 0.2, 0.4, ... at most 2 seconds. A server that stays down is reported after
            about 3 seconds by default.
        timeout: seconds an attempt may take.
        nan: value that replaces NaN; None refuses NaN voxels when they are read.

    Raises:
        VolumeError: if there is no array, its shape is no volume's, the address cannot be reached,
            or (when read) a chunk is missing or damaged.

    Example:
        >>> ZarrVolume("volume.zarr").cubes(centres, size=7)  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Any,
        *,
        channels: int = 1,
        fill_missing: bool = False,
        storage_options: dict | None = None,
        retries: int = 5,
        timeout: float = 30.0,
        nan: float | None = None,
    ) -> None:
        import zarr
        from zarr.errors import BaseZarrError

        self._opened = {"channels": channels, "fill_missing": fill_missing, "nan": nan}
        self._opened |= {"store": store, "storage_options": storage_options}
        self._opened |= {"retries": retries, "timeout": timeout}
        steady, self._reads = open_store(store, storage_options, retries=retries, timeout=timeout)
        try:
            array = zarr.open_array(steady, mode="r")
        except VolumeError:
            raise
        except (FileNotFoundError, BaseZarrError, KeyError, ValueError) as error:
            raise VolumeError(
                f"there is no Zarr array at {store} ({type(error).__name__}); give the folder that "
                "holds zarr.json of the array, not of a group."
            ) from error
        if channels > 1 and array.shape[-1] != channels:
            raise VolumeError(
                f"{store} with channels={channels} needs them in the last axis, got shape "
                f"{array.shape}."
            )
        shape = array.shape[:-1] if channels > 1 else array.shape
        super().__init__(shape, channels, torch_dtype(array.dtype), nan)
        self._array = array
        self._fill_missing = fill_missing
        self.chunks = tuple(array.chunks[: len(self.shape)])
        self.attributes: dict[str, Any] = dict(array.attrs)

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        n_axes, axes = len(self.shape), windows(corners.cpu(), size, self.shape)
        chunk = [positions // edge for (positions, _), edge in zip(axes, self.chunks, strict=True)]
        offset = [of - of[:, :1] for of in chunk]
        span = 1 + max((int(of.max()) for of in offset if of.numel()), default=0)
        # Chunks a cube may need, (n, span, ..., span): which they are, and whether it does.
        ids, needed = torch.zeros((), dtype=torch.int64), torch.ones((), dtype=torch.bool)
        used = [
            (one_hot(of, span).bool() & valid[..., None]).any(1)
            for of, (_, valid) in zip(offset, axes, strict=True)
        ]
        first = [of[:, :1] + torch.arange(span) for of in chunk]
        for of, use, length, edge in zip(
            spread(first), spread(used), self.shape, self.chunks, strict=True
        ):
            ids, needed = ids * -(-length // edge) + of, needed & use
        place, within = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)
        inside = torch.ones((), dtype=torch.bool)
        for of, positions, valid, edge in zip(
            spread(offset),
            spread([p for p, _ in axes]),
            spread([v for _, v in axes]),
            self.chunks,
            strict=True,
        ):
            place, within = place * span + of, within * edge + positions % edge
            inside = inside & valid
        cubes = torch.zeros(len(corners), size**n_axes, self.channels, dtype=self.dtype)
        ids, needed = ids.flatten(1), needed.flatten(1)
        place, within, inside = place.flatten(1), within.flatten(1), inside.flatten(1)
        for batch in self._rounds(ids[needed].unique()):
            slot = torch.searchsorted(batch, ids).clamp(max=len(batch) - 1)
            hit = (batch[slot] == ids) & needed
            rows = hit.any(1).nonzero()[:, 0]
            take = hit[rows].gather(1, place[rows]) & inside[rows]
            at = slot[rows].gather(1, place[rows]) * math.prod(self.chunks) + within[rows]
            values = self._fetch(batch)[at]
            cubes[rows] = torch.where(take[..., None], values, cubes[rows])
        return cubes.mT.reshape(len(corners), self.channels, *[size] * n_axes)

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        return self._cubes(coords, 1, n_distinct).reshape(len(coords), self.channels)

    def _rounds(self, ids: Tensor) -> list[Tensor]:
        decoded = math.prod(self.chunks) * self.channels * self._array.dtype.itemsize
        return list(ids.split(max(1, _HELD_BYTES // decoded))) if len(ids) else []

    def _fetch(self, ids: Tensor) -> Tensor:
        """Decoded chunks, (len(ids) * voxels of a chunk, channels)."""
        grid = [-(-length // edge) for length, edge in zip(self.shape, self.chunks, strict=True)]
        tail = (self.channels,) if self.channels > 1 else ()
        held = np.zeros((len(ids), *self.chunks, *tail), self._array.dtype)

        failed = Event()

        def load(slot: int, position: tuple[int, ...]) -> None:
            if failed.is_set():  # each further chunk would fail as slowly
                return
            box = tuple(
                slice(k * e, (k + 1) * e) for k, e in zip(position, self.chunks, strict=True)
            )
            try:
                values = self._decoded(box)
            except VolumeError:
                failed.set()
                raise
            held[(slot, *(slice(0, n) for n in values.shape))] = values

        positions = np.stack(np.unravel_index(ids.numpy(), grid), -1).tolist()
        before = self._reads.n_bytes
        try:
            with ThreadPoolExecutor(_READERS) as pool:
                list(pool.map(load, range(len(ids)), map(tuple, positions)))
        finally:
            self.ledger.add(bytes=self._reads.n_bytes - before)
            missing = self._reads.take_missing()
        per = -(-self.channels // self._array.chunks[-1]) if self.channels > 1 else 1
        self.ledger.add(chunks=len(ids) * per)
        self._refuse(missing)
        return _as_tensor(held).reshape(-1, self.channels)

    def _decoded(self, box: Any) -> np.ndarray:
        try:
            return np.asarray(self._array[box])
        except VolumeError:
            raise
        except (RuntimeError, ValueError, EOFError, OSError, zlib.error) as error:
            self._reads.forget()
            edges = "whole" if box is ... else ", ".join(f"{b.start}:{b.stop}" for b in box)
            raise VolumeError(
                f"{self._opened['store']} cannot be decoded at [{edges}] ({error}); a file of it "
                "is damaged or was cut short, copy the store again."
            ) from error

    def _refuse(self, missing: list[str]) -> None:
        if missing and not self._fill_missing:
            raise VolumeError(
                f"{self._opened['store']} lacks {len(missing)} of the chunks read, the first is "
                f"{missing[0]}; copy the store again, or pass fill_missing=True to take them as "
                f"{self._array.fill_value}."
            )

    def read(self) -> Tensor:
        """All voxels, (*shape) or (*shape, c); only for stores that fit in memory."""
        before = self._reads.n_bytes
        try:
            values = self._decoded(...)
        finally:
            self.ledger.add(bytes=self._reads.n_bytes - before)
            missing = self._reads.take_missing()
        self._refuse(missing)
        n_voxels = math.prod(self.shape)
        self.ledger.add(asked=n_voxels, voxels=n_voxels, chunks=self._array.nchunks)
        return self._without_nan(_as_tensor(values))

    def __getstate__(self) -> dict:
        return {"opened": self._opened, "ledger": self.ledger}

    def __setstate__(self, state: dict) -> None:
        ZarrVolume.__init__(self, **state["opened"])
        self.ledger = state["ledger"]


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
        volume: a volume, or an array of one (two or three axes).
        path: folder to make; must not exist.
        chunks: what is read at once; at most 64 voxels an axis by default.
        shards: what is one file, a multiple of `chunks`; None makes a file a chunk.
        attributes: JSON values to store along; `ZarrVolume.attributes` has them again.

    Returns:
        `path`.

    Raises:
        VolumeError: if `path` exists, or `chunks` or `shards` do not fit.

    Example:
        >>> save_zarr(volume, "volume.zarr", chunks=(32, 32, 32))  # doctest: +SKIP
    """
    import zarr

    source = ArrayVolume(volume) if isinstance(volume, Tensor | np.ndarray) else volume
    path = Path(path)
    if path.exists():
        raise VolumeError(f"{path} exists; save_zarr does not overwrite, choose another name.")
    chunks = chunks or tuple(min(64, length) for length in source.shape)
    blocks = shards or chunks
    check_chunks("save_zarr", source.shape, chunks, blocks)
    tail = (source.channels,) if source.channels > 1 else ()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(".part", f".{path.name}-", path.parent))
    try:
        array = zarr.create_array(
            part / "array",
            shape=(*source.shape, *tail),
            chunks=(*chunks, *tail),
            shards=(*shards, *tail) if shards else None,
            dtype=torch.empty(0, dtype=source.dtype).numpy().dtype,
            config={"write_empty_chunks": True},
            attributes=attributes,
        )
        for corner in itertools.product(
            *(range(0, n, b) for n, b in zip(source.shape, blocks, strict=True))
        ):
            edges = [
                torch.arange(a, min(a + b, n))
                for a, b, n in zip(corner, blocks, source.shape, strict=True)
            ]
            grid = torch.stack(torch.meshgrid(*edges, indexing="ij"), -1)
            box = tuple(slice(int(edge[0]), int(edge[-1]) + 1) for edge in edges)
            array[box] = source.voxels(grid).cpu().numpy()
        os.replace(part / "array", path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


def check_chunks(
    who: str, shape: tuple[int, ...], chunks: tuple[int, ...], shards: tuple[int, ...]
) -> None:
    """Refuse chunks and shards that are not one edge an axis, the second multiples of the first."""
    if not len(chunks) == len(shards) == len(shape) or any(
        c < 1 or b < 1 or b % c for b, c in zip(shards, chunks, strict=False)
    ):
        raise VolumeError(
            f"{who} needs {len(shape)} chunk edges and shards that are multiples of them, got "
            f"chunks={chunks} and shards={shards}."
        )
