"""Change one setting of C-PIC on BraTS at a time; `ablation.json` beside this script.

    python book/results/make_ablation.py             # what is missing; all of it: 2 hours
    python book/results/make_ablation.py positions   # rows whose name begins so, once more

A seed makes cohort, folds, weights and order anew; all rows have the same three. One thread.
"""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import yaml
from _rows import asked_rows, rows_to_make
from make_tables import curve_of

from cpic import train
from cpic._files import write_json
from cpic.options._presets import preset_file
from cpic.train.results._results import provenance

OUT, WORK, SEEDS = Path(__file__).parent / "ablation.json", Path("_build/ablation"), (42, 43, 44)
WHAT = (
    "Errors of the last epoch on the first fold of the semi-synthetic BraTS-like cohort at 32^3, "
    "470 patients, over those of predicting the mean, for seeds that make cohort, folds, weights "
    "and order anew. base: the quick preset, but without batch norm in the head, 20 epochs, and a "
    "budget of 512; each other row differs from it as its settings say. encoded: positions encoded "
    "per scan and step; seconds: processor time of a run."
)
BASE: dict[str, Any] = yaml.safe_load(preset_file("quick").read_text())["brats"] | {
    **{"norm": "none", "budget": 512, "num_epochs": 20, "selection": 0}
}
CROSS: dict[str, Any] = {"positions": "cross"}
PUBLISHED: dict[str, Any] = {
    **CROSS,
    **{"rank": 10, "ndims": 16, "features": ("components",), "activation": "relu"},
    **{"last": "sigmoid", "norm": "batch", "optimizer": "radam", "lr": 1e-3},
    **{"schedule": "constant", "standardize": False},
}
ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "published": PUBLISHED,
    "positions: cross": CROSS,
    "norm: layer": {"norm": "layer"},
    "norm: batch": {"norm": "batch"},
    "features: components": {"features": ("components",)},
    "last: sigmoid": {"last": "sigmoid"},
    "schedule: constant": {"schedule": "constant", "lr": 1e-3},
    "target: as it is": {"standardize": False},
    "features: moments": {"features": ("moments",)},
    "features: maximum": {"features": ("maximum",)},
    "positions: cross, corrected": {**CROSS, "correction": 500},
    "published, best rate and schedule": {
        **PUBLISHED,
        **{"lr": 1e-2, "schedule": "cosine", "standardize": True},
    },
    "positions: random": {"positions": "random"},
    "ndims: 2": {"ndims": 2},
    "ndims: 16": {"ndims": 16},
    "flips: two axes": {"flips": (1, 2)},
    "rate: 1e-3": {"lr": 1e-3},
    "rate: 1e-2": {"lr": 1e-2},
    "activation: relu": {"activation": "relu"},
    "optimizer: radam": {"optimizer": "radam"},
    "positions: jittered": {"positions": "jittered"},
    "positions: grid+peaks": {"positions": "grid+peaks"},
    "budget: 250": {"budget": 250},
    "budget: 4000": {"budget": 4000},
    "scales: 1, 2": {"scales": (1, 2)},
    "scales: 1, 4": {"scales": (1, 4)},
    "features: learned": {"features": ("learned",)},
    "features: covariance": {"features": ("covariance",)},
    "steps: twice": {"num_epochs": 40},
    "patients: half": {"patients": 236, "num_epochs": 40},
}


def make_run(name: str, seed: int) -> dict[str, Any]:
    """Train the first fold with one seed."""
    folder = WORK / f"{name}-{seed}".replace(": ", "-").replace(", ", "-").replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    started = time.process_time()
    (result,) = train.brats(
        **(BASE | ROWS[name]),
        results_folder=folder.parent,
        experiment_name=folder.name,
        seed=seed,
        num_workers=0,
    )
    seconds = time.process_time() - started
    last = curve_of(result.latest.parent)[-1]
    share = result.metrics["error"] / result.metrics["mean_error"]
    return {
        "error": round(share, 3),
        "seconds": round(seconds),
        "encoded": round(last["encoded_per_sample"]),
    }


def main() -> None:
    """Run what is asked for and not there yet."""
    asked = asked_rows(__doc__, "rows", ROWS)
    for name in rows_to_make(asked, ROWS, lambda name: name not in recorded()):
        runs = [make_run(name, seed) for seed in SEEDS]
        row = {key: [run[key] for run in runs] for key in runs[0]}
        row = {"settings": ROWS[name], **row, "provenance": provenance()}
        # Read anew: another process may have written rows meanwhile.
        write_json(OUT, {"what": WHAT, "rows": {**recorded(), name: row}})
        logging.info("%s: %s", name, row["error"])


def recorded() -> dict[str, Any]:
    """The rows that are there."""
    return json.loads(OUT.read_text())["rows"] if OUT.exists() else {}


if __name__ == "__main__":
    main()
