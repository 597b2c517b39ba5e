r"""Square roots by products of matrices alone: Newton-Schulz iterations, and what inverts them.

The coupled iteration starts from Y = A / s and Z = 1 and repeats T = a - b Z Y, Y <- Y T,
Z <- T Z; then Y tends to the root of A / s, and Z to its inverse. With q_k the product of the
polynomials x (a - b x^2) of all steps, Y has the eigenvalues q_k(x), where x^2 is one of A / s.
For a = 3/2, b = 1/2 that is the iteration of {cite}`li2018towards`, which multiplies small x by 1.5
in each step. The coefficients of `minimax` keep all x of an interval as close to 1 as a step can,
and multiply small x by up to 2.6.

Shapes: `n` rows, `*b` independent problems.
References: {cite}`higham2008functions`, {cite}`chen2014stable`, {cite}`amsel2025polar`.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Steps = Sequence[tuple[float, float]]
NEWTON = (1.5, 0.5)


@functools.lru_cache
def minimax(least: float, tol: float) -> tuple[tuple[float, float], ...]:
    """Coefficients (a, b) of the steps that bring all x in [least, 1] within `tol` of 1.

    Each step has the smallest largest deviation |1 - x (a - b x^2)| over the interval that the one
    before left: equal at both ends, and opposite at the maximum between them. What lies below
    `least` stays below 1, so that it is damped but never amplified beyond the root.
    """
    low, high, steps = least, 1.0, []
    while max(1 - low, high - 1) > tol:
        mean = (low * low + low * high + high * high) / 3
        at_ends = low * high * (low + high)
        b = 2 / (at_ends + 2 * mean**1.5)
        steps.append((3 * b * mean, b))
        off = 1 - b * at_ends
        low, high = 1 - off, 1 + off
    return tuple(steps)


@functools.lru_cache
def best_steps(least: float, degrees: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """Coefficients of odd polynomials, x first, one after the other closest to 1 on what is left.

    The first begins with [`least`, 1]. Each has degree 2 k - 1 and deviates from 1 equally, in
    turn above and below, at both ends and its k - 1 extrema, which Remez' exchange finds.
    """
    low, high, steps = least, 1.0, []
    for degree in degrees:
        powers = np.arange(1, degree + 1, 2)
        k = len(powers)
        points = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * np.arange(k + 1) / k)
        solved = np.zeros(k + 1)
        for _ in range(30):
            signs = (-1.0) ** np.arange(k + 1)[:, None]
            solved = np.linalg.solve(np.hstack([points[:, None] ** powers, signs]), np.ones(k + 1))
            slope = (powers * solved[:-1])[::-1]  # a polynomial in the square
            points[1:-1] = np.sort(np.roots(slope).real.clip(min=0)) ** 0.5
        steps.append(tuple(map(float, solved[:-1])))
        off = abs(float(solved[-1]))
        low, high = 1 - off, 1 + off
    return tuple(steps)


def trace(matrix: Tensor) -> Tensor:
    """Traces `(*b, 1, 1)`."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def positive(scale: Tensor) -> Tensor:
    """The scale, or 1 where it is zero, as it is for the zero matrix."""
    return torch.where(scale > 0, scale, 1.0)


def frobenius(matrix: Tensor) -> Tensor:
    """Frobenius norms `(*b, 1, 1)`."""
    return torch.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True)


def identity_of(matrix: Tensor) -> Tensor:
    """The identity `(n, n)` of the same dtype and device."""
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def largest_at_most(square: Tensor) -> Tensor:
    """Upper bounds `(*b, 1, 1)` on the largest eigenvalue, from the square of the matrix.

    The root of its Frobenius norm; at most n^(1/4) times too large, where that of the matrix itself
    may be n^(1/2) times too large.
    """
    return positive(frobenius(square).sqrt())


