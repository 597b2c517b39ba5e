import math

import pytest
import torch

from cpic.data import exact_rank
from cpic.tt import TensorTrain, dense_entries, tt_svd
from cpic.tt._cross_sampled import fit_sampled, make_plan, merge_sites
from cpic.tt._points import random_points

SIZES = [(6, 7, 5), (2,) * 9, (3, 1, 4, 5), (40, 30), (11,), (2,) * 22]


def counted(entries):
    def read(indices):
        read.asked += indices.shape[1]
        return entries(indices)

    read.asked = 0
    return read


def fit(dense, generator, **options):
    sizes = tuple(dense.shape[1:])
    plan = make_plan(sizes, **options)
    read = counted(dense_entries(dense))
    points = random_points(sizes, 500, n_trains=len(dense), generator=generator)
    weights = dense_entries(dense)(points).abs()
    drawn = {"points": points, "weights": weights, "generator": generator}
    return fit_sampled(read, sizes, plan, **drawn), plan, read.asked


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_known_rank_is_recovered_from_the_planned_entries(generator, sizes, dtype):
    cores = exact_rank(sizes, 3, generator=generator, n_trains=2)
    dense = TensorTrain([core.to(dtype) for core in cores]).full()
    train, plan, asked = fit(dense, generator, rank=3)
    assert asked == plan.n_entries
    assert train.dtype == dtype
    assert train.sizes == sizes
    gap = (train.round(max_rank=3).full() - dense).flatten(1).norm(dim=1)
    # A square solve loses some digits, and float32 has few.
    assert (gap <= (1e-3 if dtype == torch.float32 else 1e-10) * dense.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("sizes", [(32, 32, 32), (2,) * 15], ids=str)
def test_is_close_to_the_best_where_the_rank_is_not_exact(generator, sizes):
    axis = torch.linspace(0, 1, 32, dtype=torch.float64)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    ball = ((x - 0.4) ** 2 + (y - 0.5) ** 2 + (z - 0.6) ** 2 < 0.1).double()
    dense = ball.reshape(1, *sizes)
    best = (tt_svd(dense, max_rank=6).full() - dense).norm()
    train, plan, _ = fit(dense, generator, rank=6)
    assert plan.n_entries < 0.7 * dense.numel()
    assert (train.round(max_rank=6).full() - dense).norm() <= 1.4 * best


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-200, 1e200])
def test_constant_tensors_stay_finite_and_exact(generator, value):
    dense = torch.full((2, 6, 7, 5), value, dtype=torch.float64)
    train, _, _ = fit(dense, generator, rank=4)
    torch.testing.assert_close(train.full(), dense, rtol=1e-10, atol=0)


def test_tensors_of_a_batch_do_not_mix(generator):
    cores = exact_rank((9, 8, 7), 2, generator=generator, n_trains=3)
    dense = TensorTrain(cores).full() * torch.tensor([1.0, 1e-8, 1e8]).double()[:, None, None, None]
    train, _, _ = fit(dense, generator, rank=2)
    gap = (train.full() - dense).flatten(1).norm(dim=1)
    assert (gap <= 1e-10 * dense.flatten(1).norm(dim=1)).all()


def test_fibers_pass_the_points_of_large_weight(generator):
    dense = torch.zeros(1, 60, 60, 60, dtype=torch.float64)
    dense[0, 41, 7, 33] = 1.0  # no random fiber is likely to meet it
    plan = make_plan(dense.shape[1:], rank=2)
    points = random_points((60,) * 3, 500, n_trains=1, generator=generator)
    points[0, 17] = torch.tensor([41, 7, 33])
    for weight, found in ((1.0, True), (0.0, False)):
        weights = torch.zeros(1, 500).double()
        weights[0, 17] = weight
        drawn = {"points": points, "weights": weights, "generator": generator}
        train = fit_sampled(dense_entries(dense), (60,) * 3, plan, **drawn)
        assert bool((train.full() - dense).norm() < 1e-10) == found


@pytest.mark.parametrize("sizes", [(256,) * 3, (2,) * 24, (2,) * 39, (20,) * 10], ids=str)
@pytest.mark.parametrize("max_entries", [50_000, 210_000, 1_000_000])
def test_the_plan_keeps_to_its_limit_and_uses_it(sizes, max_entries):
    plan = make_plan(sizes, rank=100, max_entries=max_entries)
    assert 0.5 * max_entries <= plan.n_entries <= max_entries


def test_too_small_a_limit_says_what_is_needed():
    with pytest.raises(ValueError, match=r"at least \d+ entries, got max_entries=10.*raise it"):
        make_plan((256, 256, 256), rank=5, max_entries=10)


@pytest.mark.parametrize("sizes", [*SIZES, (2,) * 24, (2,) * 21, (300, 2, 2), (2,) * 39], ids=str)
def test_groups_cover_all_sites_in_order(sizes):
    groups = merge_sites(sizes)
    assert [k for group in groups for k in group] == list(range(len(sizes)))
    widths = [math.prod(sizes[k] for k in group) for group in groups]
    assert max(widths) <= max(256, *sizes)


def test_twenty_four_bits_make_three_even_groups():
    assert [len(group) for group in merge_sites((2,) * 24)] == [8, 8, 8]
    assert [len(group) for group in merge_sites((2,) * 21)] == [7, 7, 7]
