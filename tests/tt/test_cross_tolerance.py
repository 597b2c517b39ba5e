"""The search by tolerance keeps its promise where functions jump, are rounded or have spikes.

All tensors here are small enough to compare with the whole of them.
"""

import math

import pytest
import torch

from cpic.tt import cross
from cpic.tt._misses import Misses, rounding
from cpic.tt._points import all_points

SEEDS = range(5)
STEEP = torch.tensor([0.37, 0.21, 0.93, 0.55], dtype=torch.float64)
BITS = 2.0 ** torch.arange(8, dtype=torch.float64)


def smooth(i):
    return 1.0 / (1.0 + i.double().sum(-1))


def single(i):
    return 1 / (1 + i.float().sum(-1))


def ball(i):
    return ((i.double() - 9.3).square().sum(-1) < 60).double()


def disk(i):
    x, y = i[..., :8].double() @ BITS, i[..., 8:].double() @ BITS
    return ((x - 120).square() + (y - 110).square() < 6000).double()


def step(i):
    return (-0.02 * i.double().sum(-1)).exp() + 1e-2 * (i.double() @ STEEP > 20).double()


def stripe(i):
    return (i[..., 0] == i[..., 1]).double()


def pairs(i):
    return (i[..., ::2] == i[..., 1::2]).all(-1).double()


def spikes(count, height, sizes=(20,) * 4):
    draw = torch.Generator().manual_seed(3)
    places = torch.stack([torch.randint(0, n, (count,), generator=draw) for n in sizes], -1)
    lone = torch.zeros(sizes, dtype=torch.float64)
    lone[tuple(places.unbind(1))] = height
    return lambda i: smooth(i) + lone[tuple(i.unbind(-1))]


def measured(entries, sizes, tol, seed):
    """The search and its true error, in units of `tol`."""
    found = cross(entries, sizes, tol=tol, generator=torch.Generator().manual_seed(seed))
    truth = entries(all_points(sizes)[None]).double()
    gap = found.train.full().flatten(1) - truth
    return found, float(gap.norm() / truth.norm()) / tol


@pytest.mark.parametrize(
    ("entries", "sizes", "tol"),
    [
        (single, (10,) * 6, 1e-10),
        (single, (10,) * 6, 1e-7),
        (lambda i: (i.double() @ STEEP).sin().half(), (20,) * 4, 1e-4),
        (lambda i: (i.sum(-1) > 40).double(), (20,) * 4, 1e-1),
        (lambda i: (i.sum(-1) > 40).double(), (20,) * 4, 1e-2),
        (lambda i: (i.sum(-1) > 40).double(), (20,) * 4, 1e-3),
        (ball, (20,) * 4, 1e-1),
        (step, (20,) * 4, 3e-3),
        (lambda i: (3 * (i.double() @ STEEP - 20)).tanh(), (20,) * 4, 1e-2),
        (lambda i: ((i.double() - 9.5) @ STEEP).abs(), (20,) * 4, 1e-2),
        (lambda i: (i.flatten(2).double() @ torch.cat([BITS, 256 * BITS]) > 23456).double(),
         (2,) * 16, 1e-3),
        (disk, (2,) * 16, 1e-2),
        (stripe, (64, 64, 16), 1e-6),
        (stripe, (96, 96, 16), 1e-3),
        (pairs, (2,) * 16, 1e-6),
        (spikes(3000, 0.3), (20,) * 4, 1e-3),
    ],
)  # fmt: skip
def test_what_says_converged_is_within_twice_the_tolerance(entries, sizes, tol):
    for seed in SEEDS:
        found, error = measured(entries, sizes, tol, seed)
        assert error < 2 or not found.converged
        assert found.ledger.asked <= math.prod(sizes)


@pytest.mark.parametrize(
    ("entries", "sizes", "tol"),
    [
        (lambda i: (i.sum(-1) > 40).double(), (20,) * 4, 1e-1),
        (lambda i: (i.sum(-1) > 40).double(), (20,) * 4, 1e-3),
        (single, (10,) * 6, 1e-6),
        (stripe, (64, 64, 16), 1e-6),
        (pairs, (2,) * 16, 1e-6),
        (lambda i: (i.sum(-1) % 7).double(), (20,) * 4, 1e-4),
        (smooth, (17,) * 3, 1e-6),
    ],
)
def test_what_can_be_found_is_found(entries, sizes, tol):
    for seed in SEEDS:
        found, error = measured(entries, sizes, tol, seed)
        assert found.converged.all()
        assert error < 2


@pytest.mark.parametrize(("count", "height"), [(1, 1.0), (30, 1.0), (30, 0.3)])
def test_only_spikes_that_no_probe_missed_are_overlooked(count, height, monkeypatch):
    seen = []
    keep = Misses._keep

    def noted(self, points, truth, gap, *, spread):
        if self.train is not None:
            lone = (truth - smooth(points) / self.reader.scale).abs() > 1e-6
            seen.append(bool((lone & (gap.abs() > 1e-2 * truth.abs())).any()))
        keep(self, points, truth, gap, spread=spread)

    monkeypatch.setattr(Misses, "_keep", noted)
    for seed in SEEDS:
        seen.clear()
        found, error = measured(spikes(count, height), (20,) * 4, 1e-3, seed)
        assert error < 2 or not found.converged or not any(seen)


def test_rounding_to_float32_is_told_from_whole_numbers(generator):
    line = torch.rand(1, 100, generator=generator, dtype=torch.float64)
    whole = (64 * line).round() / 64
    values = torch.cat([line, line.float().double(), whole])
    assert rounding(values).tolist() == [0.0, 2.0**-25, 0.0]
    assert rounding(torch.zeros(1, 9)).tolist() == [0.0]


def test_a_small_tensor_is_read_once(generator):
    found = cross(smooth, (16,) * 3, tol=1e-6, generator=generator)
    assert found.ledger.asked == int(found.ledger.distinct) == 16**3
    assert found.converged.all()
    rough = cross(stripe, (96, 96, 16), tol=1e-3, max_rank=8, generator=generator)
    assert rough.ledger.asked <= 96 * 96 * 16
    assert not rough.converged.any()


def test_a_batch_of_small_tensors_is_asked_for_once(generator):
    scale = torch.tensor([[1.0], [3.0], [0.25]], dtype=torch.float64)
    found = cross(lambda i: scale * smooth(i), (12,) * 4, n_trains=3, tol=1e-6, generator=generator)
    full = found.train.full()
    torch.testing.assert_close(full[1], 3 * full[0], rtol=1e-4, atol=1e-5)
    assert found.converged.all()
    assert found.ledger.asked <= 12**4
