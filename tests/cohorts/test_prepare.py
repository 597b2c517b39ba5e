"""One-time conversion: values, names, resuming, two processes at once, disks that fail."""

import errno
import functools
import os
import re
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import pytest
import scipy.ndimage
import torch

from cpic._errors import CacheError, CohortError, VolumeError
from cpic.cohorts import (
    Conversion,
    Converted,
    cache_key,
    prepare,
    prepare_patient,
    read_brats,
)
from tests.cohorts.test_brats import ROWS, SHAPE, digest, make_tree, name, scan

ALL = ("t1", "flair", "t1ce", "t2")


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "data", ROWS)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def overwrite(tree, k, values, contrast="t1"):
    path = tree / name(k) / f"{name(k)}_{contrast}.nii"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def stores(cache):
    """All that a conversion may leave in a cache for its readers."""
    return sorted(p.name for p in cache.glob("brats2020/*"))


def left_over(cache):
    return [p for p in cache.rglob("*") if p.name.endswith(".part")]


def converted(tree, cache, k=1, **options):
    prepared = prepare(read_brats(tree), cache=cache, **options)
    return prepared.volume(name(k)).read().numpy()


def test_without_resampling_or_padding_values_are_those_of_the_files(tree, cache):
    prepared = prepare(read_brats(tree, contrasts=ALL), cache=cache, order=None, pad=False)
    assert prepared.patients == [name(k) for k in (3, 1, 2, 4)]
    for k in (1, 2, 3, 4):
        volume = prepared.volume(name(k))
        assert (volume.shape, volume.channels, volume.dtype) == (SHAPE, 4, torch.float32)
        dense = np.stack([scan(k, contrast) for contrast in ALL], -1)
        np.testing.assert_array_equal(volume.read().numpy(), dense)


def test_packed_files_give_the_same_and_their_unpacked_copies_are_removed(tree, tmp_path):
    packed = make_tree(tmp_path / "packed", ROWS, ending=".nii.gz")
    before = digest(packed)
    values = converted(packed, tmp_path / "cache", shape=(8, 8, 8))
    np.testing.assert_array_equal(values, converted(tree, tmp_path / "other", shape=(8, 8, 8)))
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.name.endswith((".nii", ".part"))]
    assert digest(packed) == before


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(8, 8, 8), (5, 6, 14), (3, 12, 7), SHAPE])
def test_resampling_is_that_of_zoom_with_nearest_edges(tree, cache, order, shape):
    factors = np.array(shape) / SHAPE
    twin = scipy.ndimage.zoom(scan(1, "t1").astype(float), factors, order=order, mode="nearest")
    values = converted(tree, cache, shape=shape, order=order, pad=False)
    assert values.shape == shape
    np.testing.assert_allclose(values, twin, atol=1e-4 * np.abs(twin).max())


def test_padding_is_at_the_end_of_each_axis(tree, cache):
    own = converted(tree, cache, order=None)
    assert own.shape == (8, 8, 8)
    grid = converted(tree, cache, order=None, shape=(6, 9, 7), pad=False)
    assert grid.shape == (6, 9, 7)
    both = converted(tree, cache, order=None, shape=(6, 9, 7))
    assert both.shape == (8, 16, 8)
    for values in (own, grid, both):
        np.testing.assert_array_equal(values[:5, :6, :7], scan(1, "t1"))
        assert values.sum() == scan(1, "t1").sum()


def test_minmax_is_taken_after_resampling_and_before_padding(tree, cache):
    twin = scipy.ndimage.zoom(
        scan(1, "t1").astype(float), np.array([6, 6, 6]) / SHAPE, order=3, mode="nearest"
    )
    values = converted(tree, cache, shape=(6, 6, 6), intensity="minmax")
    twin = (twin - twin.min()) / (twin.max() - twin.min())
    assert values.shape == (8, 8, 8)
    np.testing.assert_allclose(values[:6, :6, :6], twin, atol=1e-4)
    assert not values[6:].any()


def test_zscore_looks_at_the_brain_only(tree, cache):
    brain = scan(1, "t1").astype(np.float32) + 100
    brain[:2] = 0
    overwrite(tree, 1, brain)
    values = converted(tree, cache, order=None, intensity="zscore")
    inside = values[2:5, :6, :7]
    assert abs(inside.mean()) < 1e-5
    assert abs(inside.std() - 1) < 1e-5
    np.testing.assert_allclose(
        inside * brain[2:].std() + brain[2:].mean(), brain[2:], rtol=1e-4, atol=1e-3
    )
    assert not values[:2].any()


