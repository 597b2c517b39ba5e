"""A store whose chunks are made from another volume and written when they are first touched."""

import itertools
import math
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np
from torch import Tensor

from cpic._errors import CacheError, VolumeError
from cpic.data._cache import ChunkCache
from cpic.data._format import NOT_THERE, Layout, with_chunks
from cpic.data._save import check_chunks
from cpic.data._store import Piece
from cpic.data._volume import Volume
from cpic.data._zarr import MARK, ZarrVolume, mark_of
from cpic.data.stores._making import boxes, created, damaged, done, index_of, probe

# Voxels taken from the source at once.
_BLOCK = 2**21


class Written(NamedTuple):
    """What of a store is on the disk.

    Attributes:
        chunks: chunks made so far.
        of_chunks: chunks there are.
        bytes: of all its files.
        of_bytes: that all voxels take, decoded.
    """

    chunks: int
    of_chunks: int
    bytes: int
    of_bytes: int


class OnDemandVolume(ZarrVolume):
    """A sharded Zarr v3 array that grows: a chunk is made from `source` when it is first touched.

    Clauses in `cpic.data.Volume`; the place that is written to is the store, never the source.
    A chunk that is there is read by the code of `ZarrVolume`. What is there is an ordinary array:
    any reader of Zarr sees the chunks made so far, and 0 elsewhere; `ZarrVolume` refuses to read
    it, unless `fill` has made all of it, as 0 would be taken for values.

    A shard is written under another name and then renamed: a process that is killed leaves no torn
    file. Chunks that are there keep their place in it when others are added, so processes may read
    and write one store at once; they take turns at writing. The chunks of `ledger` count those that
    are made too, its bytes only what is read.

    Args:
        source: any volume; it is asked for cubes of the size of a chunk. Small answers of a large
            volume, such as a formula's (`FormulaVolume`), are the purpose.
        path: folder of the store. What is there must have been made of a volume of the same shape,
            type and 27 probed voxels, with the same chunks and shards.
        chunks: what is made and read at once; at most 32 voxels an axis by default.
        shards: what is one file, a multiple of `chunks`; by default 4 chunks an axis. Large ones
            make few files, and each chunk that is added writes its file again.
        level: of the compression by Zstandard.
        cache: as in `ZarrVolume`.

    Raises:
        VolumeError: if an option or what lies at `path` does not fit.
        CacheError: (when read) if the store cannot be written, for example because the disk is
            full; what is there stays whole, and a later read goes on from there.

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
        self._made = {"source": source, "path": path, "chunks": chunks, "shards": shards}
        self._made |= {"level": level, "cache": cache}
        key = {"chunks": list(chunks), "shards": list(shards), "probe": probe(source)}
        if not path.exists():
            created(path, source, key, level)
        super().__init__(path, channels=source.channels, fill_missing=True, cache=cache)
        found = mark_of(self.attributes) or {}
        same = (self.shape, self.dtype, found) == (source.shape, source.dtype, key | done(found))
        per_shard = tuple(b // c for b, c in zip(shards, chunks, strict=True))
        per_shard += (1,) * (source.channels > 1)
        # What it says it was made with, and what it has: one may be of another hand.
        has = (self.chunks, self._layout and self._layout.per_shard)
        if not same or has != (chunks, per_shard):
            raise VolumeError(
                f"{path} holds {self!r}, which was not made of {source!r} with chunks={chunks} and "
                f"shards={shards}; choose another folder."
            )
        if (path / ".partial").exists():
            with self._writing():
                shutil.rmtree(path / ".partial", ignore_errors=True)

    def written(self) -> Written:
        """Chunks and bytes on the disk; the indices of all shards are read."""
        chunks, n_bytes = 0, 0
        for file in self._files():
            n_bytes += file.stat().st_size
            chunks += int((index_of(file, self._shards)[:, 0] != NOT_THERE).sum())
        n_voxels = math.prod(self.shape) * self.channels
        return Written(chunks, math.prod(self._grid), n_bytes, n_voxels * self._stored.itemsize)

    def fill(self, *, workers: int = 1, progress: bool = False) -> None:
        """Make all chunks that are not there, shard by shard; a call after a killed one goes on.

        Several processes may fill one store, each then makes what the others have not.

        Args:
            workers: threads.
            progress: show a bar of shards.

        Raises:
            CacheError: if the store cannot be written.
        """
        shards = self._per_shard
        grid = [range(-(-n // edge)) for n, edge in zip(self._grid, shards, strict=True)]
        todo: Iterator[tuple[int, ...]] = itertools.product(*grid)
        if progress:
            from tqdm import tqdm

            todo = iter(tqdm(todo, total=math.prod(map(len, grid)), unit="shard"))
        with ThreadPoolExecutor(workers) as pool:
            under_way: set[Future] = set()
            # A list of all shards may not fit: a few are under way at a time.
            for at in todo:
                under_way.add(pool.submit(self._fill_shard, at))
                if len(under_way) > 2 * workers:
                    ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    _raised(ended, under_way)
            _raised(wait(under_way).done, set())
        import zarr

        if not self.attributes[MARK].get("complete"):
            self.attributes[MARK] |= {"complete": True}
            with self._writing():
                zarr.open_array(self._path, mode="r+").update_attributes(self.attributes)

    def _fill_shard(self, at: tuple[int, ...]) -> None:
        per = self._per_shard
        inner = np.stack(np.unravel_index(np.arange(math.prod(per)), per), -1)
        file = self._file(at)
        there = index_of(file, self._shards)[:, 0] != NOT_THERE if file.exists() else None
        positions = np.asarray(at) * per + inner
        wanted = (positions < self._grid).all(1) & (True if there is None else ~there)
        if wanted.any():
            positions = positions[wanted]
            out = [np.empty((*self.chunks, self.channels), self._stored) for _ in positions]
            self._produce(positions, out)

    def _absent(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        self._produce(positions, out)

    def _damaged(self, box: Any, error: Exception) -> NoReturn:
        self._reads.forget()
        file = self._path
        if box is not ...:
            edges = zip(box, self._made["shards"], strict=True)
            file = self._file(tuple(side.start // edge for side, edge in edges))
        raise damaged(file, error) from error

    def _produce(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        """Make the chunks at `positions` (n, D) and write them."""
        layout = self._layout
        assert layout is not None
        n_block = max(1, _BLOCK // math.prod(self.chunks))
        for start in range(0, len(positions), n_block):
            part = slice(start, start + n_block)
            made = boxes(self._source, positions[part], self.chunks)
            for chunk, values in zip(out[part], made, strict=True):
                chunk[...] = values
        self._write(layout, positions, [layout.encode(chunk) for chunk in out])

    def _write(self, layout: Layout, positions: np.ndarray, encoded: list[bytes]) -> None:
        if self.channels > 1:
            positions = np.concatenate([positions, np.zeros_like(positions[:, :1])], 1)
        shards, numbers = layout.shard_of(positions)
        groups: dict[str, dict[int, bytes]] = {}
        for at, number, chunk in zip(shards.tolist(), numbers.tolist(), encoded, strict=True):
            groups.setdefault(layout.key(at), {})[number] = chunk
        with self._writing():
            folder = self._path / ".partial"
            folder.mkdir(exist_ok=True)
            for key, new in groups.items():
                file = self._path / key
                try:
                    # Read again: another process may have added to it.
                    shard, n_new = with_chunks(self._reads.file(Piece(key)), new, self._shards)
                except ValueError as error:
                    raise damaged(file, error) from error
                self._reads.keep(key, shard[-layout.index_bytes :])
                if n_new == 0:
                    continue
                part = folder / secrets.token_hex(8)
                try:
                    part.write_bytes(shard)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(part, file)
                finally:
                    part.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process and thread at a time; what the disk refuses becomes one clear error."""
        from filelock import FileLock

        try:
            with FileLock(self._path / ".lock", poll_interval=0.002):
                yield
        except (OSError, NotImplementedError) as error:
            said = getattr(error, "strerror", None) or error
            raise CacheError(
                f"the store {self._path} cannot be written ({said}): free or permit space there, "
                "or choose another folder; what is finished is kept."
            ) from error

    @property
    def _path(self) -> Path:
        return self._made["path"]

    @property
    def _per_shard(self) -> tuple[int, ...]:
        shards = self._made["shards"]
        return tuple(n // edge for n, edge in zip(shards, self.chunks, strict=True))

    @property
    def _shards(self) -> int:
        """Chunks of a shard."""
        return math.prod(self._per_shard)

    def _file(self, shard: tuple[int, ...]) -> Path:
        assert self._layout is not None
        return self._path / self._layout.key((*shard, *([0] if self.channels > 1 else [])))

    def _files(self) -> Iterator[Path]:
        return (file for file in (self._path / "c").rglob("*") if file.is_file())

    def _read(self) -> Tensor:
        """Makes all chunks."""
        self.fill()
        return super()._read()

    def __getstate__(self) -> dict:
        return {"made": self._made, "ledger": self.ledger}

    def __setstate__(self, state: dict) -> None:
        OnDemandVolume.__init__(self, **state["made"])
        self.ledger = state["ledger"]


def _raised(done: set[Future], others: set[Future]) -> None:
    """Raise the first error of what is done, and start nothing more."""
    for future in done:
        if future.exception():
            for other in others:
                other.cancel()
            future.result()
