"""A half-sweep chooses sets and builds a train with gradient from the same values."""

import itertools

import pytest
import torch

from cpic.bottleneck import half_sweep
from cpic.tt import IndexSets, TensorTrain, cap_ranks, cross, dense_entries, interpolate
from tests.counting import Dispatched

SIZES = (3, 4, 2, 5, 3)
WAYS = pytest.mark.parametrize("towards", ["right", "left"])


def random_train(sizes, rank, generator, n_trains=2, dtype=torch.float64):
    ranks = cap_ranks(sizes, rank)
    shapes = zip(ranks[:-1], sizes, ranks[1:], strict=True)
    return TensorTrain(
        [torch.randn(n_trains, *shape, generator=generator).to(dtype) for shape in shapes]
    )


def turned(entries):
    return lambda indices: entries(indices.flip(-1))


def turned_sets(sets):
    left, right = (
        tuple(rows.flip(-1) for rows in reversed(side)) for side in (sets.left, sets.right)
    )
    return IndexSets(sets.sizes[::-1], right, left)


def full_on(entries, sets, towards):
    """The dense tensors of `interpolate` on these sets, from the side that was chosen."""
    if towards == "right":
        return interpolate(entries, sets).full()
    train = interpolate(turned(entries), turned_sets(sets)).full()
    return train.permute(0, *reversed(range(1, train.ndim)))


class Counted:
    def __init__(self, entries):
        self.entries, self.asked, self.calls = entries, 0, 0

    def __call__(self, indices):
        self.asked, self.calls = self.asked + indices.shape[1], self.calls + 1
        return self.entries(indices)


@pytest.mark.parametrize("sizes", [SIZES, (2,) * 9, (4, 4), (6, 1, 6), (7,)])
@pytest.mark.parametrize("rank", [1, 3])
def test_alternating_half_sweeps_rebuild_an_exact_rank(sizes, rank, generator):
    full = random_train(sizes, rank, generator).full()
    sets = IndexSets.random(sizes, rank, n_trains=2, generator=generator)
    for towards in ("right", "left", "right", "left"):
        found = half_sweep(dense_entries(full), sets, towards=towards)
        assert (found.train.full() - full).abs().max() <= 1e-11 * full.abs().max()
        assert found.condition.shape == (2, len(sizes) - 1)
        sets = found.sets


