"""Rows of a GPU: a step on the wall clock, its memory, and how much of it the device is idle.

`seconds` are those of a sample: a step of 20, divided by 20, or one of a ResNet-34 by its batch,
in TF32 both. `MB` is the most that tensors held on the device since the model was made, `idle` the
share of a step in which it neither computes nor copies, `kernels` how often it is told to.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

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
        gc.collect()  # models of earlier rows
        torch.cuda.reset_peak_memory_stats(device)
    with matmul_precision(32, on_gpu=on_gpu):
        call = make()
        seconds = statistics.median(_seconds(call, device) for _ in range(STEPS))
        figures = {"seconds": seconds / batch}
        if on_gpu:
            figures["MB"] = torch.cuda.max_memory_allocated(device) / 1e6
            spans = device_spans(call, device)
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


def device_spans(call: Callable[[], object], device: str) -> list[tuple[float, float]]:
    """Beginning and end, in seconds, of all that a device does in a call."""
    kind = torch.device(device).type.upper()
    with torch.profiler.profile(activities=[getattr(ProfilerActivity, kind)]) as profiled:
        call()
        synchronize(device)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiled.events() or ()
        if event.device_type == getattr(DeviceType, kind)
    ]
    return [(start / 1e6, end / 1e6) for start, end in spans]


def busy(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total = reached = 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@dataclass(frozen=True)
class Steps:
    """What is measured on a device: volumes of `side`^3, and formulas of `sides`.

    `options` are of `Setting`.
    """

    device: str = "cuda"
    side: int = 256
    sides: tuple[int, ...] = (512, 8192)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> Setting:
        """Volumes in memory."""
        shape = (self.side,) * 3
        return Setting(shape=shape, source="memory", device=self.device, **self.options)

    @property
    def ours(self) -> dict[str, tuple[Setting, float | None]]:
        """Settings of C-PIC by name, and the seconds that a step may take."""
        where, plain = f"{self.side}^3", self.plain
        found: dict[str, tuple[Setting, float | None]] = {}
        for variant in ("paper", "fast"):
            one = replace(plain, variant=variant)
            found[f"step {where}, {variant}"] = one, GOALS["step"]
            found[f"step {where}, {variant}, known sets"] = (
                replace(one, select=10**6),
                GOALS["known"],
            )
        stores = replace(plain, source="stores", cache=2**31)  # holds all of them
        found[f"step {where}, fast, in stores"] = stores, None
        for length in self.sides:
            formula = replace(plain, shape=(length,) * 3, source="formula", n_dims=8)
            found[f"step {length}^3, fast, formula"] = formula, GOALS.get(length)
        return found

    @property
    def networks(self) -> dict[str, Setting]:
        """Settings of the network by name."""
        batches = {n: replace(self.plain, batch=n) for n in (1, 2)}
        return {f"ResNet-34 {self.side}^3, batch {n}": one for n, one in batches.items()}


def gpu_cases(steps: Steps = Steps()) -> dict[str, Case]:
    """Every case by its name."""
    cases = [_case(name, *made, steps) for name, made in steps.ours.items()]
    return {case.name: case for case in cases}


def _case(name: str, setting: Setting, seconds: float | None, steps: Steps) -> Case:
    peers, shares = {}, {}
    if setting.source == "stores":
        peers, shares = {"in memory": partial(step, steps.plain)}, {("seconds", "in memory"): 1.5}
    elif setting.source == "memory" and setting.select == 1:
        network = partial(dense, next(iter(steps.networks.values())))
        peers, shares = {"ResNet-34": network}, {("seconds", "ResNet-34"): SHARE}
    goals = {"MB": 1500.0, "idle": 0.3}
    if seconds is not None:
        goals["seconds"] = seconds / setting.batch
    return Case(
        name=f"{name}, GPU",
        ours=partial(step, setting),
        peers=peers,
        goals=goals,
        shares=shares,
        repeats=1,
        peak="none",
    )
