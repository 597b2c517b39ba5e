"""Cases about features of many trains: all of a batch at once, and one batch after another.

`energy lost` is the share of the energy of the best basis of that rank that the features miss;
`Gram error` how far the basis is from orthonormal.
"""

from functools import cache, partial

import numpy as np
import torch

from cpic import tt
from cpic.project import Projection, project, update
from tests.bench import problems
from tests.bench.harness import Case
from tests.bench.timing import processor_clock

N_TRAINS, RANK = 20, 10


@cache
def bumps(bits: int) -> tt.TensorTrain:
    """Smooth functions on `2^bits` points, in trains of rank 10."""
    make, sizes, theta = problems.tunable_bumps(N_TRAINS, bits)
    draw = torch.Generator().manual_seed(0)
    return tt.cross(
        make(theta), sizes, n_trains=N_TRAINS, rank=10, method="square", generator=draw
    ).train.detach()


@cache
def best_energy(bits: int) -> float:
    return float(project(bumps(bits), RANK).energies.sum())


def quality(found: Projection, bits: int) -> dict[str, float]:
    """Figures of a projection of `bumps`."""
    gram = found.basis.gram()
    lost = 1 - float(found.features.square().sum()) / best_energy(bits)
    return {
        "energy lost": max(0.0, lost),
        "Gram error": float((gram - torch.eye(len(gram)).to(gram)).abs().max()),
    }


def at_once(
    route: str, max_rank: int | None, bits: int, seed: int, *, check: bool = True
) -> dict[str, float]:
    """Features and basis by one route."""
    trains = bumps(bits)
    clock = processor_clock()
    found = project(trains, RANK, route=route, max_rank=max_rank)  # pyright: ignore
    seconds = clock()
    return {"seconds": seconds, **(quality(found, bits) if check else {})}


def tntorch_at_once(bits: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """All trains joined in a new leading mode, and rounded."""
    import tntorch

    ones = [torch.ones(1, 1, 1, dtype=torch.float64)]
    cores = bumps(bits).cores
    tensors = [tntorch.Tensor([*ones, *(core[k] for core in cores)]) for k in range(N_TRAINS)]
    clock = processor_clock()
    joined = tntorch.cat(tensors, dim=0)  # makes some cores float32
    joined = tntorch.Tensor([core.double() for core in joined.cores])
    joined.round_tt(eps=0, rmax=RANK)
    joined.orthogonalize(0)
    seconds = clock()
    if not check:
        return {"seconds": seconds}
    kept = float(joined.cores[0].square().sum())
    return {"seconds": seconds, "energy lost": max(0.0, 1 - kept / best_energy(bits))}


def numpy_at_once(bits: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """The singular value decomposition of the dense samples."""
    samples = bumps(bits).full().flatten(1).numpy()
    clock = processor_clock()
    left, values, right = np.linalg.svd(samples, full_matrices=False)
    left, right = left[:, :RANK] * values[:RANK], right[:RANK]
    seconds = clock()
    if not check:
        return {"seconds": seconds}
    return {
        "seconds": seconds,
        "energy lost": max(0.0, 1 - float(np.square(left).sum()) / best_energy(bits)),
        "Gram error": float(np.abs(right @ right.T - np.eye(RANK)).max()),
    }


def with_gradient(gradient: str, seed: int, *, check: bool = True) -> dict[str, float]:
    """Features and the gradient of a number of them."""
    cores = [core.clone().requires_grad_() for core in bumps(28).cores]
    clock = processor_clock()
    found = project(tt.TensorTrain(cores), RANK, gradient=gradient)
    torch.autograd.grad(found.features.square().sum(1).log().sum(), cores)
    return {"seconds": clock()}


@cache
def followed(step: int) -> Projection:
    """After `step` batches, each of other weights of the functions; nothing else is kept."""
    if step == 0:
        return project(batch(0), RANK, max_rank=2 * RANK)
    return update(followed(step - 1).basis, batch(step), forgetting=0.95, max_rank=2 * RANK)


def batch(step: int) -> tt.TensorTrain:
    draw = torch.Generator().manual_seed(step)
    trains = bumps(28)[torch.randperm(N_TRAINS, generator=draw)]
    return trains.scale(1 + 0.1 * torch.randn(N_TRAINS, generator=draw, dtype=torch.float64))


def one_step(step: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """The update by batch number `step`."""
    basis, trains = followed(step - 1).basis, batch(step)
    clock = processor_clock()
    found = update(basis, trains, forgetting=0.95, max_rank=2 * RANK)
    seconds = clock()
    gram = found.basis.gram()
    error = float((gram - torch.eye(len(gram)).to(gram)).abs().max())
    return {"seconds": seconds, **({"Gram error": error} if check else {})}


def project_cases() -> dict[str, Case]:
    """Every case by its name."""
    goals = {"seconds": 0.1, "Gram error": 1e-10}
    exact = {**goals, "energy lost": 1e-10}
    peer = {"tntorch": partial(tntorch_at_once, 28)}
    title = "10 features of 20 trains, 28 sites"
    cases = [
        Case(name=f"{title}, QR", ours=partial(at_once, "qr", None, 28), peers=peer, goals=exact),
        Case(name=f"{title}, Gram", ours=partial(at_once, "gram", None, 28), peers={}, goals=exact),
        *(
            Case(
                name=f"{title}, {name}, ranks cut to 10",
                ours=partial(at_once, name.lower(), RANK, 28),
                peers=peer,
                goals=goals,
            )
            for name in ("QR", "Gram", "tree")
        ),
        Case(
            name="10 features of 20 trains, 18 sites",
            ours=partial(at_once, "qr", None, 18),
            peers={"numpy": partial(numpy_at_once, 18)},
            goals=exact,
        ),
        *(
            Case(
                name=f"{title}, {name} gradient",
                ours=partial(with_gradient, name),
                peers={},
                goals={},
            )
            for name in ("detached", "exact")
        ),
        *(
            Case(
                name=f"basis of 10 follows batches of 20 trains, step {step}",
                ours=partial(one_step, step),
                peers={},
                goals=goals,
            )
            for step in (1, 50)
        ),
    ]
    return {case.name: case for case in cases}
