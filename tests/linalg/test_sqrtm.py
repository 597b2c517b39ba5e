import mpmath
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from cpic.linalg import eigh, inverse_gap, sqrtm

DTYPES = [torch.float32, torch.float64]
GAPS = ["original", "trunc", "topn", "taylor", "pade", "power"]
GRADIENTS = ["lyapunov", "newton", *GAPS]
WAYS = [{"gradient": name} for name in GRADIENTS] + [{"method": "newton_schulz"}]


def symmetric(x):
    return (x + x.mT) / 2


def basis(generator, n):
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q


def with_spectrum(generator, values, dtype=torch.float64):
    values = torch.tensor(values, dtype=torch.float64)
    vectors = basis(generator, len(values))
    return symmetric(vectors * values @ vectors.mT).to(dtype)


def pull(matrix, given, **options):
    """The gradient at the matrix of a gradient `given` at its root."""
    matrix = matrix.detach().clone().requires_grad_()
    return torch.autograd.grad(sqrtm(matrix, **options), matrix, given)[0]


# Covariance pooling of three channels at four positions.
FEATURES = torch.tensor(
    [[1.0, 2.0, 0.0, 1.0], [0.0, 1.0, 3.0, 1.0], [2.0, 0.0, 1.0, 1.0]], dtype=torch.float64
)
GOLDEN = {
    None: (0.521065, -0.373455, -0.298367, 0.998447, -0.226130, 0.599869),
    1: (0.420162, -0.386356, -0.234228, 0.938121, -0.207666, 0.449139),
    3: (0.492544, -0.389656, -0.316258, 0.989034, -0.237686, 0.578260),
    5: (0.499830, -0.386020, -0.315393, 0.991013, -0.236204, 0.586218),
    10: (0.520953, -0.373521, -0.298456, 0.998408, -0.226183, 0.599797),
}


def covariance(features):
    centered = features - features.mean(-1, keepdim=True)
    return centered @ centered.mT / features.shape[-1]


def triangle(matrix):
    return matrix[tuple(torch.triu_indices(*matrix.shape))]


def test_golden_covariance():
    found = covariance(FEATURES)
    expected = [[0.5, -0.5, -0.25], [-0.5, 1.1875, -0.25], [-0.25, -0.25, 0.5]]
    assert_close(found, torch.tensor(expected, dtype=torch.float64))
    values = torch.tensor([1.463153, 0.720642, 0.003705], dtype=torch.float64)
    assert_close(eigh(found)[0], values, atol=6e-7, rtol=0)


@pytest.mark.parametrize("steps", GOLDEN)
def test_golden_roots(steps):
    options = {} if steps is None else {"method": "newton_schulz", "steps": steps}
    expected = torch.tensor(GOLDEN[steps], dtype=torch.float64)
    assert_close(triangle(sqrtm(covariance(FEATURES), **options)), expected, atol=6e-7, rtol=0)


@pytest.mark.parametrize("gradient", ["lyapunov", "original", "trunc", "topn", "pade", "newton"])
def test_golden_gradient_at_the_features(gradient):
    features = FEATURES.clone().requires_grad_()
    options = {"steps": 16} if gradient == "newton" else {}
    triangle(sqrtm(covariance(features), gradient=gradient, **options)).sum().backward()
    expected = [
        [0.155894, 0.253446, 0.181984, -0.591323],
        [-0.036374, 0.043895, 0.385441, -0.392962],
        [0.281285, -0.061429, 0.262253, -0.482109],
    ]
    assert_close(features.grad, torch.tensor(expected, dtype=torch.float64), atol=6e-7, rtol=0)


def test_golden_scaling_by_the_inverse_exponential():
    root = sqrtm(covariance(FEATURES))
    values, vectors = eigh(covariance(FEATURES))
    gain = (root @ (vectors * (-values).exp() @ vectors.mT)).norm()
    assert float(gain) == pytest.approx(0.502609, abs=6e-7)
    expected = (0.782957, -0.561157, -0.448328, 1.500275, -0.339784, 0.901368)
    found = triangle(root * (1 + gain))
    assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=6e-7, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 4, 4), (2, 3, 5, 5), (0, 3, 3)])
