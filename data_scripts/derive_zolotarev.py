"""Derive the rational function of Zolotarev that the automatic square root begins with.

    python data_scripts/derive_zolotarev.py

Among the odd rational functions x (1 + sum of a_j / (x^2 + p_j)), j = 1..r, times a factor, that of
Zolotarev is closest to 1 on [l, 1]. With the Jacobi elliptic functions of modulus (1 - l^2)^(1/2)
and complete integral K, and c_i = l^2 sn^2(u_i) / cn^2(u_i), u_i = i K / (2 r + 1), its poles are
p_j = c_(2j-1) and its zeros c_2j; it rises from its smallest value, at l, to its largest, at 1. The
constants are those of `cpic/linalg/_automatic.py`.
"""

import sys

import mpmath


def zolotarev(least: float, degree: int) -> tuple[list[float], list[float], float, float]:
    """Poles p_j, residues a_j, and the values at `least` and at 1."""
    with mpmath.workdps(40):
        m = 1 - mpmath.mpf(least) ** 2
        step = mpmath.ellipk(m) / (2 * degree + 1)
        both = [
            (least * mpmath.ellipfun("sn", i * step, m=m) / mpmath.ellipfun("cn", i * step, m=m))
            ** 2
            for i in range(1, 2 * degree + 1)
        ]
        poles, zeros = both[::2], both[1::2]
        residues = [
            mpmath.fprod(zero - p for zero in zeros)
            / mpmath.fprod(other - p for other in poles if other != p)
            for p in poles
        ]

        def value(x) -> float:
            terms = (a / (x * x + p) for a, p in zip(residues, poles, strict=True))
            return float(x * (1 + mpmath.fsum(terms)))

        return [*map(float, poles)], [*map(float, residues)], value(least), value(1)


if __name__ == "__main__":
    for line in zolotarev(0.0125, 3):
        sys.stdout.write(f"{line}\n")
