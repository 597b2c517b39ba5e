"""A cache of decoded chunks, limited in bytes."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np

from cpic._errors import VolumeError

# Slots begin at multiples of this, for the alignment of all dtypes.
_ALIGNED = 16
# Bytes; more than any machine has, but a size that NumPy accepts.
_ADDRESSES = 2**56


class Held(NamedTuple):
    """Slots that are not evicted while they are in use.

    Attributes:
        memory: All slots, one after the other, as bytes.
        starts: (n,) first byte of the slot of each chunk.
        fresh: (n,) True where the chunk must be loaded first.
    """

    memory: np.ndarray
    starts: np.ndarray
    fresh: np.ndarray


class ChunkCache:
    """Decoded chunks of one or several volumes; the least recently used ones are evicted first.

    Passed as `ZarrVolume(..., cache=)`. Several volumes, read in several threads, may share one; a
    volume that is opened again finds its chunks. The first chunk determines the size of all
    slots. Memory is allocated when slots are first used.

    A pickled copy is empty; volumes pickled together share one copy.

    Args:
        limit_bytes: Maximum number of decoded bytes, at least one chunk.

    Attributes:
        limit_bytes: The argument.
        hits: Chunks found so far.
        misses: Chunks loaded so far.

    Raises:
        VolumeError: If `limit_bytes` is not positive, or (when read) a chunk needs more bytes than
            the first one.

    Example:
        >>> cache = ChunkCache(2**30)
        >>> volumes = [ZarrVolume(path, cache=cache) for path in paths]  # doctest: +SKIP
    """

    def __init__(self, limit_bytes: int) -> None:
        if isinstance(limit_bytes, bool) or not isinstance(limit_bytes, int) or limit_bytes < 1:
            raise VolumeError(
                f"a cache of chunks needs a positive whole number of bytes, got {limit_bytes!r}."
            )
        self.limit_bytes = limit_bytes
        self.hits = self.misses = 0
        self._changed = threading.Condition()
        self._memory: np.ndarray | None = None
        self._slot_bytes = 0
        self.clear()

    def clear(self) -> None:
        """Remove all chunks; their memory is freed when no read uses it any more."""
        with self._changed:
            self._memory, self._slot_bytes = None, 0
            self._slots: OrderedDict[Hashable, int] = OrderedDict()
            self._pins: Counter[int] = Counter()
            self._free: list[int] = []
            self._used = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the slots used so far: the memory in use."""
        return self._used * self._slot_bytes

    def capacity(self, n_bytes: int) -> int:
        """Chunks of `n_bytes` that fit."""
        return max(1, min(self.limit_bytes, _ADDRESSES) // _padded(n_bytes))

    @staticmethod
    def needed(n_chunks: int, n_bytes: int) -> int:
        """Bytes that so many chunks of `n_bytes` need."""
        return n_chunks * _padded(n_bytes)

    @contextmanager
    def pinned(self, keys: Sequence[Hashable], n_loaded: int) -> Iterator[Held | None]:
        """Slots of chunks `(owner, id)`, not evicted inside the block; None if one is not held.

        `n_loaded` of them are new, and do not count as hits.
        """
        with self._changed:
            memory, found = self._memory, None
            slots = [self._slots[key] for key in keys if key in self._slots]
            if memory is not None and len(slots) == len(keys):
                self.hits += len(keys) - n_loaded
                self._pins.update(slots)
                for key in keys:
                    self._slots.move_to_end(key)
                starts = np.asarray(slots, np.int64) * self._slot_bytes
                found = Held(memory, starts, np.zeros(len(keys), bool))
        try:
            yield found
        finally:
            with self._changed:
                if found is not None and memory is self._memory:
                    self._pins -= Counter(slots)
                self._changed.notify_all()

    def known(self, owner: Hashable, ids: Sequence[int]) -> np.ndarray:
        """Which of the chunks `ids` are held, (n,) bool; they become the most recently used."""
        with self._changed:
            known = [(owner, k) in self._slots for k in ids]
            for k, held in zip(ids, known, strict=True):
                if held:
                    self._slots.move_to_end((owner, k))
        return np.array(known, bool)

    @contextmanager
    def hold(self, owner: Hashable, ids: Sequence[int], n_bytes: int) -> Iterator[Held]:
        """Slots for at most `capacity` chunks, reserved inside the block.

        The caller fills the fresh ones; they are cached if the block ends without an error.
        """
        keys = [(owner, k) for k in ids]
        with self._changed:
            memory = self._allocated(n_bytes)
            while (slots := self._reserved(keys)) is None:
                self._changed.wait()
            fresh = np.fromiter((key not in self._slots for key in keys), bool, len(keys))
            self.misses += int(fresh.sum())
            self.hits += len(ids) - int(fresh.sum())
            starts = np.asarray(slots, np.int64) * self._slot_bytes
        whole = False
        try:
            yield Held(memory, starts, fresh)
            whole = True
        finally:
            with self._changed:
                if memory is self._memory:
                    self._release(keys, slots, whole)
                self._changed.notify_all()

    def _allocated(self, n_bytes: int) -> np.ndarray:
        if self._memory is None:
            self._slot_bytes = _padded(n_bytes)
            # Pages are allocated when they are first written.
            self._memory = np.empty(self.capacity(n_bytes) * self._slot_bytes, np.uint8)
        if n_bytes > self._slot_bytes:
            raise VolumeError(
                f"a cache of chunks of {self._slot_bytes} bytes cannot hold chunks of {n_bytes}; "
                "use separate caches for volumes with different chunks."
            )
        return self._memory

    def _reserved(self, keys: Sequence[Hashable]) -> list[int] | None:
        """A pinned slot for each chunk, or None while too many are in use."""
        held = {key: self._slots[key] for key in keys if key in self._slots}
        n_slots = self.limit_bytes // self._slot_bytes or 1
        short = len(keys) - len(held) - len(self._free) - (n_slots - self._used)
        if short > 0:
            used = self._pins.keys() | held.values()
            unused = (key for key, slot in self._slots.items() if slot not in used)
            old = list(islice(unused, short))
            if len(old) < short:
                return None
            self._free.extend(self._slots.pop(key) for key in old)
        result = []
        for key in keys:
            if key in held:
                self._slots.move_to_end(key)
                result.append(held[key])
            else:
                result.append(self._free.pop() if self._free else self._used)
                self._used = max(self._used, result[-1] + 1)
        self._pins.update(result)
        return result

    def _release(self, keys: Sequence[Hashable], slots: Sequence[int], whole: bool) -> None:
        self._pins -= Counter(slots)
        for key, slot in zip(keys, slots, strict=True):
            if self._slots.get(key) == slot:
                continue
            # Another volume of the same store may have added it first.
            if whole and key not in self._slots:
                self._slots[key] = slot
            else:
                self._free.append(slot)

    def __reduce__(self) -> tuple:
        return (ChunkCache, (self.limit_bytes,))

    def __repr__(self) -> str:
        return (
            f"ChunkCache({self.held_bytes:,} of {self.limit_bytes:,} bytes, "
            f"{self.hits:,} hits, {self.misses:,} misses)"
        )


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNED) * _ALIGNED
