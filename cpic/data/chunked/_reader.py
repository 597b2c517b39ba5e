"""Cubes from chunks: each chunk that a call touches is loaded once, or taken from a cache."""

import functools
import math
import threading
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from cpic._errors import VolumeError
from cpic.data._array import _as_tensor
from cpic.data._volume import Reader
from cpic.data._windows import spread, windows
from cpic.data.chunked._cache import ChunkCache, Held

# Decoded chunks in memory without a cache; a call that touches more is processed in rounds.
_HELD_BYTES = 2**28
# Maximum number of chunks, however small, requested at once when everything is read.
_BATCH = 2**16


class Touched(NamedTuple):
    """Reads of a volume so far, as fractions of the whole; above 1 if calls overlap.

    Attributes:
        voxels: distinct voxels of each call.
        chunks: loaded chunks.
        bytes: stored bytes received, relative to the bytes of all decoded voxels.
    """

    voxels: float
    chunks: float
    bytes: float


class ChunkedReader(Reader):
    """Base class of volumes in chunks; a subclass sets the attributes and loads chunks.

    Attributes:
        chunks: spatial sizes of a chunk.
        cache: cache of decoded chunks between calls, or None.
    """

    chunks: tuple[int, ...]
    cache: ChunkCache | None

    def _set_chunks(
        self,
        chunks: tuple[int, ...],
        dtype: np.dtype,
        cache: int | ChunkCache | None,
        name: Hashable,
    ) -> None:
        """`dtype`: of the values in memory; `name`: the same for volumes with the same chunks."""
        self.chunks, self._stored = tuple(chunks), dtype
        given = cache is None or isinstance(cache, ChunkCache)
        self.cache = cache if given else ChunkCache(cache)  # type: ignore[arg-type]
        self._name = name
        # Threads that read the same volume alternate: received bytes are counted for each call.
        self._turn = threading.RLock()

    @abstractmethod
    def _load(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Write the chunks at `positions` (n, D) of the grid of chunks into `out`, n arrays.

        Beyond the shape, values are arbitrary. The bytes of the ledger are counted here.
        """

    def cubes(self, centres: Tensor, *, size: int) -> Tensor:
        with self._turn:
            return super().cubes(centres, size=size)

    def voxels(self, coords: Tensor) -> Tensor:
        with self._turn:
            return super().voxels(coords)

    def touched(self) -> Touched:
        """The counts of the ledger, divided by the totals."""
        n_voxels = math.prod(self.shape)
        return Touched(
            self.ledger.voxels / n_voxels,
            self.ledger.chunks / (math.prod(self._grid) * self._chunks_at_a_position),
            self.ledger.bytes / (n_voxels * self.channels * self._stored.itemsize),
        )

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        n_axes, axes = len(self.shape), windows(corners.cpu(), size, self.shape)
        chunk = [positions // edge for (positions, _), edge in zip(axes, self.chunks, strict=True)]
        offset = [of - of[:, :1] for of in chunk]
        span = 1 + max((int(of.max()) for of in offset if of.numel()), default=0)
        # Candidate chunks of each cube, (n, span, ..., span): their indices, and whether needed.
        used = [
            (one_hot(of, span).bool() & valid[..., None]).any(1)
            for of, (_, valid) in zip(offset, axes, strict=True)
        ]
        ids = _joined([of[:, :1] + torch.arange(span) for of in chunk], self._grid)
        needed, inside = _all(used), _all([valid for _, valid in axes])
        # For each voxel: its chunk among these, and its position in it.
        place = _joined(offset, [span] * n_axes)
        rests = [positions % edge for (positions, _), edge in zip(axes, self.chunks, strict=True)]
        within = _joined(rests, self.chunks)
        within = within if self.channels == 1 else within * self.channels
        wanted = ids[needed].unique()
        cache = self.cache or ChunkCache(max(1, min(_HELD_BYTES, len(wanted) * self._chunk_bytes)))
        rounds = self._rounds(wanted, cache)
        if len(rounds) == 1:  # everything at once: nothing to select
            with self._held(wanted, cache) as (memory, starts):
                slot = torch.searchsorted(wanted, ids).clamp(max=len(wanted) - 1)
                cubes = self._values(memory, starts[slot].gather(1, place).add_(within))
            if not inside.all():
                cubes.masked_fill_(~inside[..., None], 0)
        else:
            cubes = torch.zeros(*inside.shape, self.channels, dtype=self.dtype)
        for batch in rounds[1:] and rounds:
            slot = torch.searchsorted(batch, ids).clamp(max=len(batch) - 1)
            hit = (batch[slot] == ids) & needed
            rows = hit.any(1).nonzero()[:, 0]
            take = hit[rows].gather(1, place[rows]) & inside[rows]
            with self._held(batch, cache) as (memory, starts):
                at = starts[slot[rows]].gather(1, place[rows]) + within[rows]
                values = self._values(memory, at)
            cubes[rows] = torch.where(take[..., None], values, cubes[rows])
        return cubes.mT.reshape(len(corners), self.channels, *[size] * n_axes)

    def _values(self, memory: np.ndarray, at: Tensor) -> Tensor:
        """Values (..., c) that begin at `at` (...)."""
        at = at[..., None] if self.channels == 1 else at[..., None] + torch.arange(self.channels)
        return _as_tensor(memory.take(at.numpy()))

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        return self._cubes(coords, 1, n_distinct).reshape(len(coords), self.channels)

    def _rounds(self, ids: Tensor, cache: ChunkCache) -> list[Tensor]:
        """Chunks in sorted batches that fit into memory; cached ones first, before eviction."""
        size = min(len(ids), cache.capacity(self._chunk_bytes))
        if len(ids) > size and cache is self.cache:
            known = torch.from_numpy(cache.known(self._name, ids.tolist()))
            ids = torch.cat([ids[known], ids[~known]])
        return [part.sort()[0] for part in ids.split(size)] if len(ids) else []

    @contextmanager
    def _held(self, ids: Tensor, cache: ChunkCache) -> Iterator[tuple[np.ndarray, Tensor]]:
        """All values in memory, flat, and the offset of each chunk."""
        try:
            with cache.hold(self._name, ids.tolist(), self._chunk_bytes) as held:
                yield self._filled(ids, held)
        except MemoryError as error:
            raise VolumeError(
                f"{self._called} needs more memory than there is ({error}): one of its chunks has "
                f"{self._chunk_bytes:,} bytes; ask for less at once, or hold less in cache=."
            ) from error

    def _filled(self, ids: Tensor, held: Held) -> tuple[np.ndarray, Tensor]:
        """All values in memory and the offset of each chunk, after loading the missing ones."""
        values = held.memory.view(self._stored)
        starts = held.starts // self._stored.itemsize
        if held.fresh.any():
            shape = (*self.chunks, self.channels)
            n_values = math.prod(shape)
            out = [values[k : k + n_values].reshape(shape) for k in starts[held.fresh].tolist()]
            positions = np.unravel_index(ids.numpy()[held.fresh], self._grid)
            self._load(np.stack(positions, -1), out)
            self.ledger.add(chunks=len(out) * self._chunks_at_a_position)
        return values, torch.from_numpy(starts)

    def _read(self) -> Tensor:
        values = np.empty((*self.shape, self.channels), self._stored)
        n_chunks = math.prod(self._grid)
        n_batch = max(1, min(_BATCH, _HELD_BYTES // self._chunk_bytes))
        for start in range(0, n_chunks, n_batch):
            numbers = np.arange(start, min(start + n_batch, n_chunks))
            positions = np.stack(np.unravel_index(numbers, self._grid), -1)
            boxes = [values[self._box(position)] for position in positions]
            # Chunks that extend beyond the shape are loaded separately.
            full = (*self.chunks, self.channels)
            out = [box if box.shape == full else np.empty(full, self._stored) for box in boxes]
            self._load(positions, out)
            for box, chunk in zip(boxes, out, strict=True):
                if chunk is not box:
                    box[...] = chunk[tuple(map(slice, box.shape))]
        self.ledger.add(chunks=n_chunks * self._chunks_at_a_position)
        return _as_tensor(values if self.channels > 1 else values[..., 0])

    def _box(self, position: np.ndarray) -> tuple[slice, ...]:
        """The voxels of a chunk."""
        return tuple(
            slice(k * edge, min((k + 1) * edge, n))
            for k, edge, n in zip(position.tolist(), self.chunks, self.shape, strict=False)
        )

    @property
    def _called(self) -> str:
        """Name of the volume for messages."""
        return repr(self)

    @property
    def _grid(self) -> tuple[int, ...]:
        return tuple(-(-n // edge) for n, edge in zip(self.shape, self.chunks, strict=True))

    @property
    def _chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.channels * self._stored.itemsize

    @property
    def _chunks_at_a_position(self) -> int:
        """Above 1 if a stored chunk does not hold all channels."""
        return 1


def _joined(digits: list[Tensor], bases: Sequence[int]) -> Tensor:
    """One number for each combination of the digits (n, s) of the axes, (n, s * ... * s)."""
    joined = torch.zeros((), dtype=torch.int64)
    for digit, base in zip(spread(digits), bases, strict=True):
        joined = joined * base + digit
    return joined.flatten(1)


def _all(masks: list[Tensor]) -> Tensor:
    """Where the masks (n, s) of all axes are true, (n, s * ... * s)."""
    return functools.reduce(torch.logical_and, spread(masks)).flatten(1)
