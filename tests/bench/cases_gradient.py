"""Cases about gradients through the interpolation, for fixed index sets.

`gradient error` compares derivatives along three directions with differences of the same forward
pass; the loss is the squared norm. `seconds` are those of forward and backward passes alone, with
the entries, which are the same code for all.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from cpic import tt
from cpic.tt._cross_sets import grow_right
from cpic.tt._points import all_points, random_points
from tests.bench import problems
from tests.bench.harness import Case
from tests.bench.peers import plain_forward, tntorch_forward, tntorch_places
from tests.bench.timing import processor_clock

RANKS = (5, 10, 20, 30, 40, 50)
STEP = 3e-5
Forward = Callable[[tt.Entries, tt.IndexSets], tt.TensorTrain]


@cache
def sets_of(layout: str, rank: int, seed: int, rotated: bool, wide: bool) -> tt.IndexSets:
    """Searched once; wide ones have half as many right multi-indices again."""
    make, sizes, theta = problems.tunable_gaussians(layout, rotated=rotated)
    draw = torch.Generator().manual_seed(seed)
    sets = tt.cross(make(theta), sizes, rank=rank, method="square", generator=draw).sets
    if not wide:
        return sets
    points = random_points(sizes, rank // 2, n_trains=1, generator=draw)
    right = list(sets.right)
    for k in range(len(sizes) - 1):
        right[k] = grow_right(right[k], points[..., k + 1 :], sizes[k + 1 :])
    return tt.IndexSets(sizes, sets.left, tuple(right))


def squared_norm(train: tt.TensorTrain) -> Tensor:
    return train.norm().square().sum()


def slope_of(loss: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, float]:
    """The gradient and the seconds it took."""
    theta = theta.clone().requires_grad_()
    clock = processor_clock()
    (slope,) = torch.autograd.grad(loss(theta), theta)
    return slope, clock()


def slope_error(loss: Callable[[Tensor], Tensor], theta: Tensor, slope: Tensor) -> float:
    """Relative gap to differences of fourth order along three directions."""
    draw = torch.Generator().manual_seed(0)
    along = torch.randn(3, *theta.shape, generator=draw, dtype=theta.dtype)
    with torch.no_grad():
        measured = torch.stack(
            [
                sum(
                    weight * loss(theta + steps * STEP * direction)
                    for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1))
                )
                / (12 * STEP)
                for direction in along
            ]
        )
    found = (along * slope).flatten(1).sum(1)
    return float((found - measured).norm() / measured.norm())


def by_rank(
    forward: Forward, wide: bool, seed: int, *, check: bool = True, ranks: tuple[int, ...] = RANKS
) -> dict[str, float]:
    """The worst gradient over the ranks."""
    make, _, theta = problems.tunable_gaussians()
    worst, seconds = 0.0, 0.0
    for rank in ranks:
        sets = sets_of("interleaved", rank, seed, True, wide)

        def loss(values, sets=sets):
            return squared_norm(forward(make(values), sets))

        slope, spent = slope_of(loss, theta)
        seconds += spent
        worst = max(worst, slope_error(loss, theta, slope)) if check else worst
    return {"gradient error": worst, "seconds": seconds}


def deficient(forward: Forward, wide: bool, seed: int, *, check: bool = True) -> dict[str, float]:
    """Rank 8 interpolated with rank 10: the gradient is that of the dense tensor."""
    make, _, theta = problems.tunable_gaussians("tt", rotated=False)
    sets = sets_of("tt", 10, seed, False, wide)

    def loss(values):
        return squared_norm(forward(make(values), sets))

    slope, seconds = slope_of(loss, theta)
    if not check:
        return {"seconds": seconds}
    exact = dense_slope(False)
    return {
        "gradient error": slope_error(loss, theta, slope),
        "gap to the dense gradient": float((slope - exact).norm() / exact.norm()),
        "seconds": seconds,
    }


@cache
def dense_slope(rotated: bool) -> Tensor:
    """The gradient of the squared norm of all 64^3 entries."""
    make, sizes, theta = problems.tunable_gaussians("tt", rotated=rotated)
    points = all_points(sizes)[None]
    return slope_of(lambda values: make(values)(points).square().sum(), theta)[0]


def timed(forward: Forward, layout: str, rank: int, seed: int, *, check: bool = True):
    """Forward and backward pass, the least of some."""
    make, _, theta = problems.tunable_gaussians(layout)
    sets = sets_of(layout, rank, 0, True, False)

    def loss(values):
        return squared_norm(forward(make(values), sets))

    return {"seconds": min(slope_of(loss, theta)[1] for _ in range(5 if check else 1))}


def solved(forward: Forward, wide: bool, seed: int, *, check: bool = True, rank: int = 20):
    """Everything about one solver at one rank."""
    make, _, theta = problems.tunable_gaussians()
    sets = sets_of("interleaved", rank, seed, True, wide)

    def loss(values):
        return squared_norm(forward(make(values), sets))

    slope, seconds = slope_of(loss, theta)
    if not check:
        return {"seconds": seconds}
    dense, exact = dense_values(), dense_slope(True)
    with torch.no_grad():
        full = forward(make(theta), sets).full()
    return {
        "value error": float((full - dense).norm() / dense.norm()),
        "gradient error": slope_error(loss, theta, slope),
        "gap to the dense gradient": float((slope - exact).norm() / exact.norm()),
        "seconds": seconds,
    }


@cache
def dense_values() -> Tensor:
    """All entries on 18 binary modes."""
    make, sizes, theta = problems.tunable_gaussians()
    return make(theta)(all_points(sizes)[None]).view(1, *sizes)


@cache
def batch_sets(seed: int) -> tt.IndexSets:
    make, sizes, theta = problems.tunable_bumps()
    draw = torch.Generator().manual_seed(seed)
    return tt.cross(
        make(theta), sizes, n_trains=len(theta), rank=10, method="square", generator=draw
    ).sets


def batch_ours(seed: int, *, check: bool = True) -> dict[str, float]:
    """Twenty trains in one pass; `share` is our time over that of the loop of the peer."""
    make, _, theta = problems.tunable_bumps()
    sets = batch_sets(seed)
    runs = [
        slope_of(lambda values: squared_norm(tt.interpolate(make(values), sets)), theta)
        for _ in range(3 if check else 1)
    ]
    seconds = min(spent for _, spent in runs)
    if not check:
        return {"seconds": seconds}
    slope, theirs = batch_loop(seed)
    gap = float((runs[0][0] - slope).norm() / slope.norm())
    return {"seconds": seconds, "share": seconds / theirs, "gap to the peer": gap}


def batch_theirs(seed: int, *, check: bool = True) -> dict[str, float]:
    """The same trains one after the other."""
    loop = batch_loop if check else batch_loop.__wrapped__  # memory rows want a run of their own
    return {"seconds": loop(seed)[1]}


@cache
def batch_loop(seed: int) -> tuple[Tensor, float]:
    make, sizes, theta = problems.tunable_bumps()
    sets, slopes, seconds = batch_sets(seed), [], 0.0
    for k in range(len(theta)):
        one = tt.IndexSets(
            sizes,
            tuple(rows[k : k + 1] for rows in sets.left),
            tuple(rows[k : k + 1] for rows in sets.right),
        )
        tntorch_places(one)  # kept, so that it is not timed
        slope, spent = slope_of(
            lambda values, one=one: squared_norm(tntorch_forward(make(values), one)),
            theta[k : k + 1],
        )
        slopes.append(slope)
        seconds += spent
    return torch.cat(slopes), seconds


def gradient_cases() -> list[Case]:
    """The cases of this file."""
    by = {name: partial(tt.interpolate, solver=name) for name in ("qr", "ridge", "cvxpylayers")} | {
        name: partial(plain_forward, how=name) for name in ("lstsq", "pinv")
    }
    worst = {"gradient error": 1e-7}
    cases = []
    for wide, word in ((False, "square"), (True, "oversampled")):
        peers = {"lstsq": by["lstsq"]} if wide else {"tntorch": tntorch_forward}
        cases += [
            Case(
                name=f"gradient, QTT 64^3, {word}, worst of ranks 5 to 50",
                ours=partial(by_rank, tt.interpolate, wide),
                peers={name: partial(by_rank, peer, wide) for name, peer in peers.items()},
                goals=worst,
            ),
            Case(
                name=f"gradient, rank 8 at rank 10, TT 64^3, {word}",
                ours=partial(deficient, tt.interpolate, wide),
                peers={name: partial(deficient, peer, wide) for name, peer in peers.items()},
                goals=worst,
            ),
            Case(
                name=f"solvers of the cores, QTT 64^3 rank 20, {word}",
                ours=partial(solved, tt.interpolate, wide),
                peers={name: partial(solved, peer, wide) for name, peer in by.items()},
                goals=worst,
            ),
        ]
    for layout, rank, goal in (
        ("interleaved", 10, 0.015),
        ("interleaved", 40, 0.035),
        ("tt", 10, 0.007),
    ):
        name = "QTT 18 modes" if layout != "tt" else "TT 64^3"
        cases.append(
            Case(
                name=f"forward and backward, {name} rank {rank}",
                ours=partial(timed, tt.interpolate, layout, rank),
                peers={"tntorch": partial(timed, tntorch_forward, layout, rank)},
                goals={"seconds": goal},
            )
        )
    cases.append(
        Case(
            name="forward and backward of 20 trains, 28 binary modes, rank 10",
            ours=batch_ours,
            peers={"tntorch": batch_theirs},
            goals={"share": 1 / 20},
        )
    )
    return cases
