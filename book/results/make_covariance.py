"""Train the networks of chapter 16, and write `covariance.json` beside this file.

    python book/results/make_covariance.py                 # what is missing; about 25 minutes
    python book/results/make_covariance.py plain-gap-0     # rows whose name begins so, once more

A row that is there is not repeated unless it is named. One thread.
"""

import csv
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _ridge import neighborhoods, ridge
from _rows import asked_rows, rows_to_make

from cpic import images, train
from cpic._files import write_json
from cpic.nn.pooling import small_backbone
from cpic.train.results._results import provenance

OUT = Path(__file__).parent / "covariance.json"
WHAT = (
    "Recorded runs of chapter 16 on the built-in textures: 8 photographs, 720 patches of 64 x 64 "
    "to train with and 720 to test with, from disjoint bands of the photographs, middle 48 x 48, "
    "training patches mirrored at random. Networks of about 15 000 parameters with 32 channels on "
    "12 x 12 positions, SGD 0.05 with momentum 0.9, batch 32, clip 5, weight decay 1e-4. races: 6 "
    "epochs, learning rate x 0.1 from epoch 4; the classifier has as many parameters for all "
    "poolings, about 4 200, but for gap-linear: gap has a hidden layer of 103 units, bilinear 23 "
    "channels. hybrid: 8 epochs, x 0.1 from epochs 4 and 6, the residual network; in hybrid the "
    "power switches from MPNCOV to SVD_Pade at epoch 6. accuracy: of the test patches after the "
    "last epoch; curves: one value an epoch of accuracy, log10 of the condition and norm of the "
    "gradient before clipping; seconds: of the run, on a loaded machine. rivals: no network; ridge "
    "regression, its penalty chosen by leaving out, on a histogram of 32 gray levels, and on the "
    "square root of the covariance of all neighborhoods of 5 x 5 pixels."
)
ARCHS = ("plain", "residual", "dense")
POOLINGS: dict[str, dict[str, Any]] = {
    "gap-linear": {"representation": "GAvP"},
    "gap": {"representation": "GAvP", "hidden": (103,)},
    "bilinear": {"representation": "BCNN", "dimension_reduction": 23},
    "isqrt": {"representation": "MPNCOV"},
    "svd-pade": {"representation": "SVD_Pade"},
    "seb": {"representation": "SEB"},
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "isqrt": {"representation": "MPNCOV"},
    "svd": {"representation": "SVD_Pade"},
    "hybrid": {"representation": "MPNCOV", "switch_to": "SVD_Pade"},
}
SEEDS = range(5)
COMMON = {
    "image_size": 48,
    "dimension_reduction": 0,
    "optimizer": "sgd",
    "lr": 0.05,
    "batch_size": 32,
    "selection": 0,
    "num_workers": 0,
}
NAMES = {
    f"{arch}-{pooling}-{seed}": (arch, POOLINGS[pooling], seed, 6, (4,))
    for seed in SEEDS
    for arch in ARCHS
    for pooling in POOLINGS
} | {
    f"hybrid-{kind}-{seed}": ("residual", PROTOCOLS[kind], seed, 8, (4, 6))
    for seed in SEEDS
    for kind in PROTOCOLS
}
# The first three seeds of all come first.
ORDER = sorted(NAMES, key=lambda name: (int(name[-1]), name.startswith("hybrid")))


def trained(arch: str, pooling: dict[str, Any], seed: int, epochs: int, steps: tuple) -> dict:
    """Train one network, and what its tables say."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options = {**COMMON, **pooling, "arch": arch, "seed": seed, "num_epochs": epochs}
        (result,) = train.gcp(
            **options, lr_params=steps, results_folder=folder, experiment_name="run"
        )
        with (Path(folder) / "run" / "fold_0" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        saved = train.read_checkpoint(result.latest)
    sizes = {name: value.numel() for name, value in saved["model"].items()}
    count = sum(n for name, n in sizes.items() if name.startswith("classifier"))
    names = {"accuracy": 4, "gradient_norm": 4, "log10_condition": 3}
    curves = {
        name: [round(float(row[f"val_{name}"]), digits) for row in rows]
        for name, digits in names.items()
        if f"val_{name}" in rows[0]
    }
    return {
        "accuracy": result.metrics["accuracy"],
        "curves": curves,
        "classifier_parameters": count,
        "seconds": round(time.perf_counter() - start, 1),
        "provenance": provenance(),
    }


def rivals() -> dict[str, float]:
    """Accuracies of ridge regressions on features that nothing has learned."""
    parts = [images.load("textures", train=one) for one in (True, False)]
    pixels = [one.read(range(len(one)))[:, :, 8:56, 8:56].float() / 255 for one in parts]
    labels = [one.labels for one in parts]

    def histogram(x):
        bins = (x.flatten(1) * 32).long().clamp(max=31)
        return torch.nn.functional.one_hot(bins, 32).double().mean(1).sqrt()

    return {
        name: accuracy(make(pixels[0]), labels[0], make(pixels[1]), labels[1])
        for name, make in {"histogram": histogram, "neighborhoods": neighborhoods}.items()
    }


def accuracy(x, labels, x_test, labels_test) -> float:
    """Accuracy of a ridge regression on one-hot classes."""
    target = torch.nn.functional.one_hot(labels).double()
    answer = ridge(x, target, x_test, [10.0**k for k in range(-3, 5)]).argmax(1)
    return float((answer == labels_test).double().mean())


def main() -> None:
    """Make the rows that are missing, and keep each as soon as it is there."""
    asked = asked_rows(__doc__, "rows", NAMES)
    rows = json.loads(OUT.read_text())["rows"] if OUT.exists() else {}
    facts = {
        "what": WHAT,
        "chance": 1 / 8,
        "rivals": rivals(),
        "backbone_parameters": {
            arch: sum(p.numel() for p in small_backbone(arch).parameters()) for arch in ARCHS
        },
    }
    for name in rows_to_make(asked, ORDER, lambda name: name not in rows):
        rows[name] = trained(*NAMES[name])
        write_json(OUT, {**facts, "rows": rows})
        logging.info("%s: %.3f in %.0f s", name, rows[name]["accuracy"], rows[name]["seconds"])


if __name__ == "__main__":
    main()