@WAYS
@pytest.mark.parametrize("ranks", [None, 2])
def test_value_and_gradient_are_those_of_the_returned_sets(towards, ranks, generator):
    full = torch.randn(2, *SIZES, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(2, *SIZES, generator=generator, dtype=torch.float64)
    sets = IndexSets.random(SIZES, 3, n_trains=2, generator=generator)
    found = half_sweep(dense_entries(full), sets, towards=towards, ranks=ranks)
    fixed = full_on(dense_entries(full), found.sets, towards)
    assert torch.allclose(found.train.full(), fixed, rtol=1e-11, atol=1e-11)
    ours, theirs = (
        torch.autograd.grad((t * weights).sum(), full)[0] for t in (found.train.full(), fixed)
    )
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


@WAYS
@pytest.mark.parametrize("ranks", [None, 2])
def test_gradient_equals_finite_differences_with_the_sets_held(towards, ranks, generator):
    full = torch.randn(2, *SIZES, generator=generator, dtype=torch.float64).requires_grad_()
    step = torch.randn(2, *SIZES, generator=generator, dtype=torch.float64)
    sets = IndexSets.random(SIZES, 3, n_trains=2, generator=generator)
    sets = half_sweep(dense_entries(full), sets).sets  # away from pivots that are small by chance
    sets = half_sweep(dense_entries(full), sets, towards="left").sets
    found = half_sweep(dense_entries(full), sets, towards=towards, ranks=ranks)
    loss = found.train.full().square().sum()
    (slope,) = torch.autograd.grad(loss, full)
    with torch.no_grad():
        h = 1e-6
        ahead, behind = (
            full_on(dense_entries(full + sign * h * step), found.sets, towards).square().sum()
            for sign in (1, -1)
        )
    assert torch.isclose((slope * step).sum(), (ahead - behind) / (2 * h), rtol=1e-7)


@WAYS
@pytest.mark.parametrize("options", [{}, {"ranks": 2}, {"tol": 0.3}, {"max_rank": 1}])
def test_each_fiber_is_asked_once_and_one_call_a_site(towards, options, generator):
    entries = Counted(dense_entries(torch.randn(2, *SIZES, generator=generator)))
    sets = IndexSets.random(SIZES, 4, n_trains=2, generator=generator)
    found = half_sweep(entries, sets, towards=towards, **options)
    assert entries.asked == found.sets.n_entries
    assert entries.calls == len(SIZES)


@WAYS
def test_fewer_ranks_than_columns_still_rebuild_an_exact_rank(towards, generator):
    full = random_train(SIZES, 2, generator).full()
    sets = IndexSets.random(SIZES, 4, n_trains=2, generator=generator)
    for options in ({"tol": 1e-8}, {"ranks": 2}, {"max_rank": 2}):
        found = half_sweep(dense_entries(full), sets, towards=towards, **options)
        assert found.train.ranks == (1, 2, 2, 2, 2, 1)
        assert (found.train.full() - full).abs().max() <= 1e-11 * full.abs().max()
        back = half_sweep(
            dense_entries(full), found.sets, towards="left" if towards == "right" else "right"
        )
        assert back.sets.ranks == back.train.ranks == found.train.ranks  # square again


@WAYS
def test_each_bond_may_have_its_own_rank(towards, generator):
    sets = IndexSets.random(SIZES, 4, generator=generator)
    entries = dense_entries(torch.randn(1, *SIZES, generator=generator))
    found = half_sweep(entries, sets, towards=towards, ranks=(1, 2, 4, 3))
    assert found.train.ranks == (1, 1, 2, 4, 3, 1)


def test_negligible_columns_do_not_hide_those_behind(generator):
    """Fewer rows than columns are wanted, and the first columns live in rows of their own."""
    full = torch.randn(1, 8, 2, generator=generator, dtype=torch.float64)
    full = full @ torch.randn(1, 2, 8, generator=generator, dtype=torch.float64)
    full[:, :2] = full[..., :2] = 0
    full[:, 0, 0] = full[:, 1, 1] = 1e-8
    right = (torch.tensor([[[0], [1], [4], [6]]]), torch.zeros(1, 1, 0, dtype=torch.int64))
    sets = IndexSets((8, 8), (right[1], right[0]), right)
    found = half_sweep(dense_entries(full), sets, ranks=2)
    assert (found.train.full() - full).abs().max() <= 1e-7


@WAYS
def test_conditions_are_those_of_the_pivots(towards, generator):
    full = torch.randn(2, *SIZES, generator=generator, dtype=torch.float64)
    sets = IndexSets.random(SIZES, 3, n_trains=2, generator=generator)
    found = half_sweep(dense_entries(full), sets, towards=towards)
    if towards == "right":
        _, wanted = interpolate(dense_entries(full), found.sets, with_condition=True)
    else:
        fixed = turned_sets(found.sets)
        _, wanted = interpolate(turned(dense_entries(full)), fixed, with_condition=True)
        wanted = wanted.flip(-1)
    assert torch.allclose(found.condition, wanted)


def test_the_rank_of_the_batch_is_the_largest_need(generator):
    low, high = (random_train(SIZES, rank, generator, 1).full() for rank in (1, 3))
    sets = IndexSets.random(SIZES, 4, n_trains=2, generator=generator)
    full = torch.cat([low, high])
    found = half_sweep(dense_entries(full), sets, tol=1e-8)
    assert found.train.ranks == cap_ranks(SIZES, 3)
    assert (found.train.full() - full).abs().max() <= 1e-11 * full.abs().max()


@WAYS
@pytest.mark.parametrize("options", [{}, {"tol": 1e-6}, {"ranks": 2}, {"solver": "ridge"}])
def test_deficient_tensors_beside_a_full_one_are_finite(towards, options, generator):
    whole = torch.randn(1, *SIZES, generator=generator, dtype=torch.float64)
    ones = torch.ones(1, *SIZES, dtype=torch.float64)
    corner = torch.zeros(1, *SIZES, dtype=torch.float64)
    corner[..., 0] = 1e-200
    full = torch.cat([0 * ones, 3 * ones, corner, whole, 1e150 * whole]).requires_grad_()
    sets = IndexSets.random(SIZES, 3, n_trains=5, generator=generator)
    for way in (towards, "right", "left"):
        found = half_sweep(dense_entries(full), sets, towards=way, **options)
        sets = found.sets
    dense = found.train.full()
    (slope,) = torch.autograd.grad(dense[:4].sum() + dense[4].sum(), full)
    assert all(torch.isfinite(core).all() for core in found.train.cores)
    assert torch.isfinite(slope).all()
    if "solver" not in options:
        assert torch.equal(dense[0], full[0])
        assert torch.allclose(dense[1], full[1], rtol=1e-12)


def degenerate(n_trains, generator):
    """Tensors of rank at most 3: zero, constant, repeated slices, zero background, any scale."""
    full = random_train(SIZES, 3, generator, n_trains).full()
    low = random_train(SIZES, 1, generator, n_trains).full()
    kind = torch.randint(0, 6, (n_trains, 1, 1, 1, 1, 1), generator=generator)
    full = torch.where(kind == 0, 0.0, full)
    full = torch.where(kind == 1, full[:, :1, :1, :1, :1, :1], full)
    full = torch.where(kind == 2, full[:, :, :1], full)  # duplicate slices
    full = torch.where(kind == 3, low, full)
    mask = torch.rand(n_trains, *SIZES, generator=generator) < 0.5
    holes = torch.where((kind == 4) & mask, 0.0, full)  # of any rank
    power = torch.randint(-150, 150, kind.shape, generator=generator).double()
    return torch.where(kind == 5, full * 10.0**power, holes), (kind != 4).flatten()


def test_a_thousand_degenerate_tensors_in_one_batch(generator):
    full, low_rank = degenerate(1000, generator)
    full.requires_grad_()
    sets = IndexSets.random(SIZES, 3, n_trains=1000, generator=generator)
    for towards in ("right", "left", "right", "left"):
        found = half_sweep(dense_entries(full), sets, towards=towards)
        sets = found.sets
    dense, scale = found.train.full(), full.detach().flatten(1).abs().amax(1).clamp_min(1e-300)
    (slope,) = torch.autograd.grad((dense.flatten(1) / scale[:, None]).square().sum(), full)
    assert torch.isfinite(slope).all()
    gap = (dense - full).detach().flatten(1).abs().amax(1) / scale
    assert (gap[low_rank] <= 1e-8).all()


def test_drifting_entries_stay_bounded_over_many_steps(generator):
    """Columns that depend on each other to rounding, in a tensor that changes a little a step."""
    sizes = (2,) * 10
    x = torch.linspace(0, 1, 2**10, dtype=torch.float64)
    sets = IndexSets.random(sizes, 12, n_trains=3, generator=generator)
    noise = torch.randn(3, 2**10, generator=generator, dtype=torch.float64)
    worst = 0.0
    for step in range(36):
        shift = 0.02 * step
        smooth = torch.stack([(x + shift).exp(), (5 * x - shift).sin(), 1 / (1 + x + shift)])
        full = (smooth + 10.0 ** (-16 + step % 9) * noise).view(3, *sizes).requires_grad_()
        towards = ("right", "left")[step % 2]
        found = half_sweep(dense_entries(full), sets, towards=towards)
        sets, dense = found.sets, found.train.full()
        (slope,) = torch.autograd.grad((dense - full.detach()).square().sum(), full)
        assert _nested(sets.left if towards == "right" else turned_sets(sets).left)
        assert torch.isfinite(slope).all()
        worst = max(worst, float((dense - full).detach().abs().max()))
        assert all(core.abs().max() <= 20 for core in found.train.cores)
    assert worst <= 1e-6  # noise of 1e-8 on entries of size one to nine


def _nested(left):
    return all(
        bool((rows[:, :, None, :-1] == before[:, None]).all(-1).any(-1).all())
        for before, rows in itertools.pairwise(left)
    )


def test_half_sweeps_reach_the_accuracy_of_cross(generator):
    x = torch.linspace(0, 1, 2**12, dtype=torch.float64)
    full = (1 / (1 + 25 * (2 * x - 1) ** 2)).view(1, *(2,) * 12)
    sets = IndexSets.random((2,) * 12, 6, generator=generator)
    for towards in ("right", "left") * 3:
        found = half_sweep(dense_entries(full), sets, towards=towards)
        sets = found.sets
    other = cross(dense_entries(full), (2,) * 12, rank=6, generator=generator, method="square")
    ours, theirs = ((t.full() - full).norm() for t in (found.train, other.train))
    assert ours <= 3 * theirs


def test_second_derivatives_pass(generator):
    full = torch.randn(1, 2, 3, 2, generator=generator, dtype=torch.float64).requires_grad_()
    sets = half_sweep(dense_entries(full), IndexSets.random((2, 3, 2), 2, generator=generator)).sets
    torch.autograd.gradgradcheck(
        lambda t: half_sweep(dense_entries(t), sets, towards="left").train.full(), full
    )


def test_single_precision_stays_single(generator):
    full = random_train(SIZES, 2, generator, dtype=torch.float32).full()
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    found = half_sweep(dense_entries(full), sets)
    assert found.train.dtype == found.condition.dtype == torch.float32
    assert (found.train.full() - full).abs().max() <= 1e-3 * full.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"towards": "up"}, "`towards` out of 'right', 'left'"),
        ({"ranks": 3}, "at least 3 multi-indices"),
        ({"ranks": 3, "towards": "left"}, "at least 3 multi-indices"),
        ({"ranks": (1, 2)}, "rank"),
        ({"tol": -1.0}, "tol >= 0"),
        ({"max_rank": 0}, "max_rank >= 1"),
        ({"solver": "magic"}, "solver"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message, generator):
    sets = IndexSets.random(SIZES, 2, generator=generator)
    with pytest.raises(ValueError, match=message):
        half_sweep(dense_entries(torch.ones(1, *SIZES)), sets, **options)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.ones(1, *SIZES), "entries need int64 indices of shape"),  # of another K
        (torch.ones(2, *SIZES[:-1]), "entries need int64 indices of shape"),
        (torch.full((2, *SIZES), torch.nan), "finite values"),
        (torch.ones(2, *SIZES, dtype=torch.complex64), "float32 or float64"),
    ],
)
def test_entries_that_do_not_fit_are_refused(tensor, message, generator):
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    with pytest.raises(ValueError, match=message):
        half_sweep(dense_entries(tensor), sets)


