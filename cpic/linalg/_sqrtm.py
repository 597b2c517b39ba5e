r"""Square roots of positive semi-definite matrices, with a choice of gradient.

With A = V diag(l) V^T and Q = A^{1/2}, differentiating Q Q = A gives the Lyapunov equation
dQ Q + Q dQ = dA. It is self-adjoint, so a symmetric gradient G of Q is propagated to A as

    V [ (V^T G V)_ij / (l_i^{1/2} + l_j^{1/2}) ] V^T,

which is not singular in a tie. The coupled Newton-Schulz iteration needs only products:
from Y = A / tr A and Z = 1 repeat T = (3 - Z Y) / 2, Y <- Y T, Z <- T Z; then Y tends to the root.

Shapes: `n` rows, `*b` independent problems.
References: {cite}`higham2008functions`, {cite}`li2018towards`, {cite}`song2021approximate`.
"""

from typing import Any

import torch
from torch import Tensor

from cpic.linalg._eigh import descending, eigh_with
from cpic.linalg._gaps import Gap, gap_function
from cpic.linalg._inputs import check_choice, check_least, rounding_level, symmetrized


def sqrtm(
    matrix: Tensor,
    *,
    method: str = "eigh",
    gradient: str | None = None,
    steps: int = 10,
    **options: Any,
) -> Tensor:
    r"""The symmetric square root, with a choice of forward and backward pass.

    Gradients, with G the symmetric part of the gradient of the root, s the largest eigenvalue and
    eps the relative precision:

    - `"lyapunov"`: the closed form above, the default of `method="eigh"`. Eigenvalues below eps s
      count as eps s there, which bounds the gradient by |G| / (2 sqrt(eps s)); for all others it
      is exact, including ties.
    - A method of `inverse_gap`: the gradient through `eigh` with that method, of eigenvalues
      raised to eps s. With b its bound, it is at most |G| (b sqrt(s) + 1 / (2 sqrt(eps s))); the
      part between two equal eigenvalues is lost, although the root is smooth there.
    - `"newton"`: the derivative of `steps` = N Newton-Schulz iterations {cite}`li2018towards`,
      also for an exact root. With t the trace it is at most
      |G| (1.5^N (1 + sqrt(n)) + sqrt(n) / 2) / sqrt(t).

    The Newton-Schulz iteration converges first for large eigenvalues: those below about
    (4/9)^N t, 3e-4 t for N = 10, are damped in the root and in this gradient. Z never exceeds
    1.5^N unless an eigenvalue is negative by rounding and diverges, which raises an error.

    At the zero matrix the root has no derivative, and the first two gradients are zero. Negative
    eigenvalues down to -100 n eps s (for `"newton_schulz"` -100 n eps t) count as rounding, and
    `"eigh"` sets them to zero. Second derivatives are supported for "lyapunov" at positive
    definite matrices.

    Args:
        matrix: The matrices, `(*b, n, n)`, float32 or float64, positive semi-definite, symmetric
            to 100 n eps of their largest entry; the symmetric part is used.
        method: `"eigh"`, or `"newton_schulz"` for the iteration forward and backward.
        gradient: One of the above; None for that of the method: `"lyapunov"` or `"newton"`.
        steps: Number of Newton-Schulz iterations, at least 1.
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
    gradient = gradient or ("newton" if method == "newton_schulz" else "lyapunov")
    gap = _check(method, gradient, steps, options)
    matrix = symmetrized("sqrtm", matrix)
    if method == "newton_schulz":
        _check_positive(matrix.detach())
    return _Sqrtm.apply(matrix, method, gradient, steps, gap)[0]  # pyright: ignore


def _check(method: str, gradient: str, steps: int, options: dict[str, Any]) -> Gap | None:
    check_choice("sqrtm", "method", method, ("eigh", "newton_schulz"), '"eigh" is exact')
    check_least("sqrtm", "10 is a good choice", steps=steps if isinstance(steps, int) else 0)
    if method == "newton_schulz":
        who, advice = 'sqrtm with method="newton_schulz"', 'pass method="eigh" for the others'
        check_choice(who, "gradient", gradient, ("newton",), advice)
    if gradient in ("lyapunov", "newton"):
        if options:
            raise TypeError(
                f'sqrtm takes no options with gradient "{gradient}", got {sorted(options)}; '
                "they belong to the methods of `inverse_gap`."
            )
        return None
    return gap_function("sqrtm", gradient, options)


def _check_positive(matrix: Tensor) -> None:
    """Without eigenvalues: the matrix plus the allowed rounding has a Cholesky factor."""
    shift = rounding_level(matrix) * _trace(matrix).abs() + torch.finfo(matrix.dtype).tiny
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    if (torch.linalg.cholesky_ex(matrix + shift * identity).info > 0).any():
        raise ValueError(_NEGATIVE.format("no Cholesky factor"))


def _nonnegative(values: Tensor, level: float) -> Tensor:
    """Eigenvalues, with negative ones at rounding level set to zero."""
    if values.numel() and (values < -level * values.abs().amax(-1, keepdim=True)).any():
        raise ValueError(_NEGATIVE.format(f"{float(values.min()):.1e}"))
    return values.clamp(min=0)


_NEGATIVE = (
    "sqrtm needs positive semi-definite matrices, got a negative eigenvalue ({}); clamp the "
    "eigenvalues of `eigh`, or add a multiple of the identity."
)


class _Sqrtm(torch.autograd.Function):
    """Square roots, with eigenvalues and eigenvectors for the backward pass."""

    @staticmethod
    def forward(matrix: Tensor, method: str, gradient: str, steps: int, gap: Gap | None):
        if method == "newton_schulz":
            y = _iterate(matrix, steps)[-1][0]
            return y * _scale(matrix).sqrt(), matrix.new_empty(0), matrix.new_empty(0)
        values, vectors = descending(matrix)
        values = _nonnegative(values, rounding_level(matrix))
        return vectors * values.sqrt().unsqueeze(-2) @ vectors.mT, values, vectors

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        matrix, _, ctx.gradient, ctx.steps, ctx.gap = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(matrix, *output)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        matrix, root, values, vectors = ctx.saved_tensors
        given = (grads[0] + grads[0].mT) / 2
        if ctx.gradient == "lyapunov":
            found = _Lyapunov.apply(root, given, values, vectors)
        elif ctx.gradient == "newton":
            found = _newton_gradient(matrix, given, ctx.steps)
        else:
            if torch.is_grad_enabled():  # for a second derivative
                values, vectors = eigh_with(matrix, ctx.gap)
                values = values.clamp(min=0)
            found = _gap_gradient(values, vectors, ctx.gap, given)
        return found, None, None, None, None


class _Lyapunov(torch.autograd.Function):
    """X with Q X + X Q = G, for the root Q of a matrix given by eigenvalues and eigenvectors."""

    @staticmethod
    def forward(root: Tensor, given: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        values, positive = _raised(values)
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


def _raised(values: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues raised to eps times the largest, and whether there is a positive one."""
    limits = torch.finfo(values.dtype)
    largest = values.detach()[..., :1]
    positive = largest > 0
    floor = torch.where(positive, (limits.eps * largest).clamp(min=limits.tiny), 1.0)
    return torch.maximum(values, floor), positive.unsqueeze(-1)


