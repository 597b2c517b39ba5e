"""Roots by products and solves, powers, inverse roots, and safe gradients elsewhere."""

import importlib.util
import math
from pathlib import Path

import mpmath
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from cpic.linalg import _automatic as automatic
from cpic.linalg import eigh, inverse_sqrtm, powerm, safe_gradients, sqrtm, svd
from cpic.linalg._iterations import NEWTON, best_steps, certain_steps, minimax, solve_lyapunov
from cpic.linalg._rational import pade_coefficients, taylor_coefficients

WIDE = torch.float64


def symmetric(x):
    return (x + x.mT) / 2


def with_spectrum(generator, values, dtype=WIDE):
    values = torch.as_tensor(values, dtype=WIDE)
    n = values.shape[-1]
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=WIDE)).Q
    return symmetric(basis * values.unsqueeze(-2) @ basis.mT).to(dtype)


def pull(function, matrix, given):
    matrix = matrix.detach().clone().requires_grad_()
    return torch.autograd.grad(function(matrix), matrix, given)[0]


def test_golden_coefficients():
    p, q = pade_coefficients(5)
    assert p == (1, -11 / 4, 11 / 4, -77 / 64, 55 / 256, -11 / 1024)
    assert q == (1, -9 / 4, 7 / 4, -35 / 64, 15 / 256, -1 / 1024)
    assert taylor_coefficients(10) == (
        *(1, -1 / 2, -1 / 8, -1 / 16, -5 / 128, -7 / 256, -21 / 1024, -33 / 2048),
        *(-429 / 32768, -715 / 65536, -2431 / 262144),
    )


SPECTRUM = [1.0, 0.5, 0.1, 0.03, 0.01, 1e-3, 1e-4, 0.0]


@pytest.mark.parametrize("scale", ["frobenius", "bound"])
@pytest.mark.parametrize("degree", [1, 2, 5, 8, 9, 40])
def test_pade_has_the_error_of_its_closed_form(generator, degree, scale):
    matrix = with_spectrum(generator, SPECTRUM)
    norm = matrix.norm() if scale == "frobenius" else (matrix @ matrix).norm().sqrt()
    x = (torch.tensor(SPECTRUM, dtype=WIDE) / norm).sqrt()
    r, m = ((1 - x) / (1 + x)) ** (2 * degree + 1), 2 * degree + 1
    root = torch.where(x > 0, x * (1 + 2 * r / (1 - r).clamp(min=1e-300)), 1 / m) * norm.sqrt()
    found = sqrtm(matrix, method="pade", degree=degree, scale=scale)
    assert_close(torch.linalg.eigvalsh(found), root.sort().values, rtol=1e-9, atol=1e-12)
    inverse = inverse_sqrtm(matrix, method="pade", degree=degree, scale=scale)
    assert_close(inverse @ found, torch.eye(8, dtype=WIDE), rtol=0, atol=1e-8)


def test_golden_errors_of_the_published_degree():
    """Relative errors at l / |M|, and that of the identity, which grows with its size."""
    found = [1e4, 1.0, 0.5, 0.1, 0.03, 0.01, 1e-3, 1e-4]
    x = [math.sqrt(value) for value in found[1:]]
    errors = [2 * ((1 - s) / (1 + s)) ** 11 / (1 - ((1 - s) / (1 + s)) ** 11) for s in x]
    expected = [0, 7.6e-9, 1.5e-3, 0.044, 0.25, 2.0, 8.1]
    assert errors == pytest.approx(expected, rel=0.05)
    for n, error in ((64, 5.9e-4), (256, 7.3e-3)):
        root = sqrtm(torch.eye(n, dtype=WIDE), method="pade")
        assert float((root - torch.eye(n)).norm() / n**0.5) == pytest.approx(error, rel=0.02)
        root = sqrtm(torch.eye(n, dtype=WIDE), method="auto")
        assert float((root - torch.eye(n)).norm() / n**0.5) < 1e-4


