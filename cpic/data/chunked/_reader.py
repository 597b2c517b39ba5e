"""Cubes from chunks: each chunk that a call requires is loaded once, or taken from a cache."""

import functools
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
from cpic.data._windows import Windows, spread
from cpic.data.chunked._cache import ChunkCache, Held

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

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        first, n_voxels = volumes[0], windows.size ** len(windows.shape)
        pages = Pages.of(windows, first.chunks, first._grid)
        out = np.empty((len(windows), first.channels, n_voxels), first._stored)
        spent = [Ledger() for _ in volumes]

        def fill(k: int) -> None:
            part, volume = windows.parts[k], volumes[k]
            # Only one thread at a time reads a volume, so that costs are counted per call.
            with volume._turn, spent[k].passing_on([volume.ledger]):
                volume._fill(pages.part(part), out[part])

        each(fill, volumes, windows)
        if windows.sticks_out.any():
            rows = np.flatnonzero(windows.sticks_out)
            inside = windows.inside(rows, len(windows.shape)).reshape(len(rows), 1, -1)
            out[rows] = np.where(inside, out[rows], np.zeros((), out.dtype))
        cubes = out.reshape(*out.shape[:2], *[windows.size] * len(windows.shape))
        return _as_tensor(cubes), spent

    def _fill(self, pages: "Pages", out: np.ndarray) -> None:
        """Write the values of windows into `out` (n, c, s * ... * s); arbitrary outside."""
        ids, needed = pages.ids, pages.needed
        wanted = np.unique(ids[needed])
        cache = self.cache or ChunkCache(max(1, min(_HELD_BYTES, len(wanted) * self._chunk_bytes)))
        rounds = self._rounds(wanted, cache)
        for batch in rounds:
            slot = np.searchsorted(batch, ids).clip(max=len(batch) - 1)
            with self._held(batch, cache) as (memory, starts):
                if len(rounds) == 1:  # all chunks are present: nothing to select
                    memory.take(self._places(pages, starts[slot]), out=out, mode="clip")
                    continue
                hit = (batch[slot] == ids) & needed
                rows = np.flatnonzero(hit.any(1))
                some = pages.part(rows)
                values = memory.take(self._places(some, starts[slot[rows]]))
                out[rows] = np.where(some.chosen(hit[rows])[:, None], values, out[rows])

    def _places(self, pages: "Pages", starts: np.ndarray) -> np.ndarray:
        """Offsets in memory of the values (n, c, s * ... * s), from starts of chunks (n, k)."""
        at = pages.chosen(starts)
        at += pages.within() * self.channels
        return at[:, None] + np.arange(self.channels)[:, None]

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
        """Above 1 if a stored chunk does not contain all channels."""
        return 1


class Pages(NamedTuple):
    """The chunks of windows: `k` for each, some of which may not be needed.

    Attributes:
        ids: (n, k) numbers of chunks in the grid of chunks.
        needed: (n, k) whether a voxel of the window lies in the chunk.
        which: For each axis, (n, s), the position among the chunks of the window.
        rest: For each axis, (n, s), the position in the chunk.
        span: Number of chunks of a window along an axis.
        chunks: Sizes of a chunk.
    """

    ids: np.ndarray
    needed: np.ndarray
    which: list[np.ndarray]
    rest: list[np.ndarray]
    span: int
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, windows: Windows, chunks: tuple[int, ...], grid: tuple[int, ...]) -> "Pages":
        """The chunks for windows of any number of volumes with the same chunk sizes."""
        found = [divmod(at, edge) for at, edge in zip(windows.axes, chunks, strict=True)]
        lows = [of[:, :1] for of, _ in found]
        which = [of - low for (of, _), low in zip(found, lows, strict=True)]
        span = 1 + max((int(of.max()) for of in which if of.size), default=0)
        steps, used = np.arange(span), []
        for axis, of in enumerate(which):
            low = windows.corners[:, axis, None]
            overlaps = (low < windows.shape[axis]) & (low + windows.size > 0)
            used.append((steps <= of[:, -1:]) & overlaps)
        needed = _flat(functools.reduce(np.logical_and, spread(used)))
        ids = _joined([low + steps for low in lows], grid)
        return cls(ids, needed, which, [rest for _, rest in found], span, chunks)

    def part(self, rows: slice | np.ndarray) -> "Pages":
        """The chunks of some of the windows."""
        which, rest = ([of[rows] for of in axes] for axes in (self.which, self.rest))
        return self._replace(ids=self.ids[rows], needed=self.needed[rows], which=which, rest=rest)

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """For each voxel (n, s * ... * s), the value of its chunk of (n, k)."""
        place = _joined(self.which, [self.span] * len(self.which))
        return np.take_along_axis(values, place, 1)

    def within(self) -> np.ndarray:
        """The position of each voxel in its chunk, (n, s * ... * s)."""
        return _joined(self.rest, self.chunks)


def _joined(digits: list[np.ndarray], bases: Sequence[int]) -> np.ndarray:
    """One number for each combination of the digits (n, s) of the axes, (n, s * ... * s)."""
    joined, *others = spread(digits)
    for digit, base in zip(others, bases[1:], strict=True):
        joined = joined * base + digit
    return _flat(joined)


def _flat(values: np.ndarray) -> np.ndarray:
    """View (n, ...) as (n, m)."""
    return values.reshape(len(values), math.prod(values.shape[1:]))
