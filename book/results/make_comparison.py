"""Compare ways to read a part at equal budget and tuning; `comparison.json` beside this script.

    python book/results/make_comparison.py                 # what is missing; all of it: 1.5 hours
    python book/results/make_comparison.py volumes-8-grid  # rows whose name begins so, once more

A row that is there is not repeated unless it is named. One thread.
"""

import copy
import functools
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from _balls import painted
from _digits import WIDTH, made, pretrained, read
from _marks import Marks, share_marked
from _ridge import neighborhoods, ridge
from _rows import asked_rows, rows_to_make
from make_tables import brats_like
from torch import Tensor, nn

from cpic import data
from cpic._files import write_json
from cpic.data import ArrayVolume
from cpic.images import load
from cpic.nn import (
    CPIC,
    Components,
    PatchEncoder,
    Positions,
    Search,
    TwoHeadRegressor,
    count_features,
    ips,
    spectral,
)
from cpic.nn.baselines import block_means, histogram_features
from cpic.nn.pooling import representation
from cpic.train.results._results import provenance
from cpic.train.tasks._patches import warmed

OUT = Path(__file__).parent / "comparison.json"
RATES, TUNING, SEEDS = (1e-3, 3e-3, 1e-2), 3, (0, 1, 2)
PENALTIES = tuple(10.0**k for k in range(6))
STEPS, BATCH, CHANNELS, FIELD = 150, 16, (16, 32), 3
FIRST, FRAMES, PATIENTS = 8, 8, 1600
FEATURES = ("components", "maximum")
WHAT = (
    "Ways to read a part, at equal budget and tuning. digits: the commonest digit on canvases "
    "of megapixel MNIST, 112^2 means, 600 to train and 400 to test, encoder trained before on "
    "single digits; textures: which of 8 photographs a patch of 64^2 is from, 720 and 720; "
    "volumes: the radius of a ball in white matter of a head at 6 mm, 240 and 120; brats: the "
    "days of survival in a semi-synthetic cohort like BraTS (another one for the trials), t1ce "
    f"at 32^3, {PATIENTS} patients, a fifth of them to test, each voxel with its coordinate from "
    "left to right; nodules: how malignant radiologists think that a real nodule is, from its "
    "shape alone, 610 patients, a fifth of them to test. Pieces of 14^2, 8^2 and 8^3 values; 64 "
    "of them (volumes: 80). budget: the share of the values from which a model may get "
    "gradients; read: the share from which it does, measured on a batch (dps: at its first "
    "noise, which mixes more pieces); looked: the share that it looks at besides, in order to "
    "choose. cross: read in a step of training, looked at in a prediction; cross-corrected: a "
    "quarter of the budget for cubes at random that correct the features. All but ridge "
    f"regressions: {STEPS} (brats: 600) steps of {BATCH}, AdamW with a rate that rises for a "
    "tenth and falls like a cosine, clip 1; trials: errors of the rates on a validation part, "
    f"seed {TUNING}, at a budget of an eighth for all; the best is then run with three other "
    "seeds, which make weights and order anew, and data (not textures) or folds (brats, "
    "nodules): errors, over that of a constant, on the test part, which chose nothing; best: "
    "that of a model which knows the rule behind the days, a mean. Ridge (means, histogram, "
    "neighborhoods): the penalty is chosen by leaving out. seconds: processor time of a "
    "training with its test, one thread, a mean; kept_mib: what a batch keeps for the backward "
    "pass."
)


