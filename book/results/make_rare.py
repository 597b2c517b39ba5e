"""What is rare, by all choosers at equal reading. Writes `rare.json` beside this.

    python book/results/make_rare.py             # the phases that are missing; all: 10 minutes
    python book/results/make_rare.py 0.0001      # those whose names begin so, once more

One thread. One blob in 256^3 voxels, 20 blobs at once; a phase is its share of the volume, whether
its tails end, and whether there is texture around it.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _rows import asked_rows, rows_to_make
from torch import Tensor

from cpic import data
from cpic.choose import Chosen, choose, positions
from cpic.cohorts._cache import write_json
from cpic.train.results._results import provenance
from cpic.tt import dense_entries

OUT = Path(__file__).parent / "rare.json"
WHAT = (
    "Relative errors of the mean of an encoded volume of 256^3 voxels with one blob, for 20 blobs "
    "(5 at a share of 0.1) at random places, at 4096 numbers read of each, and how many were "
    "missed: no position has an encoded value above a half. A voxel v is encoded as the logistic "
    "function of (v - 0.7) / 0.03, less its value at 0. v rises from 0, or from a texture of up to "
    "0.4 with details of 4 and 16 voxels, to 1 in the blob; share: of the volume, of a ball at "
    "whose surface the blob is at one half; compact: smooth, nothing beyond 1.5 radii; sigmoid: of "
    "the width 2, without end. cross: quantics, square, of the largest rank whose search stays "
    "within; corrected: for half of the budget, the rest are jittered positions at which the "
    "difference to the train is read. coarse-to-fine: down to 2 voxels, 4 from a share of 0.01 on. "
    "pyramid: levels of v of 2^3 to 32^3 voxels a block; importance: the coarsest of them alone; "
    "coarse-to-fine on a level, and level: the encoded means of its blocks of 32^3 voxels, each "
    "counted as one number. read: most numbers of a volume. more: some of them at 65 536 numbers, "
    "with levels of up to 8^3 voxels a block. heads: of 20 MNI152 heads at 1 mm with one ball of 3 "
    "to 8 mm radius in white matter, how many have the brightest voxel read, and any voxel read, in"
    " the ball; vessels: as many straight tubes of 40 mm and 1.5 to 4 mm radius, as bright as it."
)
SIDE, COUNT, MORE, N = 256, 4096, 65_536, 20
SHARES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
TAILS = ("compact", "sigmoid")
GROUNDS = ("zero", "textured")
PHASES = [
    f"{share:g}-{tails}-{ground}" for share in SHARES for tails in TAILS for ground in GROUNDS
]
BLOCKS = (2, 4, 8, 16, 32)
Read = tuple[Tensor, Tensor, int]
"""Estimated means `(K,)`, the largest value read of each `(K,)`, and the most numbers of one."""


def texture() -> Tensor:
    """From 0 to 0.4, float32 `(256, 256, 256)`."""
    draw, total = torch.Generator().manual_seed(0), torch.zeros(SIDE, SIDE, SIDE)
    for detail in (4, 16):
        rough = torch.randn(1, 1, *(SIDE // detail,) * 3, generator=draw)
        total += F.interpolate(rough / rough.std(), size=(SIDE,) * 3, mode="trilinear")[0, 0]
    return 0.4 * torch.special.ndtr(total / total.std())


def encoded(v: Tensor) -> Tensor:
    return torch.sigmoid((v - 0.7) / 0.03) - 1 / (1 + math.exp(0.7 / 0.03))


class Blobs:
    """Twenty encoded volumes with one blob each."""

    def __init__(self, share: float, tails: str, ground: Tensor | None, n: int = N):
        self.radius = (share * SIDE**3 * 3 / 4 / math.pi) ** (1 / 3)
        self.tails, self.ground, self.shape = tails, ground, (SIDE,) * 3
        edge = min(1.5 * self.radius, SIDE / 2 - 1)
        draw = torch.Generator().manual_seed(1)
        place = torch.rand(n, 3, generator=draw, dtype=torch.float64)
        self.centers = edge + place * (SIDE - 1 - 2 * edge)
        self._look()

    def raw(self, indices: Tensor) -> Tensor:
        """Voxels `(K, m)` at indices `(K, m, 3)`."""
        blob = self._blob((indices - self.centers[:, None]).norm(dim=-1))
        if self.ground is None:
            return blob
        return torch.lerp(self.ground[indices.unbind(-1)].double(), torch.ones_like(blob), blob)

    def __call__(self, indices: Tensor) -> Tensor:
        return encoded(self.raw(indices))

    def _blob(self, distance: Tensor) -> Tensor:
        if self.tails == "sigmoid":
            return torch.sigmoid((self.radius - distance) / 2)
        x = (1.5 - distance / self.radius).clamp(0, 1)
        return x * x * (3 - 2 * x)

    def _look(self) -> None:
        """True means `(K,)`, and all levels, from those of the ground and a box around the blob."""
        empty = torch.zeros(self.shape) if self.ground is None else self.ground
        coarse = [F.avg_pool3d(empty[None, None], b)[0, 0] for b in BLOCKS]
        self.levels = [level.repeat(len(self.centers), 1, 1, 1) for level in coarse]
        rest = encoded(empty.double()).sum() if self.ground is not None else 0.0
        reach = max(1.5 * self.radius, self.radius + 40) if self.tails == "sigmoid" else None
        means = []
        for k, center in enumerate(self.centers):
            far = reach or 1.5 * self.radius + 1
            low = ((center - far).floor().long() // 32 * 32).clamp_min(0)
            high = ((center + far).ceil().long() // 32 * 32 + 32).clamp_max(SIDE)
            box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
            axes = [torch.arange(a, b) - c for a, b, c in zip(low, high, center, strict=True)]
            distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).float().norm(dim=0)
            v = torch.lerp(empty[box], torch.ones(()), self._blob(distance))
            means.append((rest + (encoded(v) - encoded(empty[box])).double().sum()) / SIDE**3)
            for level, b in zip(self.levels, BLOCKS, strict=True):
                inner = tuple(slice(s.start // b, s.stop // b) for s in box)
                level[k][inner] = F.avg_pool3d(v[None, None], b)[0, 0]
        self.truth = torch.stack(means)


def crossed(blobs: Blobs, count: int, seed: int, by: str = "cross-square", **options) -> Chosen:
    """A quantics train of the largest rank whose search stays within the count."""
    given = {"bits": "interleaved", "sweeps": 1, "n_arrays": len(blobs.truth), **options}
    best = None
    for rank in range(1, 40):
        draw = torch.Generator().manual_seed(seed)
        try:
            best = choose(
                blobs, blobs.shape, by=by, budget=count, generator=draw, rank=rank, **given
            )
        except ValueError:
            break
    assert best is not None
    return best


def corrected(blobs: Blobs, count: int, seed: int) -> Read:
    """A cross for half of the budget, and the mean of what it misses at jittered positions."""
    found = crossed(blobs, count // 2, seed)
    draw, rest = torch.Generator().manual_seed(seed), count - int(found.asked.max())
    more = positions(
        blobs.shape, by="jittered", budget=rest, n_arrays=len(blobs.truth), generator=draw
    )
    values = blobs(more.positions)
    gap = (more.weights * (values - found.entries(more.positions))).sum(1)
    top = torch.maximum(found.values.amax(1), values.amax(1))
    return found.picture.mean() + gap, top, int(found.asked.max()) + values.shape[1]


def levels_of(blobs: Blobs, count: int) -> list[Tensor]:
    """The levels, up to the finest that can be read whole."""
    return blobs.levels if count == COUNT else blobs.levels[: BLOCKS.index(8) + 1]


def read_by(name: str, blobs: Blobs, count: int, seed: int) -> Read:
    """One chooser: estimated means, largest values read, and how many numbers."""
    if name == "level":
        values = encoded(blobs.levels[-1].double()).flatten(1)
        return values.mean(1), values.amax(1), values.shape[1]
    if name == "cross, corrected":
        return corrected(blobs, count, seed)
    if name == "cross":
        found = crossed(blobs, count, seed)
    elif name == "grid+cross":
        found = crossed(blobs, count, seed, by=name, method="square")
    else:
        by, options = name.split(",")[0], {}
        if by == "coarse-to-fine":
            # The picture of all voxels of all blobs takes gigabytes.
            options["finest"] = 2 if blobs.radius < 20 else 4
        if name == "coarse-to-fine, level":
            options["level"] = encoded(blobs.levels[-1].double())
        if name in ("pyramid", "importance"):
            by, options["levels"] = "pyramid", levels_of(blobs, count)
            if name == "importance":
                options["levels"] = options["levels"][-1:]
        found = choose(
            blobs,
            blobs.shape,
            by=by,
            budget=count,
            n_arrays=len(blobs.truth),
            generator=torch.Generator().manual_seed(seed),
            **options,
        )
    return found.mean(), found.values.amax(1), int(found.asked.max())


NAMES = (
    "grid",
    "random",
    "jittered",
    "cross",
    "cross, corrected",
    "grid+cross",
    "coarse-to-fine",
    "coarse-to-fine, level",
    "level",
    "importance",
    "pyramid",
)
MORE_NAMES = ("grid", "random", "jittered", "importance", "pyramid")


def measure(blobs: Blobs, names: Sequence[str], count: int) -> dict[str, Any]:
    """Errors, blobs missed, numbers read and seconds of choosers."""
    rows = {}
    for name in names:
        start = time.perf_counter()
        mean, top, read = read_by(name, blobs, count, 0)
        error = ((mean - blobs.truth) / blobs.truth).abs()
        rows[name] = {
            "median": float(f"{error.median():.3g}"),
            "rms": float(f"{error.square().mean().sqrt():.3g}"),
            "quartiles": [float(f"{error.quantile(q):.3g}") for q in (0.25, 0.75)],
            "missed": int((top < 0.5).sum()),
            "read": read,
            "seconds": round((time.perf_counter() - start) / len(error), 3),
        }
    return rows


def make(phase: str, old: dict[str, Any], ground: Callable[[], Tensor]) -> dict[str, Any]:
    """What a phase lacks: all choosers, and some with more numbers where there is texture."""
    share, tails, kind = phase.rsplit("-", 2)
    n = 5 if share == "0.1" else N  # large boxes
    blobs = Blobs(float(share), tails, ground() if kind == "textured" else None, n)
    rows = old.get("rows") or measure(blobs, NAMES, COUNT)
    made = {"truth": float(f"{blobs.truth.mean():.3g}"), "rows": rows}
    return made if kind == "zero" else {**made, "more": measure(blobs, MORE_NAMES, MORE)}


def lacks(phase: str, phases: dict[str, Any]) -> bool:
    """Whether something of a phase is missing."""
    return phase not in phases or ("textured" in phase and "more" not in phases[phase])


def heads(vessels: int, n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    """MNI152 at 1 mm, each with one ball in white matter: arrays, centers and radii."""
    draw = torch.Generator().manual_seed(2)
    pad = (0, 3, 0, 7, 0, 11)  # 208 x 240 x 192
    base, white = (F.pad(data.mni152(name).read(), pad) for name in ("t1", "wm"))
    places = (white > 0.5).nonzero()
    arrays, centers = (0.7 * base).repeat(n, 1, 1, 1), torch.empty(n, 3)
    radii = 3 + 5 * torch.rand(n, generator=draw)
    for k in range(n):
        ends = places[torch.randint(len(places), (1 + vessels,), generator=draw)].float()
        ways = F.normalize(torch.randn(1 + vessels, 3, generator=draw), dim=1) * 40
        ways[0] = 0  # the ball
        widths = 1.5 + 2.5 * torch.rand(1 + vessels, generator=draw)
        widths[0] = radii[k]
        for end, way, width in zip(ends, ways, widths, strict=True):
            low = (torch.minimum(end, end + way) - width - 1).long().clamp_min(0)
            high = (torch.maximum(end, end + way) + width + 2).long()
            box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
            part = arrays[k][box]
            axes = [torch.arange(m) + a for m, a in zip(part.shape, low, strict=True)]
            gap = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) - end
            along = ((gap @ way) / (way @ way).clamp_min(1)).clamp(0, 1)
            inside = (width + 0.5 - (gap - along[..., None] * way).norm(dim=-1)).clamp(0, 1)
            part.lerp_(torch.ones(()), inside)
        centers[k] = ends[0]
    return arrays, centers, radii


def make_heads(vessels: int) -> list[dict[str, Any]]:
    """How many balls hold the brightest voxel read, or any."""
    arrays, centers, radii = heads(vessels)
    shape, rows = tuple(arrays.shape[1:]), []
    for count in (6000, 35_000, 140_000):
        blocks = (2, 4, 8, 16) if count < 10_000 else (2, 4, 8)
        levels = {"levels": [F.avg_pool3d(arrays, edge) for edge in blocks]}
        cross = {"bits": "interleaved", "sweeps": 1}
        for by, more in {
            "grid": {},
            "random": {},
            "cross-square": cross,
            "pyramid": levels,
        }.items():
            draw = torch.Generator().manual_seed(0)
            found = choose(dense_entries(arrays), shape, by=by, budget=count, generator=draw,
                           n_arrays=N, **more)  # fmt: skip
            apart = (found.maximum().position - centers).norm(dim=1)
            any_ = (found.positions - centers[:, None]).norm(dim=-1).amin(1)
            row = {"by": by, "count": count, "read": int(found.asked.max())}
            row |= {"brightest": int((apart <= radii).sum()), "met": int((any_ <= radii).sum())}
            rows.append(row)
            logging.info("%s", row)
    return rows


def main() -> None:
    """Make what is asked for, or what is missing."""
    asked = asked_rows(__doc__, "phases", PHASES)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"phases": {}}
    phases, kept = record["phases"], []

    def ground() -> Tensor:
        if not kept:
            kept.append(texture())
        return kept[0]

    if "heads" not in record or "heads" in asked:
        rows = {f"{vessels} vessels": make_heads(vessels) for vessels in (0, 10)}
        record["heads"] = {"rows": rows, "provenance": provenance()}
        write_json(OUT, {**record, "what": WHAT})
    for phase in rows_to_make(asked, PHASES, lambda name: lacks(name, phases)):
        start, old = time.perf_counter(), {} if asked else phases.get(phase, {})
        phases[phase] = {**make(phase, old, ground), "provenance": provenance()}
        done = {p: phases[p] for p in PHASES if p in phases}
        write_json(OUT, {**record, "what": WHAT, "phases": done})
        logging.info("%s: %.0f s", phase, time.perf_counter() - start)
        for name, row in phases[phase]["rows"].items():
            logging.info("  %s %s", name, row)


if __name__ == "__main__":
    main()
