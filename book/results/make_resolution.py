"""Train on one BraTS-like cohort at several resolutions, and write `resolution.json` beside this.

    python book/results/make_resolution.py             # what is missing; all of it: 90 minutes
    python book/results/make_resolution.py 64 512      # these, once more

The scans are made at 128^3. At 64^3 their voxels are averages of eight; finer ones are interpolated
as they are read, so no scan is ever stored, or held, at 512^3. All else is alike. One thread.
"""

import argparse
import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, interpolate

from cpic import train
from cpic.data import ArrayVolume, Volume, cohorts
from cpic.data._volume import Reader
from cpic.data.cohorts._cache import write_json
from cpic.train._cohorts import load_source
from cpic.train._models import make_module
from cpic.train._results import provenance
from cpic.train._validate import SCALE_DAYS, _standard

OUT = Path(__file__).parent / "resolution.json"
MADE_AT, SIZES, EPOCHS, LAST = 128, (64, 128, 256, 512), 40, 5
WHAT = (
    "Semi-synthetic BraTS-like cohort, 235 patients, t1ce, first of five folds. Scans made at 128^3"
    " and averaged to 64^3, or interpolated linearly to 256^3 and 512^3 as they are read. C-PIC "
    "with 4 channels, rank 10, 40 epochs, as in the tables of chapter 10 but with four starts. "
    "errors: root mean square error of the held-out patients after each of the last five epochs, "
    "relative to predicting the mean; encoded: positions a sample and step of the last epoch; "
    "seconds: of the training steps of an epoch, mean."
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
    "lr": 1e-2,
    "schedule": "cosine",
    "seed": 42,
    "more": {"components": {"follow": None}, "looks": 2, "starts": 4},
}


class Finer(Reader):
    """A volume in memory on a grid `factor` times finer, interpolated linearly where it is read."""

    waits = False

    def __init__(self, values: Tensor, factor: int):
        super().__init__(tuple(factor * n for n in values.shape), 1, values.dtype)
        self.values, self.factor = values, factor

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
        at = corner[:, None] + torch.arange(size)
        exact = ((at + 0.5) / self.factor - 0.5).clamp(0, n - 1)
        low = exact[:, :1].floor().long() + torch.arange((size - 1) // self.factor + 3)
        weight = (1 - (exact[..., None] - low[:, None]).abs()).clamp(min=0)
        inside = (at >= 0) & (at < self.factor * n)
        return low.clamp(max=n - 1), (weight * inside[..., None]).to(self.dtype)

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        return self._cubes(coords, 1, n_distinct).flatten(1)

    def read(self) -> Tensor:
        """All of it."""
        scale = float(self.factor)
        return interpolate(self.values[None, None], scale_factor=scale, mode="trilinear")[0, 0]


class Scans:
    """The cohort at one size."""

    def __init__(self, prepared: cohorts.Prepared, size: int):
        self.prepared, self.size = prepared, size

    def volume(self, patient: str, /) -> Volume:
        """The scan of a patient."""
        values = self.prepared.in_memory(patient).read()
        if self.size > MADE_AT:
            return Finer(values, self.size // MADE_AT)
        pooled = avg_pool3d(values[None, None], MADE_AT // self.size)[0, 0]
        return ArrayVolume(pooled)


def make_row(size: int, work: Path) -> dict[str, Any]:
    """Train the first fold at one size."""
    source = load_source(
        "brats",
        root=None,
        cache=None,
        resolution=(MADE_AT,) * 3,
        contrasts=("t1ce",),
        intensity="zscore",
        seed=42,
    )
    prepared = source.prepared
    pair = cohorts.folds(prepared.cohort, 5)[0]
    data = train.CohortData(
        Scans(prepared, size),
        prepared.samples,
        fold=pair,
        batch_size=21,
        scale=SCALE_DAYS,
        min_patients=10,
    )
    standard = _standard(prepared.cohort.subset(pair[0]).samples)
    module = make_module({**OPTIONS, "shape": (size,) * 3, "standard": standard})
    folder = work / str(size)
    shutil.rmtree(folder, ignore_errors=True)
    result = train.fit_fold(module, data, folder=folder, num_epochs=EPOCHS)
    mean = result.metrics["mean_error"]
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        "size": size,
        "errors": [round(float(row["val_error"]) / mean, 3) for row in rows[-LAST:]],
        "curve": [round(float(row["val_error"]) / mean, 3) for row in rows],
        "encoded": round(float(rows[-1]["encoded_per_sample"])),
        "step_seconds": round(result.step_seconds, 3),
        "peak_bytes": result.peak_bytes,
    }


def main() -> None:
    """Make what is asked for, or what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sizes", nargs="*", type=int, help="voxels an axis")
    parser.add_argument("--work", type=Path, default=Path("_build/resolution"))
    options = parser.parse_args()
    unknown = sorted(set(options.sizes) - set(SIZES))
    if unknown:
        parser.error(f"no size {unknown[0]}; there are {', '.join(map(str, SIZES))}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"rows": []}
    there = {row["size"] for row in record["rows"]}
    for size in options.sizes or [n for n in SIZES if n not in there]:
        row = make_row(size, options.work)
        others = [r for r in record["rows"] if r["size"] != size]
        rows = sorted([*others, {**row, "provenance": provenance()}], key=lambda r: r["size"])
        record = {"what": WHAT, "rows": rows}
        write_json(OUT, record)
        logging.info("%d: %s, %.2f s a step", size, row["errors"], row["step_seconds"])


if __name__ == "__main__":
    main()