def test_another_number_of_trains_is_refused(generator):
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    with pytest.raises(ValueError, match=r"entries must return a tensor \(K, n\)"):
        half_sweep(lambda i: torch.zeros(3, i.shape[1]), sets)


def test_entries_may_return_one_buffer_each_time(generator):
    buffer = torch.zeros(1, 10_000, dtype=torch.float64)

    def reusing(indices):
        part = buffer[:, : indices.shape[1]]
        part.copy_(1.0 / (1.0 + indices.double().sum(-1)))
        return part

    sets = IndexSets.random((6, 6, 6), 3, generator=generator)
    again = half_sweep(lambda i: reusing(i).clone(), sets).train
    torch.testing.assert_close(half_sweep(reusing, sets).train.full(), again.full())


def counted_step(n_trains, towards):
    """Operations and reads of a half-sweep, its gradient, and an interpolation on its sets."""
    sizes, generator = (2,) * 12, torch.Generator().manual_seed(0)
    sets = IndexSets.random(sizes, 6, n_trains=n_trains, generator=generator)
    weights = torch.randn(n_trains, 1, 12, generator=generator, dtype=torch.float64)
    sets = half_sweep(lambda i: 1 / (2 + (i * weights).sum(-1).square()), sets).sets
    sets = half_sweep(lambda i: 1 / (2 + (i * weights).sum(-1).square()), sets, towards="left").sets
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def entries(indices):
        return scale / (2 + (indices * weights).sum(-1).square())

    with Dispatched() as half:
        found = half_sweep(entries, sets, towards=towards)
    with Dispatched() as back:
        sum(core.sum() for core in found.train.cores).backward()
    with Dispatched() as whole:
        interpolate(entries, found.sets)
    return half, back, whole


