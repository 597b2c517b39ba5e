"""Measure what a training step costs, and write `scale.json` and `profile.json` beside this file.

    python book/results/make_cost.py            # everything, about 20 minutes
    python book/results/make_cost.py 8192 fast  # rows whose file and name hold one of the words

Every row is measured in a fresh process with one thread; a row that is there is replaced. Seconds
are those of the processor, which other load disturbs least; wall-clock ones and the load of the
machine stand beside them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

import torch  # noqa: E402

from cpic.cohorts._cache import write_json  # noqa: E402
from tests.bench import cases_training, harness, stages, training  # noqa: E402

SIDES = (256, 512, 1024, 2048, 4096, 8192)
CHUNK = 1024
SHAPES = ((256, 256, 256), (32, 512, 512))


def steps(setting: training.Setting, *, warm_steps: int = 2) -> dict[str, float]:
    """The first visit of the volumes, which looks for the sets, and those behind it."""
    made = training.Training(setting, warm=0)
    found, batch = [], setting.batch
    for _ in range(1 + warm_steps):
        made.model.reset_counts()
        held = [(volume.ledger.bytes, volume.ledger.voxels) for volume in made.volumes]
        wall, processor = time.perf_counter(), time.process_time()
        made.step()
        seconds = (time.process_time() - processor, time.perf_counter() - wall)
        read = [
            sum(new - old for new, old in zip(news, olds, strict=True))
            for news, olds in zip(
                zip(*[(v.ledger.bytes, v.ledger.voxels) for v in made.volumes], strict=True),
                zip(*held, strict=True),
                strict=True,
            )
        ]
        counts = made.model.counts
        found.append((*seconds, counts.encoded, counts.asked, *read))
    names = ("seconds", "wall", "positions", "entries", "bytes", "voxels")
    warm = [statistics.median(part) / batch for part in zip(*found[1:], strict=True)]
    first = {
        f"first {name}": value / batch
        for name, value in zip(names, found[0], strict=True)
        if name != "entries"
    }
    return dict(zip(names, warm, strict=True)) | first


def profile(setting: training.Setting) -> dict[str, Any]:
    """Stages of a step, the rate of the encoder and that of plain products, in one run."""
    made = training.Training(setting, warm=2)
    rates = [stages.product_rate()]
    seconds = stages.stages_of(made)
    rates.append(stages.product_rate())
    made.model.reset_counts()
    made.step()
    cubes = made.model.counts.encoded
    size = made.encoder.receptive_field
    forward, backward = stages.products_of_a_cube(made.encoder, size)
    return {
        "stages": seconds,
        "batch": setting.batch,
        "operations forward": forward,
        "operations backward": backward,
        "rate forward": forward * cubes / seconds["encoder forward"],
        "rate backward": backward * cubes / seconds["encoder backward"],
        "rate products": statistics.mean(rates),
        "seconds": sum(seconds.values()),
    }


def rows() -> dict[str, dict[str, Callable[[], dict[str, Any]]]]:
    """The file, the name of the row, and how it is measured."""
    scale: dict[str, Callable[[], dict[str, Any]]] = {}
    for side in SIDES:
        for chunk in (None, CHUNK):
            setting = training.Setting(
                shape=(side,) * 3, n_dims=8, variant="paper", chunk=chunk, source="formula"
            )
            scale[f"{side}^3{', in chunks' * bool(chunk)}"] = partial(steps, setting)
    cost: dict[str, Callable[[], dict[str, Any]]] = {}
    for shape in SHAPES:
        where = cases_training.title(shape)
        fast = training.Setting(shape=shape)
        paper = training.Setting(shape=shape, variant="paper")
        chunks = training.Setting(shape=shape, variant="paper", chunk=CHUNK)
        cost |= {
            f"step {where}, fast": partial(steps, fast),
            f"step {where}, paper": partial(steps, paper),
            f"step {where}, paper, in chunks": partial(steps, chunks),
            f"step {where}, ResNet-34": partial(cases_training.dense, shape, "step", 0),
            f"prediction {where}, fast": partial(cases_training.prediction, fast, 4, 0),
            f"prediction {where}, ResNet-34": partial(cases_training.dense, shape, "predict", 0),
        }
    for variant in ("fast", "paper"):
        setting = training.Setting(shape=SHAPES[0], variant=variant)
        cost[f"sweeps {variant}, tntorch"] = partial(cases_training.sweeps, setting, 0)
        cost[f"profile {variant}"] = partial(profile, setting)
    return {"scale": scale, "profile": cost}


def measured(file: str, name: str) -> dict[str, Any]:
    """A row from a fresh process, with the load around it."""
    before = os.getloadavg()[0]
    command = [sys.executable, __file__, "--one", file, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return figures | {"load": [before, os.getloadavg()[0]], "commit": harness.commit()}


def provenance() -> dict[str, Any]:
    """What all rows share."""
    names = ("cpic", "torch", "numpy", "monai", "tntorch", "zarr")
    return {
        "machine": harness.machine(),
        "threads": 1,
        "versions": {name: version(name) for name in names},
        "made": time.strftime("%Y-%m-%d"),
        "units": {
            "seconds": "of the processor, a sample and step",
            "wall": "seconds of the clock",
            "MB": "peak resident set of the process",
            "positions": "distinct ones encoded, a sample and step",
            "load": "average of the machine, before and after; ours is one of it",
        },
        "volumes": {
            "scale": "brain_like, another seed a sample, float32, a formula",
            "profile": "MNI152, cut and textured by seed, float32 stores of 32^3 chunks, "
            "512 MiB of decoded chunks held for 20 of them",
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", default=[""])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one:
        file, name = given.one
        harness.reset_peak()
        figures = rows()[file][name]()
        print(json.dumps(dict(figures) | {"MB": harness.peak_of_process()}))
        return
    for file, runs in rows().items():
        path = HERE / f"{file}.json"
        for name in runs:
            if any(word in f"{file} {name}" for word in given.words):
                figures = measured(file, name)
                kept = json.loads(path.read_text())["rows"] if path.exists() else {}
                kept[name] = figures
                ordered = {name: kept[name] for name in runs if name in kept}
                write_json(path, {**provenance(), "rows": ordered})
                print(f"{file}: {name}: {figures['seconds']:.3g} s, {figures['MB']:.0f} MB")


if __name__ == "__main__":
    main()
