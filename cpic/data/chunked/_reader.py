"""Cubes from chunks: each chunk that a call requires is loaded once, or taken from a cache."""

import math
import threading
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._array import _as_tensor
from cpic.data._ledger import Ledger
from cpic.data._together import each
from cpic.data._volume import Reader
from cpic.data._windows import Windows
from cpic.data.chunked._cache import ChunkCache, Held
from cpic.data.chunked._pages import Pages

# Decoded chunks in memory without a cache; a call that requires more is processed in rounds.
_HELD_BYTES = 2**28
# Maximum number of chunks, however small, requested at once when everything is read.
_BATCH = 2**16


class Touched(NamedTuple):
    """Reads of a volume so far, as fractions of the whole; above 1 if calls overlap.

    Attributes:
        voxels: Distinct voxels of each call.
        chunks: Loaded chunks.
        bytes: Stored bytes received, relative to the bytes of all decoded voxels.
    """

    voxels: float
    chunks: float
    bytes: float


class ChunkedReader(Reader):
    """Base class of volumes in chunks; a subclass sets the attributes and loads chunks.

    Attributes:
        chunks: Spatial sizes of a chunk.
        cache: Cache of decoded chunks between calls, or None.
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
        """`dtype` of the values in memory; `name` identifies volumes with the same chunks."""
        self.chunks, self._stored = tuple(chunks), dtype
        given = cache is None or isinstance(cache, ChunkCache)
        self.cache = cache if given else ChunkCache(cache)  # type: ignore[arg-type]
        self._name = name
        self._turn = threading.RLock()

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _turn=threading.RLock())

    @abstractmethod
    def _load(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Write the chunks at `positions` (n, D) of the grid of chunks into `out`, n arrays.

        Beyond the shape, values are arbitrary. The bytes of the ledger are counted here.
        """

    def touched(self) -> Touched:
        """The counts of the ledger, divided by the totals."""
        n_voxels = math.prod(self.shape)
        return Touched(
            self.ledger.voxels / n_voxels,
            self.ledger.chunks / (math.prod(self._grid) * self._chunks_at_a_position),
            self.ledger.bytes / (n_voxels * self.channels * self._stored.itemsize),
        )

    def _like(self) -> tuple:
        return (self.chunks, self._stored.str)

    def _cached(self) -> dict:
        if self.cache is None:
            return {}
        n_chunks = math.prod(self._grid)
        return {(self.cache, self._name): self.cache.needed(n_chunks, self._chunk_bytes)}

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        first, n_voxels = volumes[0], windows.size ** len(windows.shape)
        pages = Pages.of(windows, first.chunks, first._grid)
        out = np.empty((len(windows), first.channels, n_voxels), first._stored)
        spent = [Ledger() for _ in volumes]
        wanted = [np.unique(pages.ids[part][pages.needed[part]]) for part in windows.parts]

        # Threads that read one volume are serialized, so that each call counts its own reads.
        def load(k: int) -> int:
            with volumes[k]._turn, spent[k].passing_on([volumes[k].ledger]):
                return volumes[k]._load_missing(wanted[k])

        def fill(k: int) -> None:
            part = windows.parts[k]
            with volumes[k]._turn, spent[k].passing_on([volumes[k].ledger]):
                volumes[k]._fill(pages.part(part), wanted[k], out[part])

        # All windows at once; false if a chunk was evicted in the meantime.
        def copied(n_loaded: int) -> bool:
            pairs = zip(volumes, wanted, strict=True)
            keys = [(volume._name, k) for volume, ids in pairs for k in ids.tolist()]
            with first.cache.pinned(keys, n_loaded) as held:
                if held is None:
                    return False
                memory, starts = held.memory.view(first._stored), held.starts // out.itemsize
                n_chunks = math.prod(first._grid)
                numbers = np.concatenate([k * n_chunks + ids for k, ids in enumerate(wanted)])
                slot = np.searchsorted(numbers, windows.owner[:, None] * n_chunks + pages.ids)
                pages.copy(memory, starts[slot.clip(max=len(numbers) - 1)], out)
            return True

        missing = []
        if room := first._is_room(volumes, sum(map(len, wanted))):
            missing = [k for k in windows.asked if not volumes[k]._known(wanted[k]).all()]
        if not room or not copied(sum(each(load, volumes, missing))):
            each(fill, volumes, windows.asked)
        return _as_tensor(cls._cubes_of(out, windows)), spent

    @staticmethod
    def _cubes_of(out: np.ndarray, windows: Windows) -> np.ndarray:
        """Windows (n, c, s, ..., s), 0 outside."""
        if windows.sticks_out.any():
            rows = np.flatnonzero(windows.sticks_out)
            inside = windows.inside(rows, len(windows.shape)).reshape(len(rows), 1, -1)
            out[rows] = np.where(inside, out[rows], np.zeros((), out.dtype))
        return out.reshape(*out.shape[:2], *[windows.size] * len(windows.shape))

    def _is_room(self, volumes: Sequence[Any], n_chunks: int) -> bool:
        """Whether all volumes share a cache that can hold the chunks, and there are chunks."""
        cache = self.cache
        if cache is None or any(volume.cache is not cache for volume in volumes):
            return False
        return 0 < n_chunks <= cache.capacity(self._chunk_bytes)

    def _known(self, ids: np.ndarray) -> np.ndarray:
        """Which chunks the cache has, (n,) bool."""
        return self.cache.known(self._name, ids.tolist())  # type: ignore[union-attr]

    def _load_missing(self, wanted: np.ndarray) -> int:
        """Load the chunks that the cache lacks, and return their number."""
        missing = wanted[~self._known(wanted)]
        with self._held(missing, self.cache):  # type: ignore[arg-type]
            return len(missing)

    def _fill(self, pages: Pages, wanted: np.ndarray, out: np.ndarray) -> None:
        """Write the values of windows in chunks `wanted` into `out` (n, c, s * ... * s).

        Outside the volume they are arbitrary.
        """
        ids, needed = pages.ids, pages.needed
        cache = self.cache or ChunkCache(max(1, min(_HELD_BYTES, len(wanted) * self._chunk_bytes)))
        rounds = self._rounds(wanted, cache)
        for batch in rounds:
            slot = np.searchsorted(batch, ids).clip(max=len(batch) - 1)
            with self._held(batch, cache) as (memory, starts):
                if len(rounds) == 1:  # it holds all chunks
                    pages.copy(memory, starts[slot], out)
                    continue
                hit = (batch[slot] == ids) & needed
                rows = np.flatnonzero(hit.any(1))
                some = pages.part(rows)
                values = memory.take(some.places(starts[slot[rows]], self.channels))
                out[rows] = np.where(some.chosen(hit[rows])[:, None], values, out[rows])

    def _rounds(self, ids: np.ndarray, cache: ChunkCache) -> list[np.ndarray]:
        """Chunks in sorted batches that fit; cached ones first, before they are evicted."""
        size = min(len(ids), cache.capacity(self._chunk_bytes))
        if len(ids) > size and cache is self.cache:
            known = cache.known(self._name, ids.tolist())
            ids = np.concatenate([ids[known], ids[~known]])
        return [np.sort(ids[k : k + size]) for k in range(0, len(ids), max(1, size))]

    @contextmanager
    def _held(self, ids: np.ndarray, cache: ChunkCache) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All values in memory, flat, and the starts of the chunks."""
        try:
            with cache.hold(self._name, ids.tolist(), self._chunk_bytes) as held:
                yield self._filled(ids, held)
        except MemoryError as error:
            raise VolumeError(
                f"{self._called} needs more memory than available ({error}): one of its chunks has "
                f"{self._chunk_bytes:,} bytes; read less at once, or use a smaller cache=."
            ) from error

    def _filled(self, ids: np.ndarray, held: Held) -> tuple[np.ndarray, np.ndarray]:
        """All values in memory and the starts of the chunks, after loading missing ones."""
        values = held.memory.view(self._stored)
        starts = held.starts // self._stored.itemsize
        if held.fresh.any():
            shape = (*self.chunks, self.channels)
            n_values = math.prod(shape)
            out = [values[k : k + n_values].reshape(shape) for k in starts[held.fresh].tolist()]
            positions = np.unravel_index(ids[held.fresh], self._grid)
            self._load(np.stack(positions, -1), out)
            self.ledger.add(chunks=len(out) * self._chunks_at_a_position)
        return values, starts

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
    def _grid(self) -> tuple[int, ...]:
        return tuple(-(-n // edge) for n, edge in zip(self.shape, self.chunks, strict=True))

    @property
    def _chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.channels * self._stored.itemsize

    @property
    def _chunks_at_a_position(self) -> int:
        """Above 1 if a stored chunk does not contain all channels."""
        return 1
