import importlib.util
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from cpic.linalg import inverse_gap
from cpic.linalg._gaps import PADE_DEGREES, pade_factor

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "derive_pade.py"
# Coefficients of the numerators P as an exact solution of the equations gave them, in float64.
NUMERATORS = {
    1: [1.0, 0.0],
    2: [1.0, 0.5, 0.0],
    5: [1.0, 0.8, 0.6, 0.4, 0.2, 0.0],
    10: [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0],
    50: [
        1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.78, 0.76, 0.74, 0.72, 0.7,
        0.68, 0.66, 0.64, 0.62, 0.6, 0.58, 0.56, 0.54, 0.52, 0.5, 0.48, 0.46, 0.44, 0.42, 0.4,
        0.38, 0.36, 0.34, 0.32, 0.3, 0.28, 0.26, 0.24, 0.22, 0.2, 0.18, 0.16, 0.14, 0.12, 0.1,
        0.08, 0.06, 0.04, 0.02, 0.0,
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("derive_pade", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def product(p, q):
    found = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            found[i + j] += a * b
    return found


@pytest.mark.parametrize("m", NUMERATORS)
def test_the_closed_form_gives_the_coefficients_of_old(m):
    assert sorted(NUMERATORS) == sorted(PADE_DEGREES)
    assert [*pade_factor(m), 0.0] == NUMERATORS[m]


def test_the_script_prints_what_it_derives(script, capsys):
    script.main()
    printed = capsys.readouterr().out
    assert "[50/50]: 50 equations, rank 1" in printed
    assert "[5/5]: R = 1 + 4/5 x^1 + 3/5 x^2 + 2/5 x^3 + 1/5 x^4" in printed


@pytest.mark.parametrize("m", range(5))
@pytest.mark.parametrize("n", range(1, 5))
def test_rank_of_the_equations(script, m, n):
    rows, right = script.system(m, n)
    rank = np.linalg.matrix_rank(np.array(rows, dtype=float))
    assert script.rank(m, n) == rank == max(1, n - m)
    joint = np.array([[*row, value] for row, value in zip(rows, right, strict=True)], dtype=float)
    assert np.linalg.matrix_rank(joint) == rank  # there is a solution


@pytest.mark.parametrize(("m", "n"), [(0, 1), (1, 1), (6, 1), (0, 4), (2, 2), (2, 5), (5, 3)])
def test_every_order_is_the_function_itself(script, m, n):
    p, q = script.pade(m, n)
    assert (len(p), len(q)) == (m + 1, n + 1)
    found = product(p, [Fraction(1), Fraction(-1)])
    length = max(len(found), len(q))
    assert found + [0] * (length - len(found)) == q + [0] * (length - len(q))


@pytest.mark.parametrize(("m", "n"), [(2, 2), (7, 7), (2, 5), (5, 3)])
def test_singular_orders_have_the_solution_of_least_norm(script, m, n):
    rows, right = (np.array(x, dtype=float) for x in script.system(m, n))
    least = np.linalg.pinv(rows) @ right
    np.testing.assert_allclose(np.array(script.pade(m, n)[1][1:], dtype=float), least, atol=1e-14)


@pytest.mark.parametrize("m", PADE_DEGREES)
def test_coefficients_in_use(script, m):
    p, q = script.pade(m, m)
    assert q == [1] + [Fraction(-1, m)] * m
    assert p == [1 - Fraction(k, m) for k in range(m + 1)]
    factor = script.cofactor(q)
    assert product(factor, [Fraction(1), Fraction(-1)]) == q
    assert p == [*factor, 0]
    assert pade_factor(m) == [float(x) for x in factor]


@pytest.mark.parametrize("m", PADE_DEGREES[1:])
def test_the_shared_factor_has_no_root_in_the_unit_disk(m):
    assert np.abs(np.roots(pade_factor(m)[::-1])).min() > 1


@pytest.mark.parametrize("degree", PADE_DEGREES)
def test_stable_up_to_the_margin(degree):
    gaps = torch.tensor([10.0**-k for k in range(1, 16)] + [0.3, 0.7, 1.0], dtype=torch.float64)
    values = torch.stack([torch.ones_like(gaps), 1 - gaps], -1)
    found = inverse_gap(values, "pade", degree=degree, margin=1e-12)[:, 0, 1].tolist()
    for (high, low), k in zip(values.tolist(), found, strict=True):
        with mpmath.workdps(40):
            exact = 1 / max(mpmath.mpf(high) - mpmath.mpf(low), mpmath.mpf(1e-12))
            assert abs(k / exact - 1) < 1e-15


def test_the_quotient_as_it_stands_loses_digits():
    """Why R / (R (1 - x)) is evaluated: the denominator alone cancels near one."""
    p, q = np.array(pade_factor(50))[::-1], np.array([-1 / 50] * 50 + [1.0])
    x = 1 - 2.0**-40
    literal = np.polyval(p, x) / np.polyval(q, x)
    assert 1e-6 < abs(literal * 2.0**-40 - 1) < 1e-1
