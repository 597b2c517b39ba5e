"""Rows of the bottlenecks: one call against chunks, and a half-sweep against two passes."""

import ctypes
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cpic import tt
from cpic.bottleneck import chunked, half_sweep
from tests.bench.harness import Case
from tests.bench.timing import processor_clock

GRID = tt.Quantics((256, 256, 256))
TRAINS, RANK, CHUNK = 4, 10, 64


class CubeEncoder(torch.nn.Module):
    """Three convolutions of 16 channels on cubes of 4 x 7^3 in single precision.

    The volumes have a quarter of the side of the grid, so that they are small beside what is
    measured.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.volumes = torch.randn(TRAINS, 70, 70, 70, 4)
        convs = [torch.nn.Conv3d(n, 16, 3) for n in (4, 16, 16)]
        relus = [torch.nn.ReLU() for _ in convs]
        layers = [layer for pair in zip(convs, relus, strict=True) for layer in pair]
        self.net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(16, 1))

    def forward(self, indices: Tensor) -> Tensor:
        """Entries `(K, n)` in double precision."""
        near = GRID.coords(indices) // 4
        steps = torch.arange(7)
        x, y, z = (near[..., axis, None] + steps for axis in range(3))
        batch = torch.arange(TRAINS)[:, None, None, None, None]
        cubes = self.volumes[
            batch, x[..., :, None, None], y[..., None, :, None], z[..., None, None, :]
        ]
        cubes = cubes.flatten(0, 1).permute(0, 4, 1, 2, 3)
        return self.net(cubes).view(indices.shape[:2]).double()


def sets(seed: int, rank: int) -> tt.IndexSets:
    return tt.IndexSets.random(
        GRID.sizes, rank, n_trains=TRAINS, generator=torch.Generator().manual_seed(seed)
    )


def at_once(entries: tt.Entries, start: tt.IndexSets) -> tt.TensorTrain:
    """A half-sweep with one call of the encoder a site."""
    return half_sweep(entries, start).train


def in_chunks(entries: tt.Entries, start: tt.IndexSets) -> tt.TensorTrain:
    return half_sweep(chunked(entries, CHUNK), start).train


def in_two_passes(entries: tt.Entries, start: tt.IndexSets) -> tt.TensorTrain:
    """Choose without gradient, then interpolate with gradient: every fiber is read twice."""
    with torch.no_grad():
        chosen = half_sweep(entries, start).sets
    return tt.interpolate(entries, chosen)


Way = Callable[[tt.Entries, tt.IndexSets], tt.TensorTrain]


def gradient(encoder: CubeEncoder, make: Way, start: tt.IndexSets) -> Tensor:
    """The gradient of a loss of the trains, as one vector."""
    loss = make(encoder, start).norm().log().sum()
    parts = torch.autograd.grad(loss, list(encoder.parameters()))
    return torch.cat([part.flatten() for part in parts])


def run(make: Way, seed: int, *, check: bool = True) -> dict[str, float]:
    """Seconds of one gradient; `gap` compares a small one in double precision with one call."""
    encoder, start = CubeEncoder(), sets(seed, RANK)
    clock = processor_clock()
    gradient(encoder, make, start)
    seconds = clock()
    if not check:
        # Hand freed memory back: a second run on what the first one got would look free.
        ctypes.CDLL(None).malloc_trim(0)
        return {"seconds": seconds}
    encoder, start = CubeEncoder().double(), sets(seed, 7)  # more than a chunk a site
    encoder.volumes = encoder.volumes.double()
    found, wanted = gradient(encoder, make, start), gradient(encoder, at_once, start)
    return {"gap": float((found - wanted).norm() / wanted.norm()), "seconds": seconds}


def bottleneck_cases() -> dict[str, Case]:
    """Cases by their names."""
    cases = [
        Case(
            name="gradient through 14 700 cubes, in chunks of 256",
            ours=partial(run, in_chunks),
            peers={"at once": partial(run, at_once)},
            goals={"gap": 1e-10, "MB": 60},
        ),
        Case(
            name="half-sweep with gradient, 14 700 cubes",
            ours=partial(run, at_once),
            peers={"chosen, then interpolated": partial(run, in_two_passes)},
            goals={"gap": 1e-10},
        ),
    ]
    return {case.name: case for case in cases}
