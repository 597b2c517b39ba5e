import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from cpic.linalg import inverse_gap, svd

DTYPES = [torch.float32, torch.float64]
METHODS = ["original", "trunc", "topn", "taylor", "pade", "power"]
SHAPES = [(4, 4), (6, 3), (3, 6)]


def with_values(generator, shape, values, dtype=torch.float64):
    m, n = shape
    left, right = (
        torch.linalg.qr(torch.randn(k, k, generator=generator, dtype=torch.float64)).Q
        for k in (m, n)
    )
    k = len(values)
    matrix = left[:, :k] * torch.tensor(values, dtype=torch.float64) @ right[:, :k].mT
    return matrix.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (5, 3), (3, 5), (2, 3, 4, 2), (0, 3, 2), (3, 0)])
def test_values_and_vectors(generator, shape, dtype):
    matrix = torch.randn(shape, generator=generator, dtype=dtype)
    left, values, right = svd(matrix)
    k = min(shape[-2:])
    assert left.shape == (*shape[:-1], k)
    assert right.shape == (*shape[:-2], k, shape[-1])
    slack = 1e-5 if dtype == torch.float32 else 1e-13
    assert_close(left * values.unsqueeze(-2) @ right, matrix, atol=slack, rtol=slack)
    assert_close(values, torch.linalg.svdvals(matrix), atol=slack, rtol=slack)


def losses(matrix, **options):
    """What does not depend on the signs of the singular vectors."""
    left, values, right = svd(matrix, **options)
    weights = torch.arange(1.0, values.shape[-1] + 1, dtype=matrix.dtype)
    return values, left * weights @ left.mT, right.mT * weights @ right, left * weights @ right


