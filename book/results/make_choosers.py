"""Choosers of entries at equal reading: which one wins where. Writes `choosers.json` beside this.

    python book/results/make_choosers.py             # what is missing; all of it: 25 minutes
    python book/results/make_choosers.py t1 3-jump   # parts whose names begin so, once more

Parts are the subjects (heads, photographs) and the cells of the map: axes x kind of function. One
that is there is not repeated unless it is named. One thread.
"""

import itertools
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _rows import asked_rows, rows_to_make
from torch import Tensor

from cpic import data
from cpic.choose import choose
from cpic.choose._scattered import Scattered
from cpic.cohorts._cache import write_json
from cpic.train.results._results import provenance
from cpic.tt import dense_entries
from cpic.tt._ledger import key_weights
from cpic.tt._points import random_points

OUT = Path(__file__).parent / "choosers.json"
WHAT = (
    "Relative errors of the pictures that choosers rebuild from equally many entries read, three "
    "each: for subjects (MNI152 at 1 mm, photographs of scikit-image) of the array as it is and "
    "mirrored along the first and the second axis, on 2^17 random entries; for the map of three "
    "functions with other random numbers, on 1024 random entries without the noise. best grid: "
    "the least error of grids with the phases 0, 0.5 and ends. importance: a quarter of the budget "
    "is a grid, whose jumps are the map for the rest; the picture follows from both. Values at "
    "scattered positions are interpolated linearly in photographs, by the nearest elsewhere."
    " tt-svd: the best train of as many numbers as the budget, from all entries, as an oracle; "
    "grid+tt-svd: of what a grid of half the budget leaves, with as many numbers as the other half;"
    " both once, of the array as it is, at 2 and 5 %. read: largest share of the entries. seconds: "
    "of one array. Functions of the map are sums of four bells, cones or balls, or of four waves, "
    "on [0, 1]^axes; oblique: their widths, 0.5 to 2 times the mean, are along rotated axes. Widths"
    " are in units of the cube and grow with the root of axes / 3. noise: uniform, its deviation "
    "relative to the root mean square."
)
HEADS = ("t1", "gm", "wm")
SUBJECTS = (*HEADS, "camera", "astronaut", "chelsea", "gravel")
SHARES = (0.002, 0.008, 0.02, 0.05)
SIDES = {3: 64, 4: 32, 6: 16, 10: 16}
KINDS = ("bells", "cones", "balls", "waves")
DETAIL = {"large": 0.35, "small": 0.12}
COUNTS = {3: (0.001, 0.01, 0.05)}  # of all entries; in more dimensions numbers
COUNT = (1000, 10_000, 50_000)
PLAIN: dict[str, dict[str, Any]] = {
    "grid": {},
    "random": {},
    "jittered": {},
    "low-discrepancy": {},
    "importance": {},
    "coarse-to-fine": {},
    "cross-square": {},
    "cross-least-squares": {},
    "grid+cross": {},
    "tt-svd": {},
}
BITS = {"quantics": ("cross-least-squares", {"bits": "interleaved", "base": 8})}
PARTS = [*SUBJECTS, *(f"{d}-{kind}" for d in SIDES for kind in KINDS)]
RANDOM = ("random", "jittered", "low-discrepancy")
FLAT = ("importance", "coarse-to-fine")  # they hold all entries, or cells of all


def subject(name: str) -> Tensor:
    """The array and its mirror images, float32 `(3, *shape)`."""
    array = data.mni152(name).read() if name in HEADS else data.photograph(name).float()
    return torch.stack([array, array.flip(0), array.flip(1)])


