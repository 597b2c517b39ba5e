"""Interpolation: exact on its fibers, smooth in the entries, calm about singular pivots."""

import pytest
import torch

from cpic.tt import IndexSets, cross, dense_entries, interpolate
from cpic.tt._cross_sets import grow_right
from cpic.tt._points import random_points
from tests.bench.problems import tunable_gaussians

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


def test_more_left_than_right_multi_indices_is_the_same_from_the_other_end(generator):
    tensor = low_rank(2, generator)
    wide = IndexSets.random(SIZES, (4, 6, 2), n_trains=2, generator=generator)
    sets = IndexSets(SIZES, wide.left, [rows[:, :2] for rows in wide.right])
    found, condition = interpolate(dense_entries(tensor), sets, with_condition=True)
    torch.testing.assert_close(found.full(), tensor)
    sides = [[rows.flip(-1) for rows in reversed(side)] for side in (sets.right, sets.left)]
    turned = dense_entries(tensor.permute(0, 4, 3, 2, 1).contiguous())
    _, backwards = interpolate(turned, IndexSets(SIZES[::-1], *sides), with_condition=True)
    torch.testing.assert_close(condition, backwards.flip(-1))


def test_more_left_at_one_bond_and_more_right_at_another_is_refused(generator):
    wide = IndexSets.random(SIZES, (4, 6, 2), generator=generator)
    left = [wide.left[0], wide.left[1][:, :2], *wide.left[2:]]
    right = [wide.right[0], wide.right[1][:, :2], *wide.right[2:]]
    with pytest.raises(ValueError, match=r"got \(2, 6, 2\) left and \(4, 2, 2\) right"):
        interpolate(dense_entries(low_rank(2, generator)[:1]), IndexSets(SIZES, left, right))


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


def widened(sets, n, generator):
    """The same left sets with up to `n` more right multi-indices at every bond."""
    points = random_points(sets.sizes, n, n_trains=sets.n_trains, generator=generator)
    right = list(sets.right)
    for k in range(sets.n_sites - 1):
        right[k] = grow_right(right[k], points[..., k + 1 :], sets.sizes[k + 1 :])
    return IndexSets(sets.sizes, sets.left, tuple(right))


def assert_slopes_agree(loss, theta, generator, rtol, step=3e-5):
    """The gradient against differences of fourth order along three directions."""
    start = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(start), start)
    for _ in range(3):
        along = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            near, far = (
                loss(theta + s * along) - loss(theta - s * along) for s in (step, 2 * step)
            )
        measured = (8 * near - far) / (12 * step)
        assert abs((slope * along).sum() - measured) <= rtol * slope.norm() * along.norm()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("rank", [5, 10, 20, 30, 40, 50])
def test_gradients_are_right_however_ill_conditioned_the_pivots(rank, wide, generator):
    make, sizes, theta = tunable_gaussians()
    sets = cross(make(theta), sizes, rank=rank, method="square", generator=generator).sets
    if wide:
        sets = widened(sets, rank // 2, generator)
    for solver in ("solve", "qr", "ridge"):

        def loss(values, solver=solver):
            return interpolate(make(values), sets, solver=solver).norm().square().sum()

        assert_slopes_agree(loss, theta, generator, rtol=1e-7)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("wide", [False, True])
def test_gradients_through_the_program(wide, generator):
    make, sizes, theta = tunable_gaussians(side=8)
    sets = cross(make(theta), sizes, rank=4, method="square", generator=generator).sets
    if wide:
        sets = widened(sets, 2, generator)

    def loss(values):
        return interpolate(make(values), sets, solver="cvxpylayers").norm().square().sum()

    assert_slopes_agree(loss, theta, generator, rtol=1e-7)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("solver", ["solve", "qr"])
def test_where_the_rank_allows_gradients_are_those_of_the_dense_tensor(solver, wide, generator):
    """Rank 2 interpolated with up to five multi-indices: every pivot is singular."""
    factors = [torch.rand(2, n, 2, generator=generator, dtype=torch.float64) for n in SIZES]
    factors = [factor.requires_grad_() for factor in factors]
    tensor = torch.einsum("kar,kbr,kcr,kdr->kabcd", *factors)
    sets = IndexSets.random(SIZES, (4, 5, 2), n_trains=2, generator=generator)
    if wide:
        sets = widened(sets, 3, generator)
    train, condition = interpolate(dense_entries(tensor), sets, solver=solver, with_condition=True)
    assert (condition[:, :2] == torch.inf).all()
    probe = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad((train.full().sin() * probe).sum(), factors, retain_graph=True)
    exact = torch.autograd.grad((tensor.sin() * probe).sum(), factors)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)


def test_condition_warns_of_the_bond_and_the_train(generator):
    tensor = low_rank(3, generator)
    tensor[1] = low_rank(2, generator)[1] + 1e-13 * tensor[1]
    sets = IndexSets.random(SIZES, (3, 3, 2), n_trains=2, generator=generator)
    train, condition = interpolate(dense_entries(tensor), sets, with_condition=True)
    assert train.ranks == sets.ranks
    assert condition.shape == (2, 3)
    unreliable = condition > torch.finfo(torch.float64).eps ** (-2 / 3)
    assert unreliable.tolist() == [[False] * 3, [True, True, False]]
    one = IndexSets.random((4,), 1, generator=generator)
    _, none = interpolate(lambda i: i[..., 0].double(), one, with_condition=True)
    assert none.shape == (1, 0)


def test_ridge_is_close_and_smooth_where_the_rank_changes(generator):
    """Between rank 2 and rank 1 the direct solvers jump from one lowered rank to another."""
    two, one = low_rank(2, generator), low_rank(1, generator)
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)

    def loss(share):
        mixed = one + share * (two - one)
        return interpolate(dense_entries(mixed), sets, solver="ridge").full().square().sum()

    zero = torch.zeros((), dtype=torch.float64)
    assert_slopes_agree(loss, zero, generator, rtol=1e-5, step=1e-5)
    full = interpolate(dense_entries(two), sets, solver="ridge", ridge=1e-9).full()
    torch.testing.assert_close(full, two, rtol=0.05, atol=0.05)


def test_entries_without_gradient_give_cores_without(generator):
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    train = interpolate(dense_entries(low_rank(2, generator)), sets)
    assert not any(core.requires_grad for core in train.cores)


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
        (lambda i: i[..., 0].half(), "float32 or float64 values, got torch.float16"),
    ],
)
def test_bad_entries_give_one_clear_error(bad, message, generator):
    sets = IndexSets.random(SIZES, 2, generator=generator)
    with pytest.raises(ValueError, match=message):
        interpolate(bad, sets)


def test_bad_options_are_named_before_anything_is_read(generator):
    sets = IndexSets.random(SIZES, 2, generator=generator)

    def entries(indices):
        raise AssertionError("read")

    with pytest.raises(ValueError, match="`solver` out of 'solve'"):
        interpolate(entries, sets, solver="lstsq")
    with pytest.raises(ValueError, match="ridge needs"):
        interpolate(entries, sets, solver="ridge", ridge=0.0)
