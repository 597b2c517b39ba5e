import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from cpic.linalg import eigh, inverse_gap

DTYPES = [torch.float32, torch.float64]
METHODS = ["original", "trunc", "topn", "taylor", "pade", "power"]


def symmetric(x):
    return (x + x.mT) / 2


def with_spectrum(generator, values, dtype=torch.float64):
    values = torch.tensor(values, dtype=torch.float64)
    n = values.shape[-1]
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return symmetric(basis * values @ basis.mT).to(dtype)


def degenerate(generator, dtype):
    ones = torch.ones(4, 4, dtype=dtype)
    low = torch.randn(5, 2, generator=generator, dtype=dtype)
    return {
        "zero": torch.zeros(3, 3, dtype=dtype),
        "identity": torch.eye(3, dtype=dtype).expand(2, 3, 3),
        "ones": ones,
        "deficient": symmetric(low @ low.mT),
        "repeated": with_spectrum(generator, [2.0, 2.0, 1.0, 1.0, 1.0], dtype),
        "signs": with_spectrum(generator, [1.0, 0.5, -0.5, -1.0], dtype),
        "single": torch.full((3, 1, 1), 2.0, dtype=dtype),
        "no sample": torch.zeros(0, 3, 3, dtype=dtype),
        "no row": torch.zeros(2, 0, 0, dtype=dtype),
        "tiny": 1e-15 * ones,
        "huge": 1e15 * ones,
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 4, 4), (2, 3, 4, 4), (0, 3, 3)])
def test_values_and_vectors(generator, shape, dtype):
    matrix = symmetric(torch.randn(shape, generator=generator, dtype=dtype))
    values, vectors = eigh(matrix)
    slack = 1e-5 if dtype == torch.float32 else 1e-13
    assert_close(values, torch.linalg.eigvalsh(matrix).flip(-1), atol=slack, rtol=slack)
    rebuilt = vectors * values.unsqueeze(-2) @ vectors.mT
    assert_close(rebuilt, matrix, atol=slack, rtol=slack)
    eye = torch.eye(shape[-1], dtype=dtype).expand_as(matrix)
    assert_close(vectors.mT @ vectors, eye, atol=slack, rtol=slack)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_spectra_have_finite_gradients(generator, dtype, method):
    for name, matrix in degenerate(generator, dtype).items():
        matrix = matrix.clone().requires_grad_()
        values, vectors = eigh(matrix, gradient=method)
        weights = torch.randn(vectors.shape, generator=generator, dtype=dtype)
        loss = values.sum() + (weights * vectors).sum()
        (grad,) = torch.autograd.grad(loss, matrix)
        assert grad.isfinite().all(), name
        assert torch.equal(grad, grad.mT) or torch.allclose(grad, grad.mT, rtol=1e-4), name


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_keeps_its_bound(generator, method):
    matrix = with_spectrum(generator, [1.0, 1.0, 1 - 1e-9, 0.2, 0.0, 0.0]).requires_grad_()
    values, vectors = eigh(matrix, gradient=method)
    g_values = torch.randn(6, generator=generator, dtype=torch.float64)
    g_vectors = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    (grad,) = torch.autograd.grad((values, vectors), matrix, (g_values, g_vectors))
    largest = inverse_gap(values.detach(), method).abs().max()
    assert grad.norm() <= (g_values.norm() + largest * g_vectors.norm()) * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_separated_spectra_have_the_exact_gradient(generator, method):
    matrix = with_spectrum(generator, [9.0, 3.0, 1.0, 0.2]).requires_grad_()
    weights = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    found = eigh(matrix, gradient=method)
    expected = torch.linalg.eigh(matrix)
    grads = []
    for values, vectors in (found, (expected[0].flip(-1), expected[1].flip(-1))):
        loss = (values.exp() + (vectors.square() * weights).sum(-2)).sum()
        grads += torch.autograd.grad(loss, matrix)
    assert_close(grads[0], symmetric(grads[1]), rtol=1e-8, atol=1e-8)


def truth(matrix, form, weights, digits=50):
    """Gradient of the sum of w_k v_k^T B v_k in high precision, of the matrix as it is stored."""
    n = len(matrix)
    with mpmath.workdps(digits):
        values, vectors = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
        weights = [mpmath.mpf(w) for w in reversed(weights.tolist())]  # eigsy ascends
        inner = vectors.T * mpmath.matrix(form.tolist()) * vectors
        for i in range(n):
            for j in range(n):
                step = weights[i] - weights[j]
                inner[i, j] *= step / (values[i] - values[j]) if i != j else 0
        return torch.tensor((vectors * inner * vectors.T).tolist(), dtype=torch.float64)