@pytest.mark.parametrize("intensity", ["minmax", "zscore"])
@pytest.mark.parametrize("constant", [0, 7])
def test_a_constant_scan_has_no_scale_and_becomes_zero(tree, cache, intensity, constant):
    overwrite(tree, 1, np.full(SHAPE, constant, np.int16))
    assert not converted(tree, cache, intensity=intensity).any()


def test_labels_stay_labels(tmp_path, cache):
    tree = make_tree(tmp_path / "data", ROWS, contrasts=("t1", "seg"))
    labels = np.random.default_rng(0).choice([0, 1, 2, 4], SHAPE).astype(np.uint8)
    overwrite(tree, 1, labels, "seg")
    cohort = read_brats(tree, contrasts=("t1", "seg"))
    prepared = prepare(cohort, cache=cache, shape=(9, 9, 9), intensity="zscore")
    assert set(np.unique(prepared.volume(name(1)).read()[..., 1])) == {0, 1, 2, 4}


def test_stores_are_sharded_and_a_cube_reads_one_chunk(tree, cache):
    import zarr

    overwrite(tree, 1, np.ones((40, 70, 33), np.int16))
    prepared = prepare(read_brats(tree), cache=cache, order=None, pad=False, chunks=(8, 8, 8))
    array = zarr.open_array(prepared.stores[name(1)], mode="r")
    assert array.metadata.zarr_format == 3
    assert (array.chunks, array.shards) == ((8, 8, 8), (32, 32, 32))
    volume = prepared.volume(name(1))
    volume.cubes(torch.tensor([[12, 12, 12]]), size=7)
    assert volume.ledger.chunks == 1
    # A shard no larger than the volume needs.
    assert zarr.open_array(prepared.stores[name(2)], mode="r").shards == SHAPE


BAD = {
    "truncated": ("is truncated", lambda p: p.write_bytes(p.read_bytes()[:-50])),
    "empty": ("cannot be read as NIfTI", lambda p: p.write_bytes(b"")),
    "gone": ("No such file", lambda p: p.unlink()),
    "nan": ("has 1 NaN voxels", lambda p: _save(p, np.nan)),
    "infinite": ("has 1 infinite voxels", lambda p: _save(p, np.inf)),
    "huge": ("beyond the range of float32", lambda p: _save(p, 1e300)),
    "flat": ("two or three axes", lambda p: _save(p, 1, (4,))),
    "plane": ("needs three axes", lambda p: _save(p, 1, (4, 4))),
    "frames": ("more than three axes", lambda p: _save(p, 1, (4, 4, 4, 3))),
}


def _save(path, value, shape=SHAPE):
    values = np.ones(shape)
    values.flat[0] = value
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_scan_leaves_one_patient_out_and_says_why(tree, cache, fault):
    reason, damage = BAD[fault]
    cohort = read_brats(tree)
    damage(tree / name(1) / f"{name(1)}_t1.nii")
    before = digest(tree)
    prepared = prepare(cohort, cache=cache)
    assert list(prepared.skipped) == [name(1)]
    assert re.search(reason, prepared.skipped[name(1)])
    assert prepared.patients == list(prepared.samples["patient"]) == [name(k) for k in (3, 2, 4)]
    assert left_over(cache) == []
    assert len(stores(cache)) == 3
    assert digest(tree) == before
    with pytest.raises(CohortError, match=f"no patient {name(1)} "):
        prepared.volume(name(1))


def test_nan_voxels_may_be_replaced(tree, cache):
    _save(tree / name(1) / f"{name(1)}_t1.nii", np.nan)
    values = converted(tree, cache, order=None, pad=False, nan=3.0)
    assert values.flat[0] == 3
    assert values.sum() == values.size + 2


def test_contrasts_of_different_shapes_and_scans_too_large_are_left_out(tree, cache):
    overwrite(tree, 1, np.ones((5, 6, 9), np.int16))
    reason = prepare(read_brats(tree, contrasts=("t1", "t2")), cache=cache).skipped[name(1)]
    assert reason == "t2: shapes differ, [(5, 6, 7), (5, 6, 9)]; one is needed."
    prepared = prepare(read_brats(tree), cache=cache, shape=(8, 8, 8), order=None)
    assert "does not fit into (8, 8, 8)" in prepared.skipped[name(1)]
    assert prepared.patients == [name(k) for k in (3, 2, 4)]


def test_faults_of_table_and_scan_are_reported_together(tmp_path, cache):
    tree = make_tree(tmp_path / "data", [*ROWS[:3], f"{name(4)},50,ALIVE (361 days later),GTR"])
    (tree / name(2) / f"{name(2)}_t1.nii").write_bytes(b"x")
    assert set(prepare(read_brats(tree), cache=cache).skipped) == {name(2), name(4)}


