"""Rows of training: a step of the whole model, beside networks and pipelines that do the same.

All figures are those of one sample: a step of a batch of 20, divided by 20, against a ResNet-34
forward and backward on one whole volume, which is what fits. Our volumes are read from disk in
every step, those of the ResNet are in memory. `entries` counts what the sweeps ask for,
`positions` the distinct ones that are encoded.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from cpic.nn import VolumeEntries
from tests.bench.harness import Case
from tests.bench.peers import run_peer
from tests.bench.timing import processor_clock
from tests.bench.training import Dense, Setting, Training, Variant, one_step, volumes

POSITIONS = 4000
SWEEPS = 15


def step(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """A warm step; without check, just the first two."""
    training = Training(setting, seed=seed, warm=2)
    return one_step(training) if check else {"seconds": 0.0}


def first_visit(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """The step that looks for the sets, from random ones."""
    return one_step(Training(setting, seed=seed, warm=0), steps=1)


def second_visit(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """The step after it."""
    return one_step(Training(setting, seed=seed, warm=1), steps=1)


def prediction(setting: Setting, n: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """Volumes never seen, by a model that has seen others."""
    training = Training(setting, seed=seed, warm=1)
    training.model.reset_counts()
    clock = processor_clock()
    training.predict(n)
    return {"seconds": clock() / n, "positions": training.model.counts.encoded / n}


@cache
def dense(shape: tuple[int, ...], what: str, seed: int, *, check: bool = True) -> dict[str, float]:
    """The ResNet-34, once for all rows: `what` is a method of `Dense`."""
    torch.manual_seed(seed)
    model = Dense(shape, volumes(Setting(shape=shape, batch=1))[0])
    clock = processor_clock()
    getattr(model, what)()
    return {"seconds": clock()}


def sweeps(setting: Setting, seed: int, *, check: bool = True) -> dict[str, float]:
    """The cross of tntorch on one volume through the same encoder, from nothing, without gradient.

    A published step does this for every sample, and the backward pass comes on top. Here the
    sweeps read and encode distinct positions by our means, which the published code does not: the
    row compares what is asked for, not how.
    """
    model = Training(setting, seed=seed, warm=0).model
    entries = VolumeEntries(volumes(replace(setting, batch=1)), model.encoder, model.grid)

    @torch.no_grad()
    def function(index: np.ndarray) -> np.ndarray:
        return entries(torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64))[None])[
            0
        ].numpy()

    clock = processor_clock()
    run_peer("tntorch", function, model.sizes, rank=setting.rank, sweeps=SWEEPS, seed=seed)
    return {"seconds": clock(), "positions": entries.encoded, "entries": entries.asked}


def title(shape: tuple[int, ...]) -> str:
    """A shape as the tables write it."""
    return f"{shape[0]}^{len(shape)}" if len(set(shape)) == 1 else "x".join(map(str, shape))


def training_cases(
    shape: tuple[int, ...] = (128, 128, 128), *, batch: int = 20, rank: int = 10
) -> dict[str, Case]:
    """The cases of one shape, by their names; a step of the network on 256^3 takes two minutes."""
    options: dict[str, Any] = {"batch": batch, "rank": rank}
    setting = Setting(shape=shape, **options)
    cases = [*_whole(shape, options), _beside_sweeps(setting), _second_beside_first(setting)]
    return {case.name: case for case in cases}


def _whole(shape: tuple[int, ...], options: Mapping[str, Any]) -> list[Case]:
    steps = [_beside_network(shape, variant, None, options) for variant in ("fast", "paper")]
    return [*steps, _prediction(shape, options)]


def resolution_cases(
    shapes: tuple[tuple[int, ...], ...] = ((256, 256, 256), (32, 512, 512)),
    sides: tuple[int, ...] = (512, 1024, 4096, 8192),
    *,
    base: int = 256,
    batch: int = 20,
    rank: int = 10,
) -> dict[str, Case]:
    """Cases that take long, by their names: beside a network, and finer volumes."""
    options: dict[str, Any] = {"batch": batch, "rank": rank}
    cases = _whole(shapes[0], options)
    cases += [_beside_network(shape, "paper", 1024, options) for shape in shapes]
    cases += [_beside_small(side, base, chunk, options) for side in sides for chunk in (None, 1024)]
    return {case.name: case for case in cases}


def _case(
    name: str,
    ours: Callable[..., Mapping[str, float]],
    peers: Mapping[str, Callable[..., Mapping[str, float]]],
    goals: Mapping[str, float],
    shares: Mapping[tuple[str, str], float],
    *,
    memory: bool = False,
) -> Case:
    """One run each, as they take long; the steps in it are repeated."""
    return Case(
        name=name,
        ours=ours,
        peers=peers,
        goals=goals,
        shares=shares,
        repeats=1,
        peak="whole" if memory else "none",
    )


def _beside_network(
    shape: tuple[int, ...], variant: Variant, chunk: int | None, options: Mapping[str, Any]
) -> Case:
    """In chunks the memory counts, else the time: that of the network grows with the voxels."""
    share = 256**3 / math.prod(shape) / 80
    setting = Setting(shape=shape, variant=variant, chunk=chunk, **options)
    return _case(
        f"training step {title(shape)}, encoder {variant}{', in chunks' * bool(chunk)}",
        partial(step, setting),
        {"ResNet-34": partial(dense, shape, "step")},
        {} if chunk else {"positions": POSITIONS},
        {("MB", "ResNet-34"): 0.35} if chunk else {("seconds", "ResNet-34"): share},
        memory=chunk is not None,
    )


def _prediction(shape: tuple[int, ...], options: Mapping[str, Any]) -> Case:
    setting = Setting(shape=shape, **options)
    return _case(
        f"prediction {title(shape)}",
        partial(prediction, setting, min(4, options["batch"])),
        {"ResNet-34": partial(dense, shape, "predict")},
        {"seconds": 1.0},
        {},
    )


def _beside_sweeps(setting: Setting) -> Case:
    return _case(
        f"step against {SWEEPS} sweeps, {title(setting.shape)}, encoder {setting.variant}",
        partial(step, setting),
        {"tntorch": partial(sweeps, setting)},
        {},
        {("entries", "tntorch"): 1 / 25},
    )


def _second_beside_first(setting: Setting) -> Case:
    return _case(
        f"second visit against first, {title(setting.shape)}",
        partial(second_visit, setting),
        {"first visit": partial(first_visit, setting)},
        {},
        {("seconds", "first visit"): 0.5},
    )


def _beside_small(side: int, base: int, chunk: int | None, options: Mapping[str, Any]) -> Case:
    """Formula volumes, so that any resolution is there; n_dims 8."""
    setting = Setting(
        shape=(side,) * 3,
        n_dims=8,
        variant="paper",
        chunk=chunk,
        source="formula",
        **options,
    )
    small = f"{base}^3"
    times = 1.3 if side <= 2 * base else 2.5
    return _case(
        f"training step {side}^3 of a formula" + (", in chunks" if chunk else ""),
        partial(step, setting),
        {small: partial(step, replace(setting, shape=(base,) * 3))},
        {"MB": 4000, "positions": POSITIONS},
        {("seconds", small): times, ("MB", small): 1.5},
        memory=True,
    )