class Functions:
    """Three functions on a grid of [0, 1]^axes, without their noise and with it."""

    def __init__(self, axes: int, kind: str, widths: str, detail: str, noise: float):
        draw = torch.Generator().manual_seed(axes)
        self.kind, self.shape, self.noise = kind, (SIDES[axes],) * axes, noise
        shape = (3, 4, axes)
        self.center = 0.2 + 0.6 * torch.rand(shape, generator=draw, dtype=torch.float64)
        self.height = 0.5 + torch.rand(3, 4, generator=draw, dtype=torch.float64)
        turned = torch.linalg.qr(torch.randn(3, axes, axes, generator=draw, dtype=torch.float64)).Q
        spread = (
            torch.ones(axes).double()
            if widths == "equal"
            else 2 ** torch.linspace(-1, 1, axes).double()
        )
        scale = (turned.mT if widths == "oblique" else torch.eye(axes).double()) / spread[:, None]
        self.scale = scale.expand(3, -1, -1) / (DETAIL[detail] * (axes / 3) ** 0.5)
        self.wave = torch.randn(shape, generator=draw, dtype=torch.float64)
        self.wave = self.wave / self.wave.norm(dim=-1, keepdim=True) * (axes / 3) ** 0.5
        points = random_points(self.shape, 4096, n_trains=3, generator=draw)
        self.size = self.pure(points).square().mean(1, keepdim=True).sqrt()

    def pure(self, indices: Tensor) -> Tensor:
        """Values `(3, n)` at indices `(3, n, axes)`."""
        gap = (indices.double() + 0.5)[:, :, None] / self.shape[0] - self.center[:, None]
        gap = torch.einsum("kij,kncj->knci", self.scale, gap)
        if self.kind == "waves":
            value = (2 * (gap * self.wave[:, None]).sum(-1)).cos()
        else:
            r = gap.norm(dim=-1)
            rise = {"bells": lambda: (-r * r / 2).exp(), "cones": lambda: (1 - r / 2).clamp_min(0)}
            value = rise[self.kind]() if self.kind in rise else (r < 1.5).double()
        return (value * self.height[:, None]).sum(-1)

    def __call__(self, indices: Tensor) -> Tensor:
        """With noise that depends on the entry alone."""
        key = (indices * key_weights(self.shape)).sum(-1) + torch.arange(3)[:, None] * 7919
        for factor in (0x5851F42D4C957F2D, 0x2545F4914F6CDD1D):
            key = (key ^ (key >> 31)) * factor
        uniform = (key >> 11).bitwise_and(2**52 - 1).double() / 2**52 - 0.5
        return self.pure(indices) + self.noise * self.size * 12**0.5 * uniform


