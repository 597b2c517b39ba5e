"""Chunks that are held, made on demand, or broken."""

import contextlib
import errno
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from cpic import data
from cpic._errors import CacheError, VolumeError
from cpic.data.chunked._shards import NOT_THERE, ShardIndex
from cpic.data.stores import ChunkCache, OnDemandVolume
from tests.data import test_conformance
from tests.data.test_conformance import SHAPE, Lookup, draw_centers, stored

ALL = torch.cartesian_prod(*[torch.arange(n) for n in SHAPE])


def formula(channels=1, dtype=torch.float32):
    values = stored(channels=channels, dtype=torch.empty(0, dtype=dtype).numpy().dtype)
    return data.FormulaVolume(Lookup(values), SHAPE, channels=channels, dtype=dtype), values


def wave(shape, dtype=torch.uint8):
    return data.FormulaVolume(Wave(), shape, dtype=dtype)


def total(x, y, z):
    return x + y + z


def shifted(x, y, z):
    return Wave()(x + 1, y, z)


class Wave:
    def __call__(self, *axes):
        return ((axes[0] + 3 * axes[1] + 7 * axes[2]) % 251 + 1).to(torch.uint8)


def grow_formula(folder):
    source, values = formula()
    return OnDemandVolume(source, folder / "v.zarr", chunks=(4, 3, 5), shards=(8, 6, 5)), values


def grow_cubes(folder):
    source, values = formula(dtype=torch.uint8)
    return OnDemandVolume(source, folder / "v.zarr", chunks=(4, 4, 4)), values


def grow_channels(folder):
    source, values = formula(channels=3)
    return OnDemandVolume(source, folder / "v.zarr", chunks=(5, 5, 5)), values


def grow_plane(folder):
    values = stored((9, 14), dtype=np.int16)
    return OnDemandVolume(data.ArrayVolume(values), folder / "v.zarr", chunks=(4, 4)), values


def grow_held(folder):
    source, values = formula()
    return OnDemandVolume(source, folder / "v.zarr", chunks=(4, 4, 4), cache=2**20), values


def filled(folder):
    source, values = formula()
    OnDemandVolume(source, folder / "v.zarr", chunks=(4, 4, 4)).fill(workers=2)
    return data.ZarrVolume(folder / "v.zarr"), values


def held(folder):
    path = data.save_zarr(stored(), folder / "v.zarr", chunks=(4, 3, 5))
    return data.ZarrVolume(path, cache=2**20), stored()


MAKERS = [grow_formula, grow_cubes, grow_channels, grow_plane, grow_held, filled, held]


class TestStore(test_conformance.TestVolume):
    """All clauses again, on stores that grow or hold chunks."""

    @pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
    def pair(self, request, tmp_path):
        return request.param(tmp_path)

    def test_leaves_the_original_alone(self, pair, tmp_path, generator):
        volume, _ = pair
        if isinstance(volume, OnDemandVolume):
            volume.fill()
        super().test_leaves_the_original_alone(pair, tmp_path, generator)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """64 chunks of 512 bytes in 8 shards."""
    path = tmp_path_factory.mktemp("large") / "v.zarr"
    return data.save_zarr(
        stored((32, 32, 32), dtype=np.uint8), path, chunks=(8,) * 3, shards=(16,) * 3
    )


def everywhere(generator, n=300, side=32):
    return torch.randint(-3, side + 3, (n, 3), generator=generator)


