"""Train the models of chapter 9, and write `cpic_toy.json` beside this file.

    python book/results/make_toy.py              # what is missing; all of it takes an hour
    python book/results/make_toy.py mni rank4    # rows whose name begins so, once more

A row that is there is not repeated unless it is named. One thread.
Seeds are fixed, but 40 epochs magnify rounding: another machine may give other second digits.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _balls import painted
from _marks import Marks, share_marked
from _ridge import ridge
from _rows import asked_rows, rows_to_make
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from cpic import data
from cpic.cohorts._cache import write_json
from cpic.nn import (
    CPIC,
    Components,
    CubeEncoder,
    Positions,
    Reading,
    Search,
    TwoHeadRegressor,
    count_features,
)
from cpic.train.results._results import provenance

OUT = Path(__file__).parent / "cpic_toy.json"
WHAT = (
    "Recorded runs of the toy task of chapter 9: 80 training and 40 test volumes of 32^3, RAdam "
    "1e-2 with cosine decay over 40 epochs of 4 steps, clip 1, seed 0, centered=False, "
    "n_warm_starts=1. "
    "error: root mean square error of the test volumes relative to predicting the mean, "
    "train_error that of 40 training volumes; last: errors after epochs 30, 35 and 40; "
    "mean_last: their mean. models: rank and channels of the encoder, basis followed throughout "
    "(features of the test volumes along two directions, predictions, positions encoded a "
    "visit). changed: one change each with 4 channels at rank 4 or 8; seed1 and seed2 make data,"
    " weights and batches anew. In rank8, base, the two seeds, refresh1 and exact follow the "
    "basis throughout, the others for 60 steps as follow60 does. sizes: voxels along an axis, "
    "the same shapes painted at each, centered, four warm starts, rank 8, 4 channels; encoded: "
    "positions a visit; seconds: of all epochs. learn: positions and features with one recipe, "
    "AdamW 3e-3 in one cycle of 400 (mni: 800) steps of 10 volumes, weight decay 0.1, GELU, a "
    "linear last layer of 8 channels, no norm in the head unless named, three seeds of weights, "
    "order and positions; errors and train_errors: at the end; encoded: positions a "
    "prediction; voxels: share of a volume in the cubes of an untrained model. histogram: 24 bins "
    "of all voxels or of as many random ones as positions (three seeds), square roots of the "
    "counts, ridge regression whose penalty is chosen by leaving training volumes out. A row "
    "without provenance has that of the file."
)
MNI = (
    "balls of radius 2 to 5.5 voxels, 0.4 brighter, in white matter of the MNI152 head at 6 mm, "
    "noise 0.03, gain varying by 10 %; rank 8, 4 channels, basis followed for 60 steps"
)
EACH_STEP = {"components": {"follow": None, "refresh": 1}}
KEPT = {"components": {"follow": 60}}
SEEDS: dict[str, dict[str, Any]] = {"base": {}, "seed1": {"seed": 1}, "seed2": {"seed": 2}}
RANK4 = SEEDS | {
    "nodecay": {"decay": False},
    "refresh1": EACH_STEP,
    "unscaled": {"scaled": False},
    "batch8": {"batch": 8},
    "interleaved": {"order": "interleaved"},
}
RANK8 = SEEDS | {
    "follow60": KEPT,
    "refresh1": EACH_STEP,
    "exact": {"components": {"follow": None, "gradient": "exact"}},
    "interleaved": KEPT | {"order": "interleaved"},
    "nobn": KEPT | {"batch_norm": False},
    "noclip": KEPT | {"clip": float("inf")},
    "select3": KEPT | {"select": 3},
    "dims8": KEPT | {"n_dims": 8},
    "features16": KEPT | {"n_features": 16},
    "slower": KEPT | {"lr": 5e-3},
}
MODELS = {f"model-{r}-{n}": (r, n) for r in (2, 4, 8) for n in (1, 2, 4, 8)}
CHANGED = {f"{k}-{name}": (k, name) for k, v in (("rank4", RANK4), ("rank8", RANK8)) for name in v}
SIZES = {f"size-{n}": n for n in (32, 64, 128, 256)}
# Positions and features with one recipe; `cross` reads about as many positions as BUDGET.
BUDGET = 750
POOLED = ("moments", "maximum")
CHOSEN: dict[str, tuple[Positions, tuple[str, ...]]] = {
    "random": (Positions(by="random", budget=BUDGET), POOLED),
    "grid": (Positions(by="grid", budget=BUDGET), POOLED),
    "layer norm": (Positions(by="grid", budget=BUDGET), POOLED),
    "cross": (Positions(), ("maximum",)),
}
HISTOGRAMS = {"histogram": BUDGET, "histogram of all": None}
STEPS = {"toy": 400, "mni": 800}
LEARN = {
    f"learn-{task}-{name.replace(' ', '-')}": (task, name)
    for task in STEPS
    for name in [*HISTOGRAMS, *CHOSEN]
}
N_SEEDS, BATCH = 3, 10
NAMES = [*MODELS, *CHANGED, *SIZES, "mni", *LEARN]
N_TRAIN, N_TEST = 80, 40
N_ALL = N_TRAIN + N_TEST


class Windows:
    """A volume in memory: padded once, every cube of one size a view of it."""

    def __init__(self, array: Tensor, size: int = 9):
        self.shape, self.channels = tuple(array.shape), 1
        view = pad(array, [size // 2] * 6)
        for k in range(3):
            view = view.unfold(k, size, 1)
        self.view = view

    def cubes(self, centers: Tensor, *, size: int) -> Tensor:
        return self.view[centers[:, 0], centers[:, 1], centers[:, 2]][:, None].float()


@dataclass(frozen=True)
class Task:
    volumes: list[Windows]
    target: Tensor
    seed: int

    @classmethod
    def of(cls, arrays: Tensor, radius: Tensor, seed: int) -> "Task":
        mean, spread = radius[:N_TRAIN].mean(), radius[:N_TRAIN].std()
        return cls([Windows(array) for array in arrays], (radius - mean) / spread, seed)

    def guess(self, model: CPIC, which: Sequence[int] | Tensor) -> Tensor:
        return model([self.volumes[k] for k in which], [f"patient {k}" for k in which])[:, 0]


def toy(seed: int, size: int = 32, dtype: torch.dtype = torch.float32) -> Task:
    """Ellipsoids with texture and a brighter ball, as in the chapter; same shapes at any size."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, size)
    place = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    half_axes = 0.7 + 0.2 * torch.rand(N_ALL, 3, generator=generator)
    coarse = torch.randn(N_ALL, 1, 8, 8, 8, generator=generator)
    grain = torch.randn(N_ALL, 32, 32, 32, generator=generator)
    radius = 0.12 + 0.28 * torch.rand(N_ALL, generator=generator)
    way = torch.randn(N_ALL, 3, generator=generator)
    way = way / way.norm(dim=1, keepdim=True) * torch.rand(N_ALL, 1, generator=generator) ** (1 / 3)
    center = 0.9 * way * (half_axes - radius[:, None])
    finer = torch.Generator().manual_seed(1000 + seed)
    arrays = torch.empty(N_ALL, size, size, size, dtype=dtype)
    for k in range(N_ALL):  # one at a time: at 256^3 all of them in single precision are 8 GB
        smooth = interpolate(coarse[k : k + 1], size=(size,) * 3, mode="trilinear")[0, 0]
        noise = grain[k] if size == 32 else torch.randn(size, size, size, generator=finer)
        values = 0.5 + 0.12 * smooth + 0.05 * noise
        values = values + 0.4 * ((place - center[k]).norm(dim=-1) < radius[k])
        arrays[k] = values * ((place / half_axes[k]).norm(dim=-1) < 1)
    return Task.of(arrays, radius, seed)