def test_taylor_sums_the_series(generator):
    matrix = with_spectrum(generator, SPECTRUM)
    z = torch.eye(8, dtype=WIDE) - matrix / matrix.norm()
    series = sum(c * torch.linalg.matrix_power(z, k) for k, c in enumerate(taylor_coefficients(10)))
    assert_close(sqrtm(matrix, method="taylor"), matrix.norm().sqrt() * series)
    assert_close(sqrtm(matrix, method="taylor", degree=200), sqrtm(matrix), rtol=0, atol=0.06)


@pytest.mark.parametrize(("value", "share"), [(1, 1), (0.5, 1), (0.1, 1), (0.01, 0.998)])
def test_golden_shares_of_the_iterated_gradient(value, share):
    """Of an eigenvalue relative to the norm; eight iterations damp the smaller ones."""
    for small, part in ((value, share), (1e-3, 0.69), (1e-4, 0.25)):
        root = torch.diag(torch.tensor([1.0, small], dtype=WIDE).sqrt())
        root = root / root.norm()
        solved = solve_lyapunov(root, torch.eye(2, dtype=WIDE), [NEWTON] * 8)
        assert float(solved[1, 1] * 2 * root[1, 1]) == pytest.approx(part, abs=5e-3)


def test_the_iterated_gradient_is_that_of_the_root(generator):
    matrix = with_spectrum(generator, [2.0, 2.0, 1.1, 0.7]).unsqueeze(0)
    given = symmetric(torch.randn(1, 4, 4, generator=generator, dtype=WIDE))
    exact = pull(sqrtm, matrix, given)
    for way in ({"gradient": "iterative"}, {"method": "pade"}, {"method": "minimax"}):
        found = pull(lambda a, way=way: sqrtm(a, **way), matrix, given)
        assert_close(found, exact, rtol=1e-4, atol=1e-4)
    inverse = pull(inverse_sqrtm, matrix, given)
    for way in ({"method": "pade", "degree": 12}, {"method": "newton_schulz", "steps": 14}):
        found = pull(lambda a, way=way: inverse_sqrtm(a, **way), matrix, given)
        assert_close(found, inverse, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_inverse_does_not_depend_on_the_batch(generator):
    factor = torch.randn(64, 6, 9, generator=generator, dtype=WIDE)
    scales = torch.logspace(-3, 3, 64, dtype=WIDE).view(-1, 1, 1)
    matrix, given = scales * factor @ factor.mT, torch.randn(64, 6, 6, generator=generator).double()

    def pade(a):
        return inverse_sqrtm(a, method="pade")

    together = pull(pade, matrix, given)
    for k in (0, 31, 63):
        assert_close(together[k], pull(pade, matrix[k], given[k]), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("least", [0.5, 0.2, 1e-2, 1e-6])
def test_minimax_steps_keep_their_promise(least):
    x = torch.logspace(math.log10(least), 0, 2000, dtype=WIDE)
    below = torch.logspace(math.log10(least) - 8, math.log10(least), 200, dtype=WIDE)
    found = torch.cat([x, below])
    for a, b in minimax(least, 1e-5):
        found = found * (a - b * found.square())
    assert (found[:2000] - 1).abs().max() <= 1e-5
    assert found.max() <= 1 + 1e-5
    assert (found > 0).all()
    slower = 0
    y = torch.tensor([least], dtype=WIDE)
    while (y - 1).abs() > 1e-5:
        y, slower = y * (3 - y.square()) / 2, slower + 1
    assert len(minimax(least, 1e-5)) < slower


def stepped(x, step):
    """An odd polynomial with these coefficients."""
    return torch.stack([c * x ** (2 * k + 1) for k, c in enumerate(step)]).sum(0)


@pytest.mark.parametrize(
    ("least", "degrees"), [(0.5, (3,)), (0.1, (3,)), (0.2, (9, 5)), (0.0158, (9, 5, 5, 5))]
)
def test_best_steps_deviate_equally_above_and_below(least, degrees):
    x = torch.logspace(math.log10(least), 0, 20_001, dtype=WIDE)
    for degree, step in zip(degrees, best_steps(least, degrees), strict=True):
        x = stepped(x, step)
        off = x - 1
        largest = off.abs().max()
        turns = off[off.abs() > 0.999 * largest].sign()
        assert len(turns.unique_consecutive()) >= (degree + 3) // 2
        x = x.sort().values
    if degrees == (3,):
        assert best_steps(least, degrees)[0] == pytest.approx(
            (minimax(least, 1e-9)[0][0], -minimax(least, 1e-9)[0][1])
        )


def test_the_steps_of_the_automatic_root_keep_its_promise(script):
    small = (automatic.SMALL, automatic.FEW), (automatic.SMALLEST, automatic.MANY)
    for least, degrees in small:
        x = torch.logspace(math.log10(least) / 2, 0, 10_000, dtype=WIDE)
        for step in best_steps(least**0.5, degrees):
            x = stepped(x, step)
        assert (x - 1).abs().max() < 8e-5
    poles, residues, low, high = script.zolotarev(automatic.LEAST, 3)
    assert (*poles, *residues) == pytest.approx((*automatic.POLES, *automatic.RESIDUES), rel=1e-14)
    assert (low, high) == pytest.approx((automatic.LOW, automatic.HIGH), rel=1e-14)
    x = torch.logspace(math.log10(automatic.LEAST), 0, 10_000, dtype=WIDE)
    x = x * (1 + sum(a / (x.square() + p) for a, p in zip(residues, poles, strict=True)))
    assert x.min() >= low * (1 - 1e-12)
    assert x.max() <= high * (1 + 1e-12)
    ((a, b),) = best_steps(low / high, (3,))
    assert (a * x / high + b * (x / high) ** 3 - 1).abs().max() < 8e-5


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[2] / "data_scripts" / "derive_zolotarev.py"
    spec = importlib.util.spec_from_file_location("derive_zolotarev", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("n", [1, 32, 33, 97, 256])
def test_an_inverse_by_blocks(generator, n):
    matrix = torch.stack([with_spectrum(generator, torch.logspace(0, -3, n)) for _ in range(2)])
    found = automatic.inverse_by_blocks(matrix)
    assert_close(found @ matrix, torch.eye(n, dtype=WIDE).expand(2, n, n), rtol=0, atol=1e-11)
    assert torch.equal(found.mT, found) or n > 32


def spectra(generator):
    for n in (1, 2, 5, 16, 40, 64, 97, 128):
        for condition in (1.0, 10.0, 24.0, 40.0, 300.0, 1e3, 4e3, 1e6, 1e12):
            yield torch.logspace(0, -math.log10(condition), n, dtype=WIDE)
        yield (torch.arange(n) < n / 2).double()
        yield torch.cat([torch.ones(n - n // 2), torch.full((n // 2,), 1e-9)]).double()
        yield torch.cat([torch.ones(1), torch.full((n - 1,), 0.02)]).double()
        yield torch.rand(n, generator=generator, dtype=WIDE) ** 6


@pytest.mark.parametrize("method", ["auto", "minimax"])
def test_within_a_promised_distance_for_every_spectrum(generator, method):
    for values in spectra(generator):
        for scale in (1.0, 1e-60, 1e60):
            matrix = with_spectrum(generator, scale * values)
            exact, n_copies = sqrtm(matrix), automatic.WORTH // len(values) ** 2 + 1
            found = sqrtm(matrix.expand(n_copies, -1, -1), method=method)
            error = (found - exact).norm(dim=(-2, -1)).max() / exact.norm()
            assert error <= 1e-4, (len(values), float(values.min()), scale)


def counted(monkeypatch, name):
    called, plain = [], getattr(torch.linalg, name)
    monkeypatch.setattr(
        torch.linalg, name, lambda a, *o: called.append(a.shape[:-2].numel()) or plain(a, *o)
    )
    return called


@pytest.mark.parametrize("n", [4, 32, 95, 96, 150])
def test_automatic_takes_products_where_they_suffice(generator, monkeypatch, n):
    called = counted(monkeypatch, "eigh")
    kinds = torch.linspace(1, 0.4, n), torch.logspace(0, -2.5, n), torch.logspace(0, -4, n)
    batch = automatic.WORTH // n**2 + 1
    even, fair, uneven = (with_spectrum(generator, one).repeat(batch, 1, 1) for one in kinds)
    leaf, both = even.clone().requires_grad_(), torch.cat([even, uneven])
    for matrix, expected in ((even, 0), (fair, 0), (uneven, 1), (both, 1), (leaf, 1)):
        called.clear()
        root = sqrtm(matrix, method="auto")
        assert len(called) == expected
        assert root.dtype == WIDE
        assert root.shape == matrix.shape
        assert root.requires_grad == (matrix is leaf)
    assert sqrtm(even[0, :0, :0], method="auto").shape == (0, 0)
    zero = torch.zeros(batch, n, n, dtype=WIDE)
    assert torch.equal(sqrtm(zero, method="auto"), zero)


def test_automatic_tries_nothing_in_vain(generator, monkeypatch):
    """Eigenvalues at once of few numbers, and after one factor if the first matrix is uneven."""
    factors, called = counted(monkeypatch, "cholesky_ex"), counted(monkeypatch, "eigh")
    n = math.isqrt(automatic.WORTH)
    even = with_spectrum(generator, torch.linspace(1, 0.4, n)).unsqueeze(0)
    uneven = with_spectrum(generator, torch.logspace(0, -4, n)).repeat(9, 1, 1)
    for matrix, tried, found in (
        (even[:, 1:, 1:], [], [1]),
        (even, [1, 1], []),
        (uneven, [1], [9]),
        (uneven[:1], [1], [1]),
        (torch.cat([even, uneven]), [1, 10], [10]),
        (even.expand(9, -1, -1), [1, 9, 9], []),
    ):
        factors.clear(), called.clear()
        sqrtm(matrix, method="auto")
        assert (factors, called) == (tried, found)


def test_float32_roots_of_deficient_matrices_stay_finite(generator):
    low = torch.randn(20, 40, 20, generator=generator)
    matrix = symmetric(low @ low.mT)
    values, vectors = torch.linalg.eigh(matrix.double())
    exact = (vectors * values.clamp(min=0).sqrt().unsqueeze(-2) @ vectors.mT).float()
    for method in ("minimax", "auto", "pade"):
        root = sqrtm(matrix, method=method)
        size = {"pade": 0.5}.get(method, 2e-3)
        assert ((root - exact).norm(dim=(-2, -1)) <= size * exact.norm(dim=(-2, -1))).all()


POWERS = [-1.5, -0.5, 0.25, 0.5, 1.0, 2.0]


@pytest.mark.parametrize("power", POWERS)
def test_powers(generator, power):
    matrix = with_spectrum(generator, [3.0, 3.0, 1.0, 0.2])
    values, vectors = torch.linalg.eigh(matrix)
    assert_close(powerm(matrix, power), vectors * values**power @ vectors.mT)
    assert gradcheck(lambda a: powerm(symmetric(a), power), matrix.requires_grad_())
    apart = with_spectrum(generator, [3.0, 2.0, 1.0, 0.2])
    given = torch.randn(4, 4, generator=generator, dtype=WIDE)
    for gradient in ("original", "pade", "trunc"):
        found = pull(lambda a, g=gradient: powerm(a, power, gradient=g), apart, given)
        assert_close(found, pull(lambda a: powerm(a, power), apart, given))


@pytest.mark.parametrize("gap", [10.0**-k for k in range(1, 17)])
@pytest.mark.parametrize("dtype", [torch.float32, WIDE])
def test_divided_differences_are_exact_in_near_ties(generator, gap, dtype):
    matrix = with_spectrum(generator, [1.0, 1.0 - gap, 0.4, 0.1], dtype)
    given = symmetric(torch.randn(4, 4, generator=generator)).to(dtype)
    found = pull(lambda a: powerm(a, 0.3), matrix, given)
    with mpmath.workdps(60):
        values, vectors = mpmath.eigsy(mpmath.matrix(matrix.double().tolist()))
        inner = vectors.T * mpmath.matrix(given.double().tolist()) * vectors
        p = mpmath.mpf(0.3)
        for i in range(4):
            for j in range(4):
                a, b = values[i], values[j]
                inner[i, j] *= p * a ** (p - 1) if a == b else (a**p - b**p) / (a - b)
        exact = torch.tensor((vectors * inner * vectors.T).tolist(), dtype=WIDE)
    eps = torch.finfo(dtype).eps
    assert float((found - exact).norm() / exact.norm()) < 60 * eps


def test_a_power_of_one_half_is_the_root(generator):
    low = torch.randn(3, 6, 4, generator=generator, dtype=WIDE)
    matrix = symmetric(low @ low.mT)
    given = symmetric(torch.randn(3, 6, 6, generator=generator, dtype=WIDE))
    assert_close(powerm(matrix, 0.5), sqrtm(matrix), atol=1e-7, rtol=0)
    found = pull(lambda a: powerm(a, 0.5), matrix, given)
    assert_close(found, pull(sqrtm, matrix, given), rtol=1e-5, atol=1e-4)


def test_the_floor_bounds_an_inverse_root(generator):
    low = torch.randn(6, 3, generator=generator, dtype=WIDE)
    matrix = symmetric(low @ low.mT)
    largest = torch.linalg.eigvalsh(matrix)[-1]
    root = inverse_sqrtm(matrix, floor=1e-4)
    assert float(torch.linalg.eigvalsh(root)[-1]) == pytest.approx(float(100 / largest.sqrt()))
    assert torch.equal(powerm(torch.zeros(2, 2), -0.5), torch.zeros(2, 2))


def test_safe_gradients_reach_foreign_code(generator):
    matrix = with_spectrum(generator, [3.0, 2.0, 1.0])
    weights = torch.randn(3, 3, generator=generator, dtype=WIDE)

    def loss(a):
        values, vectors = torch.linalg.eigh(a)
        left, singular, _ = torch.linalg.svd(a + torch.eye(3), full_matrices=False)
        return (weights * (vectors.square() + left.square())).sum() + (values * singular).sum()

    plain = pull(loss, matrix, None)
    with safe_gradients():
        assert_close(loss(matrix), loss(matrix.clone()))
        assert_close(symmetric(pull(loss, matrix, None)), symmetric(plain))
        tied = pull(loss, torch.eye(3, dtype=WIDE), None)
        upper = torch.linalg.eigh(input=matrix.triu(), UPLO="U").eigenvalues
        assert_close(upper, torch.linalg.eigvalsh(matrix))
        torch.linalg.eigh(matrix.to(torch.complex64))  # passes through
        assert torch.linalg.svd(matrix[:2]).Vh.shape == (3, 3)
    assert tied.isfinite().all()
    assert not pull(loss, torch.eye(3, dtype=WIDE), None).isfinite().all()


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1.0, 1e20, 1e150])
def test_gradients_scale_with_the_matrix(generator, scale):
    base = with_spectrum(generator, [2.0, 2.0, 1.0, 0.5])
    given = symmetric(torch.randn(4, 4, generator=generator, dtype=WIDE))
    calls = {
        "eigh": (lambda a: eigh(a, gradient="trunc")[1].square() @ torch.arange(4.0).double(), -1),
        "svd": (lambda a: svd(a, gradient="trunc")[0].square() @ torch.arange(4.0).double(), -1),
        "root": (sqrtm, -0.5),
        "power": (lambda a: powerm(a, 0.3), -0.7),
        "inverse": (inverse_sqrtm, -1.5),
    }
    for name, (call, power) in calls.items():
        g = given if name in ("root", "power", "inverse") else given[0]
        if name == "inverse" and scale > 1e100:
            continue  # smaller than the smallest number
        matrix = (
            base
            if name in ("root", "power", "inverse")
            else with_spectrum(generator, [2, 1.5, 1, 0.5])
        )
        one, other = pull(call, matrix, g), pull(call, scale * matrix, g)
        assert other.isfinite().all(), name
        assert_close(other / scale**power, one, rtol=1e-8, atol=1e-8 * float(one.norm()))


def test_no_nan_in_many_degenerate_matrices(generator):
    """Low ranks, repeated eigenvalues and constant entries, 10 000 matrices in all."""
    n = 10_000
    rank = torch.randint(0, 5, (n, 1), generator=generator)
    values = torch.randint(0, 4, (n, 5), generator=generator).double() * (torch.arange(5) < rank)
    values = values * 10.0 ** torch.randint(-12, 12, (n, 1), generator=generator)
    basis = torch.linalg.qr(torch.randn(n, 5, 5, generator=generator, dtype=WIDE)).Q
    basis[: n // 3] = torch.eye(5, dtype=WIDE)
    matrix = symmetric(basis * values.unsqueeze(-2) @ basis.mT)
    given = torch.randn(n, 5, 5, generator=generator, dtype=WIDE)
    calls = [lambda a, g=g: sqrtm(a, gradient=g) for g in ("lyapunov", "trunc", "taylor", "pade")]
    calls += [lambda a: sqrtm(a, method="pade"), lambda a: sqrtm(a, method="minimax")]
    calls += [lambda a: powerm(a, 0.25), inverse_sqrtm, lambda a: eigh(a, gradient="trunc")[1]]
    for dtype in (WIDE, torch.float32):
        for call in calls:
            assert pull(call, matrix.to(dtype), given.to(dtype)).isfinite().all()


def test_unchecked_calls_give_the_same(generator):
    matrix = with_spectrum(generator, [2.0, 1.0, 0.5])
    for method in ("eigh", "newton_schulz", "pade", "taylor", "minimax", "auto"):
        assert_close(sqrtm(matrix, method=method, check=False), sqrtm(matrix, method=method))
    for method in ("eigh", "newton_schulz", "pade"):
        assert_close(
            inverse_sqrtm(matrix, method=method, check=False), inverse_sqrtm(matrix, method=method)
        )


EYE = torch.eye(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sqrtm(EYE, method="pade", degree=0), ValueError, r"degree >= 1`, got 0"),
        (lambda: sqrtm(EYE, method="pade", degree=201), ValueError, r"at most 200.*got 201"),
        (lambda: sqrtm(EYE, method="minimax", degree=3), ValueError, r"degree.*\"minimax\""),
        (lambda: sqrtm(EYE, method="pade", scale="trace"), ValueError, r"scale.*'trace'"),
        (lambda: sqrtm(EYE, method="pade", gradient="trunc"), ValueError, r"iterative.*'trunc'"),
        (lambda: sqrtm(-EYE, method="taylor"), ValueError, r"semi-definite.*Cholesky"),
        (lambda: powerm(EYE, float("nan")), ValueError, r"powerm needs a finite.*nan"),
        (lambda: powerm(EYE, 0.5, floor=0.0), ValueError, r"floor.*got 0\.0"),
        (lambda: powerm(EYE, 0.5, bound=1.0), TypeError, r"no options.*exact"),
        (lambda: powerm(-EYE, 0.5), ValueError, r"powerm needs positive semi"),
        (lambda: powerm(EYE.half(), 0.5), TypeError, r"powerm needs float32"),
        (lambda: inverse_sqrtm(EYE, method="taylor"), ValueError, r"'taylor'; .eigh"),
        (lambda: inverse_sqrtm(EYE, degree=3), ValueError, r"\"eigh\" \(floor\), got \['degree'\]"),
        (lambda: inverse_sqrtm(EYE, method="pade", degree=999), ValueError, r"at most 200"),
        (lambda: safe_gradients("clip"), ValueError, r"safe_gradients needs.*'clip'"),
        (lambda: safe_gradients("trunc", degree=3), TypeError, r"'degree'; pass bound"),
    ],
)
def test_rejects(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_steps_grow_slowly_with_the_size():
    assert [len(certain_steps(n, WIDE)) for n in (1, 16, 256)] == [13, 15, 16]