class Task(NamedTuple):
    """Inputs with their labels, of which some are to fit, and others to validate or test.

    Inputs are values, and behind them, where an answer depends on the place, a coordinate. `best`
    is the error that no model can undercut, where it is known.
    """

    whole: Tensor
    pieces: Tensor
    grid: tuple[int, ...]
    labels: Tensor
    classes: int
    fit: Tensor
    others: Tensor
    encoder: nn.Module
    steps: int = STEPS
    best: float | None = None

    @property
    def n_outputs(self) -> int:
        return max(1, self.classes)

    @property
    def values(self) -> Tensor:
        """What is read, without coordinates, which are known."""
        return self.whole[:, :1]

    @property
    def n_values(self) -> int:
        return self.values[0].numel()

    @property
    def views(self) -> Tensor:
        """Means over two values along each axis."""
        return coarse(self.values, [size // 2 for size in self.whole.shape[2:]])

    def loss(self, output: Tensor, rows: Tensor) -> Tensor:
        labels = self.labels[rows]
        if self.classes:
            return nn.functional.cross_entropy(output, labels)
        return (output[:, 0] - labels).square().mean()

    def error(self, output: Tensor) -> float:
        """Of the others, relative to that of the best constant of those to fit."""
        labels, known = self.labels[self.others], self.labels[self.fit]
        if self.classes:
            wrong = (output.argmax(1) != labels).double().mean()
            return float(wrong / (labels != known.bincount().argmax()).double().mean())
        return float((output[:, 0] - labels).norm() / (known.mean() - labels).norm())


class VolumeEncoder(nn.Module):
    """As `ConvEncoder`, for cubes, whose means count besides their maxima."""

    def __init__(
        self, n_channels: int = 1, *, widths: tuple[int, ...] = CHANNELS, n_dims: int = WIDTH
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for before, behind in zip((n_channels, *widths), widths, strict=False):
            # Without a norm, which would hide how bright a cube is.
            layers += [nn.Conv3d(before, behind, 3, 2, 1), nn.ReLU(inplace=True)]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(2 * widths[-1], n_dims)
        self.n_dims = n_dims

    def forward(self, cubes: Tensor) -> Tensor:
        maps = self.layers(cubes).flatten(2)
        return self.last(torch.cat([maps.mean(2), maps.amax(2)], 1))


class Whole(nn.Module):
    """The convolutions of an encoder and one more, then means and maxima over all positions."""

    def __init__(self, encoder: nn.Module, n_axes: int, n_outputs: int):
        super().__init__()
        width = CHANNELS[-1]
        convolution = nn.Conv3d if n_axes == 3 else nn.Conv2d
        more = convolution(width, 2 * width, 3, 2, 1, bias=False)
        self.layers = nn.Sequential(encoder.layers, more, nn.GroupNorm(8, 2 * width), nn.ReLU())
        self.last = nn.Linear(4 * width, n_outputs)

    def forward(self, whole: Tensor) -> Tensor:
        maps = self.layers(whole).flatten(2)
        return self.last(torch.cat([maps.mean(2), maps.amax(2)], 1))


class Covariance(nn.Module):
    """The square root of the covariance of the maps of all pieces."""

    def __init__(self, encoder: nn.Module, n_outputs: int):
        super().__init__()
        self.layers = encoder.layers
        self.pool = representation("MPNCOV", CHANNELS[-1])
        self.last = nn.Linear(CHANNELS[-1] * (CHANNELS[-1] + 1) // 2, n_outputs)

    def forward(self, pieces: Tensor) -> Tensor:
        maps = self.layers(pieces.flatten(0, 1)).flatten(2)
        return self.last(self.pool(maps.unflatten(0, pieces.shape[:2]).transpose(1, 2).flatten(2)))


class Marked(Marks, ArrayVolume):
    """A volume that marks what is read."""


def as_volumes(whole: Tensor, kind: Callable[..., ArrayVolume] = ArrayVolume) -> list[ArrayVolume]:
    """Inputs `(n, c, ...)` as volumes."""
    if whole.shape[1] == 1:
        return [kind(array) for array in whole[:, 0]]
    return [kind(array, channels=whole.shape[1]) for array in whole.movedim(1, -1)]


class Cross(nn.Module):
    """C-PIC on all inputs, called with their rows."""

    def __init__(self, whole: Tensor, rank: int, n_outputs: int, seed: int, *, correction: int = 0):
        super().__init__()
        n_channels, n_axes = whole.shape[1], whole.ndim - 2
        self.volumes = as_volumes(whole)
        encoder = PatchEncoder(8, size=FIELD, in_channels=n_channels, hidden=32, n_axes=n_axes)
        width = count_features(FEATURES, rank=8, n_dims=8)
        self.model = CPIC(
            encoder,
            TwoHeadRegressor(width, n_outputs=n_outputs, batch_norm=False),
            shape=tuple(whole.shape[2:]),
            contrasts=n_channels,
            search=Search(rank=rank, quantics=False),
            positions=Positions(correction=correction),
            features=FEATURES,
            components=Components(8),
            generator=torch.Generator().manual_seed(seed),
        )

    def forward(self, rows: Tensor) -> Tensor:
        return self.model([self.volumes[k] for k in rows], [str(int(k)) for k in rows])


def cut(whole: Tensor, size: int) -> Tensor:
    """Pieces `(n, N, c, size, ...)` of arrays `(n, c, ...)`, in row-major order."""
    n_axes = whole.ndim - 2
    for axis in range(2, whole.ndim):
        whole = whole.unfold(axis, size, size)
    return whole.flatten(2, 1 + n_axes).transpose(1, 2).contiguous()


def coarse(whole: Tensor, sizes: list[int]) -> Tensor:
    """Means over blocks, as an array of these sizes."""
    return block_means(whole, n_blocks=sizes).view(*whole.shape[:2], *sizes)


@functools.lru_cache(maxsize=4)
def digits(seed: int) -> Task:
    """Which digit occurs most often on a canvas; the encoder knows single digits."""
    parts = made(224, seed, n_train=800, n_test=400)
    pieces = torch.cat([read(part)[0] for part in parts])
    labels = torch.cat([part.labels["majority"] for part in parts])
    whole = pieces.view(-1, 8, 8, 14, 14).transpose(2, 3).reshape(-1, 1, 112, 112)
    others = torch.arange(600, 800) if seed == TUNING else torch.arange(800, 1200)
    rows = torch.arange(600), others
    return Task(whole, pieces, (8, 8), labels, 10, *rows, pretrained(seed))


@functools.lru_cache(maxsize=4)
def textures(seed: int) -> Task:
    """Which of eight photographs a patch is from; other bands of it test, or validate."""
    parts = [load("textures", train=one) for one in (True, False)]
    whole = torch.cat([part.read(range(len(part))) for part in parts]).float() / 255
    labels = torch.cat([part.labels for part in parts])
    fit, others = torch.arange(720), torch.arange(720, 1440)
    if seed == TUNING:
        first = fit % 90 < 45
        fit, others = fit[first], fit[~first]
    torch.manual_seed(seed)
    encoder = ips.ConvEncoder(1, widths=CHANNELS, n_dims=WIDTH)
    return Task(whole, cut(whole, 8), (8, 8), labels, 8, fit, others, encoder)


@functools.lru_cache(maxsize=4)
def volumes(seed: int) -> Task:
    """The radius of a ball in the white matter of a head."""
    heads, radius = painted(360, seed=100 + seed, bright=1.0)
    sizes = [math.ceil(size / 8) * 8 for size in heads.shape[1:]]
    whole = heads.new_zeros(360, 1, *sizes)
    whole[:, 0, : heads.shape[1], : heads.shape[2], : heads.shape[3]] = heads
    whole = (whole - whole[:240].mean()) / whole[:240].std()
    torch.manual_seed(seed)
    grid = (sizes[0] // 8, sizes[1] // 8, sizes[2] // 8)
    rows = torch.arange(240), torch.arange(240, 360)
    return Task(whole, cut(whole, 8), grid, radius - 3.75, 0, *rows, VolumeEncoder())


@functools.lru_cache(maxsize=2)
def cohort(seed: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Scans with a coordinate from left to right, their pieces, days, and the best error."""
    source = brats_like((32, 32, 32), PATIENTS, seed=seed)
    prepared = source.prepared
    scans = torch.stack([prepared.in_memory(name).read() for name in prepared.patients])
    days = torch.tensor(prepared.samples["days"].to_numpy()).float()
    across = torch.linspace(-1, 1, 32).view(-1, 1, 1).expand_as(scans)
    whole = torch.stack([(scans - scans.mean()) / scans.std(), across], 1)
    spread = float(days.std(correction=0))
    return whole, cut(whole, 8), (days - days.mean()) / spread, (source.best_error or 0) / spread


@functools.lru_cache(maxsize=4)
def brats(seed: int) -> Task:
    """Survival in a semi-synthetic cohort, where the side matters; tests in other folds."""
    whole, pieces, days, best = cohort(0 if seed in SEEDS else seed)
    torch.manual_seed(seed)
    rows = apart(len(whole), seed)
    return Task(whole, pieces, (4, 4, 4), days, 0, *rows, VolumeEncoder(2), 600, best)


def apart(n: int, fold: int) -> tuple[Tensor, Tensor]:
    """Which are in the other folds of five, and which in this one."""
    folds = list(torch.randperm(n, generator=torch.Generator().manual_seed(0)).chunk(5))
    others = folds.pop(fold)
    return torch.cat(folds), others


@functools.lru_cache(maxsize=4)
def nodules(seed: int) -> Task:
    """How malignant radiologists think a real nodule is, from its shape; tests in other folds."""
    real = data.nodules()
    malignancy = real.ratings[:, real.names.index("malignancy")]
    labels = (malignancy - malignancy.mean()) / malignancy.std()
    whole = real.masks[:, None].float()
    whole = (whole - whole.mean()) / whole.std()
    fit, others = apart(len(whole), seed)
    if seed == TUNING:  # on no patient who is in a test
        fit = apart(len(whole), 4)[1]
    torch.manual_seed(seed)
    return Task(whole, cut(whole, 8), (4, 4, 4), labels, 0, fit, others, VolumeEncoder())


TASKS: dict[str, Callable[[int], Task]] = {
    "digits": digits,
    "textures": textures,
    "volumes": volumes,
    "brats": brats,
    "nodules": nodules,
}


class Way(NamedTuple):
    """A model, its inputs, and the share of the values that it looks at in order to choose."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    looked: float = 0.0


def classifier(task: Task, choose: Any, encoder: nn.Module | None = None) -> ips.PatchClassifier:
    """Pieces through the encoder of the task, pooled by attention."""
    return ips.PatchClassifier(
        encoder or copy.deepcopy(task.encoder), attention(), [target(task)], choose=choose
    )


def attention() -> ips.GatedAttention:
    return ips.GatedAttention(WIDTH)


def target(task: Task) -> ips.Target:
    """The head of a task; that of a number is one logit."""
    kind = "softmax" if task.classes else "sigmoid"
    return ips.Target("label", task.n_outputs, kind)


def lattice(task: Task, divisor: int) -> Tensor:
    """Pieces in a regular pattern, for smaller budgets some of those of larger ones."""
    place = torch.stack(torch.meshgrid(*[torch.arange(n) for n in task.grid], indexing="ij"), -1)
    place = place.flatten(0, -2) @ torch.tensor([1, 3, 5])[: len(task.grid)]
    counts = (place % FIRST).bincount()
    # Where the sizes are no multiples, the fullest of the patterns within the budget.
    first = counts.where(counts <= len(place) // FIRST, 0).argmax()
    if divisor < FIRST:
        return (place % divisor == first % divisor).nonzero()[: len(place) // divisor, 0]
    found = (place % FIRST == first).nonzero()[:, 0]
    step = divisor // FIRST
    return found[step // 4 :: step][: len(place) // divisor]


def network(task: Task, divisor: int, seed: int) -> Way:
    model = Whole(copy.deepcopy(task.encoder), len(task.grid), task.n_outputs)
    return Way(model, (task.whole,))


def coarse_view(task: Task, divisor: int, seed: int) -> Way:
    view = coarse(task.whole, coarse_sizes(task, divisor))
    model = Whole(copy.deepcopy(task.encoder), len(task.grid), task.n_outputs)
    return Way(model, (view,))


def coarse_sizes(task: Task, divisor: int) -> list[int]:
    sizes, factor = task.whole.shape[2:], divisor ** (-1 / len(task.grid))
    return [int(size * factor + 1e-9) for size in sizes]


def random(task: Task, divisor: int, seed: int) -> Way:
    m = task.pieces.shape[1] // divisor
    return Way(classifier(task, ips.RandomPatches(m=m)), (task.pieces,))


def grid(task: Task, divisor: int, seed: int, *, encoder: nn.Module | None = None) -> Way:
    pieces = task.pieces[:, lattice(task, divisor)]
    return Way(classifier(task, ips.AllPatches(), encoder), (pieces,))


def coarse_to_fine(task: Task, divisor: int, seed: int) -> Way:
    """The pieces in which the view is farthest from its median."""
    far = task.views - task.views.flatten(1).median(1).values.view(-1, *[1] * (len(task.grid) + 1))
    scores = block_means(far.square(), n_blocks=task.grid)
    best = scores.topk(task.pieces.shape[1] // divisor, 1).indices.sort(1).values
    pieces = task.pieces[torch.arange(len(best))[:, None], best]
    return Way(classifier(task, ips.AllPatches()), (pieces,), looked(task))


def looked(task: Task) -> float:
    """Share of the values in the views."""
    return task.views[0].numel() / task.n_values


def iterative(task: Task, divisor: int, seed: int) -> Way:
    n = task.pieces.shape[1]
    choose = ips.Iterative(m=n // divisor, i=n)
    return Way(classifier(task, choose), (task.pieces,), 1.0)


def sampling(task: Task, divisor: int, seed: int) -> Way:
    encoder, m = copy.deepcopy(task.encoder), task.pieces.shape[1] // divisor
    net = ips.MapNet(1, grid=task.grid)
    model = ips.AttentionSampling(net, encoder, [target(task)], m=m)
    return Way(model, (task.pieces, task.views), looked(task))


def perturbed(task: Task, divisor: int, seed: int) -> Way:
    encoder, m = copy.deepcopy(task.encoder), task.pieces.shape[1] // divisor
    net, where = ips.MapNet(1, grid=task.grid), [target(task)]
    model = ips.DifferentiableSelection(net, encoder, attention(), where, m=m, n_draws=50)
    return Way(model, (task.pieces, task.views), looked(task))


def cross(task: Task, divisor: int, seed: int, *, corrected: float = 0.0) -> Way:
    """C-PIC, with a share of the budget for cubes at random that correct its features."""
    shape = task.whole.shape[2:]
    budget = task.n_values / divisor
    rank = max(r for r in range(1, 30) if fibers(shape, r) <= (1 - corrected) * budget)
    correction = int(corrected * budget) // FIELD ** len(shape)
    model = Cross(task.whole, rank, task.n_outputs, seed, correction=correction)
    return Way(model, (torch.arange(len(task.whole)),))


def fibers(shape: tuple[int, ...], rank: int) -> int:
    """A bound on the values in the cubes around the positions of a train."""
    ranks = [1, *[rank] * (len(shape) - 1), 1]
    count = sum(a * n * b for a, n, b in zip(ranks, shape, ranks[1:], strict=False))
    return count * FIELD ** (len(shape) - 1)


@torch.no_grad()
def crossed(model: Cross, whole: Tensor) -> tuple[float, float]:
    """Shares of the values in the cubes of a step of training, and of a prediction."""
    found = []
    for training in (True, False):
        marked = as_volumes(whole[:BATCH], Marked)
        names = [str(k) for k in range(BATCH)]
        own = model.model.train(training)
        own(marked, names)  # the first visit of a volume, or a prediction, searches as well
        if training:
            for volume in marked:
                volume.mark.zero_()
            own(marked, names)
        found.append(share_marked(marked, FIELD))
    return found[0], found[1]


def covariance(task: Task, divisor: int, seed: int) -> Way:
    way = grid(task, divisor, seed)
    return way._replace(model=Covariance(copy.deepcopy(task.encoder), task.n_outputs))


def frames(task: Task, divisor: int, seed: int) -> Way:
    """The pieces of the grid, through weights from frames that begin at those of the encoder."""
    options = {"rank": FRAMES, "init": "weight", "gain": "keep", "copy": True}
    encoder = spectral.parametrize(task.encoder, "sttp", **options).net
    return grid(task, divisor, seed, encoder=encoder)


PARTS: dict[str, Callable[..., Way]] = {
    "coarse": coarse_view,
    "random": random,
    "grid": grid,
    "coarse-to-fine": coarse_to_fine,
    "ips": iterative,
    "covariance": covariance,
    "sttp": frames,
    "cross": cross,
    "cross-corrected": functools.partial(cross, corrected=0.25),
    "ats": sampling,
    "dps": perturbed,
}


def means(whole: Tensor, sizes: list[int]) -> Tensor:
    return block_means(whole, n_blocks=sizes).double()


def histogram(whole: Tensor) -> Tensor:
    top = float(whole.max())
    return histogram_features(whole, low=0.05 * top, high=top).double().sqrt()


RIVALS: dict[str, Callable[[Tensor], Tensor]] = {
    "histogram": histogram,
    "neighborhoods": neighborhoods,
}


def fits(task: str, divisor: int, way: str) -> bool:
    """Whether a way is run on a task."""
    is_volume = task in ("volumes", "brats", "nodules")
    if way == "cross-corrected" and divisor > FIRST and task != "volumes":
        return False  # rank 1 takes nearly all of a 32nd of 32^3
    if way in ("ats", "dps"):  # their maps have two axes
        return not is_volume
    if way.startswith("cross"):  # C-PIC reads volumes
        return is_volume
    return way != "neighborhoods" or task == "textures"


# Name of a row to task, divisor of the budget (1: everything) and way; the budget at which rates
# are tuned comes first.
ROWS = {
    f"{task}-{divisor}-{way}": (task, divisor, way)
    for divisor, ways in {
        FIRST: ("means", *PARTS),
        1: ("network", *RIVALS),
        32: ("means", *PARTS),
        2: ("means", *PARTS),
    }.items()
    for way in ways
    for task in TASKS
    if fits(task, divisor, way)
}


def batches(rows: Tensor, seed: int) -> Iterator[Tensor]:
    """Batches of all rows in a new order, again and again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        yield from order[: len(order) // BATCH * BATCH].split(BATCH)


def outputs(way: Way, rows: Tensor) -> tuple[Tensor, Tensor | float]:
    """What the model says of some inputs, and a term of the loss."""
    return parts_of(way.model(*(part[rows] for part in way.inputs)))


def parts_of(answer: Tensor | ips.Answer) -> tuple[Tensor, Tensor | float]:
    """The output of a model, and a term of the loss."""
    if isinstance(answer, ips.Answer):
        return answer.logits["label"], 0.0 if answer.penalty is None else answer.penalty
    return answer, 0.0


def fit(way: Way, task: Task, rate: float, seed: int) -> None:
    """Train a model with a rate that rises and falls once."""
    way.model.train()
    optimizer = torch.optim.AdamW(way.model.parameters(), lr=rate)
    factor = warmed(1, 10, task.steps // 10)
    for step, rows in zip(range(task.steps), batches(task.fit, seed), strict=False):
        if callable(anneal := getattr(way.model, "anneal", None)):
            anneal(step / task.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * factor(step / task.steps)
        output, penalty = outputs(way, rows)
        optimizer.zero_grad()
        (task.loss(output, rows) + penalty).backward()
        nn.utils.clip_grad_norm_(way.model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def tested(way: Way, task: Task) -> float:
    """The error of a trained model on the inputs that it was not trained on."""
    way.model.eval()
    return task.error(torch.cat([outputs(way, rows)[0] for rows in task.others.split(40)]))


def kept_bytes(way: Way, task: Task) -> int:
    """Bytes that a batch keeps for the backward pass, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in way.model.parameters()}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    way.model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output, penalty = outputs(way, task.fit[:BATCH])
        loss = task.loss(output, task.fit[:BATCH]) + penalty
    found = sum(sizes.values())
    del loss
    return found


def gradients(way: Way, task: Task) -> float:
    """Share of the values of an input from which a batch gets gradients.

    Pieces count as a whole, and so does an input that is not cut.
    """
    values = way.inputs[0][task.fit[:BATCH]].requires_grad_()
    way.model.train()
    rest = (part[task.fit[:BATCH]] for part in way.inputs[1:])
    output, _ = parts_of(way.model(values, *rest))
    (slope,) = torch.autograd.grad(task.loss(output, task.fit[:BATCH]), values)
    cut_up = values.ndim == task.pieces.ndim
    got = slope.flatten(2 if cut_up else 1).ne(0).any(-1).double().sum() / BATCH
    return float(got) * math.prod(values.shape[-len(task.grid) :]) / task.n_values


def trained(
    name: str, divisor: int, make: Callable[..., Way], trials: dict[str, float] | None
) -> dict[str, Any]:
    """Tune the rate on one seed, unless it is tuned; train three others with the best, and test."""

    def run(seed: int, rate: float) -> tuple[float, float, Way]:
        task = TASKS[name](seed)
        torch.manual_seed(seed)
        way = make(task, divisor, seed)
        start = time.process_time()
        fit(way, task, rate, seed)
        return tested(way, task), time.process_time() - start, way

    trials = trials or {str(rate): round(run(TUNING, rate)[0], 4) for rate in RATES}
    rate = min(trials, key=trials.__getitem__)
    errors, seconds, ways = zip(*(run(seed, float(rate)) for seed in SEEDS), strict=True)
    way, tasks = ways[-1], [TASKS[name](seed) for seed in SEEDS]
    task = tasks[-1]
    kept = kept_bytes(way, task)
    if isinstance(way.model, Cross):
        read, seen = crossed(way.model, task.whole[task.others])
    else:
        read, seen = gradients(make(task, divisor, SEEDS[-1]), task), way.looked
    known = {} if task.best is None else {"best": round(mean(one.best for one in tasks), 4)}
    return {
        "errors": [round(error, 4) for error in errors],
        "read": round(read, 4),
        "looked": round(seen, 4),
        **known,
        "steps": task.steps,
        "trials": trials,
        "rate": float(rate),
        "seconds": round(mean(seconds), 1),
        "kept_mib": round(kept / 2**20, 2),
        "parameters": sum(p.numel() for p in way.model.parameters()),
    }


def solved(name: str, features: Callable[[Task], Tensor], read: float) -> dict[str, Any]:
    """Ridge regression on features that nothing has learned; leaving out chooses its penalty."""
    errors, seconds = [], []
    for seed in SEEDS:
        task, start = TASKS[name](seed), time.process_time()
        found = features(task)
        labels = nn.functional.one_hot(task.labels) if task.classes else task.labels[:, None]
        x, y = found[task.fit], labels[task.fit].double()
        errors.append(round(task.error(ridge(x, y, found[task.others], PENALTIES)), 4))
        seconds.append(time.process_time() - start)
    parameters = (found.shape[1] + 1) * y.shape[1]
    shared = {"errors": errors, "read": round(read, 4), "looked": 0.0, "parameters": parameters}
    return {**shared, "seconds": round(mean(seconds), 1), "penalties": len(PENALTIES)}


def make_row(name: str, rows: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of one way at one budget; its rate is tuned at the first one."""
    task, divisor, way = ROWS[name]
    head = {"task": task, "budget": round(1 / divisor, 4), "way": way}
    if way in RIVALS:
        return head | solved(task, lambda one: RIVALS[way](one.values), 1.0)
    if way == "means":
        one = TASKS[task](0)
        sizes = coarse_sizes(one, divisor)
        share = math.prod(sizes) / one.n_values
        return head | solved(task, lambda one: means(one.values, sizes), share)
    tuned = rows.get(f"{task}-{FIRST}-{way}") if divisor != FIRST else None
    return head | trained(
        task, divisor, (PARTS | {"network": network})[way], tuned and tuned["trials"]
    )


def main() -> None:
    """Make what is asked for, or what is missing."""
    asked = asked_rows(__doc__, "rows", ROWS)
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {"rows": {}}
    rows = record["rows"]
    for name in rows_to_make(asked, ROWS, lambda name: name not in rows):
        start = time.perf_counter()
        rows[name] = {**make_row(name, rows), "provenance": provenance()}
        kept = {key: rows[key] for key in ROWS if key in rows}
        write_json(OUT, {"what": WHAT, "steps": STEPS, "rows": kept})
        spent = time.perf_counter() - start
        logging.info("%s: %s, %.0f s", name, rows[name]["errors"], spent)


if __name__ == "__main__":
    main()
