"""Preparing a cohort: on several processes, with a worker killed, stopped and gone on with."""

import errno
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import _engine
import prepare
import pytest
import torch
from filelock import FileLock

from cpic import data
from cpic._errors import CacheError, CohortError
from cpic.data.resample import resample

from . import jobs
from .conftest import SCRIPTS

SHAPE = (16, 20, 24)


def stores(cache):
    """Content of all stores: two runs that agree on it agree on everything."""
    files = sorted(p for p in cache.rglob("*") if p.is_file() and ".zarr" in str(p))
    return {str(p.relative_to(cache)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def alone(brats_made, tmp_path_factory):
    """The stores that one process makes."""
    cache = tmp_path_factory.mktemp("alone")
    assert prepare.main(str(brats_made), str(cache), shape=SHAPE, upsample=2, workers=0) == 0
    return cache


@pytest.mark.slow
def test_two_processes_make_what_one_makes(brats_made, alone, tmp_path, capsys):
    report = tmp_path / "report.json"
    code = prepare.main(
        str(brats_made), str(tmp_path / "c"), shape=SHAPE, upsample=2, workers=2, json=str(report)
    )
    assert code == 0
    assert stores(tmp_path / "c") == stores(alone)
    written = json.loads(report.read_text())
    assert len(written["done"]) == 5
    assert not written["failed"]
    assert list(written["left_out"]) == ["BraTS20_Training_002"]
    for entry in written["done"].values():
        assert entry["bytes"] > 0
        assert data.open_volume(entry["store"]).shape == (32, 64, 64)
    assert "brats2020: 5 patients in" in capsys.readouterr().out


def test_what_is_odd_about_a_scan_is_said_and_reported(osic_made, tmp_path, capsys):
    report = tmp_path / "report.json"
    for _ in range(2):
        code = prepare.main(str(osic_made), str(tmp_path / "c"), workers=0, json=str(report))
        assert code == 1  # of the fourth, which cannot be decoded
        ((name, notes),) = json.loads(report.read_text())["notes"].items()
        assert name.startswith("ID00002")
        assert notes == ["8 of 8 files have no ImagePositionPatient"]
        assert f"(note) {name}: {notes[0]}" in capsys.readouterr().out


def test_up_sampled_stores_are_splines_of_the_others(alone):
    small, large = (
        sorted((alone / name).glob("*.zarr")) for name in ("brats2020", "brats2020-x2-order3")
    )
    assert [p.name for p in small] == [p.name for p in large]
    values = data.open_volume(small[0]).read()
    expected = resample(values, tuple(2 * n for n in values.shape))
    difference = (data.open_volume(large[0]).read() - expected).abs().max()
    assert difference < 1e-4 * values.abs().max()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(brats_made, alone, tmp_path, monkeypatch):
    """The worker of the third patient is killed in the middle of its work, once."""
    whole = _engine.Engine.map

    def killing(self, job, patients, **options):
        victim = sorted(patients)[2]
        work = {
            name: (job.func, str(tmp_path), name == victim, *rest)
            for name, rest in patients.items()
        }
        return whole(self, functools.partial(jobs.killed_once, **job.keywords), work, **options)

    monkeypatch.setattr(_engine.Engine, "map", killing)
    code = prepare.main(str(brats_made), str(tmp_path / "c"), shape=SHAPE, workers=2)
    assert code == 0
    assert (tmp_path / "died").exists()
    made = stores(tmp_path / "c")
    assert made == {name: digest for name, digest in stores(alone).items() if "-x2" not in name}
    assert not list((tmp_path / "c" / "brats2020").glob(".*"))


@pytest.mark.slow
def test_stopped_by_ctrl_c_and_gone_on_with(brats_made, alone, tmp_path):
    """All processes of the group get the signal, as from a terminal."""
    cache = tmp_path / "c"
    last = sorted(alone.glob("brats2020/*.zarr"))[-1]
    (cache / ".locks").mkdir(parents=True)
    command = [sys.executable, str(SCRIPTS / "prepare.py"), str(brats_made), str(cache)]
    command += ["--shape", str(list(SHAPE)), "--upsample", "2", "--workers", "1"]
    # The last patient waits for its lock, so that the run cannot be over before the signal.
    with FileLock(cache / ".locks" / f"{last.stem}.lock"):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not list(cache.glob("brats2020/*.zarr")) and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Finished work is kept; the same command continues." in errors
    assert "Traceback" not in errors
    before = stores(cache)
    assert before.items() <= stores(alone).items()
    assert len(before) < len(stores(alone))
    assert prepare.main(str(brats_made), str(cache), shape=SHAPE, upsample=2, workers=0) == 0
    assert stores(cache) == stores(alone)


def test_what_is_there_is_not_made_again(brats_made, alone, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in alone.rglob("*") if p.is_file()}
    assert prepare.main(str(brats_made), str(alone), shape=SHAPE, upsample=2, workers=0) == 0
    kept = {p: p.stat().st_mtime_ns for p in before}
    assert {p for p in before if before[p] != kept[p] and ".zarr" in str(p)} == set()


def test_failures_are_named_and_the_rest_is_made(brats, tmp_path, capsys):
    tree = brats / "MICCAI_BraTS2020_TrainingData"
    broken = tree / "BraTS20_Training_003" / "BraTS20_Training_003_t1.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    report = tmp_path / "r.json"
    assert prepare.main(str(brats), str(tmp_path / "c"), workers=0, json=str(report)) == 1
    said = capsys.readouterr().out
    assert "4 patients in" in said
    assert "1 failed\npatient" in said
    written = json.loads(report.read_text())
    assert list(written["failed"]) == ["BraTS20_Training_003"]
    assert "truncated" in written["failed"]["BraTS20_Training_003"]
    assert len(list((tmp_path / "c" / "brats2020").iterdir())) == 4


def test_contrasts_and_options_reach_the_conversion(brats_made, tmp_path):
    prepare.main(
        str(brats_made), str(tmp_path / "c"), contrasts=("t1", "seg"), shape=(20, 20, 20),
        intensity="minmax", pad=False, chunks=(8, 8, 8), workers=0,
    )  # fmt: skip
    store = next((tmp_path / "c" / "brats2020").glob("*.zarr"))
    volume = data.open_volume(store, channels=2)
    assert (volume.shape, volume.chunks) == ((20, 20, 20), (8, 8, 8))
    scan, labels = volume.read().unbind(-1)
    assert (scan.min(), scan.max()) == (0, 1)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 4}


def test_osic(osic_made, tmp_path, capsys):
    assert prepare.main(str(osic_made), str(tmp_path / "c"), shape=(8, 16, 16), workers=0) == 1
    said = capsys.readouterr().out
    assert "osic: 3 patients in" in said
    assert "no decoder of that is installed" in said
    store = next((tmp_path / "c" / "osic").glob("*.zarr"))
    assert torch.isfinite(data.open_volume(store).read()).all()


def test_a_disk_that_is_full_ends_the_up_sampling(brats_made, tmp_path, monkeypatch):
    """What was converted and up-sampled before stays, and the next run goes on."""
    whole, cache = prepare.upsample, tmp_path / "c"

    def full(volume, path, **options):
        if "_004-" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(volume, path, **options)

    monkeypatch.setattr(prepare, "upsample", full)
    with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\): free"):
        prepare.main(str(brats_made), str(cache), shape=(8, 8, 8), upsample=2, workers=0)
    monkeypatch.undo()
    done = {p: p.stat().st_mtime_ns for p in cache.rglob("zarr.json")}
    assert 5 < len(done) < 10
    assert prepare.main(str(brats_made), str(cache), shape=(8, 8, 8), upsample=2, workers=0) == 0
    assert {p: p.stat().st_mtime_ns for p in done} == done
    assert len(list(cache.rglob("zarr.json"))) == 10


def test_a_cache_that_cannot_be_used_ends_all(brats, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot be written"):
        prepare.main(str(brats), str(tmp_path / "file" / "c"), workers=0)
    with pytest.raises(CacheError, match="is inside the data folder"):
        prepare.main(str(brats), str(brats / "c"), workers=0)
    with pytest.raises(CohortError, match=r"holds neither survival_info\.csv nor train\.csv"):
        prepare.main(str(tmp_path), str(tmp_path / "c"), workers=0)