class TestCache:
    def test_a_second_read_decodes_nothing(self, large, generator, monkeypatch):
        volume, at = data.ZarrVolume(large, cache=64 * 512), everywhere(generator)
        first = volume.cubes(at, size=5)
        before = volume.ledger + data.Ledger()
        monkeypatch.setattr("cpic.data.chunked._layout.Layout.decode", None)
        monkeypatch.setattr("cpic.data.chunked._reads.Reads.many", None)
        assert torch.equal(volume.cubes(at, size=5), first)
        assert (volume.ledger.chunks, volume.ledger.bytes) == (before.chunks, before.bytes)
        assert volume.ledger.voxels == 2 * before.voxels
        assert volume.cache.held_bytes == 64 * 512

    @pytest.mark.parametrize("slots", [1, 2, 7, 63])
    def test_the_bound_holds_and_the_answer_stays(self, large, generator, slots):
        volume, twin = data.ZarrVolume(large, cache=slots * 512 + 100), data.ZarrVolume(large)
        for _ in range(3):
            at = everywhere(generator, 50)
            assert torch.equal(volume.cubes(at, size=7), twin.cubes(at, size=7))
            assert volume.cache.held_bytes <= slots * 512 + 100
        assert volume.ledger.chunks <= twin.ledger.chunks

    def test_what_was_used_last_stays(self, large):
        volume = data.ZarrVolume(large, cache=3 * 512)
        corner = 8 * torch.arange(4)[:, None].expand(4, 3)

        def loads(k):
            before = volume.ledger.chunks
            volume.voxels(corner[k])
            return volume.ledger.chunks - before

        assert [loads(k) for k in (0, 1, 2, 0, 3, 0, 2, 1)] == [1, 1, 1, 0, 1, 0, 0, 1]

    def test_more_than_fits_reads_what_is_held_first(self, large):
        volume = data.ZarrVolume(large, cache=40 * 512)
        volume.voxels(torch.cartesian_prod(*[torch.arange(0, 32, 8)] * 3))
        before = volume.ledger.chunks
        volume.voxels(torch.cartesian_prod(*[torch.arange(0, 32, 8)] * 3))
        assert volume.ledger.chunks - before == 24

    def test_volumes_share_one_in_threads(self, large, tmp_path, generator):
        other = data.save_zarr(
            stored((32, 32, 32), dtype=np.uint8, seed=1), tmp_path / "w.zarr", chunks=(8,) * 3
        )
        cache = ChunkCache(70 * 512)
        volumes = [data.ZarrVolume(path, cache=cache) for path in (large, other, large)]
        twins = [data.ArrayVolume(volume.read()) for volume in volumes]
        calls = [(k % 3, everywhere(generator, 40)) for k in range(30)]
        wrong = []

        def read(part):
            for k, at in part:
                if not torch.equal(volumes[k].cubes(at, size=5), twins[k].cubes(at, size=5)):
                    wrong.append(k)

        threads = [threading.Thread(target=read, args=(calls[k::4],)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert cache.held_bytes <= cache.limit_bytes
        assert min(cache.hits, cache.misses) > 0

    def test_a_volume_opened_again_finds_its_chunks(self, large):
        cache, at = ChunkCache(2**20), torch.tensor([[5, 5, 5]])
        data.ZarrVolume(large, cache=cache).voxels(at)
        again = data.ZarrVolume(large, cache=cache)
        again.voxels(at)
        assert again.ledger.chunks == 0
        assert repr(cache) == "ChunkCache(512 of 1,048,576 bytes, 1 hits, 1 misses)"
        cache.clear()
        again.voxels(at)
        assert again.ledger.chunks == 1

    def test_chunks_that_a_call_wants_make_room_last(self, tmp_path):
        for k in range(3):
            data.save_zarr(stored(seed=k), tmp_path / f"{k}.zarr", chunks=(4, 4, 4))
        cache = ChunkCache(3 * 512)
        volumes = [data.ZarrVolume(tmp_path / f"{k}.zarr", cache=cache) for k in range(3)]
        at = torch.tensor([[1, 1, 1]])
        for volume in volumes:
            volume.voxels(at)
        # The chunk of the first volume is the oldest one, but wanted beside two new ones.
        owner, centers = torch.tensor([0, 1, 2]), torch.tensor([[1, 1, 1], [5, 5, 5], [5, 5, 5]])
        found = data.read_cubes(volumes, owner, centers, size=1).flatten()
        values = [stored(seed=k)[tuple(c)] for k, c in enumerate(centers.tolist())]
        assert found.tolist() == pytest.approx(values)
        assert [volume.ledger.chunks for volume in volumes] == [1, 2, 2]
        assert (cache.hits, cache.misses) == (1, 5)

    def test_a_chunk_that_is_dropped_meanwhile_is_read_again(self, tmp_path, monkeypatch):
        data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4))
        cache = ChunkCache(2**20)
        volumes = [data.ZarrVolume(tmp_path / "v.zarr", cache=cache) for _ in range(2)]
        monkeypatch.setattr(cache, "pinned", lambda *args: contextlib.nullcontext())
        at = torch.tensor([[5, 5, 5], [6, 1, 7]])
        found = data.read_cubes(volumes, torch.tensor([0, 1]), at, size=1).flatten()
        assert found.tolist() == pytest.approx([stored()[5, 5, 5], stored()[6, 1, 7]])

    def test_another_store_in_its_place_is_read(self, tmp_path):
        import shutil

        cache, at = ChunkCache(2**20), torch.tensor([[5, 5, 5]])
        for seed in (0, 1):
            shutil.rmtree(tmp_path / "v.zarr", ignore_errors=True)
            values = stored(seed=seed)
            data.save_zarr(values, tmp_path / "v.zarr", chunks=(4, 4, 4))
            assert data.ZarrVolume(tmp_path / "v.zarr", cache=cache).voxels(at) == values[5, 5, 5]

    def test_copies_are_empty_and_share_one(self, large):
        cache = ChunkCache(2**20)
        volumes = [data.ZarrVolume(large, cache=cache), data.ZarrVolume(large, cache=cache)]
        volumes[0].voxels(torch.tensor([[5, 5, 5]]))
        copies = pickle.loads(pickle.dumps(volumes))
        assert copies[0].cache is copies[1].cache
        assert (copies[0].cache.limit_bytes, copies[0].cache.held_bytes) == (2**20, 0)

    def test_a_chunk_that_failed_is_not_held(self, large, tmp_path, generator):
        path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4))
        volume, file = data.ZarrVolume(path, cache=2**20), path / "c" / "1" / "1" / "1"
        whole = file.read_bytes()
        for broken in (b"", whole[:-7] + b"damaged"):
            file.write_bytes(broken)
            for _ in range(2):
                with pytest.raises(VolumeError, match=r"cannot be decoded at \[4:8, 4:8, 4:8\]"):
                    volume.cubes(torch.tensor([[5, 5, 5]]), size=5)
        file.unlink()
        with pytest.raises(VolumeError, match="lacks 1 of the chunks"):
            volume.voxels(torch.tensor([[5, 5, 5]]))
        file.write_bytes(whole)
        assert volume.voxels(torch.tensor([[5, 5, 5]])) == stored()[5, 5, 5]

    @pytest.mark.parametrize("limit", [0, -1, 2.5, True])
    def test_refuses_bounds_that_are_none(self, limit):
        with pytest.raises(VolumeError, match="positive whole number of bytes"):
            ChunkCache(limit)

    def test_refuses_chunks_that_do_not_fit_its_slots(self, large, tmp_path):
        cache = ChunkCache(2**20)
        data.ZarrVolume(large, cache=cache).voxels(torch.tensor([[5, 5, 5]]))
        path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(13, 10, 11))
        with pytest.raises(VolumeError, match="chunks of 512 bytes cannot hold chunks of 5720"):
            data.ZarrVolume(path, cache=cache).voxels(torch.tensor([[5, 5, 5]]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", ">f4", "float64", "uint16", "bool"])
@pytest.mark.parametrize("shards", [None, (8, 6, 5)])
@pytest.mark.parametrize("packed", ["zstd", "blosc", "gzip", "none", "transposed", "v2"])
def test_every_kind_of_chunk_is_read_as_by_zarr(tmp_path, dtype, shards, packed, generator):
    from zarr.codecs import BloscCodec, GzipCodec, TransposeCodec, ZstdCodec

    options = {
        "zstd": {"compressors": ZstdCodec(level=3, checksum=True)},
        "blosc": {"compressors": BloscCodec(cname="lz4")},
        "gzip": {"compressors": GzipCodec()},
        "none": {"compressors": None},
        "transposed": {"filters": TransposeCodec(order=(2, 0, 1))},
        "v2": {"zarr_format": 2},
    }[packed]
    if packed == "v2" and shards:
        pytest.skip("version 2 has no shards")
    array = zarr.create_array(
        tmp_path / "v.zarr", shape=SHAPE, chunks=(4, 3, 5), shards=shards, dtype=dtype,
        fill_value=0, **options,
    )  # fmt: skip
    values = stored(dtype=dtype)
    array[...] = values
    volume = data.ZarrVolume(tmp_path / "v.zarr")
    at = draw_centers(volume, 40, generator, margin=2)
    twin = data.ArrayVolume(values).cubes(at, size=3)
    assert torch.equal(volume.cubes(at, size=3), twin)


def test_a_slow_chunk_is_waited_for_beside_the_others(tmp_path, monkeypatch):
    from cpic.data.chunked._reads import Reads

    path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4))
    real = Reads._of_file

    # Three chunks that each wait until all of them are being read: one after the other, never.
    together = threading.Barrier(3)

    def slow(self, piece):
        if piece.key.startswith("c/1/1"):
            together.wait(120)
        return real(self, piece)

    monkeypatch.setattr(Reads, "_of_file", slow)
    found = data.ZarrVolume(path).voxels(ALL)
    assert torch.equal(found, torch.from_numpy(stored()).flatten())


