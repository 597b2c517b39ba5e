"""Solvers of a core: one minimum, right gradients, and calm about pivots of any rank."""

import builtins
import sys

import pytest
import torch

from cpic.tt import IndexSets, dense_entries, interpolate
from cpic.tt._bonds import groups_of, solve_bonds
from cpic.tt._program import _layer
from cpic.tt._solvers import (
    SOLVERS,
    pivot_condition,
    solve_core,
    unreliable_above,
)

DIRECT = ("solve", "qr", "ridge")
N_CASES, BLOCK = 1000, 50

# cvxpylayers turns tensors to arrays in a way that numpy deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def system(generator, k=2, m=6, r=3, c=3, dtype=torch.float64):
    matrix = torch.randn(k, m, c, generator=generator, dtype=dtype)
    return matrix, torch.randn(k, r, c, generator=generator, dtype=dtype)


def normal_equations(matrix, pivot, ridge=0.0):
    r = pivot.shape[1]
    weight = ridge * pivot.square().sum((-2, -1), keepdim=True) / r
    gram = pivot @ pivot.mT + weight * torch.eye(r, dtype=pivot.dtype)
    return torch.linalg.solve(gram, matrix @ pivot.mT, left=False)


@pytest.mark.parametrize("c", [3, 5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_value_and_gradient_are_those_of_the_normal_equations(solver, c, generator):
    matrix, pivot = (part.requires_grad_() for part in system(generator, c=c))
    ridge = 0.0 if solver in ("solve", "qr") else 1e-3
    expected = normal_equations(matrix, pivot, ridge)
    found = solve_core(matrix, pivot, solver=solver, ridge=ridge or 1.0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    probe = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((found * probe).sum(), (matrix, pivot)),
        torch.autograd.grad((expected * probe).sum(), (matrix, pivot)),
        rtol=1e-7,
        atol=1e-7,
    )


@pytest.mark.parametrize("c", [3, 5])
@pytest.mark.parametrize("solver", DIRECT)
def test_first_and_second_derivatives(solver, c, generator):
    matrix, pivot = (part.requires_grad_() for part in system(generator, c=c))

    def solve(matrix, pivot):
        return solve_core(matrix, pivot, solver=solver, ridge=0.1)

    assert torch.autograd.gradcheck(solve, (matrix, pivot))
    assert torch.autograd.gradgradcheck(solve, (matrix, pivot))


def test_first_derivative_of_the_program(generator):
    matrix, pivot = (part.requires_grad_() for part in system(generator, k=1, m=2, r=2, c=3))

    def solve(matrix, pivot):
        return solve_core(matrix, pivot, solver="cvxpylayers", ridge=0.1)

    assert torch.autograd.gradcheck(solve, (matrix, pivot))


@pytest.mark.parametrize("c", [3, 4])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_unit_of_the_entries_changes_nothing(solver, c, generator):
    matrix, pivot = system(generator, c=c)
    found = solve_core(matrix, pivot, solver=solver)
    for unit in (1e-100, 1e100):
        scaled = [(unit * part).requires_grad_() for part in (matrix, pivot)]
        again = solve_core(*scaled, solver=solver)
        torch.testing.assert_close(again, found, rtol=1e-9, atol=1e-9)
        for slope in torch.autograd.grad(again.sum(), scaled):
            assert torch.isfinite(slope).all()
            assert 1e-6 < unit * slope.abs().max() < 1e6


@pytest.mark.parametrize("c", [4, 7])
@pytest.mark.parametrize("solver", ["solve", "qr"])
def test_only_the_deficient_sample_loses_rank(solver, c, generator):
    core = torch.randn(3, 6, 4, generator=generator, dtype=torch.float64)
    pivot = torch.randn(3, 4, c, generator=generator, dtype=torch.float64)
    pivot[1, 2] = pivot[1, 0]  # a duplicate multi-index
    pivot[2] = 0.0
    matrix = core @ pivot
    pivot.requires_grad_()
    matrix.requires_grad_()
    found = solve_core(matrix, pivot, solver=solver)
    torch.testing.assert_close(found @ pivot, matrix, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[0], core[0], rtol=1e-9, atol=1e-9)
    assert ((found == 0).all(1).sum(1)).tolist() == [0, 1, 4]
    for slope in torch.autograd.grad(found.sum(), (matrix, pivot)):
        assert torch.isfinite(slope).all()
        assert slope[2].abs().max() == 0


def test_rtol_says_from_where_a_pivot_is_zero(generator):
    pivot = torch.diag(torch.tensor([1.0, 1e-3, 1e-6], dtype=torch.float64))[None]
    matrix = torch.ones(1, 2, 3, dtype=torch.float64)
    lowered = solve_core(matrix, pivot, rtol=1e-4)
    assert lowered[0, 0].tolist() == [1.0, pytest.approx(1e3), 0.0]
    assert solve_core(matrix, pivot)[0, 0, 2].item() == pytest.approx(1e6)


@pytest.mark.parametrize("c", [4, 6])
def test_condition_is_the_ratio_of_norms(c, generator):
    pivot = torch.randn(3, 4, c, generator=generator, dtype=torch.float64)
    pivot[1, 0] *= 1e-9
    pivot[2] = 0.0
    pivot.requires_grad_()
    found = pivot_condition(pivot)
    assert not found.requires_grad
    expected = torch.linalg.cond(pivot.detach()[:2])
    assert ((found[:2] >= expected) & (found[:2] <= 16 * expected)).all()
    assert found[2] == torch.inf
    assert pivot_condition(pivot[:0]).shape == (0,)


@pytest.mark.parametrize(("dtype", "number"), [(torch.float32, 4.1e4), (torch.float64, 2.7e10)])
def test_below_the_threshold_gradients_have_the_promised_digits(dtype, number, generator):
    """Against float64 at higher accuracy: the error is bounded by condition * eps."""
    assert unreliable_above(dtype) == pytest.approx(number, rel=0.02)
    eps = torch.finfo(dtype).eps
    for size in (1e-1, 1e-2, 1e-3):
        frame = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
        pivot = (frame * torch.tensor([1.0, 1.0, 1.0, size], dtype=torch.float64)).to(dtype)[None]
        matrix = torch.randn(1, 8, 4, generator=generator, dtype=torch.float64).to(dtype)
        condition = pivot_condition(pivot)
        assert condition < unreliable_above(dtype)
        slopes = []
        for kind in (dtype, torch.float64):
            parts = [part.to(kind).detach().requires_grad_() for part in (matrix, pivot)]
            core = solve_core(*parts)
            slopes.append(torch.autograd.grad(core.square().sum(), parts)[1].double())
        error = (slopes[0] - slopes[1]).norm() / slopes[1].norm()
        assert error <= 10 * condition.item() * eps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lstsq"}, r"`solver` out of .solve., .qr., .ridge., .cvxpylayers."),
        ({"solver": "ridge", "ridge": 0.0}, "ridge needs to be a finite number above 0"),
        ({"ridge": -1.0}, "ridge needs"),
        ({"ridge": float("nan")}, "ridge needs"),
        ({"rtol": 1.0}, "rtol needs"),
        ({"rtol": -1e-3}, "rtol needs"),
        ({"rtol": float("nan")}, "rtol needs"),
    ],
)
def test_bad_options_give_one_clear_error(options, message, generator):
    with pytest.raises(ValueError, match=message):
        solve_core(*system(generator), **options)