@pytest.mark.parametrize("options", [{}, {"gradient": "trunc"}, {"gradient": "pade"}])
@pytest.mark.parametrize("shape", [(2, 3, 3), (4, 2), (2, 4)])
def test_gradcheck(generator, shape, options):
    matrix = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: losses(x, **options), matrix)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_separated_values_have_the_exact_gradient(generator, shape, method):
    matrix = with_values(generator, shape, [4.0, 2.0, 1.0, 0.4][: min(shape)]).requires_grad_()
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    grads = []
    for left, values, right in (
        svd(matrix, gradient=method),
        torch.linalg.svd(matrix, full_matrices=False),
    ):
        whitened = (weights[0] * (left @ right)).sum()
        rest = (weights[1] * (left * values.exp() @ right)).sum() + left[:, 0].square()[0]
        grads += torch.autograd.grad(whitened + rest + values.square().sum(), matrix)
    slack = 1e-4 if method == "power" else 1e-9
    assert_close(grads[0], grads[1], rtol=slack, atol=slack)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_rebuilding_is_the_identity(generator, shape, method):
    matrix = with_values(generator, shape, [8.0, 2.0, 0.5][: min(shape)])
    if shape == (4, 4):
        matrix += 0.01 * torch.eye(4, dtype=torch.float64)
    matrix.requires_grad_()
    given = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, values, right = svd(matrix, gradient=method)
    (grad,) = torch.autograd.grad(left * values @ right, matrix, given)
    assert_close(grad, given, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_truncation_of_a_rank_deficient_matrix(generator, shape, method):
    """The best approximation of rank r has a derivative at a matrix of rank r, and this is it."""
    matrix = with_values(generator, shape, [4.0, 1.0]).requires_grad_()
    given = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, values, right = svd(matrix, gradient=method)
    left, values, right = left[:, :2], values[:2], right[:2]
    (grad,) = torch.autograd.grad(left * values @ right, matrix, given)
    rest = given - left @ (left.mT @ given)
    expected = given - (rest - rest @ right.mT @ right)
    assert_close(grad, expected.detach(), rtol=1e-6, atol=1e-6)


def degenerate(generator, dtype):
    low = torch.randn(5, 2, generator=generator, dtype=dtype)
    return {
        "zero": torch.zeros(3, 4, dtype=dtype),
        "identity": torch.eye(3, dtype=dtype),
        "tall identity": torch.eye(5, 2, dtype=dtype),
        "ones": torch.ones(2, 4, 3, dtype=dtype),
        "deficient": low @ low.mT,
        "repeated": with_values(generator, (5, 4), [2.0, 2.0, 1e-9, 0.0], dtype),
        "mixed": torch.stack([torch.zeros(2, 2), torch.eye(2), torch.ones(2, 2)]).to(dtype),
        "single": torch.tensor([[[0.0]], [[3.0]]], dtype=dtype),
        "no sample": torch.zeros(0, 3, 2, dtype=dtype),
        "no column": torch.zeros(3, 0, dtype=dtype),
        "tiny": torch.full((3, 3), 1e-15, dtype=dtype),
        "huge": torch.full((3, 3), 1e15, dtype=dtype),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_matrices_have_finite_gradients(generator, dtype, method):
    for name, matrix in degenerate(generator, dtype).items():
        matrix = matrix.clone().requires_grad_()
        found = svd(matrix, gradient=method)
        given = [torch.randn(x.shape, generator=generator, dtype=dtype) for x in found]
        (grad,) = torch.autograd.grad(found, matrix, given)
        assert grad.isfinite().all(), name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_the_gradient_keeps_its_bound(generator, method, scale):
    values = [1.0, 1.0, 1 - 1e-9, 1e-5, 0.0]
    matrix = (scale * with_values(generator, (7, 5), values)).requires_grad_()
    found = svd(matrix, gradient=method)
    given = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for x in found]
    (grad,) = torch.autograd.grad(found, matrix, given)
    unit = found[1].detach() / found[1][0].detach()
    largest = inverse_gap(torch.cat([unit.square(), torch.zeros(1)]), method).abs().max()
    allowed = given[1].norm() + 3 * largest * (given[0].norm() + given[2].norm()) / found[1][0]
    peak = grad.abs().max()  # the square of some is above the largest number
    assert (grad / peak).norm() <= allowed / peak * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_scale_of_the_matrix_divides(generator, method):
    matrix = with_values(generator, (5, 4), [1.0, 0.9, 0.2, 0.1])
    given = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    grads = []
    for scale in (1.0, 2.0**40):
        leaf = (scale * matrix).requires_grad_()
        left, _, right = svd(leaf, gradient=method)
        grads.append(scale * torch.autograd.grad(left @ right, leaf, given)[0])
    assert_close(grads[0], grads[1])


def test_batch_equals_loop(generator):
    matrix = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    given = torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)
    left, _, right = svd(matrix, gradient="taylor")
    (together,) = torch.autograd.grad(left @ right, matrix, given)
    for k in range(4):
        leaf = matrix.detach()[k].requires_grad_()
        left, _, right = svd(leaf, gradient="taylor")
        (alone,) = torch.autograd.grad(left @ right, leaf, given[k])
        assert_close(together[k], alone)


@pytest.mark.parametrize(
    ("matrix", "options", "error", "message"),
    [
        (torch.ones(3), {}, ValueError, r"svd needs matrices.*got shape \(3,\).*unsqueeze"),
        (torch.full((2, 3), torch.nan), {}, ValueError, r"svd needs finite numbers, got NaN"),
        (torch.ones(2, 3).half(), {}, TypeError, r"svd needs float32.*got torch\.float16"),
        (torch.ones(2, 3).bfloat16(), {}, TypeError, r"got torch\.bfloat16"),
        (torch.ones(2, 3).int(), {}, TypeError, r"got torch\.int32"),
        (
            torch.ones(2, 3),
            {"gradient": "newton"},
            ValueError,
            r"svd needs .*'trunc'.*got 'newton'",
        ),
        (torch.ones(2, 3), {"gradient": "topn", "n": 2}, TypeError, r"'n'; pass n_keep"),
    ],
)
def test_rejects(matrix, options, error, message):
    with pytest.raises(error, match=message):
        svd(matrix, **options)