def whole_store(path):
    """Every file is whole, and none is left from writing."""
    index = ShardIndex((4, 4, 4))
    assert not list((path / ".partial").glob("*"))
    for file in (path / "c").rglob("*"):
        if file.is_file():
            index.all(index.within(file.read_bytes()))


class TestOnDemand:
    @pytest.fixture
    def volume(self, tmp_path):
        return OnDemandVolume(wave((64, 64, 64)), tmp_path / "v.zarr", chunks=(8, 8, 8))

    def test_only_what_is_touched_is_made_and_once(self, volume, tmp_path):
        assert volume.written() == (0, 512, 0, 64**3)
        at = torch.tensor([[16, 24, 40], [17, 24, 40], [12, 20, 36]])
        volume.cubes(at, size=5)
        made = volume._source.ledger.asked
        assert volume.written()[0] == volume.ledger.chunks == 8
        assert volume.touched().chunks == 8 / 512
        volume.cubes(at, size=5)
        again = OnDemandVolume(wave((64, 64, 64)), tmp_path / "v.zarr", chunks=(8, 8, 8))
        again.cubes(at, size=5)
        assert volume._source.ledger.asked == made
        assert again.written()[0] == 8
        assert again.ledger.bytes > 0
        # An ordinary array, for all who know that there is more to come.
        array = zarr.open_array(tmp_path / "v.zarr", mode="r")
        assert array[16, 24, 40] == wave((64,) * 3).voxels(at[0])
        assert array[63, 63, 63] == 0
        with pytest.raises(VolumeError, match="the chunks that were read so far, and 0 elsewhere"):
            data.open_volume(tmp_path / "v.zarr")

    def test_a_full_one_is_a_store_like_others(self, volume, tmp_path, generator):
        at = torch.randint(0, 64, (50, 3), generator=generator)
        cubes = volume.cubes(at, size=5)
        volume.fill(workers=3)
        assert volume.written()[0] == 512
        whole = data.open_volume(tmp_path / "v.zarr")
        assert torch.equal(whole.cubes(at, size=5), cubes)
        assert torch.equal(whole.read(), wave((64, 64, 64)).read())
        made = volume._source.ledger.asked
        volume.fill()
        assert volume._source.ledger.asked == made

    @pytest.mark.parametrize(
        ("source", "options"),
        [
            (wave((64, 64, 65)), {}),
            (data.FormulaVolume(total, (64,) * 3, dtype=torch.int64), {}),
            (data.FormulaVolume(shifted, (64,) * 3, dtype=torch.uint8), {}),
            (wave((64, 64, 64)), {"chunks": (16, 16, 16)}),
        ],
    )  # fmt: skip
    def test_another_source_is_refused(self, volume, tmp_path, source, options):
        with pytest.raises(VolumeError, match=r"which was not made of .*choose another folder"):
            OnDemandVolume(source, tmp_path / "v.zarr", **{"chunks": (8, 8, 8), **options})

    @pytest.mark.parametrize(
        "options",
        [{"chunks": (8, 8)}, {"chunks": (0, 8, 8)}, {"chunks": (8,) * 3, "shards": (9,) * 3}],
    )
    def test_refuses_chunks_that_do_not_fit(self, tmp_path, options):
        with pytest.raises(VolumeError, match="OnDemandVolume needs 3 chunk edges"):
            OnDemandVolume(wave((64, 64, 64)), tmp_path / "v.zarr", **options)

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
    @pytest.mark.parametrize("where", ["write_bytes", "replace", "mkdir"])
    def test_a_full_disk_is_one_error_and_nothing_is_torn(
        self, volume, tmp_path, monkeypatch, code, where
    ):
        twin, at = wave((64, 64, 64)), torch.tensor([[5, 5, 5], [60, 60, 60]])
        volume.voxels(at[:1])

        def full(self, *_, **__):
            if where == "write_bytes":
                with open(self, "wb") as file:  # half of it came
                    file.write(b"half")
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os if where == "replace" else Path, where, full)
            with pytest.raises(CacheError, match=r"v.zarr cannot be written .*free space"):
                volume.voxels(at)
            if where != "mkdir":
                assert volume.voxels(at[:1]) == twin.voxels(at[:1])  # what is there is read
        whole_store(tmp_path / "v.zarr")
        assert torch.equal(volume.voxels(at), twin.voxels(at))

    def test_a_folder_that_cannot_be_made_is_one_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(CacheError, match=r"v\.zarr cannot be written"):
            OnDemandVolume(wave((64, 64, 64)), tmp_path / "file" / "v.zarr")

    def test_a_damaged_shard_is_named_and_made_again(self, volume, tmp_path):
        at = torch.tensor([[5, 5, 5]])
        right = volume.voxels(at)
        file = tmp_path / "v.zarr" / "c" / "0" / "0" / "0"
        bytes_of = bytearray(file.read_bytes())
        for place in (4, -9):  # a chunk, then the index
            broken = bytes_of.copy()
            broken[place] ^= 255
            file.write_bytes(broken)
            again = pickle.loads(pickle.dumps(volume))
            with pytest.raises(VolumeError, match=r"c/0/0/0 is damaged .*delete it"):
                again.voxels(at)
        file.unlink()
        assert torch.equal(volume.voxels(at), right)  # with its index still in memory
        assert torch.equal(again.voxels(at), right)

    def test_what_another_process_made_is_read(self, volume, tmp_path):
        other = pickle.loads(pickle.dumps(volume))
        volume.voxels(torch.tensor([[5, 5, 5]]))
        other.voxels(torch.tensor([[5, 5, 5], [5, 5, 13]]))
        # The first one's index does not have it yet: it makes it, and finds it there.
        volume.voxels(torch.tensor([[5, 5, 13]]))
        before = volume._source.ledger.asked
        volume.voxels(torch.tensor([[5, 5, 13]]))
        assert volume._source.ledger.asked == before
        assert volume.written()[0] == 2

    def test_an_error_of_the_source_is_its_own(self, tmp_path):
        source = data.ArrayVolume(torch.full((8, 8, 8), torch.nan))
        with pytest.raises(VolumeError, match="NaN voxels"):
            OnDemandVolume(source, tmp_path / "v.zarr")
        lost = data.save_zarr(stored(), tmp_path / "s.zarr", chunks=(4, 4, 4))
        volume = OnDemandVolume(data.ZarrVolume(lost), tmp_path / "v.zarr", chunks=(4, 4, 4))
        (lost / "c" / "0" / "0" / "0").unlink()
        with pytest.raises(VolumeError, match=r"s.zarr lacks 1"):
            volume.voxels(torch.tensor([[1, 1, 1]]))
        whole_store(tmp_path / "v.zarr")

    @pytest.mark.parametrize(
        "shape", [(2**33, 8, 8), (8, 2**33, 8), (8192, 8192, 8192), (2**20,) * 3]
    )
    def test_coordinates_beyond_32_bits(self, tmp_path, shape, generator):
        source = wave(shape)
        volume = OnDemandVolume(source, tmp_path / "v.zarr", chunks=(8, 8, 8), cache=2**20)
        last = torch.tensor(shape) - 1
        near = (torch.rand(6, 3, generator=generator, dtype=torch.float64) * last).long()
        at = torch.cat([last[None], last[None] - 3, near])
        for _ in range(2):
            assert torch.equal(volume.cubes(at, size=5), source.cubes(at, size=5))
        again = pickle.loads(pickle.dumps(volume))
        assert torch.equal(again.voxels(at), source.voxels(at))
        assert volume.written().of_bytes == shape[0] * shape[1] * shape[2]

    def test_refuses_more_voxels_than_int64_counts(self, tmp_path):
        with pytest.raises(VolumeError, match=r"fewer than 2\^62 voxels"):
            OnDemandVolume(wave((2**30, 2**30, 8)), tmp_path / "v.zarr")


