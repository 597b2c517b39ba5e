"""Up-sampling shard by shard: equal to that in memory, bounded, and continued after a kill."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from cpic import data
from cpic._errors import VolumeError
from cpic.data.resample import resample, upsample

CUT = {"chunks": (8, 8, 8), "shards": (16, 16, 16)}


def drawn(shape=(24, 20, 17), dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def files(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("order", [0, 1, 3, 5])
@pytest.mark.parametrize("factor", [2, (1, 3, 2)])
def test_equals_the_result_in_memory(tmp_path, order, factor):
    values = torch.from_numpy(drawn(dtype=np.float64))
    factors = (factor,) * 3 if isinstance(factor, int) else factor
    shape = tuple(f * n for f, n in zip(factors, values.shape, strict=True))
    path = upsample(
        data.ArrayVolume(values), tmp_path / "v.zarr", factor=factor, order=order, **CUT
    )
    found, twin = data.ZarrVolume(path).read(), resample(values, shape, order=order)
    assert found.shape == shape
    assert (found - twin).abs().max() < 1e-6 * twin.abs().max()
    assert [p.name for p in tmp_path.iterdir()] == ["v.zarr"]


def test_a_step_at_the_edge_of_a_window_costs_less_than_promised(tmp_path):
    # The worst for a margin: far larger values just beyond it.
    values = torch.zeros(48, 8, dtype=torch.float64)
    values[::2] = 1.0
    path = upsample(data.ArrayVolume(values), tmp_path / "v.zarr", chunks=(4, 8), shards=(4, 16))
    twin = resample(values, (96, 16))
    assert (data.ZarrVolume(path).read() - twin).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["memmap", "zarr", "formula", "channels", "plane"])
def test_any_volume_will_do(tmp_path, kind):
    values, options, channels = drawn((24, 26, 28)), CUT, 1
    volume = data.ArrayVolume(values)
    if kind == "memmap":
        np.save(tmp_path / "v.npy", values)
        volume = data.open_volume(tmp_path / "v.npy")
    elif kind == "zarr":
        volume = data.open_volume(data.save_zarr(values, tmp_path / "v.zarr", chunks=(7, 7, 7)))
    elif kind == "formula":
        tensor = torch.from_numpy(values)
        volume = data.FormulaVolume(lambda *axes: tensor[axes], values.shape, dtype=torch.float32)
    elif kind == "channels":
        values, channels = drawn((24, 26, 28, 3)), 3
        volume = data.ArrayVolume(values, channels=3)
    else:
        values = drawn((50, 41))
        volume = data.ArrayVolume(values)
        options = {"chunks": (8, 8), "shards": (32, 16)}
    path = upsample(volume, tmp_path / "large.zarr", **options)
    shape = tuple(2 * n for n in volume.shape)
    twin = resample(torch.from_numpy(values), shape, channels=channels)
    found = data.ZarrVolume(path, channels=channels).read()
    torch.testing.assert_close(found, twin, rtol=0, atol=1e-5)
    assert volume.ledger.voxels >= np.prod(volume.shape)


def test_labels_keep_their_type(tmp_path):
    labels = np.random.default_rng(0).choice([0, 1, 2, 4], (20, 12, 9)).astype(np.uint8)
    path = upsample(data.ArrayVolume(labels), tmp_path / "v.zarr", order=0, **CUT)
    found = data.ZarrVolume(path).read()
    assert found.dtype == torch.uint8
    assert torch.equal(found, resample(torch.from_numpy(labels), (40, 24, 18), order=0))


class Counting:
    """A volume that notes the largest read and the windows, without being one of ours."""

    channels, dtype = 1, torch.float32

    def __init__(self, values, stop_after=None):
        self.inner = data.ArrayVolume(values)
        self.shape, self.ledger = self.inner.shape, self.inner.ledger
        self.calls, self.largest, self.stop_after = 0, 0, stop_after

    def cubes(self, centers, *, size):
        if self.calls == self.stop_after:
            raise ConnectionResetError("the disk went away")
        self.calls += 1
        self.largest = max(self.largest, len(centers) * size**3)
        return self.inner.cubes(centers, size=size)

    def voxels(self, coords):
        return self.inner.voxels(coords)

    def read(self):
        raise AssertionError("holds the volume")


def test_only_windows_are_read(tmp_path):
    volume = Counting(drawn((90, 90, 90)))
    upsample(volume, tmp_path / "v.zarr", chunks=(30, 30, 30), shards=(60, 60, 60))
    assert volume.calls == 27
    # 30 voxels and a margin of 14 to either side, in whole cubes.
    assert volume.largest <= 66**3


def test_finished_shards_are_kept_after_an_error(tmp_path):
    values = drawn()
    with pytest.raises(ConnectionResetError):
        upsample(Counting(values, stop_after=7), tmp_path / "v.zarr", **CUT)
    assert not (tmp_path / "v.zarr").exists()
    part = tmp_path / ".v.zarr.part" / "array" / "c"
    (part / "0" / "0" / "0.1234.partial").write_bytes(b"half")
    done = {p: t for p, t in files(part).items() if p.suffix != ".partial"}
    assert len(done) == 7
    again = Counting(values)
    path = upsample(again, tmp_path / "v.zarr", **CUT)
    assert again.calls == 27 - 7
    assert done.items() <= files(path / "c").items()
    assert not list(path.rglob("*.partial"))
    twin = resample(torch.from_numpy(values), (48, 40, 34))
    torch.testing.assert_close(data.ZarrVolume(path).read(), twin, rtol=0, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["v.zarr"]


@pytest.mark.parametrize("stop_after", [None, 3])
def test_every_shard_is_stored_even_if_empty(tmp_path, stop_after):
    zeros = np.zeros((16, 16, 16), np.float32)
    if stop_after:
        with pytest.raises(ConnectionResetError):
            upsample(Counting(zeros, stop_after=stop_after), tmp_path / "v.zarr", **CUT)
    path = upsample(data.ArrayVolume(zeros), tmp_path / "v.zarr", **CUT)
    assert not data.ZarrVolume(path).read().any()
    assert len(list((path / "c").rglob("*/*/*"))) == 8


@pytest.mark.parametrize("changed", ["factor", "order", "shards", "volume"])
def test_what_differs_starts_again(tmp_path, changed):
    values = drawn()
    with pytest.raises(ConnectionResetError):
        upsample(Counting(values, stop_after=7), tmp_path / "v.zarr", **CUT)
    options = {
        "factor": {"factor": 3},
        "order": {"order": 1},
        "shards": {"shards": (32, 16, 16)},
        "volume": {},
    }[changed]
    again = Counting(values if changed != "volume" else values + 1)
    path = upsample(again, tmp_path / "v.zarr", **{**CUT, **options})
    n_shards = len([p for p in (path / "c").rglob("*") if p.is_file()])
    assert again.calls == n_shards
    factor = options.get("factor", 2)
    twin = resample(
        again.inner,
        tuple(factor * n for n in values.shape),
        **{key: value for key, value in options.items() if key == "order"},
    )
    torch.testing.assert_close(data.ZarrVolume(path).read(), twin, rtol=0, atol=1e-5)


KILLED = """
import os, signal, sys
import numpy as np
from cpic import data
from cpic.data.resample import upsample
class Killing(data.ArrayVolume):
    calls = 0
    def cubes(self, centers, *, size):
        self.calls += 1
        if self.calls == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().cubes(centers, size=size)
