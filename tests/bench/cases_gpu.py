"""Rows of a GPU: a step on the wall clock, its memory, and how much of it the device is idle.

`seconds` are those of a sample: a step of 20, divided by 20, or one of a ResNet-34 by its batch,
in TF32 both. `MB` is the most that tensors held on the device since the model was made, `idle` the
share of a step in which it neither computes nor copies, `kernels` how often it is told to.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from cpic.train.loop._globals import matmul_precision
from tests.bench.harness import Case
from tests.bench.training import Dense, Setting, Training, volumes

STEPS = 5
SHARE = 1 / 20  # of a ResNet-34
# Seconds of a step of 20, of the issue that set them.
GOALS = {"step": 0.060, "known": 0.012, 512: 0.080, 8192: 0.120}


@cache
def step(setting: Setting, seed: int = 0, *, check: bool = True) -> dict[str, float]:
    """A warm step of C-PIC."""

    def make() -> Callable[[], object]:
        return Training(setting, seed=seed, warm=2).step

    return measured(make, setting.device, setting.batch)


@cache
def dense(setting: Setting, seed: int = 0, *, check: bool = True) -> dict[str, float]:
    """A step of a ResNet-34 on the first volumes, which are where it is."""

    def make() -> Callable[[], object]:
        torch.manual_seed(seed)
        model = Dense(setting.shape, *volumes(setting), device=setting.device)
        model.step()
        return model.step

    return measured(make, setting.device, setting.batch)


def measured(make: Callable[[], Callable[[], object]], device: str, batch: int) -> dict[str, float]:
    """Figures of what `make` returns, called several times."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
    with matmul_precision(32, on_gpu=on_gpu):
        call = make()
        seconds = statistics.median(_seconds(call, device) for _ in range(STEPS))
        figures = {"seconds": seconds / batch}
        if on_gpu:
            figures["MB"] = torch.cuda.max_memory_allocated(device) / 1e6
            spans = device_spans(call)
            figures |= {"idle": 1 - busy(spans) / seconds, "kernels": len(spans)}
    return figures


def _seconds(call: Callable[[], object], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def device_spans(call: Callable[[], object]) -> list[tuple[float, float]]:
    """Beginning and end, in seconds, of all that a device does in a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    on_device = torch.autograd.DeviceType.CUDA
    return [
        (event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in profiled.events() or ()
        if event.device_type == on_device
    ]


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total = reached = 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def gpu_cases(
    device: str = "cuda", side: int = 256, sides: tuple[int, ...] = (512, 8192), **options: Any
) -> dict[str, Case]:
    """Every case by its name."""
    setting = Setting(shape=(side,) * 3, source="memory", device=device, **options)
    network = partial(dense, replace(setting, batch=1))
    where, cases = f"{side}^3", []
    for variant in ("paper", "fast"):
        one = replace(setting, variant=variant)
        known, named = replace(one, select=10**6), f"{where}, encoder {variant}, GPU"
        cases += [
            _case(f"step {named}", one, {"ResNet-34": network}, GOALS["step"], SHARE),
            _case(f"step on known sets {named}", known, {}, GOALS["known"]),
        ]
    stores = replace(setting, source="stores", cache=2**31)  # all of them
    in_memory = {"in memory": partial(step, setting)}
    cases.append(_case(f"step {where}, volumes in stores, GPU", stores, in_memory, None, 1.5))
    for length in sides:
        formula = replace(setting, shape=(length,) * 3, source="formula", n_dims=8)
        cases.append(_case(f"step {length}^3 of a formula, GPU", formula, {}, GOALS.get(length)))
    return {case.name: case for case in cases}


def _case(
    name: str,
    setting: Setting,
    peers: Mapping[str, Callable[..., Mapping[str, float]]],
    seconds: float | None,
    share: float = 1.0,
) -> Case:
    goals = {"MB": 1500.0, "idle": 0.3}
    if seconds is not None:
        goals["seconds"] = seconds / setting.batch
    shares = {("seconds", peer): share for peer in peers}
    ours = partial(step, setting)
    return Case(
        name=name, ours=ours, peers=peers, goals=goals, shares=shares, repeats=1, peak="none"
    )