def two_phases(entries: Callable, shape: tuple[int, ...], count: int, generator, k: int, rule):
    """Importance by the jumps of a grid that reads a quarter of the budget."""
    first = choose(entries, shape, budget=max(2 ** len(shape), count // 4), n_arrays=k)
    sizes = [len(axis.unique()) for axis in first.positions[0].unbind(-1)]
    values, jumps = first.values.unflatten(1, sizes), torch.zeros(k, *sizes)
    for axis in range(1, len(shape) + 1):
        jump = values.diff(dim=axis).abs().float()
        jumps.narrow(axis, 0, sizes[axis - 1] - 1).add_(jump)
        jumps.narrow(axis, 1, sizes[axis - 1] - 1).add_(jump)
    rest = {"budget": count - first.positions.shape[1], "map": jumps, "mix": 0.2}
    then = choose(entries, shape, by="importance", n_arrays=k, generator=generator, **rest)
    both = [
        torch.cat([getattr(c, name) for c in (first, then)], 1) for name in ("positions", "values")
    ]
    return Scattered(shape, *both, rule), first.asked + then.asked


def read_by(name: str, entries: Callable, shape: tuple[int, ...], count: int, k: int, rule):
    """The picture of a chooser and how many entries it read."""
    generator = torch.Generator().manual_seed(0)
    if name == "importance":
        return two_phases(entries, shape, count, generator, k, rule)
    by, options = BITS.get(name, (name, {"rule": rule} if name in RANDOM else {}))
    found = choose(entries, shape, by=by, budget=count, n_arrays=k, generator=generator, **options)
    return found, found.asked


def measure(
    names: list[str],
    entries: Callable,
    shape: tuple[int, ...],
    count: int,
    points: Tensor,
    truth: Tensor,
    rule: str = "auto",
) -> dict[str, Any]:
    """Errors, entries read and seconds of all choosers at one budget."""
    k, errors, read, seconds = len(truth), {}, {}, {}

    def error(picture) -> list[float]:
        gap = picture.entries(points) - truth
        return [float(f"{x:.3g}") for x in (gap.norm(dim=1) / truth.norm(dim=1)).tolist()]

    for name in names:
        start = time.perf_counter()
        try:
            picture, asked = read_by(name, entries, shape, count, k, rule)
        except ValueError as refused:
            logging.info("%s at %s: %s", name, count, refused)
            continue
        seconds[name] = round((time.perf_counter() - start) / k, 3)
        errors[name], read[name] = error(picture), int(asked.max())
        if name == "grid":
            others = [
                choose(entries, shape, budget=count, n_arrays=k, phase=p) for p in (0.0, "ends")
            ]
            each = [errors[name], *map(error, others)]
            errors["best grid"] = [min(column) for column in zip(*each, strict=True)]
    return {"errors": errors, "read": read, "seconds": seconds}


def make_subject(name: str) -> list[dict[str, Any]]:
    """All choosers on one array, at all shares."""
    arrays = subject(name)
    shape, total = tuple(arrays.shape[1:]), arrays[0].numel()
    entries = dense_entries(arrays)
    seed = torch.Generator().manual_seed(1)
    points = random_points(shape, 2**17, n_trains=3, generator=seed)
    truth, rows = entries(points), []
    for share in SHARES:
        count = int(share * total)
        names = [by for by in (*PLAIN, *BITS) if by != "tt-svd"]
        # A triangulation of so many positions takes minutes.
        rule = "nearest" if name in HEADS else "auto"
        row = measure(names, entries, shape, count, points, truth, rule)
        if share >= 0.02:
            row["errors"] |= oracles(arrays[:1], count, points[:1], truth[:1])
        row["read"] = {by: round(n / total, 5) for by, n in row["read"].items()}
        rows.append({"share": share, **row})
    return rows


def oracles(array: Tensor, count: int, points: Tensor, truth: Tensor) -> dict[str, list[float]]:
    """Errors of the best trains of an array, and of what a grid leaves of it."""
    shape = tuple(array.shape[1:])
    half = choose(dense_entries(array), shape, budget=count // 2)
    rest = array - half.dense()
    whole, part = (
        choose(dense_entries(a), shape, by="tt-svd", budget=n).entries(points)
        for a, n in ((array, count), (rest, count // 2))
    )
    gaps = {"tt-svd": whole - truth, "grid+tt-svd": part + half.entries(points) - truth}
    return {by: [float(f"{gap.norm() / truth.norm():.3g}")] for by, gap in gaps.items()}


def make_cell(name: str) -> list[dict[str, Any]]:
    """All choosers on all functions of one kind and number of axes."""
    axes, kind = int(name.split("-")[0]), name.split("-")[1]
    left_out = {*RANDOM[1:], "tt-svd", *(() if axes <= 4 else FLAT)}
    names = [by for by in (*PLAIN, *BITS) if by not in left_out]
    rows = []
    noises = [("equal", 0.0), ("equal", 0.1), ("along", 0.0), ("oblique", 0.0)]
    for (widths, noise), detail in itertools.product(noises, DETAIL):
        entries = Functions(axes, kind, widths, detail, noise)
        seed = torch.Generator().manual_seed(1)
        points = random_points(entries.shape, 1024, n_trains=3, generator=seed)
        truth = entries.pure(points)
        for budget in COUNTS.get(axes, COUNT):
            total = math.prod(entries.shape)
            count = budget if isinstance(budget, int) else int(budget * total)
            row = measure(names, entries, entries.shape, count, points, truth, "nearest")
            where = {"widths": widths, "detail": detail, "noise": noise, "count": count}
            rows.append({**where, "errors": row["errors"]})
    return rows


def main() -> None:
    """Make what is asked for, or what is missing."""
    asked = asked_rows(__doc__, "parts", PARTS)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"parts": {}}
    parts = record["parts"]
    for name in rows_to_make(asked, PARTS, lambda name: name not in parts):
        start = time.perf_counter()
        rows = make_subject(name) if name in SUBJECTS else make_cell(name)
        parts[name] = {"rows": rows, "provenance": provenance()}
        write_json(OUT, {"what": WHAT, "parts": {p: parts[p] for p in PARTS if p in parts}})
        logging.info("%s: %.0f s", name, time.perf_counter() - start)


if __name__ == "__main__":
    main()