def iterate(matrix: Tensor, steps: int, *, check: bool = True) -> list[tuple[Tensor, Tensor]]:
    """All Y and Z of the published iteration, from the first to the last; s is the trace."""
    y = matrix / positive(trace(matrix))
    identity = identity_of(matrix)
    pairs = [(y, identity.expand_as(y))]
    for _ in range(steps):
        y, z = pairs[-1]
        turn = (3 * identity - z @ y) / 2
        pairs.append((y @ turn, turn @ z))
    if check:
        size = torch.linalg.matrix_norm(pairs[-1][1].detach()) if matrix.numel() else matrix
        if not (size <= 1.001 * matrix.shape[-1] ** 0.5 * 1.5**steps).all():
            raise ValueError(
                f"sqrtm needs fewer Newton-Schulz steps, got {steps}, which amplify eigenvalues "
                "that are negative by rounding; or add a small multiple of the identity."
            )
    return pairs


def newton_gradient(matrix: Tensor, given: Tensor, steps: int, *, check: bool = True) -> Tensor:
    """The backward pass of `iterate`; Y and Z are symmetric, their gradients are not."""
    scale = positive(trace(matrix))
    *pairs, (last, _) = iterate(matrix, steps, check=check)
    identity = identity_of(matrix)
    g_y, g_z = scale.sqrt() * given, torch.zeros_like(matrix)
    for y, z in reversed(pairs):
        turn = (3 * identity - z @ y) / 2
        g_turn = y @ g_y + g_z @ z
        g_y, g_z = g_y @ turn - z @ g_turn / 2, turn @ g_z - g_turn @ y / 2
    at_scale = (given * last).sum((-2, -1), keepdim=True) / (2 * scale.sqrt())
    at_scale = at_scale - (g_y * (matrix / scale)).sum((-2, -1), keepdim=True) / scale
    return (g_y + g_y.mT) / (2 * scale) + at_scale * identity


def minimax_root(matrix: Tensor, square: Tensor, steps: Steps) -> Tensor:
    """The root by `minimax` steps; `square` is the square of the matrix, known from its bound."""
    scale = largest_at_most(square)
    (a, b), *others = steps
    identity = identity_of(matrix)
    y, z = a / scale * matrix - b / scale.square() * square, a * identity - b / scale * matrix
    for k, (a, b) in enumerate(others, 2):
        turn = a * identity - b * (z @ y)
        y = y @ turn
        if k <= len(others):  # the last step needs no Z
            z = turn @ z
    return scale.sqrt() * (y + y.mT) / 2


def solve_lyapunov(root: Tensor, given: Tensor, steps: Steps) -> Tensor:
    """X with R X + X R = G for roots R, by products {cite}`song2022fast`.

    The iteration C <- a C - b (B^2 C - B C B + C B^2), B <- B (a - b B^2) for the sign of the block
    matrix of B = R / |R| and C = G / |R|; then C tends to 2 X. Where R is nearly singular, X is
    damped instead of large.
    """
    scale = positive(frobenius(root))
    b_, c_ = root / scale, given / scale
    identity = identity_of(root)
    for k, (a, b) in enumerate(steps, 1):
        square = b_ @ b_
        inner = square @ c_
        c_ = a * c_ - b * (inner + inner.mT - b_ @ c_ @ b_)
        if k < len(steps):
            b_ = b_ @ (a * identity - b * square)
    return (c_ + c_.mT) / 4


def certain_steps(n: int, dtype: torch.dtype) -> Steps:
    """Steps whose root is within 1e-4 of the true one, for every positive semi-definite matrix.

    In the Frobenius norm: eigenvalues below c times the bound are missed by less than their own
    root, so with c = least^2 all together by at most (n c)^(1/2) |A^(1/2)|; the others by `tol`.
    Negative eigenvalues by rounding diverge if c is below their size, hence in float32 c is 8 eps:
    smaller ones are rounding themselves.
    """
    rounding = math.sqrt(8 * torch.finfo(dtype).eps)
    return minimax(max(rounding, 5e-5 / math.sqrt(max(n, 1))), 5e-5)