def test_bad_shapes_and_types_give_one_clear_error(generator):
    matrix, pivot = system(generator, r=4, c=3)
    with pytest.raises(ValueError, match="at least as many columns as rows"):
        solve_core(matrix, pivot)
    with pytest.raises(ValueError, match="float32 or float64"):
        solve_core(matrix.half(), pivot.half())


def test_a_missing_package_is_named(generator, monkeypatch):
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("cvxpy"):
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.startswith("cvxpy")]:
        monkeypatch.delitem(sys.modules, name)
    _layer.cache_clear()
    with pytest.raises(ImportError, match="cvxpylayers, which is not installed"):
        solve_core(*system(generator), solver="cvxpylayers")


# Degenerate tensors -------------------------------------------------------------------------


def pick(generator, options):
    return options[int(torch.randint(len(options), (), generator=generator))]


def uniform(generator, low, high):
    return low + (high - low) * float(torch.rand((), generator=generator))


def degenerate_tensor(kind, sizes, rank, generator):
    """One tensor of at most this rank at every bond, in float64, with entries of order one."""
    if kind == "zero":
        return torch.zeros(sizes, dtype=torch.float64)
    if kind == "constant":
        return torch.full(sizes, uniform(generator, -2, 2), dtype=torch.float64)
    factors = [torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in sizes]
    if kind == "duplicates":  # equal slices in every mode
        factors = [f[torch.randint(len(f), (len(f),), generator=generator)] for f in factors]
    if kind == "background":  # zero but for a corner
        for f in factors:
            f[int(torch.randint(1, len(f) + 1, (), generator=generator)) :] = 0.0
    letters = "abcdef"[: len(sizes)]
    return torch.einsum(",".join(x + "z" for x in letters) + "->" + letters, *factors)


