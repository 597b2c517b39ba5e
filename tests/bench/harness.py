"""Rows of the benchmark: measured side by side, shown as a table, kept as JSON.

Times are processor seconds of one thread (`time.process_time`), which other load on the machine
disturbs least. Ours and the peers' runs alternate until a case has used its time, and a row holds
medians and says of how many runs. Memory is the growth of the peak resident set over the imports
and the problem, each in a fresh process. A row that misses its goal says so; nothing here fails.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

ROOT = Path(__file__).parents[2]
REPEATS = 5
# Processor time of a case after its first run, which prepares the problem, and of a first run that
# is too long to be repeated.
SECONDS, LONG = 1.5, 4.0
_PEAKS: dict[str, float] = {}
# The allocator (glibc) returns what is freed. Else it keeps as much of a warm-up run as it likes,
# which then counts as held before the run that is measured.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure, lower being better, beside the same figure of a peer."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    goal: float | None = None
    met: bool | None = None
    runs: int = 1
    machine: str = ""
    commit: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem with our call, the peers' calls and the goals.

    `ours(seed)` and each of `peers[name](seed)` map units (`error`, `entries`, ...) to numbers; the
    processor seconds of the call join them as `seconds`, unless they bring their own. With
    `check=False` they skip what only measures the result, as the memory rows need it.

    `goals` are upper bounds by unit; `shares` are such bounds relative to a peer, by unit and name
    of the peer, `best` such bounds by unit relative to the least of the peers that meet `goals`
    themselves. `repeats` caps the runs of a case that takes long. `peak`: the row of memory is the
    growth over imports and problem ("growth"), the peak resident set of a fresh process that does
    nothing else, imports included ("whole"), or left out ("none").
    """

    name: str
    ours: Callable[..., Mapping[str, float]]
    peers: Mapping[str, Callable[..., Mapping[str, float]]]
    goals: Mapping[str, float]
    shares: Mapping[tuple[str, str], float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    repeats: int | None = None
    peak: Literal["growth", "whole", "none"] = "growth"


def timed(run: Callable[..., Mapping[str, float]], seed: int) -> dict[str, float]:
    start = time.process_time()
    figures = run(seed)
    return {"seconds": time.process_time() - start, **figures}


def measure(case: Case, repeats: int = REPEATS, seconds: float = SECONDS) -> list[Row]:
    """Alternate ours and the peers over seeds, and return a row a figure and peer.

    All sides run at least once, and as often as each other.
    """
    runs = {"": case.ours, **case.peers}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    begin, first = spent(), 0.0
    for seed in range(min(repeats, case.repeats or repeats)):
        for name, run in runs.items():
            found[name].append(timed(run, seed))
        first = first or spent() - begin
        if first > LONG or spent() - begin - first > seconds:
            break
    middle = {
        name: {unit: statistics.median(f[unit] for f in figures) for unit in figures[0]}
        for name, figures in found.items()
    }
    n = len(found[""])
    return [row for unit in middle[""] for row in _rows_of(case, unit, middle, n)]


def spent() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def _rows_of(case: Case, unit: str, middle: dict[str, dict[str, float]], runs: int) -> list[Row]:
    value = middle[""][unit]
    common = {"name": case.name, "value": value, "unit": unit, "runs": runs}
    common |= {"machine": machine(), "commit": commit()}
    beside = {peer: figures[unit] for peer, figures in middle.items() if peer and unit in figures}
    rows = []
    alone: dict[str | None, float | None] = {None: None}
    rivals = [
        figures[unit]
        for peer, figures in middle.items()
        if peer and unit in figures and all(figures.get(u, 0) <= g for u, g in case.goals.items())
    ]
    for peer, theirs in (beside or alone).items():
        bounds = [case.goals[unit]] if unit in case.goals else []
        if unit in case.best and rivals:
            bounds.append(case.best[unit] * min(rivals))
        if peer and theirs is not None and (unit, peer) in case.shares:
            bounds.append(case.shares[unit, peer] * theirs)
        goal = min(bounds, default=None)
        met = None if goal is None else value <= goal
        ratio = value / theirs if theirs else None
        rows.append(Row(**common, goal=goal, met=met, peer=peer, peer_value=theirs, ratio=ratio))
    return rows


def peak_growth(run: Callable[..., object]) -> float:
    """Megabytes by which one run raises the peak resident set of this process (Linux)."""
    reset_peak()
    before = _high_water()
    run(0, check=False)
    return (_high_water() - before) / 1024


def peak_whole(run: Callable[..., object]) -> float:
    """Megabytes that this process holds at most, from now to the end of one run (Linux)."""
    reset_peak()
    run(0, check=False)
    return peak_of_process()


def peak_of_process() -> float:
    """Megabytes that this process held at most since `reset_peak` (Linux)."""
    return _high_water() / 1024


def reset_peak() -> None:
    """Forget the peak so far: it survives exec, so a fresh process starts with its parent's."""
    Path("/proc/self/clear_refs").write_text("5")


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def peak_in_fresh_process(case: str, who: str) -> float:
    """Run one side of a case in a new interpreter and return its peak growth in megabytes."""
    command = [sys.executable, "-m", "tests.bench", "--peak", case, who]
    options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | RETURNED}
    done = subprocess.run(command, **options, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def memory(case: Case, *, always: bool = False) -> list[Row]:
    """Peak memory of our side and of each peer, if it is bounded, or `always`."""
    bounded = "MB" in {*case.goals, *case.best, *(unit for unit, _ in case.shares)}
    if case.peak == "none" or not (bounded or always):
        return []
    middle = {}
    for name, run in {"": case.ours, **case.peers}.items():
        key = f"{case.peak} {run!r}"  # a peer of several cases is measured once
        if key not in _PEAKS:
            _PEAKS[key] = peak_in_fresh_process(case.name, name)
        middle[name] = {"MB": _PEAKS[key]}
    return _rows_of(case, "MB", middle, 1)


def machine() -> str:
    """Processor, cores and the version of torch."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


def commit() -> str:
    """The commit that was measured, with a plus sign when the tree differs from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True
    ).stdout.strip()
    return head + ("+" if changed else "")


def table(rows: list[Row]) -> str:
    """The rows as text, one line each."""
    head = ("what", "ours", "unit", "goal", "", "peer", "its value", "ratio", "runs")
    lines = [
        (
            row.name,
            f"{row.value:.3g}",
            row.unit,
            "" if row.goal is None else f"{row.goal:.3g}",
            {None: "", True: "met", False: "MISSED"}[row.met],
            row.peer or "",
            "" if row.peer_value is None else f"{row.peer_value:.3g}",
            "" if row.ratio is None else f"{row.ratio:.2g}",
            str(row.runs),
        )
        for row in rows
    ]
    widths = [max(len(line[k]) for line in [head, *lines]) for k in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    )


def write(rows: list[Row], path: Path) -> None:
    """Keep the rows as JSON; the file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    part.replace(path)