@pytest.mark.parametrize("method", ["eigh", "newton_schulz"])
def test_the_root_squares_to_the_matrix(generator, shape, dtype, method):
    factor = torch.randn(shape, generator=generator, dtype=dtype)
    matrix = factor @ factor.mT + torch.eye(shape[-1], dtype=dtype)
    root = sqrtm(matrix, method=method, steps=15)
    slack = 2e-4 if dtype == torch.float32 else 1e-11
    assert_close(root @ root, matrix, atol=slack, rtol=slack)
    assert_close(root, root.mT, atol=slack, rtol=slack)
    assert (torch.linalg.eigvalsh(root) > 0).all()


def truth(matrix, given, digits=60):
    """The Lyapunov gradient in high precision, of the matrix as it is stored."""
    n = len(matrix)
    with mpmath.workdps(digits):
        values, vectors = mpmath.eigsy(mpmath.matrix(matrix.tolist()))
        roots = [mpmath.sqrt(x) for x in values]
        inner = vectors.T * mpmath.matrix(given.tolist()) * vectors
        for i in range(n):
            for j in range(n):
                inner[i, j] /= roots[i] + roots[j]
        return torch.tensor((vectors * inner * vectors.T).tolist(), dtype=torch.float64)


def sweep(generator, gap, ways):
    """Relative error and relative size of each gradient at a matrix with a gap below 1."""
    matrix = with_spectrum(generator, [1.0, 1.0 - gap, 0.4, 0.1])
    given = symmetric(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    exact = truth(matrix, given)
    found = {name: pull(matrix, given, **options) for name, options in ways.items()}
    size = exact.norm()
    return {n: (float((g - exact).norm() / size), float(g.norm() / size)) for n, g in found.items()}


@pytest.mark.parametrize("power", range(1, 17))
def test_gap_sweep_against_high_precision(generator, power):
    gap = 10.0**-power
    ways = {name: {"gradient": name} for name in GRADIENTS}
    found = sweep(generator, gap, ways | {"newton_schulz": {"method": "newton_schulz"}})
    # Rounding of eigenvectors, and what is lost when the near tie contributes nothing.
    rounding, share = 1e-14 + 1e-15 / gap, 0.11
    allowed = {
        "lyapunov": 1e-14,
        "newton": 1e-14,
        "newton_schulz": 1e-14,
        "original": rounding,
        "topn": rounding,
        "trunc": rounding + share * (gap < 1.1e-10),
        "taylor": rounding + share * (1 - gap) ** 101,
        "pade": rounding + share * (gap < 2e-12),
        "power": rounding + share * (1 - gap) ** 20,
    }
    assert set(allowed) == set(found)
    for name, (error, size) in found.items():
        assert error <= allowed[name], name
        assert abs(size - 1) <= allowed[name], name


@pytest.mark.parametrize("values", [[2.0, 1.0, 0.5], [2.0, 2.0, 2.0], [3.0, 1.0, 1.0]])
def test_lyapunov_has_two_derivatives_also_in_a_tie(generator, values):
    matrix = with_spectrum(generator, values).requires_grad_()
    assert gradcheck(lambda x: sqrtm(symmetric(x)), matrix)
    assert gradgradcheck(lambda x: sqrtm(symmetric(x)), matrix)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_newton_schulz_is_its_own_derivative(generator, steps):
    factor = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)

    def root(x):
        return sqrtm(x @ x.mT, method="newton_schulz", steps=steps)

    assert gradcheck(root, factor)
    assert gradgradcheck(root, factor)