@WAYS
def test_a_half_sweep_dispatches_few_operations_and_reads_the_device_once_a_site(towards):
    """A GPU waits for every read, and starts every operation on its own."""
    half, back, whole = counted_step(3, towards)
    exchanges = half.names["aten::baddbmm_"]  # those of maxvol: their number is up to the tensor
    assert half.operations - exchanges <= 12 * 65
    assert half.reads <= 12 + 3
    assert back.operations <= 12 * 25
    assert back.reads == 0
    assert whole.operations <= 400
    assert whole.reads <= 4  # not one for each bond


@WAYS
def test_neither_grows_with_the_number_of_tensors(towards):
    counted_step(1, towards)  # makes what is kept for all numbers of tensors
    few, many = (counted_step(n_trains, towards) for n_trains in (2, 6))
    for one, other in zip(few, many, strict=True):
        exchanges = [part.names.get("aten::baddbmm_", 0) for part in (one, other)]
        assert one.operations - exchanges[0] == other.operations - exchanges[1]
        assert one.reads == other.reads


def test_a_half_sweep_to_the_left_is_one_to_the_right_of_the_reversed_modes(generator):
    sizes = (3, 4, 2, 5)
    tensor = torch.randn(2, *sizes, generator=generator, dtype=torch.float64)
    sets = IndexSets.random(sizes, 3, n_trains=2, generator=generator)
    left = half_sweep(dense_entries(tensor), sets, towards="left")
    reversed_modes = tensor.permute(0, 4, 3, 2, 1).contiguous()
    right = half_sweep(dense_entries(reversed_modes), sets.mirrored())
    for one, other in zip(left.train.cores, reversed(right.train.cores), strict=True):
        assert torch.equal(one, other.permute(0, 3, 2, 1))
    assert all(map(torch.equal, left.sets.mirrored().left, right.sets.left))
    assert torch.equal(left.condition, right.condition.flip(-1))
