import importlib.util
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

from cpic.linalg import _pade_table as table
from cpic.linalg import inverse_gap

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "derive_pade.py"
DEGREES = sorted(table.NUMERATORS)


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


def test_the_table_is_what_the_script_writes(script, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.py"
    monkeypatch.setattr("sys.argv", ["derive_pade.py", "--out", str(out)])
    script.main()
    assert out.read_text() == Path(table.__file__).read_text()
    assert "[50/50]: 50 equations, rank 1" in capsys.readouterr().out


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


@pytest.mark.parametrize("m", DEGREES)
def test_coefficients_of_the_table(script, m):
    p, q = script.pade(m, m)
    assert q == [1] + [Fraction(-1, m)] * m
    assert p == [1 - Fraction(k, m) for k in range(m + 1)]
    factor = script.cofactor(q)
    assert product(factor, [Fraction(1), Fraction(-1)]) == q
    for stored, exact in (
        (table.NUMERATORS, p),
        (table.DENOMINATORS, q),
        (table.COFACTORS, factor),
    ):
        assert list(stored[m]) == [float(x) for x in exact]


@pytest.mark.parametrize("m", DEGREES[1:])
def test_the_shared_factor_has_no_root_in_the_unit_disk(m):
    assert np.abs(np.roots(table.COFACTORS[m][::-1])).min() > 1


@pytest.mark.parametrize("degree", DEGREES)
def test_stable_up_to_the_margin(degree):
    gaps = torch.tensor([10.0**-k for k in range(1, 16)] + [0.3, 0.7, 1.0], dtype=torch.float64)
    values = torch.stack([torch.ones_like(gaps), 1 - gaps], -1)
    found = inverse_gap(values, "pade", degree=degree, margin=1e-12)[:, 0, 1].tolist()
    for (high, low), k in zip(values.tolist(), found, strict=True):
        with mpmath.workdps(40):
            exact = 1 / max(mpmath.mpf(high) - mpmath.mpf(low), mpmath.mpf(1e-12))
            assert abs(k / exact - 1) < 1e-15


def test_the_quotient_as_it_stands_loses_digits():
    """Why P / (R (1 - x)) is evaluated: the denominator alone cancels near one."""
    p, q = (np.array(c[50])[::-1] for c in (table.NUMERATORS, table.DENOMINATORS))
    x = 1 - 2.0**-40
    literal = np.polyval(p, x) / np.polyval(q, x)
    assert 1e-6 < abs(literal * 2.0**-40 - 1) < 1e-1
