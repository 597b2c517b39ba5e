"""What single readers promise beyond the clauses: errors, chunks, conversion, addresses."""

import functools
import http.server
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import CacheError, VolumeError
from tests.data.test_conformance import SHAPE, nifti, stored

MIDDLE = torch.tensor([[5, 5, 5]])


BAD = {
    "2 NaN": (np.nan, np.nan),
    "2 infinite": (np.inf, -np.inf),
    "1 NaN and 1 infinite": (-np.inf, np.nan),
}


def with_bad(kind="2 NaN"):
    values = stored()
    values[5, 5, 4:6] = BAD[kind]
    return values


def test_a_truncated_nifti_is_refused(tmp_path):
    path = nifti(tmp_path, stored())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VolumeError, match=r"scan.nii is truncated: .* needs 6,072 bytes"):
        data.open_volume(path)


@pytest.mark.parametrize("keep", [10, 200])
def test_a_nifti_without_its_header_is_refused(tmp_path, keep):
    path = nifti(tmp_path, stored())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(VolumeError, match="cannot be read as NIfTI"):
        data.open_volume(path)


def test_a_truncated_gz_is_refused_and_leaves_nothing(tmp_path):
    path = nifti(tmp_path, stored(), ".nii.gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(VolumeError, match=r"scan.nii.gz is truncated or damaged"):
        data.open_volume(path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_fourth_axis_needs_a_frame(tmp_path):
    values = stored((4, 5, 6, 3))
    path = nifti(tmp_path, values)
    with pytest.raises(VolumeError, match=r"shape \(4, 5, 6, 3\).* pass frame= from 0 to 2"):
        data.open_volume(path)
    with pytest.raises(VolumeError, match="got frame=3"):
        data.open_volume(path, frame=3)
    assert torch.equal(data.open_volume(path, frame=1).read(), torch.from_numpy(values[..., 1]))


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    path = nifti(tmp_path, stored((4, 5, 6, 1)))
    assert data.open_volume(path).shape == data.open_volume(path, frame=0).shape == (4, 5, 6)
    with pytest.raises(VolumeError, match=r"one image of shape \(4, 5, 6\), got frame=1"):
        data.open_volume(path, frame=1)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("make", ["array", "nii", "npy", "zarr", "formula", "flipped"])
def test_nan_and_infinite_voxels_are_refused_or_replaced(tmp_path, make, kind):
    values = with_bad(kind)
    np.save(tmp_path / "v.npy", values)
    if make == "zarr":
        data.save_zarr(np.zeros_like(values), tmp_path / "v.zarr", chunks=(4, 4, 4))
        import zarr

        zarr.open_array(tmp_path / "v.zarr")[...] = values
    tensor = torch.from_numpy(values)
    build = {
        "array": lambda **nan: data.ArrayVolume(values, **nan),
        "flipped": lambda **nan: data.FlippedVolume(
            data.ArrayVolume(values[::-1], **nan), axes=[0]
        ),
        "nii": lambda **nan: data.open_volume(nifti(tmp_path, values), **nan),
        "npy": lambda **nan: data.open_volume(tmp_path / "v.npy", **nan),
        "zarr": lambda **nan: data.open_volume(tmp_path / "v.zarr", **nan),
        "formula": lambda **nan: data.FormulaVolume(
            lambda *axes: tensor[axes], SHAPE, dtype=torch.float32, **nan
        ),
    }[make]
    for read in (
        lambda v: v.cubes(MIDDLE, size=3),
        lambda v: v.voxels(torch.cat([MIDDLE, MIDDLE - torch.tensor([0, 0, 1])])),
        lambda v: v.read(),
    ):
        with pytest.raises(VolumeError, match=rf"has {kind} voxels among .* pass nan=0.0"):
            read(build())
        assert read(build(nan=0.5)).isfinite().all()
    assert build(nan=0.5).voxels(MIDDLE).item() == 0.5
    # Elsewhere the volume reads: what is not touched is not judged.
    assert build().cubes(torch.tensor([[1, 1, 1]]), size=3).shape == (1, 1, 3, 3, 3)


def test_the_message_names_the_file_where_there_is_one(tmp_path):
    path = nifti(tmp_path, with_bad())
    with pytest.raises(VolumeError, match=rf"^{path} has 2 NaN voxels among the 1430 read; "):
        data.open_volume(path).read()


@pytest.mark.parametrize("nan", [np.nan, np.inf, -np.inf])
def test_a_replacement_is_a_number(tmp_path, nan):
    with pytest.raises(VolumeError, match="nan= needs a finite number"):
        data.open_volume(nifti(tmp_path, stored()), nan=nan)


def test_a_scale_that_leaves_float32_is_refused(tmp_path):
    path = nifti(tmp_path, stored(dtype=np.int16), scale=(3e38, 0.0))
    with pytest.raises(VolumeError, match=r"has 1[0-9]+ infinite voxels among"):
        data.open_volume(path).read()


def test_a_missing_chunk_is_refused_or_filled(tmp_path):
    path = data.save_zarr(stored(), tmp_path / "v.zarr", chunks=(4, 4, 4))
    (path / "c" / "1" / "1" / "1").unlink()
    volume = data.open_volume(path)
    with pytest.raises(VolumeError, match=r"lacks 1 of the chunks.*c/1/1/1.*fill_missing=True"):
        volume.cubes(MIDDLE, size=3)
    with pytest.raises(VolumeError, match="lacks 1"):
        volume.read()
    away = torch.tensor([[1, 1, 1]])
    assert volume.cubes(away, size=3).all()
    filled = data.open_volume(path, fill_missing=True)
    assert filled.voxels(MIDDLE).item() == 0


@pytest.mark.parametrize("name", ["no.nii", "no.nii.gz", "no.npy", "no.zarr", "no.raw"])
def test_a_missing_path_is_named(tmp_path, name):
    with pytest.raises(VolumeError, match=f"there is no file or folder .*{name}"):
        data.open_volume(tmp_path / name)


def test_an_unknown_ending_lists_the_known(tmp_path):
    with pytest.raises(VolumeError, match=r"\.nii, .*\.zarr, got .*scan\.mha"):
        data.open_volume(tmp_path / "scan.mha")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: data.ArrayVolume(np.zeros(5)), r"two or three spatial sizes .* got \(5,\)"),
        (lambda: data.ArrayVolume(np.zeros((2, 2, 2, 2))), r"got \(2, 2, 2, 2\)"),
        (lambda: data.ArrayVolume(np.zeros((0, 2))), r"at least 1, got \(0, 2\)"),
        (lambda: data.ArrayVolume(np.zeros((4, 4, 2)), channels=3), r"channels=3 .* \(4, 4, 2\)"),
        (lambda: data.ArrayVolume(np.zeros((2, 2), complex)), "complex128; pass the modulus"),
        (lambda: data.ArrayVolume(np.full((2, 2), "x")), "a dtype that torch supports, got <U1"),
        (lambda: data.ArrayVolume([[1.0]]), "a tensor or a NumPy array, got list"),
        (lambda: data.mni152("t2"), "'t1', 'gm' and 'wm', got 't2'"),
        (lambda: data.photograph("eagle"), "one of astronaut, .*; got 'eagle'"),
        (lambda: data.gaussians((4, 4), n=0), "n of at least 1, got 0"),
        (lambda: data.spike((4, 4), at=(4, 0)), r"inside the shape \(4, 4\), got \(4, 0\)"),
        (lambda: data.brain_like((4,)), r"two or three sizes, got \(4,\)"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(VolumeError, match=message):
        build()


def test_a_raw_file_that_is_too_short_or_undescribed_is_refused(tmp_path):
    path = tmp_path / "v.raw"
    path.write_bytes(bytes(63))
    with pytest.raises(VolumeError, match="needs 64 bytes, the file has 63"):
        data.open_volume(path, shape=(4, 4, 4), dtype="u1")
    for options in ({"shape": (4, 4, 4)}, {"dtype": "u1"}, {}):
        with pytest.raises(VolumeError, match="needs both shape and dtype"):
            data.open_volume(path, **options)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shape", "4,4", "a tuple of sizes, .* got shape='4,4'"),
        ("shape", 4, "a tuple of sizes, .* got shape=4 "),
        ("shape", (4.0, 4), r"a tuple of sizes, .* got shape=\(4.0, 4\)"),
        ("offset", "0", "an offset of at least 0, .* offset='0'"),
        ("dtype", "int17", "a NumPy dtype, .* got 'int17'"),
        ("dtype", torch.uint8, "a NumPy dtype, .* got torch.uint8"),
    ],
)
def test_what_describes_no_raw_file_is_named(tmp_path, name, value, message):
    path = tmp_path / "v.raw"
    path.write_bytes(bytes(64))
    with pytest.raises(VolumeError, match=message):
        data.open_volume(path, **{"shape": [4, 4], "dtype": "u1", name: value})


