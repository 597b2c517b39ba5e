import mpmath
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from cpic.linalg import inverse_gap

DTYPES = [torch.float32, torch.float64]
METHODS = {
    "original": {},
    "trunc": {"bound": 1e6},
    "topn": {"n_keep": 2},
    "taylor": {"degree": 30},
    "pade": {"degree": 5, "margin": 1e-4},
    "power": {"steps": 10},
}
WITH_DEFAULTS = [(name, {}) for name in METHODS] + list(METHODS.items())
SPECTRA = {
    "one": [2.0],
    "zero": [0.0, 0.0, 0.0],
    "equal": [1.0, 1.0, 1.0, 1.0],
    "repeated": [3.0, 3.0, 1.0, 1.0, 0.5],
    "deficient": [1.0, 0.2, 1e-17, 0.0, -1e-17],
    "signs": [1.0, 1e-3, -1e-3, -1.0],
    "tiny": [2e-37, 1e-37, 1e-37, 0.0],
    "huge": [1e38, 1e38, 5e37, -1e38],
    "unordered": [0.1, 3.0, 0.1, 2.0],
}


def largest_inverse(dtype):
    return torch.finfo(dtype).max ** 0.5


def bound(name, options, values):
    """The bound that the docstring states for |K|."""
    eps, s = torch.finfo(values.dtype).eps, values.abs().max().double()
    stated = {
        "original": torch.inf,
        "trunc": options.get("bound", 1e10) / s,
        "topn": 1 / (eps * s),
        "taylor": (options.get("degree", 100) + 1) / (eps * s),
        "power": options.get("steps", 20) / (eps * s),
        "pade": 1 / (options.get("margin", eps**0.75) * eps * s),
    }[name]
    return min(float(stated), largest_inverse(values.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), WITH_DEFAULTS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_finite_antisymmetric_and_bounded(spectrum, name, options, dtype):
    values = torch.tensor(SPECTRA[spectrum], dtype=dtype)
    found = inverse_gap(values, name, **options)
    assert found.shape == (len(values),) * 2
    assert found.dtype == dtype
    assert found.isfinite().all()
    assert torch.equal(found, -found.mT)
    assert float(found.abs().max()) <= bound(name, options, values) * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0,), (2, 1, 4)])
@pytest.mark.parametrize(("name", "options"), WITH_DEFAULTS)
def test_shapes(generator, shape, name, options):
    values = torch.rand(shape, generator=generator)
    found = inverse_gap(values, name, **options)
    assert found.shape == (*shape, shape[-1])
    for k, one in enumerate(values if values.ndim > 1 else []):
        assert_close(found[k], inverse_gap(one, name, **options))


