"""Rows of the data: up-sampling by cubic splines, beside SciPy's, which holds all of it.

`error` is the largest difference from SciPy's result, divided by its largest value. Shard by shard
the result is also compressed and written, which the peer does not do.
"""

import ctypes
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from cpic import data
from cpic.data.resample import resample, upsample
from tests.bench.harness import ROOT, Case
from tests.bench.timing import processor_clock


def mapped(side: int) -> np.memmap:
    """Smooth noise in single precision, in a file made once."""
    path = ROOT / "_build" / f"bench-smooth-{side}.npy"
    if not path.exists():
        from scipy.ndimage import gaussian_filter

        noise = np.random.default_rng(0).standard_normal((side,) * 3, np.float32)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, gaussian_filter(noise, 1.0))
        part.replace(path)
    return np.load(path, mmap_mode="r")


def zoom(values: np.ndarray) -> np.ndarray:
    """Twice the voxels along each axis."""
    import scipy.ndimage

    return scipy.ndimage.zoom(values, 2, order=3, mode="nearest")


@cache
def wanted(side: int) -> np.ndarray:
    return zoom(mapped(side))


def figures(seconds: float, found: Callable[[], np.ndarray], side: int, check: bool) -> dict:
    if not check:
        # Hand freed memory back: a second run on what the first one got would look free.
        ctypes.CDLL(None).malloc_trim(0)
        return {"seconds": seconds}
    error = np.abs(found() - wanted(side)).max() / np.abs(wanted(side)).max()
    return {"seconds": seconds, "error": float(error)}


def by_shards(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """From a mapped file into a store."""
    volume = data.ArrayVolume(mapped(side))
    folder = tempfile.mkdtemp(dir=ROOT / "_build")
    try:
        clock = processor_clock()
        path = upsample(volume, Path(folder) / "large.zarr")
        seconds = clock()
        return figures(seconds, lambda: data.ZarrVolume(path).read().numpy(), side, check)
    finally:
        shutil.rmtree(folder)


def at_once(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """All of it in memory."""
    values = mapped(side)
    clock = processor_clock()
    found = resample(np.asarray(values), (2 * side,) * 3)
    return figures(clock(), lambda: found, side, check)


def by_scipy(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    values = mapped(side)
    clock = processor_clock()
    zoom(values)
    return {"seconds": clock()}


def data_cases(side: int = 128) -> dict[str, Case]:
    """Every case by its name."""
    title = f"up-sampling {side}^3 to {2 * side}^3"
    peers = {"scipy": partial(by_scipy, side)}
    cases = [
        Case(
            name=f"{title}, {name}",
            ours=partial(run, side),
            peers=peers,
            goals={"error": 1e-4, **goals},
        )
        for name, run, goals in (
            ("in memory", at_once, {"seconds": 1.0}),
            ("shard by shard into a store", by_shards, {"seconds": 2.0, "MB": 140}),
        )
    ]
    return {case.name: case for case in cases}
