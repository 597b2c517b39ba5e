"""Generated cohorts, small, made once a session and shared by the tests."""

import functools
import tempfile
from pathlib import Path

from cpic.cohorts import synthetic


@functools.cache
def folder():
    return Path(tempfile.mkdtemp(prefix="cpic-train-tests-"))


@functools.cache
def brats():
    """Fourteen patients with four contrasts, of whom thirteen can be used."""
    synthetic.make_brats_like(folder() / "brats", n_patients=14, shape=(24, 24, 24), seed=1)
    return folder() / "brats"


@functools.cache
def osic():
    """Nine patients, of whom one cannot be decoded."""
    synthetic.make_osic_like(folder() / "osic", n_patients=9, shape=(8, 24, 24), seed=1)
    return folder() / "osic"


TINY = {
    "brats": {
        "batch_size": 4, "rank": 3, "ndims": 2, "resolution": (16, 16, 16), "num_epochs": 1,
        "folds": 3, "only_fold": 0,
    },
    "osic": {
        "batch_size": 12, "rank": 3, "ndims": 2, "resolution": (8, 16, 16), "num_epochs": 1,
        "folds": 3, "only_fold": 1,
    },
}  # fmt: skip


def options(task, results, *, dense=False):
    """Of a run that takes seconds."""
    found = {"root": brats() if task == "brats" else osic(), "cache": folder() / "cache"}
    found.update(TINY[task], results_folder=results)
    if dense:
        del found["ndims"]
    return found
