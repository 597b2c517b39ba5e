"""Rows of layers from orthonormal frames: their time beside other libraries, and what they promise.

A promise is a figure with a goal: `norm error`, the distance of the largest singular value from 1.
Peers that do not keep it are shown, but are no rivals.
"""

import importlib.util
import statistics
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from cpic.nn import spectral
from cpic.nn.baselines import WideResNet
from cpic.nn.spectral._factors import Parts, groups_of
from cpic.nn.spectral._plan import Plan, Shape, plan_of
from tests.bench.harness import Case
from tests.bench.timing import processor_clock
from tests.counting import Dispatched

CHANNELS, SIDE, BATCH, RANK = 256, 8, 64, 64
SMALL_SHAPES = [(64, 128, 3, 3), (3, 64, 7, 7), (1, 32), (32, 1), (1, 1)]


class FromMatrix(nn.Module):
    """A 3x3 convolution whose kernel is a matrix that another module makes."""

    def __init__(self, make: Callable[[], Tensor]):
        super().__init__()
        self.make = make

    @property
    def weight(self) -> Tensor:
        return self.make().reshape(CHANNELS, -1, 3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.conv2d(inputs, self.weight, padding=1)


def plain() -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


def ours(kind: str, apply: str = "auto") -> nn.Module:
    return spectral.parametrize(plain(), kind, rank=RANK, apply=apply).net  # type: ignore[arg-type]


def torch_pair() -> nn.Module:
    """U diag(s) V^T with two of torch's orthogonal parametrizations, and a spectrum like ours."""
    orthogonal = nn.utils.parametrizations.orthogonal
    left = orthogonal(nn.Linear(RANK, CHANNELS, bias=False))
    right = orthogonal(nn.Linear(RANK, 9 * CHANNELS, bias=False))
    scale = nn.Parameter(torch.ones(RANK))
    net = FromMatrix(lambda: (left.weight * (scale / scale.abs().amax())) @ right.weight.mT)
    net.parts = nn.ModuleList([left, right])
    net.scale = scale
    return net


def geotorch_low_rank() -> nn.Module:
    """Of a linear layer: a kernel is not taken as a matrix."""
    import geotorch

    layer = nn.Linear(9 * CHANNELS, CHANNELS, bias=False)
    geotorch.low_rank(layer, "weight", RANK)
    net = FromMatrix(lambda: layer.weight)
    net.layer = layer
    return net


def tensorly_train() -> nn.Module:
    """A convolution from a train of its four axes, whose norm is not bounded."""
    import tltorch

    return tltorch.FactorizedConv(
        CHANNELS, CHANNELS, 3, order=2, rank=RANK, factorization="tt", padding=1
    )


@cache
def images() -> Tensor:
    return torch.randn(BATCH, CHANNELS, SIDE, SIDE, requires_grad=True)


@cache
def made(make: Callable[[], nn.Module]) -> nn.Module:
    """Made once: what a first call prepares is not the price of a step."""
    torch.manual_seed(0)
    return make()


def conv_step(
    make: Callable[[], nn.Module], times: int, seed: int, *, check: bool = True
) -> dict[str, float]:
    """Forward and backward pass, the median of some."""
    net, seconds = made(make), []
    for _ in range(times if check else 1):
        net.zero_grad()
        clock = processor_clock()
        net(images()).sum().backward()
        seconds.append(clock())
    figures = {"seconds": statistics.median(seconds)}
    if check and hasattr(net, "weight") and isinstance(net.weight, Tensor):
        figures["norm error"] = norm_error(net.weight)
    return figures


def norm_error(weight: Tensor) -> float:
    wide = weight.detach().double().flatten(1)
    return abs(float(torch.linalg.matrix_norm(wide, 2)) - 1)


def conv_cases() -> list[Case]:
    rivals = {
        "plain layer": partial(conv_step, plain, 5),
        "torch orthogonal pair": partial(conv_step, torch_pair, 1),
    }
    if importlib.util.find_spec("tltorch") and importlib.util.find_spec("tensorly"):
        rivals["tensorly-torch train"] = partial(conv_step, tensorly_train, 5)
    # A minute a step, so beside one kind only.
    slow = {}
    if importlib.util.find_spec("geotorch"):
        slow["svdp"] = {"geotorch low_rank": partial(conv_step, geotorch_low_rank, 1)}
    return [
        Case(
            name=f"3x3 convolution 256-256 on 8x8, batch 64, {kind} rank 64",
            ours=partial(conv_step, partial(ours, kind), 5),
            peers=rivals
            | slow.get(kind, {})
            | {"weight formed": partial(conv_step, partial(ours, kind, "formed"), 5)},
            goals={"norm error": 1e-5},
            shares={("seconds", "plain layer"): share}
            | {("seconds", peer): 0.5 for peer in ("torch orthogonal pair", "geotorch low_rank")},
            repeats=1,
            peak="none",
        )
        for kind, share in (("svdp", 1.3), ("sttp", 1.5))
    ]


# The free numbers of a frame, and the reflectors of the same one.
@cache
def reflector_numbers(rows: int) -> tuple[Tensor, Tensor]:
    free = 0.1 * torch.randn(1, spectral.count_free(rows, RANK))
    vectors = torch.eye(rows, RANK)[None].clone()
    below = (rows - RANK) * RANK
    vectors[:, RANK:] = free[:, :below].view(1, rows - RANK, RANK)
    i, j = torch.tril_indices(RANK, RANK, -1)
    vectors[:, i, j] = free[:, below:]
    return free, vectors


def by_frames(free: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
    free = free.clone().requires_grad_()
    return spectral.frames(free, rows=_.shape[1], columns=RANK), free


def by_lapack(_: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    vectors = vectors.clone().requires_grad_()
    return torch.linalg.householder_product(vectors, 2 / vectors.square().sum(-2)), vectors


def pass_of(
    make: Callable, rows: int, backward: bool, times: int, seed: int, *, check: bool = True
) -> dict[str, float]:
    """The forward or the backward pass alone, the median of some."""
    numbers, seconds = reflector_numbers(rows), []
    slope = torch.randn(1, rows, RANK, generator=torch.Generator().manual_seed(seed))
    for _ in range(times if check else 1):
        clock = processor_clock()
        frame, leaf = make(*numbers)
        if backward:
            clock = processor_clock()
            torch.autograd.grad(frame, leaf, slope)
        seconds.append(clock())
    return {"seconds": statistics.median(seconds)}


def frame_cases() -> list[Case]:
    return [
        Case(
            name=f"{'backward' if backward else 'forward'} pass of a frame {rows} x {RANK}",
            ours=partial(pass_of, by_frames, rows, backward, 7),
            peers={
                "torch.linalg.householder_product": partial(pass_of, by_lapack, rows, backward, 1)
            },
            goals={},
            shares={("seconds", "torch.linalg.householder_product"): 1.0} if backward else {},
            repeats=3,
            peak="none",
        )
        for rows in (256, 2304)
        for backward in (False, True)
    ]


@cache
def wide_resnet(kind: str, rank: int) -> tuple[list[Plan], list[Parts]]:
    """The plans of all layers of a WRN-28-10, with numbers."""
    with torch.device("meta"):
        layers = [m for m in WideResNet().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    sizes = [tuple(layer.weight.shape) for layer in layers]
    plans = [plan_of(Shape(size), kind=kind, rank=rank) for size in sizes]  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(0)
    parts = [
        Parts(
            (0.1 * torch.randn(1, plan.free, generator=draw)).requires_grad_(),
            torch.ones(1, plan.rank, requires_grad=True),
            None,
        )
        for plan in plans
    ]
    return plans, parts


def all_frames(
    kind: str, rank: int, together: bool, times: int, seed: int, *, check: bool = True
) -> dict[str, float]:
    """Factors of all layers, forward and backward, in one call or in one for each layer."""
    plans, parts = wide_resnet(kind, rank)
    leaves = [tensor for some in parts for tensor in (some.free, some.scale)]
    batches = [range(len(plans))] if together else [[k] for k in range(len(plans))]
    seconds = []
    for _ in range(times if check else 1):
        clock = processor_clock()
        factors = {}
        for batch in batches:
            for group, _ in groups_of([plans[k] for k in batch], [parts[k] for k in batch]):
                for factor in (group.left, group.right, group.values):
                    if factor is not None:
                        factors[id(factor)] = factor
        loss = torch.stack([factor.sum() for factor in factors.values()]).sum()
        torch.autograd.grad(loss, leaves)
        seconds.append(clock())
    return {"seconds": statistics.median(seconds)}


def batch_cases() -> list[Case]:
    return [
        Case(
            name=f"all frames of a WRN-28-10 in one call, {kind} rank {rank}",
            ours=partial(all_frames, kind, rank, True, 5),
            peers={"a call for each layer": partial(all_frames, kind, rank, False, 5)},
            goals={},
            shares={("seconds", "a call for each layer"): 0.25},
            repeats=3,
            peak="none",
        )
        for kind in ("svdp", "sttp")
        for rank in (64, 8)
    ]


def after_training(
    kind: str, seed: int, *, check: bool = True, steps: int = 1000
) -> dict[str, float]:
    """The worst over shapes, in single precision, after steps of Adam."""
    torch.manual_seed(seed)
    defects, errors = [], []
    for shape in SMALL_SHAPES:
        rows, columns, *kernel = shape
        layer = nn.Conv2d(columns, rows, kernel) if kernel else nn.Linear(columns, rows)
        spectral.parametrize(layer, kind, rank=RANK, init="qr_randn")  # type: ignore[arg-type]
        target = torch.randn(shape)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        for _ in range(steps if check else 1):
            optimizer.zero_grad()
            (layer.weight * target).sum().backward()
            optimizer.step()
        (row,) = spectral.report(layer)
        defects.append(row.defect or 0.0)
        errors.append(norm_error(layer.weight))
    return {"orthonormality defect": max(defects), "norm error": max(errors)}


def freedoms(kind: str, seed: int, *, check: bool = True, count: int = 20) -> dict[str, float]:
    """The largest gap of free numbers to the rank of the Jacobian, over random shapes."""
    draw, gaps = np.random.default_rng(seed), []
    for _ in range(count if check else 1):
        sizes = [int(draw.integers(1, 13)), int(draw.integers(1, 9))]
        sizes += [int(draw.integers(1, 4)) for _ in range(int(draw.integers(0, 3)))]
        rank = int(draw.integers(1, 7))
        for spectrum in ("learned", "fixed"):
            plan = plan_of(Shape(tuple(sizes)), kind=kind, rank=rank, spectrum=spectrum, gain=True)  # type: ignore[arg-type]
            gaps.append(abs(plan.parameters - jacobian_rank(plan)))
    return {"free numbers beside the manifold": max(gaps)}


def jacobian_rank(plan: Plan) -> int:
    numbers = torch.randn(1, plan.free + plan.scales, dtype=torch.float64)
    signs = torch.ones(1, plan.rank) if plan.spectrum == "fixed" else None

    def weight(numbers):
        free, scale = numbers.split([plan.free, plan.scales], -1)
        ((group, _),) = groups_of([plan], [Parts(free, scale, signs)])
        return group.product("weight")[0]

    slopes = torch.autograd.functional.jacobian(weight, numbers, vectorize=True)
    return int(torch.linalg.matrix_rank(slopes.reshape(-1, numbers.numel()), rtol=1e-9))


def residual_net(layers: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(32, 32, 3, padding=1) for _ in range(layers)))
    return spectral.parametrize(net, rank=8, apply="formed").net


def counted(layers: int) -> Dispatched:
    net = residual_net(layers)
    with Dispatched() as found, spectral.cached(net):
        loss = torch.stack([layer.weight.sum() for layer in net.children()]).sum()  # type: ignore[union-attr,operator,misc]
        loss.backward()
    return found


# Views of what is put together and cut apart, and the loss of this row: one sum for each layer.
_APART = {
    "slice",
    "select",
    "view",
    "_unsafe_view",
    "expand",
    "unsqueeze",
    "squeeze",
    "split",
    "unbind",
}
_APART |= {"split_with_sizes", "as_strided", "detach", "t", "transpose", "permute", "sum", "stack"}


def operations(seed: int, *, check: bool = True) -> dict[str, float]:
    """Of making all weights and their gradients, for 24 layers of one size and for 6."""

    def work(found: Dispatched) -> int:
        named = {name: name.split("::")[1].split(".")[0] for name in found.names}
        return sum(n for name, n in found.names.items() if named[name] not in _APART)

    few, many = counted(6), counted(24)
    return {
        "host reads": many.reads,
        "operations": work(many),
        "growth of operations a layer": (work(many) - work(few)) / 18,
    }


def embedding(seed: int, *, check: bool = True) -> dict[str, float]:
    """Frames and spectrum of a trained embedding of 30 000 words."""
    torch.manual_seed(seed)
    layer = nn.Embedding(30_000, 50)
    clock = processor_clock()
    found = spectral.parametrize(layer, "svdp", rank=50, init="weight", gain="keep")
    return {"seconds": clock(), "error": found.errors[""]}


def promise_cases() -> list[Case]:
    cases = []
    for kind in ("svdp", "sttp"):
        cases += [
            Case(
                name=f"frames after 1 000 steps of Adam, {kind}",
                ours=partial(after_training, kind),
                peers={},
                goals={"orthonormality defect": 1e-6, "norm error": 1e-5},
                repeats=1,
                peak="none",
            ),
            Case(
                name=f"free numbers on 20 random shapes, {kind}",
                ours=partial(freedoms, kind),
                peers={},
                goals={"free numbers beside the manifold": 0},
                repeats=1,
                peak="none",
            ),
        ]
    return cases


def spectral_cases() -> dict[str, Case]:
    """Every case by its name."""
    cases = [*conv_cases(), *frame_cases(), *batch_cases(), *promise_cases()]
    cases += [
        Case(
            name="weights of 24 layers of one size",
            ours=operations,
            peers={},
            goals={"host reads": 0, "growth of operations a layer": 0},
            repeats=1,
            peak="none",
        ),
        Case(
            name="start from an embedding 30 000 x 50",
            ours=embedding,
            peers={},
            goals={"seconds": 1.0, "error": 1e-5},
            repeats=3,
        ),
    ]
    return {case.name: case for case in cases}