def test_what_is_no_npy_file_is_not_taken_for_pickled_objects(tmp_path):
    path = tmp_path / "v.npy"
    path.write_text("<html>no longer here</html>")
    with pytest.raises(VolumeError, match="cannot be mapped as") as raised:
        data.open_volume(path)
    assert "pickle" not in str(raised.value)


@pytest.mark.parametrize("end", [".nii", ".npy", ".zarr", ""])
def test_a_name_that_the_system_refuses_is_one_sentence(end):
    with pytest.raises(VolumeError, match="cannot be read"):
        data.open_volume("a" * 300 + end)


def test_save_zarr_does_not_overwrite_and_leaves_no_half(tmp_path):
    data.save_zarr(stored(), tmp_path / "v.zarr")
    with pytest.raises(VolumeError, match=r"v.zarr exists"):
        data.save_zarr(stored(), tmp_path / "v.zarr")
    with pytest.raises(VolumeError, match=r"chunks=\(2, 2, 2\) and shards=\(3, 3, 3\)"):
        data.save_zarr(stored(), tmp_path / "w.zarr", chunks=(2, 2, 2), shards=(3, 3, 3))
    with pytest.raises(VolumeError, match="NaN"):
        data.save_zarr(with_bad(), tmp_path / "w.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["v.zarr"]


def recording(path):
    from zarr.storage import LocalStore, WrapperStore

    class Recording(WrapperStore):
        keys: list[str] = []  # noqa: RUF012

        async def get(self, key, prototype, byte_range=None):
            self.keys.append(key)
            return await self._store.get(key, prototype, byte_range)

    return Recording(LocalStore(path, read_only=True))


def test_a_cube_reads_only_its_chunks_and_each_once(tmp_path, monkeypatch):
    path = data.save_zarr(stored((64, 64, 64)), tmp_path / "v.zarr", chunks=(8, 8, 8))
    store = recording(path)
    volume = data.ZarrVolume(store)
    store.keys.clear()
    # Around the corner of eight chunks, twice, and one cube inside a chunk of these.
    centers = torch.tensor([[16, 24, 32], [17, 24, 32], [20, 28, 36]])
    # Rounds of three chunks: memory stays bounded and still nothing is read twice.
    monkeypatch.setattr("cpic.data.chunked._reader._HELD_BYTES", 3 * 8**3 * 4)
    cubes = volume.cubes(centers, size=5)
    wanted = {f"c/{x}/{y}/{z}" for x in (1, 2) for y in (2, 3) for z in (3, 4)}
    assert sorted(store.keys) == sorted(wanted)
    assert volume.ledger.chunks == 8
    assert volume.ledger.bytes == sum((path / key).stat().st_size for key in wanted)
    assert torch.equal(cubes, data.ArrayVolume(stored((64, 64, 64))).cubes(centers, size=5))


def test_a_zarr_store_is_read_over_http(tmp_path, generator):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data.save_zarr(stored(), tmp_path / "w.zarr", chunks=(4, 4, 4))
        volume = data.open_volume(f"http://127.0.0.1:{server.server_port}/w.zarr")
        centers = torch.randint(-2, 14, (30, 3), generator=generator)
        twin = data.ArrayVolume(stored()).cubes(centers, size=5)
        assert torch.equal(volume.cubes(centers, size=5), twin)
        assert volume.ledger.chunks > 0
        (tmp_path / "w.zarr" / "c" / "1" / "1" / "1").unlink()
        with pytest.raises(VolumeError, match="lacks 1"):
            volume.voxels(MIDDLE)
        with pytest.raises(VolumeError, match="there is no Zarr array at http"):
            data.open_volume(f"http://127.0.0.1:{server.server_port}/no.zarr")
        server.shutdown()


CONVERT = "import sys; from cpic import data; data.open_volume(sys.argv[1], cache=sys.argv[2])"
KILLED = """
import os, signal, sys
from cpic import _trust, data
def half(packed, out, limit):
    out.write(packed.read(300)); out.flush()
    os.kill(os.getpid(), signal.SIGKILL)
_trust.copy_at_most = half
data.open_volume(sys.argv[1], cache=sys.argv[2])
"""


def start(code, path, cache):
    return subprocess.Popen([sys.executable, "-c", code, path, cache])


def test_a_killed_conversion_leaves_no_half_and_the_next_succeeds(tmp_path):
    path, cache = nifti(tmp_path, stored(), ".nii.gz"), tmp_path / "cache"
    assert start(KILLED, path, cache).wait(300) < 0
    assert [p.suffix for p in cache.iterdir()] == [".part"]
    left = next(cache.iterdir())
    os.utime(left, (time.time() - 3600, time.time() - 3600))
    assert torch.equal(data.open_volume(path, cache=cache).read(), torch.from_numpy(stored()))
    assert [p.suffix for p in cache.iterdir()] == [".nii"]


def test_two_processes_may_convert_at_once(tmp_path):
    path, cache = nifti(tmp_path, stored(), ".nii.gz"), tmp_path / "cache"
    assert [p.wait(300) for p in [start(CONVERT, path, cache) for _ in range(2)]] == [0, 0]
    assert [p.suffix for p in cache.iterdir()] == [".nii"]
    assert torch.equal(data.open_volume(path, cache=cache).read(), torch.from_numpy(stored()))


def test_the_unpacked_file_appears_by_one_rename(tmp_path, monkeypatch):
    path, cache = nifti(tmp_path, stored(), ".nii.gz"), tmp_path / "cache"

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(CacheError, match=f"the cache {cache} cannot be written"):
        data.open_volume(path, cache=cache)
    assert not list(cache.iterdir())


def test_a_changed_gz_is_converted_again(tmp_path):
    cache = tmp_path / "cache"
    data.open_volume(nifti(tmp_path, stored(), ".nii.gz"), cache=cache)
    path = nifti(tmp_path, stored(seed=1), ".nii.gz")
    again = data.open_volume(path, cache=cache).read()
    assert torch.equal(again, torch.from_numpy(stored(seed=1)))


def test_importing_loads_no_reader():
    code = (
        "import sys, cpic.data; heavy = {'nibabel', 'zarr', 'nilearn', 'skimage', 'fsspec'};"
        "sys.exit(','.join(heavy & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
