"""Measure what a GPU makes of it, and write `gpu.json` beside this file.

    python book/results/make_gpu.py                # on a lent card: at most 8 minutes
    python book/results/make_gpu.py --device cpu --quick --out X.json  # tiny, to try the script

Every row is written as soon as it is measured, in place of an older one of its name, with its date,
machine and commit; a row that fails says why, and the others go on. Steps come first, then BraTS-
like cohorts are made on all cores and trained on, fold by fold, for as long as there is time.
"""

import argparse
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402
from make_resolution import OPTIONS, Scans, train_fold  # noqa: E402

from cpic import cohorts  # noqa: E402
from cpic.cohorts import synthetic  # noqa: E402
from cpic.cohorts._cache import write_json  # noqa: E402
from cpic.train.results._results import provenance  # noqa: E402
from tests.bench.cases_gpu import Steps, dense, step  # noqa: E402
from tests.bench.training import store_all  # noqa: E402

log = logging.getLogger(__name__)
WHAT = (
    "Steps of training on one GPU: forward, backward and update of a batch, warm, 32 bits with "
    "products in TF32. seconds: of the clock, a sample and step, the median of five; MB: the most "
    "that tensors held on the device; idle: share of a step in which the device neither computes "
    "nor copies; kernels: how often it is told to. C-PIC: rank 10, batch 20, 16 channels, 8 for "
    "formulas; heads are those of the bench, in memory or in stores whose decoded chunks are held. "
    "training: semi-synthetic BraTS-like cohort at 128^3, folds of five; curve: error of the "
    "held-out patients after each epoch, relative to predicting the mean."
)
_SEED, _FOLDS = 42, 5
_RESERVE = 30.0  # seconds, for the last validation of a training that runs out of time


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    steps: Steps
    patients: int
    shape: tuple[int, int, int]
    model: dict[str, Any]
    epochs: int
    folds: int = _FOLDS

    @classmethod
    def full(cls, device: str) -> "Size":
        """What is recorded."""
        return cls(Steps(device), 236, (128,) * 3, OPTIONS, 40)

    @classmethod
    def quick(cls, device: str) -> "Size":
        """What takes seconds."""
        small = {"rank": 3, "batch_size": 4}
        steps = Steps(device, 32, (64,), {"batch": 4, "rank": 3, "n_dims": 4})
        return cls(steps, 14, (32,) * 3, {**OPTIONS, **small}, 2, folds=1)


@dataclass(frozen=True, eq=False)
class Training:
    """A cohort that is made when it is first asked for."""

    size: Size
    work: Path

    @cached_property
    def scans(self) -> Scans:
        """The cohort, made and converted by a process a core."""
        workers = min(os.cpu_count() or 1, self.size.patients)
        # A process with a GPU cannot be forked.
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            options = {"shape": self.size.shape, "seed": _SEED, "run": pool.map}
            root = synthetic.make_brats_like(
                self.work / "cohort", n_patients=self.size.patients, **options
            )
            prepared = cohorts.prepare(
                cohorts.read_brats(root, contrasts=("t1ce",)),
                cache=self.work / "prepared",
                shape=self.size.shape,
                intensity="zscore",
                run=pool.map,
            )
        return Scans(prepared, self.size.shape[0], made=self.size.shape[0])

    def fold(self, fold: int, *, until: float) -> dict[str, Any]:
        """Errors of a fold that is trained until some time at most."""
        scans, ngpus = self.scans, int(torch.device(self.size.steps.device).type == "cuda")
        if ngpus:
            torch.cuda.reset_peak_memory_stats()
        return {
            "patients": len(scans.prepared.patients),
            "size": scans.size,
            "epochs_planned": self.size.epochs,
            **train_fold(
                scans,
                self.size.model,
                self.work / f"fold_{fold}",
                fold=fold,
                num_epochs=self.size.epochs,
                max_minutes=max(0.01, (until - time.monotonic()) / 60),
                ngpus=ngpus,
            ),
        }


def rows(size: Size, training: Training, until: float) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Names, most wanted first, and what measures them."""
    for name, setting in size.steps.networks.items():
        yield name, partial(dense, setting)
    for name, (setting, _) in size.steps.ours.items():
        yield name, partial(step, setting)
    for fold in range(size.folds):
        yield f"training, fold {fold}", partial(training.fold, fold, until=until)


def facts(device: str, commit: str | None) -> dict[str, Any]:
    """Where and when a row was measured."""
    found = {**provenance(), "date": time.strftime("%Y-%m-%d"), "device": device}
    if commit is not None:
        found["commit"] = commit
    if torch.device(device).type == "cuda":
        found |= {"driver": _driver(), "cuda": torch.version.cuda}
    return found


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.split("\n")[0].strip()


def put(path: Path, name: str, row: dict[str, Any]) -> None:
    """Write a row into the record, which is complete at any time."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else {}
    write_json(path, {"what": WHAT, "rows": {**kept, name: row}})


def main() -> int:
    """Measure for as long as there is time; returns how many rows failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--minutes", type=float, default=8.0, help="of all; default: 8")
    parser.add_argument("--out", type=Path, default=HERE / "gpu.json")
    parser.add_argument("--work", type=Path, default=Path("_build/gpu"), help="of the cohort")
    parser.add_argument("--commit", help="what is measured, where there is no repository")
    given = parser.parse_args()
    until = time.monotonic() + 60 * given.minutes - _RESERVE
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("a GPU is needed, and torch finds none on this machine; see --device.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    size = (Size.quick if given.quick else Size.full)(given.device)
    where, failed = facts(given.device, given.commit), 0
    store_all(size.steps.plain.shape, size.steps.plain.batch)
    for name, measure in rows(size, Training(size, given.work), until):
        if time.monotonic() > until:
            log.info("%s: no time was left", name)
            continue
        begin = time.monotonic()
        try:
            row = measure()
        except Exception:  # A card is lent rarely: the other rows are wanted all the same.
            log.exception("%s failed", name)
            failed += 1
            continue
        spent = round(time.monotonic() - begin, 1)
        put(given.out, name, {**row, "measured_in": spent, "provenance": where})
        shown = {k: v for k, v in row.items() if k != "curve"}
        log.info("%s: %s (%.0f s)", name, shown, spent)
    return failed


if __name__ == "__main__":
    sys.exit(main())
