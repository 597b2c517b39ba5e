"""Cross-validate C-PIC and what it is compared with, and write the tables of chapters 10 to 12.

    python book/results/make_tables.py                    # as large as the machine allows: hours
    python book/results/make_tables.py --setting small    # 64^3 on two cores: two hours

Every run of the list becomes one file in `book/results/tables/`, which also holds its curves; a run
whose file is there for the same setting is not repeated, and a killed one goes on where it was.
All rows of a task have the same cohort, folds and targets. No epoch is chosen: models are trained
on all training patients of a fold, and the last epoch is reported.
"""

import argparse
import csv
import dataclasses
import functools
import json
import logging
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from cpic import cohorts, train
from cpic.cohorts._cache import write_json
from cpic.options import MRData
from cpic.options._presets import preset_file
from cpic.train.tasks._cross_validation import SCALE_DAYS
from cpic.train.tasks._models import FITTED, TRAINS, make_module
from cpic.train.tasks._source import Source, load_source

HERE = Path(__file__).parent
BRATS_OPTIONS: dict[str, Any] = {"contrasts": ("t1ce",)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How large the cohorts are, and how long a fold is trained.

    Models of trains have a number of epochs, all others a number of minutes a fold. Rivals are
    trained in one cycle of `cycle` epochs, so that the last epoch is the one to report, those with
    epochs on the first `folds` of the five folds.
    """

    patients: dict[str, int]
    resolution: dict[str, tuple[int, int, int]]
    epochs: dict[str, int]
    minutes: dict[str, float | None]
    cycle: dict[str, int]
    folds: int
    ngpus: int


SETTINGS = {
    "small": Setting(
        {"brats": 236, "osic": 176},
        {"brats": (64, 64, 64), "osic": (16, 64, 64)},
        epochs={"brats": 80, "osic": 12},
        minutes={"brats": 12.0, "osic": 6.5},
        cycle={"brats": 30, "osic": 6},
        folds=2,
        ngpus=0,
    ),
    "full": Setting(
        {"brats": 236, "osic": 176},
        {"brats": (256, 256, 256), "osic": (32, 512, 512)},
        epochs={"brats": 100, "osic": 100},
        minutes={"brats": None, "osic": None},
        cycle={"brats": 100, "osic": 50},
        folds=5,
        ngpus=1,
    ),
}
# Options by which C-PIC learns; chapter 9 shows what happens without them.
LEARNS: dict[str, Any] = {
    "lr": 1e-2,
    "schedule": "cosine",
    "more": {"components": {"follow": None}, "n_sweeps": 2, "n_warm_starts": 8},
}
# One recipe for C-PIC at cubes of any positions: settings of the quick preset.
CUBES: dict[str, Any] = {
    **{"ndims": 8, "rank": 8, "features": ("moments",), "activation": "gelu", "last": "linear"},
    **{"norm": "layer", "optimizer": "adamw", "schedule": "onecycle", "lr": 3e-3},
}
STRIDED = {
    key: value
    for key, value in yaml.safe_load(preset_file("strided").read_text()).items()
    if key not in ("command", "name", "num_epochs")
}
# ResNet-34 by epochs instead of minutes, with all its numbers and with those of spectral trains.
CYCLE: dict[str, Any] = {
    **{"batch_size": 8, "optimizer": "adamw", "schedule": "onecycle", "lr": 1e-3},
    **{"num_epochs": 12, "flips": (1, 2), "more": {"stem_stride": 2}},
}
# As many positions as the cross of rank 8 encodes in a step.
BUDGET = 800
# The first row of BraTS, to the letter, and at other positions.
FIRST: dict[str, Any] = {**LEARNS, "bias": -2.0, "ndims": 4, "rank": 10}
AT_GRID: dict[str, Any] = {**FIRST, "positions": "grid", "budget": 1200}
# In all cohorts, the same rivals.
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "random-voxels": ("random_voxels", {"more": {"n_voxels": 20_000}}),
    "blocks-8": ("blocks", {"more": {"n_blocks": 8}}),
    "blocks-16": ("blocks", {"more": {"n_blocks": 16}}),
    "strided": ("downsample", STRIDED),
    "cubes-grid": ("cpic", {**CUBES, "positions": "grid", "budget": BUDGET}),
    "cubes-random": ("cpic", {**CUBES, "positions": "random", "budget": BUDGET}),
    "cubes-cross": ("cpic", CUBES),
    "cpic-n4-grid": ("cpic", {**AT_GRID, "num_epochs": 80}),
}
# Of one cohort: does a fiftieth of the numbers do, and what bounds the first row, steps or
# patients? Twice as many epochs, or patients, are equally many steps.
QUESTIONS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "brats": {
        "resnet34-cycle": ("resnet34", CYCLE),
        "resnet34-sttp": ("resnet34", {**CYCLE, "layers": "sttp", "layers_rank": 64}),
        "cpic-n4-long": ("cpic", {**FIRST, "num_epochs": 160}),
        "cpic-n4-more": ("cpic", {**FIRST, "num_epochs": 80, "patients": 470}),
        "cpic-n4-grid-more": ("cpic", {**AT_GRID, "num_epochs": 80, "patients": 470}),
        "strided-more": ("downsample", {**STRIDED, "patients": 470}),
    }
}
# With how many of them predictions are made, after the training.
STARTS = (1, 2, 4, 8, 16, 32)
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{task}-{name}": (task, model, options)
    for task, rows in {
        "brats": {
            "cpic-n4-r10": ("cpic", {"ndims": 4, "rank": 10}),
            # Two scans a batch, as published, and its step of 1e-3 make batch norm diverge here.
            "resnet34": ("resnet34", {"batch_size": 8, "lr": 3e-4}),
            "tt-mlp": ("tt_mlp", {"rank": 10}),
            "histogram": ("histogram", {"max_minutes": 1.0}),
            "downsample": ("downsample", {}),
            "cpic-n8-r10": ("cpic", {"ndims": 8, "rank": 10}),
            "cpic-n16-r10": ("cpic", {"ndims": 16, "rank": 10}),
            "cpic-n32-r10": ("cpic", {"ndims": 32, "rank": 10}),
            "cpic-n8-r12": ("cpic", {"ndims": 8, "rank": 12}),
            "cpic-n8-r15": ("cpic", {"ndims": 8, "rank": 15}),
        },
        "osic": {
            "cpic-n16-r10": ("cpic", {"ndims": 16, "rank": 10}),
            "resnet34": ("resnet34", {"batch_size": 8, "lr": 3e-4}),
            "tt-mlp": ("tt_mlp", {"rank": 10}),
            "histogram": ("histogram", {"max_minutes": 1.0}),
            "downsample": ("downsample", {}),
        },
    }.items()
    for name, (model, options) in (rows | RIVALS | QUESTIONS.get(task, {})).items()
}


def is_rival(name: str) -> bool:
    """Whether a row is trained in one cycle, on the first folds."""
    task, _, own = name.partition("-")
    return own in RIVALS or own in QUESTIONS.get(task, {})


def asked(name: str, setting: Setting) -> dict[str, Any]:
    """What of the setting concerns this row."""
    task, model, options = RUNS[name]
    patients = options.get("patients", setting.patients[task])
    shown = {"patients": patients, "resolution": list(setting.resolution[task])}
    if is_rival(name):
        if model in FITTED:
            return shown
        epochs = options.get("num_epochs", setting.cycle[task])
        cycle = {"cycle": epochs, "folds": setting.folds}
        return {**shown, **cycle, "ngpus": setting.ngpus}
    if model in TRAINS:
        return {**shown, "epochs": setting.epochs[task], "ngpus": setting.ngpus}
    minutes = options.get("max_minutes", setting.minutes[task])
    return {**shown, "minutes": minutes, "ngpus": setting.ngpus}


def run(name: str, setting: Setting, work: Path) -> dict[str, Any]:
    """Train and validate all folds of one row; returns its summary and curves."""
    task, model, options = RUNS[name]
    if task == "brats":
        options = {**BRATS_OPTIONS, **options}
    common: dict[str, Any] = {
        "results_folder": work,
        "experiment_name": name,
        "resolution": setting.resolution[task],
        "patients": setting.patients[task],
        "num_epochs": setting.epochs[task],
        "ngpus": setting.ngpus,
        "num_workers": 0,
        "resume": True,
        "selection": 0,
        "standardize": True,
    }
    rival, summary = is_rival(name), {}
    if rival:
        common |= {"num_epochs": setting.cycle[task], **options}
        do = {"brats": train.brats, "osic": train.osic}[task]
        do = do if model == "cpic" else functools.partial(train.baseline, model, task=task)
        summary = in_parts(do, common, 5 if model in FITTED else setting.folds)
    elif model == "cpic":
        do = {"brats": train.brats, "osic": train.osic}[task]
        do(**common, **LEARNS, bias=-2.0, **options)
    elif model == "tt_mlp":
        train.baseline(model, task=task, **common, **LEARNS, **options)
    else:
        limits = {"max_minutes": setting.minutes[task], **options}
        if limits["max_minutes"]:
            limits["num_epochs"] = 10_000
        train.baseline(model, task=task, **{**common, **limits})
    summary = summary or json.loads((work / name / "summary.json").read_text())
    if task == "brats" and model == "cpic" and not rival:
        summary["searches"] = searches(name, setting, work)
    for fold in summary["folds"]:
        rows = curve_of(work / name / f"fold_{fold['fold']}")
        fold["curve"] = [{k: round(v, 6) for k, v in row.items()} for row in thinned(rows)]
    return {"name": name, "parameters": parameters(summary), **summary}


def in_parts(do: Callable[..., Any], options: dict[str, Any], n_folds: int) -> dict[str, Any]:
    """The summary of the first folds, of which each is one run."""
    folds: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    for k in range(n_folds):
        do(**options, only_fold=k)
        path = Path(options["results_folder"], options["experiment_name"], "summary.json")
        summary = json.loads(path.read_text())
        folds += summary["folds"]
    mean = {key: statistics.fmean(f["metrics"][key] for f in folds) for key in summary["mean"]}
    return {**summary, "folds": folds, "mean": mean}


def parameters(record: dict[str, Any]) -> int:
    """Number of weights of the model of a row."""
    config = {"n_tabular": int(record["task"] == "osic"), **record, "standard": None}
    return sum(one.numel() for one in make_module(config).model.parameters())


def brats_like(resolution: tuple[int, int, int], patients: int, *, seed: int = 42) -> Source:
    """The cohort that `cpic.train.brats` makes for the rows of BraTS, converted."""
    data = MRData(resolution=resolution, patients=patients, intensity="zscore", **BRATS_OPTIONS)
    return load_source("brats", data, seed=seed)


def curve_of(folder: Path) -> list[dict[str, float]]:
    """Metrics of each epoch of a fold."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def searches(name: str, setting: Setting, work: Path) -> list[dict[str, Any]]:
    """Errors of the held-out patients, fold by fold, when a prediction searches more or less."""
    source = brats_like(setting.resolution["brats"], setting.patients["brats"])
    pairs = cohorts.folds(source.prepared.cohort, 5, path=work / name / "folds.json")
    return [
        {
            "starts": starts,
            "errors": [
                held_out_error(work / name / f"fold_{k}" / "latest.ckpt", source, pair[1], starts)
                for k, pair in enumerate(pairs)
            ],
        }
        for starts in STARTS
    ]


def held_out_error(checkpoint: Path, source: Source, patients: list[str], starts: int) -> float:
    """Root mean square error in days of the predictions for some patients."""
    samples = source.prepared.cohort.subset(patients).samples.set_index("patient")
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder, "scans")
        scans.mkdir()
        for patient in patients:
            file = next(iter(source.prepared.cohort.files(patient).values()))
            (scans / patient).symlink_to(file.parent)
        table = next(source.root.rglob("survival_info.csv"))
        out = Path(folder, "days.csv")
        train.predict(checkpoint, scans, out=out, table=table, n_warm_starts=starts)
        with out.open(newline="") as file:
            guesses = {row["patient"]: float(row["days"]) for row in csv.DictReader(file)}
    errors = [guesses[p] - SCALE_DAYS * samples.loc[p, "target"] for p in patients]
    return round(statistics.fmean(error**2 for error in errors) ** 0.5, 2)