def test_if_nobody_can_be_converted_that_is_an_error(tree, cache):
    for k in range(1, 5):
        (tree / name(k) / f"{name(k)}_t1.nii").write_bytes(b"x")
    with pytest.raises(CohortError, match=f"none of the 4 patients .* {name(3)}: .*NIfTI"):
        prepare(read_brats(tree), cache=cache)


class Counting:
    """Counts the scans that are opened."""

    def __init__(self, monkeypatch):
        from cpic.cohorts import _prepare

        self.n, self.open = 0, _prepare.open_scan
        monkeypatch.setattr(_prepare, "open_scan", self)

    def __call__(self, path, **options):
        self.n += 1
        return self.open(path, **options)


def test_what_is_there_is_not_made_again(tree, cache, monkeypatch):
    opened = Counting(monkeypatch)
    first = prepare(read_brats(tree), cache=cache)
    assert opened.n == 4
    again = prepare(read_brats(tree), cache=cache)
    assert opened.n == 4
    assert again.stores == first.stores


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (8, 8, 9)},
        {"order": 1},
        {"intensity": "minmax"},
        {"pad": False},
        {"chunks": (4, 4, 4)},
        {"nan": 0.0},
    ],
    ids=str,
)
def test_another_option_is_another_store(tree, cache, change):
    cohort = read_brats(tree)
    options = {"shape": (8, 8, 8)}
    first = prepare(cohort, cache=cache, **options)
    other = prepare(cohort, cache=cache, **{**options, **change})
    assert not set(first.stores.values()) & set(other.stores.values())
    assert first.volume(name(1)).read().shape == (8, 8, 8)


def test_other_content_is_another_store_and_another_place_is_not(tree, tmp_path, cache):
    import shutil

    first = converted(tree, cache, order=None, pad=False)
    shutil.copytree(tree, tmp_path / "copy")
    prepare(read_brats(tmp_path / "copy"), cache=cache, order=None, pad=False)
    assert len(list((cache / "brats2020").iterdir())) == 4
    path = overwrite(tree, 1, scan(1, "t1") + 1)
    np.testing.assert_array_equal(converted(tree, cache, order=None, pad=False), first + 1)
    # The same size and time, other content: only the hash tells.
    found = path.stat()
    path.write_bytes(path.read_bytes()[:-2] + b"\1\2")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert converted(tree, cache, order=None, pad=False).flat[-1] == 0x201


def test_the_key_depends_on_names_and_order_of_files(tmp_path):
    for letter in "ab":
        (tmp_path / letter).write_text(letter)
    a, b = tmp_path / "a", tmp_path / "b"
    keys = [
        cache_key(files, options)
        for files, options in [
            ({"t1": a, "t2": b}, {}),
            ({"t2": b, "t1": a}, {}),
            ({"t1": b, "t2": a}, {}),
            ({"t1": a}, {}),
            ({"t1": a, "t2": b}, {"order": 3}),
        ]
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)


def test_another_version_of_the_conversion_has_other_keys(monkeypatch):
    before = cache_key({}, {})
    monkeypatch.setattr("cpic.cohorts._cache.VERSION", 0)
    assert cache_key({}, {}) != before


def test_a_folder_has_a_key_of_all_its_files(tmp_path):
    folder = tmp_path / "series"
    (folder / "deep").mkdir(parents=True)
    (folder / "1.dcm").write_text("1")
    seen = {cache_key({"ct": folder}, {})}
    (folder / "deep" / "2.dcm").write_text("2")
    seen.add(cache_key({"ct": folder}, {}))
    (folder / "1.dcm").rename(folder / "3.dcm")
    seen.add(cache_key({"ct": folder}, {}))
    (folder / "3.dcm").write_text("4")
    seen.add(cache_key({"ct": folder}, {}))
    assert len(seen) == 4