def degenerate_sets(sizes, rank, n_trains, generator):
    """Random sets, often with a multi-index twice or more right than left ones."""
    wide = IndexSets.random(sizes, rank + 2, n_trains=n_trains, generator=generator)
    d = len(sizes)
    left, right = list(wide.left), list(wide.right)
    spare = pick(generator, (0, 2))
    for k in range(d - 1):
        columns = min(right[k].shape[1], rank + spare)
        right[k] = right[k][:, :columns]
        left[k + 1] = left[k + 1][:, : min(rank, columns)]
        if uniform(generator, 0, 1) < 0.3:
            right[k] = torch.cat([right[k][:, :1], right[k][:, :-1]], 1)
        if uniform(generator, 0, 1) < 0.3:
            left[k + 1] = torch.cat([left[k + 1][:, :1], left[k + 1][:, :-1]], 1)
    return IndexSets(sizes, tuple(left), tuple(right))


def bond_ranks(tensor, sets, sample):
    """Of the tensor's unfoldings and of its pivots at every bond."""
    for k in range(1, tensor.ndim):
        unfolded = tensor.flatten(0, k - 1).flatten(1)
        index_l, index_r = sets.left[k][sample], sets.right[k - 1][sample]
        where = torch.cat(
            [
                index_l[:, None].expand(-1, len(index_r), -1),
                index_r[None].expand(len(index_l), -1, -1),
            ],
            -1,
        )
        pivot = tensor[tuple(where.unbind(-1))]
        size = tensor.abs().max()
        yield (
            torch.linalg.matrix_rank(unfolded, atol=1e-10 * size, rtol=0.0),
            torch.linalg.svdvals(pivot),
            size,
        )


def is_determined(tensor, sets, sample):
    """Whether the pivots of every bond carry its full rank, with values well above rounding."""
    for rank, values, size in bond_ranks(tensor, sets, sample):
        if rank > 0 and (len(values) < rank or values[rank - 1] < 1e-2 * size):
            return False
    return True


@pytest.mark.parametrize("start", range(0, N_CASES, BLOCK))
def test_degenerate_tensors_give_finite_trains_and_gradients(start):
    exact = 0
    for seed in range(start, start + BLOCK):
        generator = torch.Generator().manual_seed(seed)
        dtype = pick(generator, (torch.float32, torch.float64))
        solver = pick(generator, DIRECT)
        sizes = tuple(
            int(torch.randint(1, 5, (), generator=generator)) for _ in range(2 + seed % 4)
        )
        n_trains, rank = 1 + seed % 4, pick(generator, (1, 2, 3, 5))
        kinds = ("zero", "constant", "duplicates", "background", "low rank")
        tensors = torch.stack(
            [
                degenerate_tensor(
                    pick(generator, kinds), sizes, pick(generator, (1, 2, 4)), generator
                )
                for _ in range(n_trains)
            ]
        )
        reach = 15 if dtype == torch.float32 else 120
        units = [10 ** uniform(generator, -reach, reach) for _ in range(n_trains)]
        unit = torch.tensor(units, dtype=torch.float64).reshape(-1, *[1] * len(sizes))
        sets = degenerate_sets(sizes, rank, n_trains, generator)
        values = (unit * tensors).to(dtype).requires_grad_()
        train, condition = interpolate(
            dense_entries(values), sets, solver=solver, with_condition=True
        )
        full = train.full()
        assert torch.isfinite(full).all(), f"seed {seed}"
        assert not condition.isnan().any(), f"seed {seed}"
        probe = torch.randn(full.shape, generator=generator, dtype=torch.float64).to(dtype)
        (slope,) = torch.autograd.grad((full * probe).sum(), values)
        assert torch.isfinite(slope).all(), f"seed {seed}"
        if solver == "ridge":
            continue
        for k in range(n_trains):
            if is_determined(tensors[k], sets, k):
                exact += 1
                tol = 1e-2 if dtype == torch.float32 else 1e-9
                gap = (full[k].double() / units[k] - tensors[k]).abs().max()
                assert gap <= tol * tensors[k].abs().max(), f"seed {seed}, tensor {k}"
    assert exact >= BLOCK // 2  # the claim is not empty