def heads() -> Task:
    """One head with a ball painted anywhere into its white matter."""
    return Task.of(*painted(N_ALL, seed=5), 0)


def make(
    task: Task,
    rank: int,
    n_dims=4,
    batch_norm=True,
    scaled=True,
    n_features=None,
    centered=False,
    components=None,
    **search: Any,
) -> CPIC:
    torch.manual_seed(task.seed)  # for the first weights
    encoder = CubeEncoder(n_dims, variant="fast")
    n_features = n_features or rank
    model = CPIC(
        encoder,
        TwoHeadRegressor(n_features, n_outputs=1, batch_norm=batch_norm),
        shape=task.volumes[0].shape,
        search=Search(rank=rank, **{"n_warm_starts": 1, **search}),
        components=Components(n_features, **(components or {"follow": None})),
        reading=Reading(centered=centered),
        generator=torch.Generator().manual_seed(task.seed),
    )
    if not scaled:
        model.components.standardized = lambda raw: raw  # type: ignore[method-assign]
    return model


def train(task: Task, model: CPIC, epochs: int, batch=20, lr=1e-2, clip=1.0, decay=True):
    """Errors of the test volumes ten and five epochs before the end of training, and then."""
    optimizer = torch.optim.RAdam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (N_TRAIN // batch))
    shuffle = torch.Generator().manual_seed(task.seed)
    last = []
    for epoch in range(epochs):
        for chosen in torch.randperm(N_TRAIN, generator=shuffle).split(batch):
            loss = (task.guess(model, chosen.tolist()) - task.target[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if decay:
                schedule.step()
        if epochs - epoch in (11, 6, 1):
            last.append(evaluate(task, model, range(N_TRAIN, N_ALL))[1])
    return last


@torch.no_grad()
def evaluate(task: Task, model: CPIC, which: range) -> tuple[Tensor, float]:
    """Predictions, and their error relative to that of predicting the mean."""
    model.eval()
    guess = torch.cat([task.guess(model, part) for part in parts(which)]).float()
    model.train()
    target = task.target[list(which)]
    return guess, round(float((guess - target).norm() / target.norm()), 3)


def parts(which: range, size: int = 20) -> list[range]:
    return [which[k : k + size] for k in range(0, len(which), size)]


@torch.no_grad()
def embedded(task: Task, model: CPIC) -> dict[str, Any]:
    """Two principal directions of the features of the test volumes, and the predictions."""
    guess, error = evaluate(task, model, range(N_TRAIN, N_ALL))
    model.eval()
    z = [
        model.components(model.trains([task.volumes[k] for k in p], [f"patient {k}" for k in p]))
        for p in parts(range(N_TRAIN, N_ALL))
    ]
    z = torch.cat(z) - torch.cat(z).mean(0)
    u, s, _ = torch.linalg.svd(z, full_matrices=False)
    xy = ((u * s)[:, :2] / z.square().mean().sqrt()).tolist()
    rounded = {"xy": [[round(v, 2) for v in p] for p in xy]}
    rounded["guess"] = [round(v, 3) for v in guess.tolist()]
    encoded = round(model.counts.encoded / model.counts.volumes)
    return {**rounded, "error": error, "encoded": encoded}


def make_row(name: str) -> dict[str, Any]:
    """What is recorded of one run."""
    if name in MODELS:
        rank, n_dims = MODELS[name]
        task = toy(0)
        model = make(task, rank, n_dims)
        train(task, model, 40)
        return {"rank": rank, "n_dims": n_dims, **embedded(task, model)}
    if name in SIZES:
        task = toy(0, SIZES[name], torch.float16 if SIZES[name] > 128 else torch.float32)
        model = make(task, 8, centered=True, n_warm_starts=4)
        start = time.perf_counter()
        last = train(task, model, 40)
        seconds = round(time.perf_counter() - start, 1)
        encoded = round(model.counts.encoded / model.counts.volumes)
        return {"size": SIZES[name], "last": last, "encoded": encoded, "seconds": seconds}
    if name in LEARN:
        task_name, choice = LEARN[name]
        return {"task": task_name, "name": choice, **learn(task_name, choice)}
    if name == "mni":
        task = heads()
        last = train(task, make(task, 8, components={"follow": 60}, n_warm_starts=4), 20)
        return {"what": MNI, "epochs": 20, "error": last[-1]}
    group, change = CHANGED[name]
    options: dict[str, Any] = dict((RANK4 if group == "rank4" else RANK8)[change])
    taught = {k: options.pop(k) for k in ("batch", "lr", "clip", "decay") if k in options}
    task = toy(options.pop("seed", 0))
    model = make(task, int(group[4:]), **options)
    last = train(task, model, 40, **taught)
    if group == "rank4":
        return {"last": last}
    mean = round(sum(last) / len(last), 3)
    return {
        "error": last[-1],
        "mean_last": mean,
        "train_error": evaluate(task, model, range(N_TEST))[1],
    }


def learn(task_name: str, name: str) -> dict[str, Any]:
    """Errors of one choice of positions and features, one for each seed."""
    task = toy(0) if task_name == "toy" else heads()
    arrays = torch.stack([window.view[..., 4, 4, 4] for window in task.volumes])
    if name in HISTOGRAMS:
        return by_histogram(arrays, task.target, HISTOGRAMS[name])
    errors, train_errors, encoded = [], [], 0.0
    for seed in range(N_SEEDS):
        volumes = [data.ArrayVolume(array) for array in arrays]
        seeded = Task(volumes, task.target, seed)  # type: ignore[arg-type]
        model = choice(name, seeded)
        one_cycle(seeded, model, STEPS[task_name])
        model.reset_counts()
        errors.append(evaluate(seeded, model, range(N_TRAIN, N_ALL))[1])
        encoded = model.counts.encoded / N_TEST
        train_errors.append(evaluate(seeded, model, range(N_TRAIN))[1])
    found = {"features": CHOSEN[name][1], "errors": errors, "train_errors": train_errors}
    return {**found, "encoded": round(encoded), "voxels": touched(name, arrays)}


def choice(name: str, task: Task) -> CPIC:
    """A new model with one choice of positions and features."""
    positions, features = CHOSEN[name]
    torch.manual_seed(task.seed)  # for the first weights
    encoder = CubeEncoder(8, variant="fast", activation="gelu", last="linear")
    width = count_features(features, rank=8, n_dims=8)
    layer_norm = name == "layer norm"
    return CPIC(
        encoder,
        TwoHeadRegressor(width, n_outputs=1, batch_norm=False, layer_norm=layer_norm),
        shape=task.volumes[0].shape,
        search=Search(rank=8),
        positions=positions,
        features=features,
        generator=torch.Generator().manual_seed(task.seed),
    )


class Marked(Marks, Windows):
    """A volume in memory that marks what is read."""


@torch.no_grad()
def touched(name: str, arrays: Tensor) -> float:
    """Share of the voxels in the cubes of a prediction by an untrained model, over ten volumes."""
    volumes = [Marked(array) for array in arrays[-10:]]
    model = choice(name, Task(volumes, arrays.new_zeros(0), 0)).eval()  # type: ignore[arg-type]
    model.features_of(volumes, [f"patient {k}" for k in range(10)])
    return round(share_marked(volumes, 9), 3)


def one_cycle(task: Task, model: CPIC, steps: int) -> None:
    """Train by AdamW with a rate that rises and falls once."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    shuffle = torch.Generator().manual_seed(task.seed)
    for _ in range(steps * BATCH // N_TRAIN):
        for chosen in torch.randperm(N_TRAIN, generator=shuffle).split(BATCH):
            loss = (task.guess(model, chosen.tolist()) - task.target[chosen]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


def by_histogram(arrays: Tensor, target: Tensor, count: int | None) -> dict[str, Any]:
    """Errors of a ridge regression on histograms of all voxels, or of `count` random ones."""
    flat, errors = arrays.flatten(1), []
    n_voxels = flat.shape[1]
    for seed in range(N_SEEDS if count else 1):
        generator = torch.Generator().manual_seed(seed)
        read = [torch.randperm(n_voxels, generator=generator)[:count] for _ in flat]
        bins = [
            torch.histc(f[at], 24, 0.05, float(flat.max()))
            for f, at in zip(flat, read, strict=True)
        ]
        errors.append(ridge_error(torch.stack(bins).sqrt(), target))
    share = (count or n_voxels) / n_voxels
    return {"errors": errors, "encoded": count or n_voxels, "voxels": round(share, 3)}


def ridge_error(features: Tensor, target: Tensor) -> float:
    """Error of a ridge regression on the test volumes."""
    fit, test = features.split([N_TRAIN, N_TEST])
    penalties = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    gap = ridge(fit, target[:N_TRAIN, None], test, penalties)[:, 0] - target[N_TRAIN:]
    return round(float(gap.norm() / target[N_TRAIN:].norm()), 3)


def put(record: dict[str, Any], name: str, row: dict[str, Any]) -> None:
    """The row in its place."""
    if name in CHANGED:
        group, change = CHANGED[name]
        record["changed"].setdefault(group, {})[change] = row
    elif name == "mni":
        record["mni"] = row
    elif name in LEARN:
        record.setdefault("learn", {})[name] = row
    else:
        kind, keys = ("models", ("rank", "n_dims")) if name in MODELS else ("sizes", ("size",))
        others = [x for x in record[kind] if any(x[k] != row[k] for k in keys)]
        record[kind] = sorted([*others, row], key=lambda x: [x[k] for k in keys])


def made(record: dict[str, Any], name: str) -> bool:
    """Whether the row is there."""
    if name in CHANGED:
        group, change = CHANGED[name]
        return change in record["changed"].get(group, {})
    if name in MODELS:
        return any((x["rank"], x["n_dims"]) == MODELS[name] for x in record["models"])
    if name in LEARN:
        return name in record.get("learn", {})
    if name in SIZES:
        return any(x["size"] == SIZES[name] for x in record["sizes"])
    return "mni" in record


def main() -> None:
    """Make what is asked for, or what is missing."""
    asked = asked_rows(__doc__, "rows", NAMES)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    record = {"models": [], "changed": {}, "sizes": [], **record, "what": WHAT}
    for name in rows_to_make(asked, NAMES, lambda name: not made(record, name)):
        row = make_row(name)
        put(record, name, {**row, "provenance": provenance()})
        write_json(OUT, record)
        shown = {k: v for k, v in row.items() if k not in ("xy", "guess", "what")}
        logging.info("%s: %s", name, shown)


if __name__ == "__main__":
    main()
