r"""Square roots by approximants of (1 - z)^(1/2) at z = 0, where 1 - z is the scaled matrix.

With 1 - z = A / s and t = (1 - z)^(1/2), the diagonal Padé approximant of degree m is
t coth((2 m + 1) artanh t): its relative error is 2 r^(2m+1) / (1 - r^(2m+1)) with
r = (1 - t) / (1 + t), and zero becomes 1 / (2 m + 1). The closed forms of its coefficients,

    p_k = (-1)^k (2m+1) / (2m+1-k) binom(2m+1-k, k) / 4^k,   q_k = (-1)^k binom(2m-k, k) / 4^k,

are exact in binary. The denominator cancels near z = 1, by about 4^m / (2m+1), so degrees above
`_QUOTIENT` are evaluated by partial fractions,

    1 - sum over j of a_j z / (1 - b_j z),  a_j = 2/(2m+1) sin^2(u_j),  b_j = cos^2(u_j),
    u_j = j pi / (2m+1).

Shapes: `n` rows, `*b` independent problems.
References: {cite}`song2022fast`, {cite}`higham2008functions`.
"""

import functools
import math

import torch
from torch import Tensor

from cpic.linalg._iterations import frobenius, identity_of, largest_at_most, positive

_QUOTIENT = 8


@functools.lru_cache
def pade_coefficients(degree: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients of numerator and denominator, the constant first."""
    m = 2 * degree + 1
    p = [(-1) ** k * (m * math.comb(m - k, k) // (m - k)) / 4**k for k in range(degree + 1)]
    q = [(-1) ** k * math.comb(m - 1 - k, k) / 4**k for k in range(degree + 1)]
    return tuple(p), tuple(q)


@functools.lru_cache
def taylor_coefficients(degree: int) -> tuple[float, ...]:
    """Coefficients of the series of (1 - z)^(1/2)."""
    return tuple(math.comb(2 * k, k) / ((1 - 2 * k) * 4**k) for k in range(degree + 1))


def scale_of(matrix: Tensor, kind: str) -> Tensor:
    """What divides the matrix, `(*b, 1, 1)`: its Frobenius norm, or a closer bound."""
    if kind == "frobenius":
        return positive(frobenius(matrix))
    return largest_at_most(matrix @ matrix)


def rational_root(
    matrix: Tensor, method: str, degree: int, scale: Tensor, *, inverse: bool = False
) -> Tensor:
    """Approximate roots, or inverse roots, by the approximants of this file."""
    identity = identity_of(matrix)
    z = identity - matrix / scale
    if method == "taylor":
        return scale.sqrt() * _polynomials(z, [taylor_coefficients(degree)])[0]
    if degree > _QUOTIENT:
        found = _fractions(z, degree)
        if inverse:
            found = torch.linalg.solve(found, identity.expand_as(found))
    else:
        p, q = _polynomials(z, pade_coefficients(degree))
        found = torch.linalg.solve(p, q) if inverse else torch.linalg.solve(q, p)
    found = (found + found.mT) / 2
    return found / scale.sqrt() if inverse else scale.sqrt() * found


def _polynomials(z: Tensor, coefficients) -> list[Tensor]:
    """Polynomials of one matrix, by Horner's scheme in a power of it."""
    degree = max(map(len, coefficients)) - 1
    width = max(min(degree, 2), round(math.sqrt(degree / len(coefficients))))
    powers = [identity_of(z).expand_as(z), z]
    while len(powers) <= width:
        powers.append(powers[-1] @ z)
    found = []
    for row in coefficients:
        blocks = [
            torch.stack([c * power for c, power in zip(row[k : k + width], powers, strict=False)])
            for k in range(0, len(row), width)
        ]
        total = blocks[-1].sum(0)
        for block in reversed(blocks[:-1]):
            total = total @ powers[width] + block.sum(0)
        found.append(total)
    return found


def _fractions(z: Tensor, degree: int) -> Tensor:
    """All terms of the partial fractions in one batch of solves."""
    identity = identity_of(z)
    j = torch.arange(1, degree + 1, dtype=z.dtype, device=z.device)
    angle = (j * (math.pi / (2 * degree + 1))).view(-1, *[1] * z.ndim)
    terms = torch.linalg.solve(identity - angle.cos().square() * z, z.unsqueeze(0))
    return identity - (2 / (2 * degree + 1) * angle.sin().square() * terms).sum(0)