values = np.load(sys.argv[1])
upsample(Killing(values), sys.argv[2], chunks=(8, 8, 8), shards=(16, 16, 16))
"""


def test_a_killed_run_is_continued(tmp_path):
    values = drawn()
    np.save(tmp_path / "v.npy", values)
    target = tmp_path / "v.zarr"
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "v.npy", target], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    again = Counting(values)
    upsample(again, target, **CUT)
    assert again.calls == 27 - 5
    twin = resample(torch.from_numpy(values), (48, 40, 34))
    torch.testing.assert_close(data.ZarrVolume(target).read(), twin, rtol=0, atol=1e-5)


def test_a_second_writer_is_told(tmp_path):
    class Meanwhile(Counting):
        def cubes(self, centers, *, size):
            with pytest.raises(VolumeError, match=r"v.zarr is being written by another process"):
                upsample(data.ArrayVolume(drawn()), tmp_path / "v.zarr")
            return super().cubes(centers, size=size)

    path = upsample(Meanwhile(drawn((8, 8, 8))), tmp_path / "v.zarr")
    assert data.ZarrVolume(path).shape == (16, 16, 16)


def test_the_store_appears_by_one_rename(tmp_path, monkeypatch):
    rename = os.replace

    def refuse(source, target):
        if str(target).endswith("v.zarr"):
            raise PermissionError
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", refuse)
        with pytest.raises(PermissionError):
            upsample(data.ArrayVolume(drawn((8, 8, 8))), tmp_path / "v.zarr")
    assert [p.name for p in tmp_path.iterdir()] == [".v.zarr.part"]
    again = Counting(drawn((8, 8, 8)))
    upsample(again, tmp_path / "v.zarr")
    assert again.calls == 0


def test_nothing_is_left_when_nothing_was_done(tmp_path):
    values = drawn((8, 8, 8))
    values[2, 2, 2] = np.nan
    with pytest.raises(VolumeError, match="NaN"):
        upsample(data.ArrayVolume(values), tmp_path / "v.zarr")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 0}, r"whole factor of at least 1, .* got factor=0"),
        ({"factor": 1.5}, r"got factor=1.5; use resample"),
        ({"factor": (2, 2)}, r"each of the 3 axes, got factor=\(2, 2\)"),
        ({"order": 6}, "order from 0 to 5, got 6"),
        ({"chunks": (4, 4)}, r"needs 3 chunk edges .* chunks=\(4, 4\)"),
        ({"chunks": (4, 4, 4), "shards": (6, 8, 8)}, r"multiples of them, .* shards=\(6, 8, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(VolumeError, match=message):
        upsample(data.ArrayVolume(drawn((8, 8, 8))), tmp_path / "v.zarr", **options)
    assert not os.listdir(tmp_path)


def test_what_exists_is_kept(tmp_path):
    (tmp_path / "v.zarr").mkdir()
    with pytest.raises(VolumeError, match=r"v.zarr exists; upsample does not overwrite"):
        upsample(data.ArrayVolume(drawn((8, 8, 8))), tmp_path / "v.zarr")


def test_a_bar_of_shards_is_shown_on_request(tmp_path, capsys):
    volume = data.ArrayVolume(drawn((8, 8, 8)))
    upsample(volume, tmp_path / "a.zarr", chunks=(8, 8, 8), shards=(8, 8, 8), progress=True)
    assert "8/8" in capsys.readouterr().err
    upsample(volume, tmp_path / "b.zarr")
    assert capsys.readouterr() == ("", "")
