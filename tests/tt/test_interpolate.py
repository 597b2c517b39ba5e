"""Interpolation: exact on its fibers, smooth in the entries, calm about singular pivots."""

import pytest
import torch

from cpic.tt import IndexSets, cross, dense_entries, interpolate

SIZES = (4, 3, 5, 2)


def low_rank(rank, generator, n_trains=2, dtype=torch.float64):
    factors = [torch.rand(n_trains, n, rank, generator=generator, dtype=dtype) for n in SIZES]
    return torch.einsum("kar,kbr,kcr,kdr->kabcd", *factors)


def test_exact_for_the_rank_of_the_sets(generator):
    tensor = low_rank(2, generator)
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    torch.testing.assert_close(interpolate(dense_entries(tensor), sets).full(), tensor)


def test_a_lower_rank_than_the_sets_is_exact_too(generator):
    tensor = low_rank(1, generator)
    sets = IndexSets.random(SIZES, 3, n_trains=2, generator=generator)
    torch.testing.assert_close(interpolate(dense_entries(tensor), sets).full(), tensor)


def test_more_right_than_left_multi_indices_is_least_squares(generator):
    tensor = low_rank(2, generator)
    wide = IndexSets.random(SIZES, (4, 6, 2), n_trains=2, generator=generator)
    left = [rows[:, :2] for rows in wide.left]
    sets = IndexSets(SIZES, left, wide.right)
    torch.testing.assert_close(interpolate(dense_entries(tensor), sets).full(), tensor)
    with pytest.raises(ValueError, match="at least as many right"):
        interpolate(
            dense_entries(tensor), IndexSets(SIZES, wide.left, [r[:, :1] for r in wide.right])
        )


def test_sets_that_are_not_nested_work(generator):
    tensor = low_rank(2, generator)
    a = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    b = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    left = (a.left[0], a.left[1], b.left[2], a.left[3])
    mixed = IndexSets(SIZES, left, a.right)
    torch.testing.assert_close(interpolate(dense_entries(tensor), mixed).full(), tensor)


def test_all_fibers_in_one_call(generator):
    calls = []
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    ask = dense_entries(low_rank(2, generator))

    def entries(indices):
        calls.append(indices.shape)
        return ask(indices)

    interpolate(entries, sets)
    assert calls == [(2, sets.n_entries, 4)]


def test_first_and_second_derivatives(generator):
    sets = IndexSets.random((3, 2, 3), 2, generator=generator)
    tensor = torch.rand(1, 3, 2, 3, generator=generator, dtype=torch.float64)
    tensor.requires_grad_()

    def rebuilt(values):
        return interpolate(dense_entries(values), sets).full()

    assert torch.autograd.gradcheck(rebuilt, tensor)
    assert torch.autograd.gradgradcheck(rebuilt, tensor)


@pytest.mark.parametrize("rank", [10, 40])
def test_gradient_agrees_with_finite_differences_when_pivots_are_ill_conditioned(rank, generator):
    side, bits = 16, 4
    axis = torch.arange(side, dtype=torch.float64) / side
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    site = 2.0 ** torch.arange(bits, dtype=torch.float64)

    def entries_of(theta):
        def entries(indices):
            where = (indices.double().unflatten(-1, (3, bits)) * site).sum(-1) / side
            return torch.exp(-theta[0] * ((where - 0.4) ** 2).sum(-1)) / (
                1 + theta[1] * where.prod(-1)
            )

        return entries

    theta = torch.tensor([3.0, 2.0], dtype=torch.float64)
    sets = cross(entries_of(theta), (2,) * 12, rank=rank, method="square", generator=generator).sets

    def loss(values):
        return interpolate(entries_of(values), sets).norm().square().sum()

    theta.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta)
    step = 1e-5
    with torch.no_grad():
        for i in range(2):
            change = torch.zeros(2, dtype=torch.float64)
            change[i] = step
            slope = (loss(theta + change) - loss(theta - change)) / (2 * step)
            assert abs(slope - gradient[i]) <= 1e-6 * abs(slope)
    assert grid.shape == (side, side, side, 3)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-200, 1e200])
def test_constants_are_exact_with_finite_gradients(value, generator):
    tensor = torch.full((2, *SIZES), value, dtype=torch.float64, requires_grad=True)
    sets = IndexSets.random(SIZES, 3, n_trains=2, generator=generator)
    full = interpolate(dense_entries(tensor), sets).full()
    torch.testing.assert_close(full, tensor, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(full.sum(), tensor)
    assert torch.isfinite(gradient).all()


def test_no_tensors_give_an_empty_train(generator):
    sets = IndexSets.random(SIZES, 3, n_trains=0, generator=generator)
    train = interpolate(dense_entries(torch.zeros(0, *SIZES)), sets)
    assert train.n_trains == 0
    assert train.ranks == sets.ranks


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda i: i[..., :1].double(), r"\(K, n\)"),
        (lambda i: i[..., 0] * 1j, "complex"),
        (lambda i: torch.where(i[..., 0] == 1, torch.nan, 1.0), r"index \(1,"),
        (lambda i: torch.where(i[..., 0] == 1, torch.inf, 1.0), "finite"),
    ],
)
def test_bad_entries_give_one_clear_error(bad, message, generator):
    sets = IndexSets.random(SIZES, 2, generator=generator)
    with pytest.raises(ValueError, match=message):
        interpolate(bad, sets)
