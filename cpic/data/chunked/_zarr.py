"""Zarr stores: each chunk that a call touches is fetched and decoded once, unless it is cached."""

import lzma
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NoReturn

import numpy as np

from cpic._errors import VolumeError
from cpic._trust import DAMAGED
from cpic.data._array import torch_dtype
from cpic.data._volume import Reopened
from cpic.data.chunked._cache import ChunkCache
from cpic.data.chunked._layout import DamagedError
from cpic.data.chunked._reader import ChunkedReader
from cpic.data.chunked._sources import open_store

_READERS = 8
# Smaller chunks are decoded before threads would have started.
_ALONE_BYTES = 2**18
_DAMAGE = (*DAMAGED, OSError, lzma.LZMAError)
# Attribute of an array that describes its source.
MARK = "on_demand"


def mark_of(attributes: dict[str, Any]) -> dict[str, Any] | None:
    """The description that the store of an `OnDemandVolume` has of its source; None for others."""
    found = attributes.get(MARK)
    return found if isinstance(found, dict) and "probe" in found else None


class ZarrVolume(Reopened, ChunkedReader):
    """A Zarr array (version 3, or 2), local or at any fsspec address, sharded or not.

    See `cpic.data.Volume` for the common contract. `ledger.bytes` counts the stored (compressed)
    bytes received from the store, shard indices included, and `ledger.chunks` the decoded chunks.

    Args:
        store: Path of the array's folder, possibly in a zip file, or of a zip file, address such as
            "https://host/volume.zarr" or "s3://bucket/volume.zarr", or a `zarr.abc.store.Store`.
        channels: Length of the last axis if it holds channels.
        fill_missing: Treat chunks that are not stored as the array's fill value. Writers omit
            chunks that hold only this value, but a lost chunk looks the same, so it must be
            requested. (Inside a stored shard, an omitted chunk always reads as the fill value.)
        storage_options: Options of fsspec to open an address, such as `{"anon": True}` for a public
            bucket. Headers, cookies and passwords for a web server are not sent to another host
            after a redirection, and no error shows them.
        retries: Number of retries after a connection error (an error of the server, a connection
            refused, closed or too slow, or fewer bytes than requested), after pauses of 0.1, 0.2,
            0.4, ... up to 2 seconds. By default a server that stays down is reported after about 3
            seconds.
        timeout: Time limit of an attempt in seconds.
        nan: Value to replace NaN with; None rejects NaN voxels when they are read.
        cache: Maximum bytes of decoded chunks to keep between calls, evicting the least recently
            used; or a `cpic.data.stores.ChunkCache` shared by several volumes. None keeps none.

    Raises:
        VolumeError: If there is no array, its shape is not that of a volume, its metadata are
            invalid or declare chunks too large for memory, the address cannot be reached, or (when
            read) a chunk is missing, damaged, or too long.

    Example:
        >>> ZarrVolume("volume.zarr").cubes(centers, size=7)  # doctest: +SKIP
    """

    # Whether chunks that are not stored are generated.
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
        from cpic.data.chunked._opened import opened

        self._given = {"channels": channels, "fill_missing": fill_missing, "nan": nan}
        self._given |= {"store": store, "storage_options": storage_options}
        self._given |= {"retries": retries, "timeout": timeout, "cache": cache}
        self._reads = open_store(store, storage_options, retries=retries, timeout=timeout)
        self._layout = layout = opened(self._reads)
        if channels > 1 and layout.shape[-1] != channels:
            raise VolumeError(
                f"{self._called} with channels={channels} needs them in the last axis, got shape "
                f"{layout.shape}."
            )
        shape = layout.shape[:-1] if channels > 1 else layout.shape
        try:
            super().__init__(shape, channels, torch_dtype(layout.dtype), nan)
        except VolumeError as error:
            raise VolumeError(f"{self._called} is not a volume: {error}") from error
        self._fill_missing = fill_missing
        name = (str(store), self._reads.stamp(), layout.described)
        self._set_chunks(layout.chunk[: len(self.shape)], layout.dtype, cache, name)
        self.attributes: dict[str, Any] = layout.attributes
        grown = mark_of(self.attributes)
        if not self._grows and grown is not None and not grown.get("complete"):
            raise VolumeError(
                f"{self._called} holds the chunks that were read so far, and 0 elsewhere; open it "
                "as cpic.data.stores.OnDemandVolume with its source, or fill it first."
            )

    @property
    def _called(self) -> str:
        """Address of the store, without secrets."""
        return self._reads.address

    def _load(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        before = self._reads.n_bytes
        try:
            self._load_stored(*self._with_channels(positions, out))
        finally:
            self.ledger.add(bytes=self._reads.n_bytes - before)
            missing = self._reads.take_missing()
        if missing and not self._fill_missing:
            raise VolumeError(
                f"{self._called} lacks {len(missing)} of the chunks read, the first is "
                f"{missing[0]}; copy the store again, or pass fill_missing=True to take them as "
                f"{self._layout.fill}."
            )

    def _with_channels(
        self, positions: np.ndarray, out: list[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The stored chunks, with the channels as last axis if any, and their positions."""
        if self.channels == 1:
            return positions, [chunk[..., 0] for chunk in out]
        n, edge = self._chunks_at_a_position, self._layout.chunk[-1]
        last = np.tile(np.arange(n), len(positions))[:, None]
        parts = [chunk[..., k * edge : (k + 1) * edge] for chunk in out for k in range(n)]
        return np.concatenate([positions.repeat(n, 0), last], 1), parts

    def _load_stored(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Write the chunks at `positions` (n, d), of all axes, into `out`."""
        try:
            raw = self._layout.read(self._reads, positions)
            absent = [number for number, chunk in enumerate(raw) if chunk is None]
            if absent:
                self._absent(positions[absent], [out[number] for number in absent])

            def decode(numbers: range) -> None:
                for number in numbers:
                    if raw[number] is not None:
                        try:
                            self._layout.decode(raw[number], out[number])
                        except _DAMAGE as error:
                            raise DamagedError(number, str(error)) from error

            if sum(len(chunk or ()) for chunk in raw) < _ALONE_BYTES:
                decode(range(len(raw)))
            else:
                with ThreadPoolExecutor(_READERS) as pool:
                    list(pool.map(decode, [range(k, len(raw), _READERS) for k in range(_READERS)]))
        except DamagedError as error:
            self._reads.forget()
            self._damaged(positions[error.number], error)

    def _absent(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Write the chunks that are not stored into `out`."""
        for chunk in out:
            chunk[...] = self._layout.fill

    def _damaged(self, position: np.ndarray, error: Exception) -> NoReturn:
        edges = ", ".join(f"{side.start}:{side.stop}" for side in self._box(position))
        said = " ".join(str(error).split()) or type(error.__cause__ or error).__name__
        raise VolumeError(
            f"{self._called} cannot be decoded at [{edges}] ({said}); a file of it "
            "is damaged or was cut short, copy the store again."
        ) from error

    @property
    def _chunks_at_a_position(self) -> int:
        return -(-self.channels // self._layout.chunk[-1]) if self.channels > 1 else 1
