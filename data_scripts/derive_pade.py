"""Derive the Padé approximants of 1/(1-x) in exact arithmetic.

    python data_scripts/derive_pade.py

An [m/n] approximant P/Q, Q(0) = 1, of a series c_0 + c_1 x + ... satisfies n linear equations in
the coefficients q_1..q_n. Here every c_k is one, and the equation of order k, m < k <= m + n,
reads q_1 + ... + q_min(k,n) = -1: all those with k >= n are the same. The rank is therefore
max(1, n - m), and the solution is unique only for n = 1 or m = 0. For all other orders it is a
whole family, P = R, Q = (1-x) R with any R of degree at most min(m, n - 1), R(0) = 1, and the
result of a floating-point solver is determined by rounding. The package uses the solution of
least norm, which is q_j = -1/m and p_k = 1 - k/m for [m/m]; its R is `pade_factor` in
`cpic/linalg/_gaps.py`.
"""

from fractions import Fraction


def system(m: int, n: int) -> tuple[list[list[Fraction]], list[Fraction]]:
    """The n equations in q_1..q_n of the [m/n] approximant: rows and right-hand sides."""

    def taylor(k: int) -> Fraction:
        return Fraction(int(k >= 0))

    orders = range(m + 1, m + n + 1)
    rows = [[taylor(k - j) for j in range(1, n + 1)] for k in orders]
    return rows, [-taylor(k) for k in orders]


def independent(rows: list, right: list) -> list[list[Fraction]]:
    """An echelon form of the equations without linearly dependent ones."""
    left, found = [[*row, value] for row, value in zip(rows, right, strict=True)], []
    for column in range(len(rows[0])):
        pivot = next((row for row in left if row[column]), None)
        if pivot is None:
            continue
        left.remove(pivot)
        found.append(pivot)
        left = [_eliminate(row, pivot, column) for row in left]
    if any(row[-1] for row in left):
        raise ValueError("the equations contradict each other")
    return found


def _eliminate(row: list, pivot: list, column: int) -> list[Fraction]:
    factor = row[column] / pivot[column]
    return [a - factor * b for a, b in zip(row, pivot, strict=True)]


def solve(rows: list, right: list) -> list[Fraction]:
    """Solution of an invertible square system."""
    echelon, n = independent(rows, right), len(rows)
    solution = [Fraction(0)] * n
    for i in reversed(range(n)):
        *row, value = echelon[i]
        known = sum(row[j] * solution[j] for j in range(i + 1, n))
        solution[i] = (value - known) / row[i]
    return solution


def rank(m: int, n: int) -> int:
    """Rank of the equations of the [m/n] approximant."""
    return len(independent(*system(m, n)))


def pade(m: int, n: int) -> tuple[list[Fraction], list[Fraction]]:
    """Numerator p_0..p_m and denominator q_0..q_n; of least norm if it is not unique."""
    kept = independent(*system(m, n))
    rows, right = [row[:-1] for row in kept], [row[-1] for row in kept]
    gram = [[_dot(a, b) for b in rows] for a in rows]
    weights = solve(gram, right)
    q = [Fraction(1)] + [_dot(weights, column) for column in zip(*rows, strict=True)]
    p = [sum(q[: min(k, n) + 1], Fraction(0)) for k in range(m + 1)]
    return p, q


def _dot(a, b) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def cofactor(q: list[Fraction]) -> list[Fraction]:
    """R with Q = (1-x) R; 1 - x divides Q exactly, since one is a root."""
    sums = [sum(q[: k + 1], Fraction(0)) for k in range(len(q))]
    if sums.pop():
        raise ValueError("the denominator has no root at one")
    return sums


def main() -> None:
    """Print ranks, and the common factors R of numerator and denominator."""
    for m, n in [(0, 1), (1, 1), (5, 1), (0, 5), (2, 5), (2, 2), (5, 5), (50, 50)]:
        print(f"[{m}/{n}]: {n} equations, rank {rank(m, n)}")
    for m in (2, 5, 10):
        terms = [f"{c} x^{k}" for k, c in enumerate(cofactor(pade(m, m)[1])) if k]
        print(f"[{m}/{m}]: R = " + " + ".join(["1", *terms]))


if __name__ == "__main__":
    main()