@pytest.mark.parametrize("power", range(1, 17))
def test_gap_sweep_against_high_precision(generator, power):
    gap = 10.0**-power
    matrix = with_spectrum(generator, [1.0, 1.0 - gap, 0.4, 0.1])
    form = symmetric(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    weights = torch.tensor([1.0, -2.0, 3.0, 5.0], dtype=torch.float64)
    exact = truth(matrix, form, weights)
    rounding = 1e-14 + 2e-15 / gap
    # The largest inverse gap and the relative error: here the near tie is all that counts.
    allowed = {
        "original": (1.4e154, rounding),
        "trunc": (1.1e10, rounding + (gap < 1.1e-10)),
        "topn": (4.6e15, rounding),
        "taylor": (102, rounding + (1 - gap) ** 101),
        "pade": (5.7e11, rounding + (gap < 2e-12)),
        "power": (20.1, rounding + (1 - gap) ** 20),
    }
    for method, (bound, error) in allowed.items():
        leaf = matrix.clone().requires_grad_()
        vectors = eigh(leaf, gradient=method)[1]
        loss = (weights * (vectors * (form @ vectors)).sum(-2)).sum()
        (grad,) = torch.autograd.grad(loss, leaf)
        assert grad.norm() <= bound * 2 * (form @ vectors * weights).norm()
        if gap > 1e-14:  # below, the rounding of the matrix decides
            assert (grad - exact).norm() <= error * exact.norm(), method


def losses(matrix, **options):
    """What does not depend on the signs of the eigenvectors."""
    values, vectors = eigh(symmetric(matrix), **options)
    weights = torch.arange(1.0, matrix.shape[-1] + 1, dtype=matrix.dtype)
    return values, vectors.square(), vectors * weights @ vectors.mT


@pytest.mark.parametrize("options", [{}, {"gradient": "trunc"}, {"gradient": "pade"}])
def test_gradcheck(generator, options):
    matrix = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: losses(x, **options), matrix)


def test_gradgradcheck(generator):
    matrix = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(losses, matrix)


def power_iteration(matrix, start, steps, *, deflate):
    """One eigenvector after the other, each by power iteration from the exact one."""
    n, found, vectors = len(matrix), matrix, []
    projector = torch.eye(n, dtype=matrix.dtype)
    for vector in start.mT:
        for _ in range(steps):
            vector = found @ vector
            vector = vector / vector.norm()
        vectors.append(vector)
        projector = projector - torch.outer(vector, vector)
        if deflate == "project":
            found = projector @ matrix @ projector
        else:
            found = found - (vector @ matrix @ vector) * torch.outer(vector, vector)
    return torch.stack(vectors, -1)


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_power_is_the_gradient_of_deflated_power_iteration(generator, steps):
    matrix = with_spectrum(generator, [2.0, 1.7, 1.6, 0.9, 0.1]).requires_grad_()
    weights = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    vectors = eigh(matrix, gradient="power", steps=steps)[1]
    (found,) = torch.autograd.grad((weights * vectors).sum(), matrix)
    loops = power_iteration(matrix, vectors.detach(), steps, deflate="project")
    (expected,) = torch.autograd.grad((weights * loops).sum(), matrix)
    assert_close(found, symmetric(expected))
    assert found.norm() > 0.1


def test_power_with_the_other_deflation_has_one_term_less_below_the_diagonal(generator):
    matrix = with_spectrum(generator, [2.0, 1.7, 1.6, 0.9]).requires_grad_()
    weights = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    values, vectors = (x.detach() for x in eigh(matrix))
    loops = power_iteration(matrix, vectors, 5, deflate="subtract")
    (expected,) = torch.autograd.grad((weights * loops).sum(), matrix)
    inverse = inverse_gap(values, "power", steps=5).triu()
    inverse = inverse + inverse_gap(values, "power", steps=4).tril()
    found = vectors @ (inverse.mT * (vectors.mT @ weights)) @ vectors.mT
    assert_close(symmetric(found), symmetric(expected))


def test_batch_equals_loop(generator):
    matrix = symmetric(torch.randn(5, 4, 4, generator=generator)).requires_grad_()
    together = eigh(matrix, gradient="taylor")
    weights = torch.randn(5, 4, 4, generator=generator)
    (grad,) = torch.autograd.grad((weights * together[1].square()).sum(), matrix)
    for k, one in enumerate(matrix.detach()):
        one.requires_grad_()
        values, vectors = eigh(one, gradient="taylor")
        assert_close(values, together[0][k])
        (alone,) = torch.autograd.grad((weights[k] * vectors.square()).sum(), one)
        assert_close(alone, grad[k], rtol=1e-3, atol=1e-4)


def test_rounding_passes_as_symmetric(generator):
    root = torch.randn(6, 6, generator=generator)
    matrix = root @ root.mT
    matrix[0, 1] *= 1 + 1e-6
    assert_close(eigh(matrix)[0], eigh(symmetric(matrix))[0])


@pytest.mark.parametrize(
    ("matrix", "options", "error", "message"),
    [
        (torch.ones(2, 3), {}, ValueError, r"square.*got shape \(2, 3\).*`svd`"),
        (torch.ones(3), {}, ValueError, r"square.*got shape \(3,\)"),
        (torch.eye(2).cumsum(1), {}, ValueError, r"symmetric.*2\.4e-05.*1\.0e\+00.*a\.mT\) / 2"),
        (torch.full((2, 2), torch.nan), {}, ValueError, r"finite numbers, got NaN"),
        (torch.full((2, 2), torch.inf), {}, ValueError, r"finite numbers, got NaN or inf"),
        (torch.eye(2).half(), {}, TypeError, r"float32 or float64, got torch\.float16.*double"),
        (torch.eye(2).bfloat16(), {}, TypeError, r"got torch\.bfloat16"),
        (torch.eye(2).long(), {}, TypeError, r"got torch\.int64"),
        (torch.eye(2), {"gradient": "exact"}, ValueError, r"eigh needs .*'trunc'.*got 'exact'"),
        (torch.eye(2), {"steps": 3}, TypeError, r"eigh needs options.*'steps'; omit it"),
    ],
)
def test_rejects(matrix, options, error, message):
    with pytest.raises(error, match=message):
        eigh(matrix, **options)


def test_one_bad_matrix_in_a_batch_is_seen():
    matrix = torch.stack([torch.eye(2) * 1e9, torch.eye(2).cumsum(1)])
    with pytest.raises(ValueError, match="symmetric"):
        eigh(matrix)
