r"""Square roots of positive semi-definite matrices, with a choice of forward and backward pass.

With A = V diag(l) V^T and Q = A^{1/2}, differentiating Q Q = A gives the Lyapunov equation
dQ Q + Q dQ = dA. It is self-adjoint, so a symmetric gradient G of Q is propagated to A as

    V [ (V^T G V)_ij / (l_i^{1/2} + l_j^{1/2}) ] V^T,

which is not singular in a tie. Iterations and approximants of the root need only products, and one
solve; so does a solution of the Lyapunov equation by an iteration.

Shapes: `n` rows, `*b` independent problems.
References: {cite}`higham2008functions`, {cite}`li2018towards`, {cite}`song2021approximate`,
{cite}`song2022fast`.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cpic.linalg._automatic import quick_root
from cpic.linalg._eigh import descending, eigh_with
from cpic.linalg._gaps import Gap
from cpic.linalg._how import DEGREES, How, chosen
from cpic.linalg._inputs import all_finite, rounding_level, symmetrized
from cpic.linalg._iterations import (
    NEWTON,
    certain_steps,
    identity_of,
    iterate,
    minimax_root,
    newton_gradient,
    positive,
    solve_lyapunov,
    trace,
)
from cpic.linalg._rational import rational_root, scale_of


def sqrtm(
    matrix: Tensor,
    *,
    method: str = "eigh",
    gradient: str | None = None,
    steps: int | None = None,
    degree: int | None = None,
    scale: str = "frobenius",
    check: bool = True,
    **options: Any,
) -> Tensor:
    r"""The symmetric square root, with a choice of forward and backward pass.

    Methods, with s the largest eigenvalue, t the trace, f the Frobenius norm and eps the relative
    precision:

    - `"eigh"`: exact.
    - `"newton_schulz"`: N = `steps` iterations {eq}`eq-spectra-newton` {cite}`li2018towards`. They
      converge first for large eigenvalues {eq}`eq-spectra-steps`: those below about (4/9)^N t,
      3e-4 t for N = 10, are damped.
    - `"minimax"`: the same iteration with the best coefficients for each step, as many as the root
      of every matrix needs to be within 1e-4 of the true one, relative, in the Frobenius norm. In
      float32, eigenvalues below 8 eps s are rounding, and are damped.
    - `"pade"`: the diagonal Padé approximant of `degree` m, by default 5, one solve
      {cite}`song2022fast`. An eigenvalue l has the relative error 2 r^(2m+1) / (1 - r^(2m+1)), with
      r = (1 - x) / (1 + x) and x = (l / f)^(1/2) {eq}`eq-covariance-pade`; a zero becomes
      f^(1/2) / (2m+1). The identity of
      256 rows is missed by 7e-3 for m = 5. With `scale="bound"`, f is a closer bound on s.
    - `"taylor"`: the Taylor polynomial of `degree` 10, products only; less accurate still.
    - `"auto"`: within 1e-4 of the true root, relative, in the Frobenius norm. On a GPU `"minimax"`.
      On the CPU products and inverses of single precision, if no gradient is requested, the batch
      has 4096 numbers or more, and the condition number is below about 1e3, as a Cholesky factor
      shows; otherwise `"eigh"`.

    Gradients, with G the symmetric part of the gradient of the root:

    - `"lyapunov"`: the closed form above, the default of `method="eigh"`. Eigenvalues below eps s
      count as eps s there, which bounds the gradient by |G| / (2 sqrt(eps s)); for all others it
      is exact, including ties.
    - A method of `inverse_gap`: the gradient through `eigh` with that method, of eigenvalues
      raised to eps s. With b its bound, it is at most |G| (b sqrt(s) + 1 / (2 sqrt(eps s))); the
      part between two equal eigenvalues is lost, although the root is smooth there.
    - `"newton"`: the derivative of `steps` = N Newton-Schulz iterations {cite}`li2018towards`,
      also for an exact root. With t the trace it is at most
      |G| (1.5^N (1 + sqrt(n)) + sqrt(n) / 2) / sqrt(t).
    - `"iterative"`: the Lyapunov equation of the computed root by `steps` iterations, by default 8,
      the default of "pade", "taylor" and "minimax" {cite}`song2022fast`. Damped where the root is
      nearly singular.

    At the zero matrix the root has no derivative, and the gradients but "newton" are zero. Negative
    eigenvalues down to -100 n eps s (without eigenvalues: -100 n eps t) count as rounding, and
    `"eigh"` sets them to zero. Second derivatives are supported for "lyapunov" at positive
    definite matrices, the methods of `inverse_gap`, and "newton".

    Args:
        matrix: The matrices, `(*b, n, n)`, float32 or float64, positive semi-definite, symmetric
            to 100 n eps of their largest entry; the symmetric part is used.
        method: One of the above.
        gradient: One of the above; None for the default of the method.
        steps: Number of iterations of "newton_schulz", "newton" or "iterative"; None for 10, 10
            and 8. In "minimax" it is that of the gradient, None for as many as the root needs.
        degree: Degree of "pade", at most 200, or of "taylor"; None for 5 and 10. With an exact
            root, as `steps`, that of the gradient.
        scale: What divides the matrix in "pade" and "taylor": "frobenius", as published, or
            "bound", the root of the Frobenius norm of its square, for one more product.
        check: False skips all checks that read numbers back from the device: the caller knows that
            `matrix` is symmetric, finite and positive semi-definite.
        **options: Options of a method of `inverse_gap`.

    Returns:
        The roots `(*b, n, n)`. The gradient with respect to `matrix` is symmetric.

    Raises:
        ValueError: If `matrix` is not square, symmetric and finite, or has a negative eigenvalue;
            if a name is unknown or an option out of range; if the iteration diverges.
        TypeError: If `matrix` is not float32 or float64, or the gradient has no such option.

    Example:
        >>> matrix = torch.tensor([[2.0, 2.0], [2.0, 5.0]], requires_grad=True)
        >>> root = sqrtm(matrix)
        >>> root.trace().backward()  # the derivative of the trace is half the inverse root
        >>> bool(torch.allclose(matrix.grad @ root, torch.eye(2) / 2, atol=1e-6))
        True
    """
    how = chosen(method, gradient, steps, degree, scale, check, options)
    matrix = symmetrized("sqrtm", matrix) if check else (matrix + matrix.mT) / 2
    if check and method not in ("eigh", "auto"):
        check_positive("sqrtm", matrix.detach())
    if method == "auto" and matrix.is_cuda:
        how = replace(how, method="minimax", gradient="iterative", steps=None)
    elif method == "auto":
        differentiated = matrix.requires_grad and torch.is_grad_enabled()
        if not differentiated and (root := quick_root(matrix)) is not None:
            return root.to(matrix)
        how = replace(how, method="eigh")
    return _Sqrtm.apply(matrix, how)[0]  # pyright: ignore


def check_positive(who: str, matrix: Tensor) -> None:
    """Without eigenvalues: the matrix plus the allowed rounding has a Cholesky factor."""
    shift = rounding_level(matrix) * trace(matrix).abs() + torch.finfo(matrix.dtype).tiny
    if (torch.linalg.cholesky_ex(matrix + shift * identity_of(matrix)).info > 0).any():
        raise ValueError(negative(who, "no Cholesky factor"))


def nonnegative(who: str, values: Tensor, level: float, *, check: bool = True) -> Tensor:
    """Eigenvalues, with negative ones at rounding level set to zero."""
    if check and values.numel() and (values < -level * values.abs().amax(-1, True)).any():
        raise ValueError(negative(who, f"{float(values.min()):.1e}"))
    return values.clamp(min=0)


def negative(who: str, found: str) -> str:
    """The message about a negative eigenvalue."""
    return (
        f"{who} needs positive semi-definite matrices, got a negative eigenvalue ({found}); clamp "
        "the eigenvalues of `eigh`, or add a multiple of the identity."
    )


class _Sqrtm(torch.autograd.Function):
    """Square roots, with eigenvalues and eigenvectors for the backward pass."""

    @staticmethod
    def forward(matrix: Tensor, how: How):
        none = matrix.new_empty(0), matrix.new_empty(0)
        if how.method == "newton_schulz":
            assert how.steps is not None
            y = iterate(matrix, how.steps, check=how.check)[-1][0]
            return y * positive(trace(matrix)).sqrt(), *none
        if how.method == "minimax":  # Z has the size of the inverse root: float32 is too short
            wide, steps = matrix.double(), certain_steps(matrix.shape[-1], matrix.dtype)
            root = minimax_root(wide, wide @ wide, steps).to(matrix)
            if how.check and not all_finite([root]):
                raise ValueError(negative("sqrtm", "so that the iteration diverges"))
            return root, *none
        if how.method in DEGREES:
            scale = scale_of(matrix, how.scale)
            return rational_root(matrix, how.method, how.degree, scale), *none
        values, vectors = descending(matrix)
        values = nonnegative("sqrtm", values, rounding_level(matrix), check=how.check)
        return vectors * values.sqrt().unsqueeze(-2) @ vectors.mT, values, vectors

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        matrix, ctx.how = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(matrix, *output)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        matrix, root, values, vectors = ctx.saved_tensors
        how: How = ctx.how
        given = (grads[0] + grads[0].mT) / 2
        if how.gradient == "lyapunov":
            found = _Lyapunov.apply(root, given, values, vectors)
        elif how.gradient == "newton":
            assert how.steps is not None
            found = newton_gradient(matrix, given, how.steps, check=how.check)
        elif how.gradient == "iterative":
            steps = [NEWTON] * how.steps if how.steps else certain_steps(root.shape[-1], root.dtype)
            found = solve_lyapunov(root.double(), given.double(), steps).to(matrix)
        else:
            if torch.is_grad_enabled():  # for a second derivative
                values, vectors = eigh_with(matrix, how.gap)  # pyright: ignore
                values = values.clamp(min=0)
            found = _gap_gradient(values, vectors, how.gap, given)  # pyright: ignore
        return found, None


class _Lyapunov(torch.autograd.Function):
    """X with Q X + X Q = G, for the root Q of a matrix given by eigenvalues and eigenvectors."""

    @staticmethod
    def forward(root: Tensor, given: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        values, positive = raised(values)
        roots = values.sqrt()
        inner = (vectors.mT @ given @ vectors) / (roots.unsqueeze(-1) + roots.unsqueeze(-2))
        return vectors @ (inner * positive) @ vectors.mT

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        root, _, values, vectors = inputs
        ctx.save_for_backward(root, output, values, vectors)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        root, found, values, vectors = ctx.saved_tensors
        given = (grads[0] + grads[0].mT) / 2
        back = _Lyapunov.apply(root, given, values, vectors)
        return -(back @ found + found @ back), back, None, None


def raised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues raised to eps times the largest, and whether there is a positive one."""
    limits = torch.finfo(values.dtype)
    largest = values.detach()[..., :1]
    positive = largest > 0
    floor = torch.where(positive, (limits.eps * largest).clamp(min=limits.tiny), 1.0)
    return torch.maximum(values, floor), positive.unsqueeze(-1)


def _gap_gradient(values: Tensor, vectors: Tensor, gap: Gap, given: Tensor) -> Tensor:
    """Through `eigh`; the products F (r_i - r_j) are formed first, so that ties give zero."""
    values, positive = raised(values)
    roots = values.sqrt()
    scaled = roots * positive.squeeze(-1)
    quotient = gap(values) * (scaled.unsqueeze(-1) - scaled.unsqueeze(-2))
    quotient.diagonal(dim1=-2, dim2=-1).copy_(positive.squeeze(-1) / (2 * roots))
    return vectors @ ((vectors.mT @ given @ vectors) * quotient) @ vectors.mT