@pytest.mark.parametrize("seed", range(4))
def test_degenerate_tensors_through_the_program(seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.stack(
        [
            degenerate_tensor(kind, (3, 2, 3), 2, generator)
            for kind in ("zero", "constant", "low rank")
        ]
    ).requires_grad_()
    sets = degenerate_sets((3, 2, 3), 3, 3, generator)
    full = interpolate(dense_entries(tensors), sets, solver="cvxpylayers").full()
    again = interpolate(dense_entries(tensors), sets, solver="ridge").full()
    torch.testing.assert_close(full, again, rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(full.sum(), tensors)
    assert torch.isfinite(slope).all()


def test_bonds_of_one_shape_are_one_batch_and_come_back_in_their_order(generator):
    shapes = [(8, 4, 4), (6, 3, 5), (8, 4, 4), (8, 3, 4), (6, 3, 5)]
    matrices = [
        torch.randn(2, m, c, generator=generator, dtype=torch.float64) for m, _, c in shapes
    ]
    rows = [torch.randperm(m, generator=generator)[:r].expand(2, -1) for m, r, _ in shapes]
    cores, conditions = solve_bonds(matrices, rows, with_condition=True)
    for matrix, chosen, core, condition in zip(matrices, rows, cores, conditions, strict=True):
        pivot = matrix.take_along_dim(chosen[..., None], 1)
        assert torch.equal(core, solve_core(matrix, pivot))
        assert torch.equal(condition, pivot_condition(pivot))
    assert solve_bonds(matrices, rows, with_condition=False)[1] == []


def bonds_of_three_shapes(generator, scale=1.0):
    """Square bonds, of which one is singular in the second sample; small and large ones."""
    shapes = [(4, 2), (8, 4), (8, 4), (6, 3)]
    matrices = [
        torch.randn(2, m, c, generator=generator, dtype=torch.float64) * scale for m, c in shapes
    ]
    matrices[1][1, :, 1] = matrices[1][1, :, 0]
    rows = [torch.stack([torch.randperm(m, generator=generator)[:c]] * 2) for m, c in shapes]
    return [matrix.requires_grad_() for matrix in matrices], rows


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e150])
def test_bonds_of_several_shapes_are_solved_for_as_each_alone(scale, generator):
    matrices, rows = bonds_of_three_shapes(generator, scale)
    together = solve_bonds(matrices, rows, with_condition=True)
    alone = [
        solve_bonds([matrix], [row], with_condition=True)
        for matrix, row in zip(matrices, rows, strict=True)
    ]
    for k, ((core,), (condition,)) in enumerate(alone):
        torch.testing.assert_close(together[0][k], core, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together[1][k], condition, rtol=1e-10, atol=0)
        slopes = (
            torch.autograd.grad((c / c.detach().abs().max()).sum(), matrices[k], retain_graph=True)
            for c in (together[0][k], core)
        )
        torch.testing.assert_close(*(slope * scale for (slope,) in slopes), rtol=1e-8, atol=1e-10)
    assert together[1][1].isinf().tolist() == [False, True]


def test_bonds_of_very_different_shapes_are_no_one_batch(generator):
    shapes = [(100, 2), (6, 6)]
    matrices = [torch.randn(1, m, c, generator=generator, dtype=torch.float64) for m, c in shapes]
    rows = [torch.arange(c)[None] for _, c in shapes]
    assert len(groups_of(matrices, rows, "solve")) == 2
    assert len(groups_of(matrices[:1] * 2, rows[:1] * 2, "qr")) == 1
    assert solve_bonds([], [], with_condition=True) == ([], [])
