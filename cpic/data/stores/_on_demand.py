"""A store whose chunks are computed from another volume and written when first touched."""

import itertools
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple, NoReturn

import numpy as np
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._folder import writing
from cpic.data._volume import Volume
from cpic.data.chunked._cache import ChunkCache
from cpic.data.chunked._reads import Piece
from cpic.data.chunked._save import check_chunks
from cpic.data.chunked._shards import NOT_THERE, ShardIndex
from cpic.data.chunked._zarr import MARK, ZarrVolume, mark_of
from cpic.data.stores._making import boxes, created, probe

# Number of voxels read from the source at once.
_BLOCK = 2**21
# Number of shards given to a thread at once.
_SHARDS = 16


class Written(NamedTuple):
    """The part of a store that is on disk.

    Attributes:
        chunks: Chunks written so far.
        of_chunks: Total number of chunks.
        bytes: Size of all its files.
        of_bytes: Size of all voxels, decoded.
    """

    chunks: int
    of_chunks: int
    bytes: int
    of_bytes: int


class OnDemandVolume(ZarrVolume):
    """A sharded Zarr v3 array that grows: a chunk is computed from `source` when first touched.

    See `cpic.data.Volume` for the common contract; only the store is written, never the source.
    Existing chunks are read by the code of `ZarrVolume`. The store is an ordinary array: any Zarr
    reader sees the chunks written so far, and 0 elsewhere; `ZarrVolume` refuses to read it until
    `fill` has completed it, since 0 would be taken for values.

    A shard is written under another name and then renamed: a killed process leaves no partial file.
    Existing chunks keep their position when others are added, so several processes may read and
    write one store; writes are serialized. The chunks of `ledger` include those that are computed,
    its bytes only those that are read.

    Args:
        source: Any volume; it is read in cubes of the size of a chunk. Meant for small reads of a
            large volume, such as a formula (`FormulaVolume`).
        path: Folder of the store. An existing one must have been created from a volume of the same
            shape, dtype and 27 probed voxels, with the same chunks and shards.
        chunks: Sizes of a chunk, computed and read at once; at most 32 voxels per axis by default.
        shards: Sizes of a file, a multiple of `chunks`; by default 4 chunks per axis. Large ones
            give few files, but each added chunk rewrites its file.
        level: Zstandard compression level.
        cache: As in `ZarrVolume`.

    Raises:
        VolumeError: If an option is invalid, or other content is at `path`.
        CacheError: (when read) if the store cannot be written, for example because the disk is
            full; its content stays intact, and a later read continues from there.

    Example:
        >>> import tempfile, torch
        >>> from cpic.data import FormulaVolume
        >>> source = FormulaVolume(lambda x, y, z: (x + y + z).double(), (8192, 8192, 8192))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     volume = OnDemandVolume(source, f"{folder}/large.zarr")
        ...     volume.voxels(torch.tensor([[8191, 8191, 8191]]))
        ...     volume.written()[:2]
        tensor([24573.], dtype=torch.float64)
        (1, 16777216)
    """

    _grows: ClassVar[bool] = True

    def __init__(
        self,
        source: Volume,
        path: str | os.PathLike,
        *,
        chunks: tuple[int, ...] | None = None,
        shards: tuple[int, ...] | None = None,
        level: int = 1,
        cache: int | ChunkCache | None = None,
    ) -> None:
        path = Path(path)
        chunks = tuple(chunks or (min(32, n) for n in source.shape))
        counts = (-(-n // max(1, c)) for c, n in zip(chunks, source.shape, strict=False))
        shards = tuple(shards or (c * min(4, k) for c, k in zip(chunks, counts, strict=False)))
        check_chunks("OnDemandVolume", source.shape, chunks, shards)
        if math.prod(source.shape) >= 2**62:
            raise VolumeError(f"a volume needs fewer than 2^62 voxels, got shape {source.shape}.")
        self._source = source
        key = {"chunks": list(chunks), "shards": list(shards), "probe": probe(source)}
        if not path.exists():
            created(path, source, key, level)
        super().__init__(path, channels=source.channels, fill_missing=True, cache=cache)
        self._given = {"source": source, "path": path, "chunks": chunks, "shards": shards}
        self._given |= {"level": level, "cache": cache}
        found = mark_of(self.attributes) or {}
        if found.get("complete"):
            key |= {"complete": True}
        same = (self.shape, self.dtype, found) == (source.shape, source.dtype, key)
        # The recorded description and the actual array: one of them may have been modified.
        per_shard = tuple(b // c for b, c in zip(shards, chunks, strict=True))
        tail, one = ((self.channels,), (1,)) if self.channels > 1 else ((), ())
        self._index = ShardIndex((*per_shard, *one))
        same &= (self._layout.chunk, self._layout.index) == ((*chunks, *tail), self._index)
        if not same or self._layout.codecs.plain is None:
            raise VolumeError(
                f"{path} holds {self!r}, which was not made of {source!r} with chunks={chunks} and "
                f"shards={shards}; choose another folder."
            )
        self._folder = path
        if (path / ".partial").exists():
            with self._writing():
                shutil.rmtree(path / ".partial", ignore_errors=True)

    def written(self) -> Written:
        """Chunks and bytes on disk; reads the indices of all shards."""
        chunks, n_bytes = 0, 0
        for file in (self._folder / "c").rglob("*"):
            if file.is_file():
                n_bytes += file.stat().st_size
                chunks += int(self._there(file.relative_to(self._folder).as_posix()).sum())
        n_voxels = math.prod(self.shape) * self.channels
        return Written(chunks, math.prod(self._grid), n_bytes, n_voxels * self._stored.itemsize)

    def fill(self, *, workers: int = 1, progress: bool = False) -> None:
        """Compute all missing chunks, shard by shard; a killed call can be continued.

        Several processes may fill one store, each computing different chunks.

        Args:
            workers: Number of threads.
            progress: Show a progress bar of shards.

        Raises:
            CacheError: If the store cannot be written.
        """
        import zarr
        from tqdm import tqdm

        counts = [-(-n // edge) for n, edge in zip(self.shape, self._given["shards"], strict=True)]
        # A list of all shards may not fit into memory.
        todo = itertools.product(*map(range, counts))
        bar = tqdm(total=math.prod(counts), unit="shard", disable=not progress)
        with ThreadPoolExecutor(workers) as pool, bar:
            while some := list(itertools.islice(todo, _SHARDS * workers)):
                for _ in pool.map(self._fill_shard, some):
                    bar.update()
        if not self.attributes[MARK].get("complete"):
            self.attributes[MARK] |= {"complete": True}
            with self._writing():
                zarr.open_array(self._folder, mode="r+").update_attributes(self.attributes)

    def _fill_shard(self, at: tuple[int, ...]) -> None:
        per = self._index.per_shard
        numbers = np.arange(math.prod(per))
        at = at + (0,) * (self.channels > 1)
        positions = np.asarray(at) * per + np.stack(np.unravel_index(numbers, per), -1)
        wanted = (positions[:, : len(self.shape)] < self._grid).all(1)
        wanted &= ~self._there(self._layout.key(at))
        if wanted.any():
            out = [np.empty(self._layout.chunk, self._stored) for _ in range(wanted.sum())]
            self._absent(positions[wanted], out)

    def _there(self, key: str) -> np.ndarray:
        """Which chunks a shard has, (n,) bool."""
        try:
            index = self._reads.file(self._index.piece(key))
            if index is None:
                return np.zeros(math.prod(self._index.per_shard), bool)
            return self._index.all(index)[:, 0] != NOT_THERE
        except ValueError as error:
            raise self._torn(key, error) from error

    def _torn(self, key: str, error: Exception) -> VolumeError:
        return VolumeError(
            f"{self._folder / key} is damaged ({error}); delete it, and its chunks are made again."
        )

    def _damaged(self, position: np.ndarray, error: Exception) -> NoReturn:
        shard, _ = self._index.place(position[None])
        raise self._torn(self._layout.key(shard[0].tolist()), error) from error

    def _absent(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Compute the chunks at `positions` (n, d) and write them."""
        n_block = max(1, _BLOCK // math.prod(self.chunks))
        for start in range(0, len(positions), n_block):
            part = slice(start, start + n_block)
            made = boxes(self._source, positions[part, : len(self.shape)], self.chunks)
            for chunk, values in zip(out[part], made, strict=True):
                chunk[...] = values.reshape(chunk.shape)
        self._write(positions, [self._layout.encode(chunk) for chunk in out])

    def _write(self, positions: np.ndarray, encoded: list[bytes]) -> None:
        shards, numbers = self._index.place(positions)
        groups: dict[str, dict[int, bytes]] = {}
        for at, number, chunk in zip(shards.tolist(), numbers.tolist(), encoded, strict=True):
            groups.setdefault(self._layout.key(at), {})[number] = chunk
        with self._writing():
            (self._folder / ".partial").mkdir(exist_ok=True)
            for key, new in groups.items():
                self._add(key, new)

    def _add(self, key: str, new: dict[int, bytes]) -> None:
        try:
            # Read again: another process may have added chunks.
            shard, n_new = self._index.with_chunks(self._reads.file(Piece(key)), new)
        except ValueError as error:
            raise self._torn(key, error) from error
        self._reads.keep(key, self._index.within(shard))
        if n_new == 0:
            return
        part = self._folder / ".partial" / secrets.token_hex(8)
        try:
            part.write_bytes(shard)
            (self._folder / key).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, self._folder / key)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Lock out other processes and threads; turn a failed write into one clear error."""
        from filelock import FileLock

        lock = FileLock(self._folder / ".lock", poll_interval=0.002)
        with writing(self._folder, "store", ""), lock:
            yield

    def _read(self) -> Tensor:
        """Computes all chunks."""
        self.fill()
        return super()._read()