def _gap_gradient(values: Tensor, vectors: Tensor, gap: Gap, given: Tensor) -> Tensor:
    """Through `eigh`; the products K (r_i - r_j) are formed first, so that ties give zero."""
    values, positive = _raised(values)
    roots = values.sqrt()
    quotient = gap(values) * (roots.unsqueeze(-1) - roots.unsqueeze(-2))
    quotient = (quotient + torch.diag_embed(1 / (2 * roots))) * positive
    return vectors @ ((vectors.mT @ given @ vectors) * quotient) @ vectors.mT


def _trace(matrix: Tensor) -> Tensor:
    """Traces `(*b, 1, 1)`."""
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def _scale(matrix: Tensor) -> Tensor:
    """Divisors of the iteration, `(*b, 1, 1)`."""
    trace = _trace(matrix)
    return torch.where(trace > 0, trace, 1.0)


def _iterate(matrix: Tensor, steps: int) -> list[tuple[Tensor, Tensor]]:
    """All Y and Z of the Newton-Schulz iteration, from the first to the last."""
    y = matrix / _scale(matrix)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    pairs = [(y, identity.expand_as(y))]
    for _ in range(steps):
        y, z = pairs[-1]
        turn = (3 * identity - z @ y) / 2
        pairs.append((y @ turn, turn @ z))
    size = torch.linalg.matrix_norm(pairs[-1][1].detach()) if matrix.numel() else matrix
    if not (size <= 1.001 * matrix.shape[-1] ** 0.5 * 1.5**steps).all():
        raise ValueError(
            f"sqrtm needs fewer Newton-Schulz steps, got {steps}, which amplify eigenvalues that "
            "are negative by rounding; or add a small multiple of the identity."
        )
    return pairs


def _newton_gradient(matrix: Tensor, given: Tensor, steps: int) -> Tensor:
    """The backward pass of the iteration; Y and Z are symmetric, their gradients are not."""
    scale = _scale(matrix)
    *pairs, (last, _) = _iterate(matrix, steps)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    g_y, g_z = scale.sqrt() * given, torch.zeros_like(matrix)
    for y, z in reversed(pairs):
        turn = (3 * identity - z @ y) / 2
        g_turn = y @ g_y + g_z @ z
        g_y, g_z = g_y @ turn - z @ g_turn / 2, turn @ g_z - g_turn @ y / 2
    at_scale = (given * last).sum((-2, -1), keepdim=True) / (2 * scale.sqrt())
    at_scale = at_scale - (g_y * (matrix / scale)).sum((-2, -1), keepdim=True) / scale
    return (g_y + g_y.mT) / (2 * scale) + at_scale * identity