@pytest.mark.parametrize("gradient", GAPS)
def test_gradients_of_separated_spectra_agree(generator, gradient):
    matrix = with_spectrum(generator, [8.0, 3.0, 1.0, 0.2])
    given = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    exact = pull(matrix, given)
    assert_close(pull(matrix, given, gradient=gradient), exact, rtol=1e-7, atol=1e-7)
    # The same as going through eigenvalues and eigenvectors by hand.
    leaf = matrix.requires_grad_()
    values, vectors = eigh(leaf, gradient=gradient)
    (composed,) = torch.autograd.grad(vectors * values.sqrt() @ vectors.mT, leaf, given)
    assert_close(pull(matrix, given, gradient=gradient), composed, rtol=1e-12, atol=1e-12)


def test_second_derivative_through_the_gaps(generator):
    matrix = with_spectrum(generator, [3.0, 1.5, 0.5]).requires_grad_()
    assert gradgradcheck(lambda x: sqrtm(symmetric(x), gradient="original"), matrix)


def test_exact_root_with_newton_gradient(generator):
    matrix = with_spectrum(generator, [2.0, 1.0, 0.5])
    given = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    assert_close(sqrtm(matrix, gradient="newton", steps=1), sqrtm(matrix))
    iterated = pull(matrix, given, method="newton_schulz", steps=3)
    assert_close(pull(matrix, given, gradient="newton", steps=3), iterated)