RUN = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from cpic.data.stores import OnDemandVolume
from tests.data.test_stores import wave
volume = OnDemandVolume(wave((64, 64, 64)), sys.argv[1], chunks=(8, 8, 8))
if sys.argv[2] == "kill":
    real = Path.write_bytes
    def half(self, raw):
        if len(list(Path(sys.argv[1]).rglob("c/*/*/*"))) == 3:
            real(self, raw[:len(raw) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, raw)
    Path.write_bytes = half
generator = torch.Generator().manual_seed(int(sys.argv[3]))
for _ in range(5):
    at = torch.randint(0, 64, (20, 3), generator=generator)
    assert torch.equal(volume.cubes(at, size=3), wave((64, 64, 64)).cubes(at, size=3))
volume.fill()
"""


def start(path, *arguments):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", RUN, str(path), *map(str, arguments)]
    return subprocess.Popen(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_process_killed_while_writing_leaves_whole_files(tmp_path):
    path = tmp_path / "v.zarr"
    assert start(path, "kill", 0).wait(60) == -signal.SIGKILL
    assert len(list((path / ".partial").iterdir())) == 1
    volume = OnDemandVolume(wave((64, 64, 64)), path, chunks=(8, 8, 8))
    whole_store(path)
    assert 0 < volume.written()[0] < 512
    assert torch.equal(volume.read(), wave((64, 64, 64)).read())


def test_processes_write_one_store_at_once(tmp_path):
    path = tmp_path / "v.zarr"
    workers = [start(path, "go", seed) for seed in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    whole_store(path)
    volume = data.open_volume(path)
    assert torch.equal(volume.read(), wave((64, 64, 64)).read())
    assert [file.name for file in tmp_path.iterdir()] == ["v.zarr"]
    # Each chunk lies in its shard once.
    sizes = [file.stat().st_size for file in (path / "c").rglob("*") if file.is_file()]
    alone = OnDemandVolume(wave((64, 64, 64)), tmp_path / "w.zarr", chunks=(8, 8, 8))
    alone.fill()
    assert sum(sizes) == alone.written().bytes


def test_adding_to_a_shard_moves_no_chunk():
    index, shard, seen = ShardIndex((6,)), None, {}
    for number, chunk in itertools.chain(enumerate([b"a", b"bb", b"", b"dddd"]), [(1, b"other")]):
        shard, n_new = index.with_chunks(shard, {number: chunk})
        assert n_new == (number not in seen)
        seen.setdefault(number, chunk)
        spans = index.all(index.within(shard))
        assert {
            k: shard[a : a + n] for k, (a, n) in enumerate(spans.tolist()) if a != NOT_THERE
        } == seen
