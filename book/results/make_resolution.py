"""Train on one BraTS-like cohort at several resolutions, and write `resolution.json` beside this.

    python book/results/make_resolution.py             # what is missing; all of it: 1 hour
    python book/results/make_resolution.py 64 512      # these, once more

The scans are made at 128^3. At 64^3 their voxels are averages of eight; finer ones are interpolated
as they are read, so no scan is ever stored, or held, at 512^3. All else is alike, but for the last
row, whose cubes take every fourth voxel and so see as far as those at 128^3. One thread.
"""

import argparse
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from make_tables import LEARNS, SETTINGS, brats_like, curve_of
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate

from cpic import cohorts, train
from cpic.cohorts._cache import write_json
from cpic.data import ArrayVolume, Volume
from cpic.data._volume import Reader
from cpic.train.results._results import provenance
from cpic.train.tasks._cross_validation import SCALE_DAYS, _standard
from cpic.train.tasks._models import make_module

OUT = Path(__file__).parent / "resolution.json"
MADE_AT, EPOCHS, LAST = 128, 40, 5
# Voxels along an axis, and from one voxel of a cube to the next.
ROWS = {"64": (64, 1), "128": (128, 1), "256": (256, 1), "512": (512, 1), "512-wide": (512, 4)}
WHAT = (
    "Semi-synthetic BraTS-like cohort, 235 patients, t1ce, first of five folds. Scans made at 128^3"
    " and averaged to 64^3, or interpolated linearly to 256^3 and 512^3 as they are read. C-PIC "
    "with 4 channels, rank 10, 40 epochs, as in the tables of chapter 10 but with four starts. "
    "errors: root mean square error of the held-out patients after each of the last five epochs, "
    "relative to predicting the mean; every: voxels from one of a cube to the next; encoded: "
    "positions a sample and step of the last epoch; step_seconds: mean of the training steps."
)
OPTIONS: dict[str, Any] = {
    "task": "brats",
    "model": "cpic",
    "channels": 1,
    "n_tabular": 0,
    "rank": 10,
    "ndims": 4,
    "encoder": "fast",
    "bias": -2.0,
    "chunk": None,
    "precision": 32,
    "seed": 42,
    **LEARNS,
    "more": {**LEARNS["more"], "n_warm_starts": 4},
}


class Finer(Reader):
    """A volume in memory on a grid `factor` times finer, interpolated linearly where it is read.

    A cube takes every so many voxels of it.
    """

    waits = False

    def __init__(self, values: Tensor, factor: int, *, every: int = 1):
        super().__init__(tuple(factor * n for n in values.shape), 1, values.dtype)
        self.values, self.factor, self.every = values, factor, every

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        lows, weights = zip(*(self._axis(corners[:, k], size, k) for k in range(3)), strict=True)
        x, y, z = lows
        cubes = self.values[x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]]
        for weight in reversed(weights):
            # The last axis is mixed, and becomes the first.
            cubes = (weight @ cubes.flatten(1, 2).mT).unflatten(-1, cubes.shape[1:3])
        return cubes[:, None]

    def _axis(self, corner: Tensor, size: int, axis: int) -> tuple[Tensor, Tensor]:
        """Voxels `(n, m)` that an axis of a cube depends on, and how, `(n, size, m)`."""
        n = self.values.shape[axis]
        half = size // 2
        at = corner[:, None] + half + self.every * torch.arange(-half, half + 1)
        exact = ((at + 0.5) / self.factor - 0.5).clamp(0, n - 1)
        low = exact[:, :1].floor().long() + torch.arange(self.every * (size - 1) // self.factor + 3)
        weight = (1 - (exact[..., None] - low[:, None]).abs()).clamp(min=0)
        inside = (at >= 0) & (at < self.factor * n)
        return low.clamp(max=n - 1), (weight * inside[..., None]).to(self.dtype)

    def read(self) -> Tensor:
        """All of it."""
        scale = float(self.factor)
        return interpolate(self.values[None, None], scale_factor=scale, mode="trilinear")[0, 0]


class Scans:
    """The cohort at one size, made at another."""

    def __init__(self, prepared: cohorts.Prepared, size: int, every: int = 1, made: int = MADE_AT):
        self.prepared, self.size, self.every, self.made = prepared, size, every, made

    def volume(self, patient: str, /) -> Volume:
        """The scan of a patient."""
        values = self.prepared.in_memory(patient).read()
        if self.size > self.made:
            return Finer(values, self.size // self.made, every=self.every)
        pooled = avg_pool3d(values[None, None], self.made // self.size)[0, 0]
        return ArrayVolume(pooled)


def make_row(name: str, work: Path) -> dict[str, Any]:
    """Train the first fold at one size."""
    size, every = ROWS[name]
    prepared = brats_like((MADE_AT,) * 3, SETTINGS["small"].patients["brats"]).prepared
    scans = Scans(prepared, size, every)
    found = train_fold(scans, OPTIONS, work / name, num_epochs=EPOCHS)
    return {"name": name, "size": size, "every": every, **found}


def train_fold(
    scans: "Scans", options: dict[str, Any], folder: Path, *, fold: int = 0, **run: Any
) -> dict[str, Any]:
    """Train a fold; returns its errors relative to those of the mean, and what a step took.

    Args:
        scans: The cohort.
        options: Of the model, as in `OPTIONS`.
        folder: Files of the run, which are made anew.
        fold: Which of five.
        **run: Options of `fit_fold`.
    """
    prepared = scans.prepared
    pair = cohorts.folds(prepared.cohort, 5)[fold]
    data = train.CohortData(
        scans,
        prepared.samples,
        fold=pair,
        batch_size=options.get("batch_size", 21),
        scale=SCALE_DAYS,
        min_patients=options["rank"],
    )
    standard = _standard(prepared.cohort.subset(pair[0]).samples)
    settings = {**options, "shape": (scans.size,) * 3, "standard": standard}
    shutil.rmtree(folder, ignore_errors=True)
    module = make_module(settings, fold=fold)
    result = train.fit_fold(module, data, folder=folder, fold=fold, **run)
    mean = result.metrics["mean_error"]
    rows = curve_of(folder)
    errors = [round(row["val_error"] / mean, 3) for row in rows]
    return {
        "errors": errors[-LAST:],
        "curve": errors,
        "encoded": round(rows[-1]["encoded_per_sample"]),
        "step_seconds": round(result.step_seconds, 3),
        "peak_bytes": result.peak_bytes,
    }


def main() -> None:
    """Make what is asked for, or what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"rows out of {', '.join(ROWS)}; default: all")
    parser.add_argument("--work", type=Path, default=Path("_build/resolution"))
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(ROWS))
    if unknown:
        parser.error(f"no row {unknown[0]}; there are {', '.join(ROWS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"rows": []}
    rows = {row["name"]: row for row in record["rows"]}
    for name in options.names or [name for name in ROWS if name not in rows]:
        rows[name] = {**make_row(name, options.work), "provenance": provenance()}
        write_json(OUT, {"what": WHAT, "rows": [rows[n] for n in ROWS if n in rows]})
        shown = rows[name]
        logging.info("%s: %s, %.2f s a step", name, shown["errors"], shown["step_seconds"])


if __name__ == "__main__":
    main()