def degenerate(generator, dtype):
    low = torch.randn(5, 2, generator=generator, dtype=dtype)
    return {
        "zero": torch.zeros(3, 3, dtype=dtype),
        "identity": torch.eye(3, dtype=dtype),
        "deficient": symmetric(low @ low.mT),
        "ones": torch.ones(4, 4, dtype=dtype),
        "mixed": torch.stack([torch.zeros(2, 2), torch.eye(2), torch.ones(2, 2)]).to(dtype),
        "repeated": with_spectrum(generator, [2.0, 2.0, 1.0, 1.0, 0.0, 0.0], dtype),
        "single": torch.tensor([[[0.0]], [[4.0]]], dtype=dtype),
        "no sample": torch.zeros(0, 3, 3, dtype=dtype),
        "no row": torch.zeros(2, 0, 0, dtype=dtype),
        "tiny": 1e-20 * torch.ones(3, 3, dtype=dtype),
        "huge": 1e15 * torch.eye(3, dtype=dtype),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_degenerate_matrices(generator, way, dtype):
    for name, matrix in degenerate(generator, dtype).items():
        given = torch.randn(matrix.shape, generator=generator, dtype=dtype)
        root = sqrtm(matrix, **way)
        assert root.isfinite().all(), name
        assert root.dtype == dtype
        if "method" not in way:
            slack = (1e-5 if dtype == torch.float32 else 1e-13) * matrix.abs().sum().item()
            assert_close(root @ root, matrix, atol=slack, rtol=0)
        grad = pull(matrix, given, **way)
        assert grad.isfinite().all(), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("values", [[1.0, 1.0, 1 - 1e-9, 0.5, 0.0, 0.0], [4.0, 1e-18, 0.0, 0.0]])
def test_gradients_keep_their_bounds(generator, way, values):
    matrix = with_spectrum(generator, values)
    n, name = len(values), way.get("gradient", "newton")
    given = symmetric(torch.randn(n, n, generator=generator, dtype=torch.float64))
    eps, largest, trace = torch.finfo(torch.float64).eps, values[0], sum(values)
    closed = 1 / (2 * (eps * largest) ** 0.5)
    if name == "newton":
        allowed = (1.5**10 * (1 + n**0.5) + n**0.5 / 2) / trace**0.5
    elif name == "lyapunov":
        allowed = closed
    else:
        found = eigh(matrix)[0].clamp(min=0)
        allowed = inverse_gap(found, name).abs().max() * largest**0.5 + closed
    size = pull(matrix, given, **way).norm() / given.norm()
    assert size <= allowed * (1 + 1e-6)


def test_zero_has_no_derivative_and_gets_zero():
    for gradient in ("lyapunov", *GAPS):
        grad = pull(torch.zeros(2, 2), torch.eye(2), gradient=gradient)
        assert torch.equal(grad, torch.zeros(2, 2))


def test_rank_deficient_covariances_agree_at_the_features(generator):
    """The centering removes what the methods do outside the span of the data."""
    data = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    grads = {}
    for gradient in GRADIENTS:
        features = data.clone().requires_grad_()
        sqrtm(covariance(features), gradient=gradient).sum().backward()
        grads[gradient] = features.grad
    for grad in grads.values():
        assert_close(grad, grads["lyapunov"], rtol=1e-5, atol=1e-6)


def test_batch_equals_loop(generator):
    factor = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    matrix = factor @ factor.mT
    given = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    for way in WAYS:
        together = pull(matrix, given, **way)
        for k in range(4):
            assert_close(together[k], pull(matrix[k], given[k], **way), rtol=1e-6, atol=1e-8)


INDEFINITE = torch.tensor([[1.0, 2.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("matrix", "options", "error", "message"),
    [
        (INDEFINITE, {}, ValueError, r"semi-definite.*\(-1\.0e\+00\); clamp"),
        (INDEFINITE, {"method": "newton_schulz"}, ValueError, r"semi-definite.*Cholesky.*clamp"),
        (-torch.eye(2), {"method": "newton_schulz"}, ValueError, r"semi-definite"),
        (torch.ones(2, 3), {}, ValueError, r"sqrtm needs square.*got shape \(2, 3\)"),
        (torch.eye(2).cumsum(1), {}, ValueError, r"sqrtm needs symmetric"),
        (torch.full((2, 2), torch.nan), {}, ValueError, r"finite numbers, got NaN"),
        (torch.eye(2).half(), {}, TypeError, r"got torch\.float16"),
        (torch.eye(2).bfloat16(), {}, TypeError, r"got torch\.bfloat16"),
        (torch.eye(2).int(), {}, TypeError, r"got torch\.int32"),
        (torch.eye(2), {"method": "svd"}, ValueError, r"'svd'; .eigh. is exact"),
        (torch.eye(2), {"gradient": "exact"}, ValueError, r"sqrtm needs .*'trunc'.*got 'exact'"),
        (torch.eye(2), {"steps": 0}, ValueError, r"steps >= 1`, got 0"),
        (torch.eye(2), {"bound": 1.0}, TypeError, r"no options.*lyapunov.*\['bound'\]"),
        (torch.eye(2), {"gradient": "trunc", "degree": 2}, TypeError, r"'degree'; pass bound"),
        (
            torch.eye(2),
            {"method": "newton_schulz", "gradient": "pade"},
            ValueError,
            r"needs .*newton.*'pade'; pass .*eigh",
        ),
    ],
)
def test_rejects(matrix, options, error, message):
    with pytest.raises(error, match=message):
        sqrtm(matrix, **options)


@pytest.mark.parametrize("method", ["eigh", "newton_schulz"])
def test_negative_rounding_counts_as_zero(method):
    matrix = torch.diag(torch.tensor([1.0, -1e-14], dtype=torch.float64))
    expected = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert_close(sqrtm(matrix, method=method), expected, atol=1e-11, rtol=0)


def test_too_many_steps_are_an_error_not_a_wrong_root(generator):
    low = torch.randn(6, 2, generator=generator)
    matrix = symmetric(low @ low.mT)
    assert_close(sqrtm(matrix, method="newton_schulz", steps=14), sqrtm(matrix), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match=r"fewer Newton-Schulz steps, got 60.*identity"):
        sqrtm(matrix, method="newton_schulz", steps=60)
    with pytest.raises(ValueError, match="fewer Newton-Schulz steps"):
        pull(matrix, matrix, gradient="newton", steps=60)
    assert_close(sqrtm(torch.eye(3), method="newton_schulz", steps=60), torch.eye(3))
