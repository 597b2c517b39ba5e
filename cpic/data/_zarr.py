"""Zarr stores: each chunk that a call touches is fetched and decoded once, if it is not held."""

import lzma
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, ClassVar, NoReturn

import numpy as np
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._array import _as_tensor, torch_dtype
from cpic.data._cache import ChunkCache
from cpic.data._chunks import ChunkedReader
from cpic.data._format import DamagedError, Layout
from cpic.data._sources import open_store

_READERS = 8
# Less than this is decoded before threads would have started.
_ALONE_BYTES = 2**18
_DAMAGE = (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError)
_DAMAGE += (EOFError, OSError, MemoryError, zlib.error, lzma.LZMAError)
# Attribute of an array that says what it is made of.
MARK = "on_demand"


def mark_of(attributes: dict[str, Any]) -> dict[str, Any] | None:
    """What the store of an `OnDemandVolume` says of itself; None for arrays of others."""
    found = attributes.get(MARK)
    return found if isinstance(found, dict) and "probe" in found else None


class ZarrVolume(ChunkedReader):
    """A Zarr array (version 3, or 2), local or at any fsspec address, sharded or not.

    Clauses in `cpic.data.Volume`. `ledger.bytes` counts the stored (compressed) bytes that came
    from the store, shard indices included, and `ledger.chunks` the chunks decoded.

    Args:
        store: path of the array's folder or of a zip file that holds it, address such as
            "https://host/volume.zarr" or "s3://bucket/volume.zarr", or a `zarr.abc.store.Store`.
        channels: length of the last axis when it holds channels.
        fill_missing: take chunks that are not stored as the array's fill value. Writers leave out
            chunks that hold only that value, but a lost chunk looks the same, so this is asked for.
            (Inside a stored shard, a chunk that is left out always reads as the fill value.)
        storage_options: what fsspec needs to open an address, such as `{"anon": True}` for a
            public bucket. Headers, cookies and passwords for a web server do not follow a
            redirection to another host, and no error shows them.
        retries: further attempts at a read that failed by its connection (an error of the server,
            a connection refused, closed or too slow, or fewer bytes than asked for), after pauses
            of 0.1, 0.2, 0.4, ... at most 2 seconds. A server that stays down is reported after
            about 3 seconds by default.
        timeout: seconds an attempt may take.
        nan: value that replaces NaN; None refuses NaN voxels when they are read.
        cache: bytes of decoded chunks to hold from call to call, the least recently used ones make
            room for others; or a `cpic.data.stores.ChunkCache` that several volumes share. None
            holds none.

    Raises:
        VolumeError: if there is no array, its shape is no volume's, its metadata make no sense or
            announce chunks that no memory holds, the address cannot be reached, or (when read) a
            chunk is missing, damaged, or longer than it can be.

    Example:
        >>> ZarrVolume("volume.zarr").cubes(centres, size=7)  # doctest: +SKIP
    """

    # Whether chunks that are not stored are made.
    _grows: ClassVar[bool] = False

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
        cache: "int | ChunkCache | None" = None,
    ) -> None:
        from cpic.data._bounded import layout_of, opened

        self._opened = {"channels": channels, "fill_missing": fill_missing, "nan": nan}
        self._opened |= {"store": store, "storage_options": storage_options}
        self._opened |= {"retries": retries, "timeout": timeout, "cache": cache}
        self._reads = open_store(store, storage_options, retries=retries, timeout=timeout)
        array = opened(self._reads)
        if channels > 1 and array.shape[-1] != channels:
            raise VolumeError(
                f"{self._called} with channels={channels} needs them in the last axis, got shape "
                f"{array.shape}."
            )
        shape = array.shape[:-1] if channels > 1 else array.shape
        try:
            super().__init__(shape, channels, torch_dtype(array.dtype), nan)
        except VolumeError as error:
            raise VolumeError(f"{self._called} is no volume: {error}") from error
        self._array = array
        self._fill_missing = fill_missing
        layout = layout_of(array)
        # What does not hold all channels in a chunk is left to Zarr, as are rarer codecs.
        whole = channels == 1 or array.chunks[-1] == channels
        self._layout = layout if whole else None
        name = (str(store), self._reads.stamp(), str(array.metadata))
        self._set_chunks(
            array.chunks[: len(self.shape)], array.dtype.newbyteorder("="), cache, name
        )
        self.attributes: dict[str, Any] = dict(array.attrs)
        grown = mark_of(self.attributes)
        if not self._grows and grown is not None and not grown.get("complete"):
            raise VolumeError(
                f"{self._called} holds the chunks that were read so far, and 0 elsewhere; open it "
                "as cpic.data.stores.OnDemandVolume with its source, or fill it first."
            )

    @property
    def _called(self) -> str:
        """Of the store, without what is secret in it."""
        return self._reads.address

    def _load(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        before = self._reads.n_bytes
        try:
            if self._layout is None:
                self._load_slowly(positions, out)
            else:
                self._load_directly(self._layout, positions, out)
        finally:
            self.ledger.add(bytes=self._reads.n_bytes - before)
            missing = self._reads.take_missing()
        self._refuse(missing)

    def _load_directly(self, layout: Layout, positions: np.ndarray, out: list[np.ndarray]) -> None:
        full = positions
        if self.channels > 1:
            full = np.concatenate([positions, np.zeros_like(positions[:, :1])], 1)
        try:
            raw = layout.read(self._reads, full)
            absent = [number for number, chunk in enumerate(raw) if chunk is None]
            if absent:
                self._absent(positions[absent], [out[number] for number in absent])

            def decode(numbers: range) -> None:
                for number in numbers:
                    if raw[number] is not None:
                        try:
                            layout.decode(raw[number], out[number].reshape(layout.chunk))
                        except _DAMAGE as error:
                            raise DamagedError(number, str(error)) from error

            if sum(len(chunk or ()) for chunk in raw) < _ALONE_BYTES:
                decode(range(len(raw)))
            else:
                with ThreadPoolExecutor(_READERS) as pool:
                    list(pool.map(decode, [range(k, len(raw), _READERS) for k in range(_READERS)]))
        except DamagedError as error:
            self._damaged(self._box(positions[error.number]), error)

    def _absent(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Write the chunks that are not stored into `out`."""
        for chunk in out:
            chunk[...] = self._array.fill_value

    def _load_slowly(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        failed = Event()

        def load(position: np.ndarray, chunk: np.ndarray) -> None:
            if failed.is_set():  # each further chunk would fail as slowly
                return
            try:
                values = self._decoded(self._box(position))
            except VolumeError:
                failed.set()
                raise
            values = values if self.channels > 1 else values[..., None]
            chunk[tuple(slice(0, n) for n in values.shape)] = values

        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(load, positions, out))

    def _box(self, position: np.ndarray) -> tuple[slice, ...]:
        return tuple(
            slice(k * e, min((k + 1) * e, n))
            for k, e, n in zip(position.tolist(), self.chunks, self.shape, strict=True)
        )

    def _decoded(self, box: Any) -> np.ndarray:
        try:
            with np.errstate(all="ignore"):  # what a forged index overflows is an error later
                return np.asarray(self._array[box])
        except VolumeError:
            raise
        except _DAMAGE as error:
            self._damaged(box, error)

    def _damaged(self, box: Any, error: Exception) -> NoReturn:
        self._reads.forget()
        edges = "whole" if box is ... else ", ".join(f"{b.start}:{b.stop}" for b in box)
        said = " ".join(str(error).split()) or type(error).__name__
        raise VolumeError(
            f"{self._called} cannot be decoded at [{edges}] ({said}); a file of it "
            "is damaged or was cut short, copy the store again."
        ) from error

    def _refuse(self, missing: list[str]) -> None:
        if missing and not self._fill_missing:
            raise VolumeError(
                f"{self._called} lacks {len(missing)} of the chunks read, the first is "
                f"{missing[0]}; copy the store again, or pass fill_missing=True to take them as "
                f"{self._array.fill_value}."
            )

    @property
    def _chunks_at_a_position(self) -> int:
        return -(-self.channels // self._array.chunks[-1]) if self.channels > 1 else 1

    def _read(self) -> Tensor:
        before = self._reads.n_bytes
        try:
            values = self._decoded(...)
        finally:
            self.ledger.add(bytes=self._reads.n_bytes - before)
            missing = self._reads.take_missing()
        self._refuse(missing)
        self.ledger.add(chunks=self._array.nchunks)
        return _as_tensor(values)

    def __getstate__(self) -> dict:
        return {"opened": self._opened, "ledger": self.ledger}

    def __setstate__(self, state: dict) -> None:
        ZarrVolume.__init__(self, **state["opened"])
        self.ledger = state["ledger"]