def test_old_files_are_hashed_once_and_new_ones_always(tmp_path, monkeypatch):
    import hashlib

    reads = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, kind: reads.append(f) or real(f, kind))
    path, memo = tmp_path / "a", tmp_path / "memo"
    path.write_text("a")
    # Whatever clock this machine has, and however long the next lines take it.
    monkeypatch.setattr("cpic.cohorts._cache._SETTLED_SECONDS", 10**12)
    keys = [cache_key({"t1": path}, {}, memo=memo) for _ in range(2)]
    assert len(reads) == 2  # just written: a later change might not show in its times
    monkeypatch.setattr("cpic.cohorts._cache._SETTLED_SECONDS", -1)
    keys += [cache_key({"t1": path}, {}, memo=memo) for _ in range(3)]
    assert len(reads) == 3
    note = next(memo.iterdir())
    for damage in (b"", b"[]", b"{}", note.read_bytes()[:-9], b"\xff\xfe"):
        note.write_bytes(damage)
        keys.append(cache_key({"t1": path}, {}, memo=memo))
    assert len(set(keys)) == 1
    path.write_text("b")
    assert cache_key({"t1": path}, {}, memo=memo) != keys[0]
    assert [p.suffix for p in memo.iterdir()] == [".json"]


@pytest.mark.parametrize("inside", [".", "cache", "deep/er", f"{name(1)}/cache", "x/../y"])
def test_a_cache_in_the_data_folder_is_refused(tree, inside, tmp_path):
    before = digest(tmp_path)
    for cohort, folder in ((read_brats(tree), tree), (read_brats(tree.parent), tree.parent)):
        with pytest.raises(CacheError, match=r"is inside the data folder .* choose a folder else"):
            prepare(cohort, cache=folder / inside)
    (tmp_path / "link").symlink_to(tree)
    with pytest.raises(CacheError, match="is inside the data folder"):
        prepare(read_brats(tree), cache=tmp_path / "link" / "cache")
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, r"shape needs three sizes of at least 1, got \(8, 8\)"),
        ({"shape": (8, 8, 0)}, "shape needs three sizes"),
        ({"shape": (8, 8, 8.5)}, "shape needs three sizes"),
        ({"chunks": (8,)}, "chunks needs three sizes"),
        ({"order": 6}, "order needs to be that of a spline, 0 to 5, or None to pad, got 6"),
        ({"nan": np.inf}, "nan needs to be a finite number, or None, got inf"),
        ({"intensity": "max"}, "intensity needs to be 'none', 'minmax' or 'zscore', got 'max'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tree, cache, options, message):
    with pytest.raises(CohortError, match=message):
        prepare(read_brats(tree), cache=cache, **options)
    assert not cache.exists()


def test_a_bar_may_be_given_and_runs_over_all_patients(tree, cache):
    seen = []

    def bar(items, *, total, desc):
        seen.append((total, desc))
        for item in items:
            seen.append(item.patient)
            yield item

    prepare(read_brats(tree), cache=cache, progress=bar)
    assert seen == [(4, "brats2020"), *(name(k) for k in (3, 1, 2, 4))]


def test_a_bar_is_shown_only_if_asked_for(tree, cache, capsys):
    prepare(read_brats(tree), cache=cache)
    assert capsys.readouterr() == ("", "")
    prepare(read_brats(tree), cache=cache, progress=True)
    assert "4/4" in capsys.readouterr().err


def test_threads_may_share_the_work(tree, cache):
    with ThreadPoolExecutor(4) as pool:
        prepared = prepare(read_brats(tree), cache=cache, order=None, pad=False, run=pool.map)
    for k in (1, 2, 3, 4):
        np.testing.assert_array_equal(prepared.volume(name(k)).read().numpy(), scan(k, "t1"))


def test_one_patient_is_a_function_that_pickles(tree, cache):
    import pickle

    cohort = read_brats(tree)
    job = functools.partial(
        prepare_patient, conversion=Conversion(order=None), cache=cache, name=cohort.name
    )
    job = pickle.loads(pickle.dumps(job))
    done = job(name(1), cohort.files(name(1)))
    assert pickle.loads(pickle.dumps(done)) == done
    assert done == Converted(name(1), next((cache / "brats2020").iterdir()))
    assert prepare(cohort, cache=cache, order=None).stores[name(1)] == done.store


# What can go wrong with a disk.


def fail(code):
    def raises(*_, **__):
        raise OSError(code, os.strerror(code))

    return raises


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("where", ["zarr.create_array", "os.replace", "tempfile.mkdtemp"])
def test_a_cache_that_cannot_be_written_is_one_error_and_nothing_half(
    tree, cache, monkeypatch, code, where
):
    cohort = read_brats(tree)
    prepare(cohort.subset([name(3)]), cache=cache)
    before = digest(tree), stores(cache)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail(code))
        message = f"cache {cache} cannot be written .{os.strerror(code)}"
        with pytest.raises(CacheError, match=message):
            prepare(cohort, cache=cache)
    assert (digest(tree), stores(cache)) == before
    assert left_over(cache) == []
    assert prepare(cohort, cache=cache).skipped == {}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_disk_that_fills_while_writing(tmp_path, cache, ending):
    """A limit on the size of files stops the system in the middle of one."""
    tree = make_tree(tmp_path / "data", ROWS, ending=ending)
    rng = np.random.default_rng(0)
    for k in (1, 2, 3, 4):
        path = tree / name(k) / f"{name(k)}_t1{ending}"
        values = rng.integers(-9999, 9999, (40, 40, 40)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(CacheError, match=r"cannot be written .File too large"):
            prepare(read_brats(tree), cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (stores(cache), left_over(cache)) == ([], [])
    assert len(prepare(read_brats(tree), cache=cache).patients) == 4


def test_a_cache_that_is_a_file_or_lies_in_none_is_refused(tree, tmp_path):
    (tmp_path / "file").write_text("x")
    for cache in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(CacheError, match="cannot be written"):
            prepare(read_brats(tree), cache=cache)


def test_a_filled_cache_needs_no_permission_to_write(tree, cache, monkeypatch):
    first = prepare(read_brats(tree), cache=cache)
    for function in ("os.replace", "os.mkdir", "tempfile.mkdtemp", "tempfile.mkstemp"):
        monkeypatch.setattr(function, fail(errno.EROFS))
    monkeypatch.setattr("filelock.FileLock.acquire", fail(errno.EROFS))
    again = prepare(read_brats(tree), cache=cache)
    assert torch.equal(again.volume(name(1)).read(), first.volume(name(1)).read())


FILL = """
import sys
from cpic.cohorts import prepare, read_brats
prepared = prepare(read_brats(sys.argv[1]), cache=sys.argv[2], shape=(24, 24, 24))
assert not prepared.skipped, prepared.skipped
"""
KILLED = """
import os, signal, sys
import zarr
from cpic.cohorts import prepare, read_brats
made = []
class Killing:
    def __init__(self, array): self.array = array
    def __setitem__(self, box, values):
        self.array[box] = values
        if len(made) == 2: os.kill(os.getpid(), signal.SIGKILL)
create = zarr.create_array
def killing(*args, **options):
    made.append(1)
    return Killing(create(*args, **options))
zarr.create_array = killing
prepare(read_brats(sys.argv[1]), cache=sys.argv[2], shape=(24, 24, 24))
"""


def start(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_store_and_the_next_goes_on(tree, cache, monkeypatch):
    killed = start(KILLED, tree, cache)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert [p[:20] for p in stores(cache) if p not in {left.name for left in left_over(cache)}] == [
        name(3)
    ]
    assert left_over(cache)
    opened = Counting(monkeypatch)
    prepared = prepare(read_brats(tree), cache=cache, shape=(24, 24, 24))
    assert opened.n == 3
    assert left_over(cache) == []
    factors = np.array([24, 24, 24]) / SHAPE
    for k in (1, 2, 3, 4):
        twin = scipy.ndimage.zoom(scan(k, "t1").astype(float), factors, mode="nearest")
        values = prepared.volume(name(k)).read().numpy()
        np.testing.assert_allclose(values[:24, :24, :24], twin, atol=0.1)


@pytest.mark.slow
def test_two_processes_fill_one_cache_at_once(tree, cache):
    both = [start(FILL, tree, cache) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=300)[1] == b""
        assert process.returncode == 0
    assert left_over(cache) == []
    assert len(list((cache / "brats2020").iterdir())) == 4
    prepared = prepare(read_brats(tree), cache=cache, shape=(24, 24, 24))
    assert all(prepared.volume(p).read().shape == (32, 32, 32) for p in prepared.patients)


def test_a_store_is_made_by_one_process_while_others_wait(tree, cache, monkeypatch):
    from cpic.cohorts import _prepare

    at_once, most, real = [], [], _prepare.save_zarr

    def slow(volume, path, **options):
        import time

        at_once.append(path)
        most.append(len(at_once))
        time.sleep(0.05)
        real(volume, path, **options)
        at_once.remove(path)

    monkeypatch.setattr(_prepare, "save_zarr", slow)
    cohort = read_brats(tree)
    job = functools.partial(prepare_patient, conversion=Conversion(), cache=cache)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(job, [name(1)] * 4, [cohort.files(name(1))] * 4))
    assert len(set(done)) == 1
    assert most == [1]


def test_a_store_that_lost_a_file_is_refused_when_read(tree, cache):
    prepared = prepare(read_brats(tree), cache=cache)
    next(p for p in prepared.stores[name(1)].rglob("*") if p.name == "0" and p.is_file()).unlink()
    with pytest.raises(VolumeError, match="lacks 1 of the chunks"):
        prepared.volume(name(1)).read()