def thinned(rows: list[dict[str, float]], most: int = 40) -> list[dict[str, float]]:
    """At most so many rows, first and last among them."""
    if len(rows) <= most:
        return rows
    chosen = sorted({round(k * (len(rows) - 1) / (most - 1)) for k in range(most)})
    return [rows[k] for k in chosen]


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"rows out of {', '.join(RUNS)}; default: all")
    default = "full" if torch.cuda.is_available() else "small"
    parser.add_argument("--setting", choices=sorted(SETTINGS), default=default)
    parser.add_argument("--out", type=Path, default=HERE / "tables")
    parser.add_argument("--work", type=Path, default=Path("_build/tables"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    unknown = sorted(set(options.names) - set(RUNS))
    if unknown:
        parser.error(f"no rows {', '.join(unknown)}; there are {', '.join(RUNS)}")
    setting = SETTINGS[options.setting]
    for name in options.names or RUNS:
        path, wanted = options.out / f"{name}.json", asked(name, setting)
        if path.exists() and json.loads(path.read_text()).get("setting") == wanted:
            logging.info("%s is there", path)
            record = json.loads(path.read_text())
            if "parameters" not in record:  # a row of an older version
                write_json(path, {**record, "parameters": parameters(record)})
            continue
        result = {"setting": wanted, **run(name, setting, options.work / options.setting)}
        write_json(path, result)
        shares = [f["metrics"]["error"] / f["metrics"]["mean_error"] for f in result["folds"]]
        logging.info("%s: %.2f of predicting the mean", name, statistics.fmean(shares))


if __name__ == "__main__":
    main()