@pytest.mark.parametrize("name", METHODS)
def test_separated_eigenvalues_are_exact(name):
    values = torch.tensor([8.0, 2.0, 0.5, -0.1], dtype=torch.float64)
    exact = 1 / (values.unsqueeze(-1) - values).fill_diagonal_(torch.inf)
    assert_close(inverse_gap(values, name), exact, rtol=1e-11, atol=0)
    assert_close(inverse_gap(-values, name), -exact, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_of_a_tie_counts_as_larger(name):
    found = inverse_gap(torch.tensor([1.0, 1.0, 1.0]), name)
    upper = torch.triu(torch.ones(3, 3), 1).bool()
    assert (found[upper] > 0).all()
    assert (found.mT[upper] < 0).all()


@pytest.mark.parametrize("name", ["trunc", "topn", "taylor", "pade", "power"])
def test_bounds_are_free_of_scale(name):
    values = torch.tensor([1.0, 1.0, 1 - 1e-13, 0.3, 1e-19, 0.0], dtype=torch.float64)
    found = inverse_gap(values, name, **METHODS[name])
    for scale in (2.0**60, 2.0**-60):
        assert_close(scale * inverse_gap(scale * values, name, **METHODS[name]), found)


def sweep(gap, **methods):
    """Relative error and size of K between two eigenvalues 1 and 1 - gap, for each method.

    The truth is that of the rounded eigenvalues, from 50 digits.
    """
    values = torch.tensor([1.0, 1.0 - gap, 0.2], dtype=torch.float64)
    with mpmath.workdps(50):
        truth = 1 / (mpmath.mpf(float(values[0])) - mpmath.mpf(float(values[1])))
        sizes = {name: float(inverse_gap(values, name, **o)[0, 1]) for name, o in methods.items()}
        return {name: (float(abs(k - truth) / truth), k) for name, k in sizes.items()}


@pytest.mark.parametrize("power", range(1, 17))
def test_gap_sweep_against_high_precision(power):
    gap = 10.0**-power
    found = sweep(gap, **{name: {} for name in METHODS})
    rounding = 1e-15
    assert found["original"][0] <= rounding
    assert found["topn"][1] <= 4.6e15
    assert found["topn"][0] <= (rounding if gap > 2.3e-16 else 1)
    assert found["trunc"][1] <= 1e10
    assert found["trunc"][0] <= (rounding if gap > 1.1e-10 else 1)
    assert found["taylor"][1] <= 101
    assert found["taylor"][0] == pytest.approx((1 - gap) ** 101, rel=1e-9, abs=1e-14)
    assert found["power"][1] <= 20
    assert found["power"][0] == pytest.approx((1 - gap) ** 20, rel=1e-9, abs=1e-14)
    assert found["pade"][1] <= 5.6e11
    assert found["pade"][0] <= (rounding if gap > 2e-12 else 1)


@pytest.mark.parametrize("degree", [1, 7, 100])
def test_taylor_is_the_sum_of_powers(degree):
    low = torch.linspace(0, 1, 9, dtype=torch.float64)
    values = torch.stack([torch.ones_like(low), low], -1)
    found = inverse_gap(values, "taylor", degree=degree)[:, 0, 1]
    assert_close(found, sum(low**k for k in range(degree + 1)))
    assert_close(inverse_gap(values, "power", steps=degree + 1)[:, 0, 1], found)


def test_topn_drops_what_is_small():
    values = torch.tensor([-4.0, 2.0, 0.5, 0.25])
    found = inverse_gap(values, "topn", n_keep=2)
    zero = torch.zeros(2, 2)
    assert torch.equal(found[2:, 2:], zero)
    assert torch.equal(found[0], torch.tensor([0.0, -1 / 6, -0.25, -0.25]))
    rank = inverse_gap(torch.tensor([1.0, 0.5, 1e-9, 1e-10]), "topn")  # by default the rank
    assert torch.equal(rank[2:, 2:], zero)
    assert torch.equal(inverse_gap(values, "topn", n_keep=9), inverse_gap(values))


@pytest.mark.parametrize("name", METHODS)
def test_differentiable_where_no_bound_is_reached(name):
    values = torch.tensor([3.0, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    options = {"n_keep": 3} if name == "topn" else {}
    assert gradcheck(lambda x: inverse_gap(x, name, **options), values)


@pytest.mark.parametrize(
    ("values", "name", "options", "error", "message"),
    [
        ([1.0, 2.0], "pad", {}, ValueError, r"'trunc', .*got 'pad'"),
        ([1.0, 2.0], "trunc", {"degree": 3}, TypeError, r"'degree'; pass bound"),
        ([1.0, 2.0], "original", {"values": 3}, TypeError, r"'values'; omit it"),
        ([1.0, 2.0], "trunc", {"bound": 0.0}, ValueError, r"`bound` positive and finite.*got 0\.0"),
        ([1.0, 2.0], "trunc", {"bound": torch.nan}, ValueError, r"`bound` positive.*got nan"),
        ([1.0, 2.0], "taylor", {"degree": 0}, ValueError, r"`degree` a whole number.*got 0"),
        ([1.0, 2.0], "taylor", {"degree": 2.5}, ValueError, r"`degree` a whole number.*got 2\.5"),
        ([1.0, 2.0], "power", {"steps": 0}, ValueError, r"`steps` a whole number.*got 0"),
        ([1.0, 2.0], "topn", {"n_keep": 0}, ValueError, r"`n_keep` a whole number.*got 0"),
        ([1.0, 2.0], "pade", {"degree": 3}, ValueError, r"one of \[1, 2, 5, 10, 50\].*got 3"),
        ([1.0, 2.0], "pade", {"margin": 0.0}, ValueError, r"`margin` above 0.*got 0\.0"),
        ([1.0, torch.nan], "original", {}, ValueError, r"finite numbers.*nan_to_num"),
        ([1, 2], "original", {}, TypeError, r"torch\.int64.*\.double\(\)"),
        (1.0, "original", {}, ValueError, r"single number.*unsqueeze"),
    ],
)
def test_rejects(values, name, options, error, message):
    with pytest.raises(error, match=message):
        inverse_gap(torch.tensor(values), name, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_rejects_dtypes(dtype):
    with pytest.raises(TypeError, match=rf"needs float32 or float64, got {dtype}"):
        inverse_gap(torch.ones(2, dtype=dtype))
