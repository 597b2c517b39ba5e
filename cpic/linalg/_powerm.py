r"""Real powers of positive semi-definite matrices, and inverse square roots.

The derivative of A^p is V [ F_ij (V^T dA V)_ij ] V^T with the divided differences
F_ij = (l_i^p - l_j^p) / (l_i - l_j), which tend to p l^(p-1) in a tie (Daleckii and Krein). With
x = lo / hi they are hi^(p-1) (1 - x^p) / (1 - x): nothing cancels if 1 - x^p comes from `expm1`.

Shapes: `n` rows, `*b` independent problems.
References: {cite}`higham2008functions`, {cite}`song2022fast`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpic.linalg._eigh import descending
from cpic.linalg._gaps import Gap, gap_function
from cpic.linalg._how import SCALES
from cpic.linalg._inputs import check_choice, check_least, rounding_level, symmetrized
from cpic.linalg._iterations import NEWTON, iterate, positive, solve_lyapunov, trace
from cpic.linalg._rational import rational_root, scale_of
from cpic.linalg._sqrtm import check_positive, nonnegative


def powerm(
    matrix: Tensor,
    power: float,
    *,
    gradient: str = "exact",
    floor: float | None = None,
    check: bool = True,
    **options: Any,
) -> Tensor:
    r"""A real power of symmetric positive semi-definite matrices, with bounded gradients.

    The power is {eq}`eq-covariance-power`. Eigenvalues below `floor` times the largest one, s,
    count as that; with the default, eps, this changes a power above 0 by rounding only, and makes a
    negative one finite. The zero matrix has the power zero, and the gradient zero.

    Gradients, with G the symmetric part of the gradient of the power p:

    - `"exact"`: by divided differences {eq}`eq-spectra-divided`, which are not singular in a tie.
      With f the floored smallest eigenvalue, it is at most |G| |p| max(s^(p-1), f^(p-1)).
    - A method of `inverse_gap` in place of 1 / (l_i - l_j), as if through `eigh`; the part between
      two equal eigenvalues is lost.

    Args:
        matrix: The matrices, `(*b, n, n)`, float32 or float64, positive semi-definite, symmetric
            to 100 n eps of their largest entry; the symmetric part is used.
        power: The exponent p, finite; 1/2 is the root, -1/2 its inverse.
        gradient: "exact", or a method of `inverse_gap`.
        floor: Least eigenvalue relative to the largest, above 0 and at most 1; None for eps.
        check: False skips all checks that read numbers back from the device.
        **options: Options of that method.

    Returns:
        The powers `(*b, n, n)`. Differentiable once; the gradient is symmetric.

    Raises:
        ValueError: If `matrix` is not square, symmetric and finite, or has a negative eigenvalue;
            if an option is out of range.
        TypeError: If `matrix` is not float32 or float64, or the gradient has no such option.

    Example:
        >>> powerm(torch.diag(torch.tensor([8.0, 1.0])), 1 / 3)
        tensor([[2., 0.],
                [0., 1.]])
    """
    if not isinstance(power, int | float) or not abs(power) < float("inf"):
        raise ValueError(
            f"powerm needs a finite number as `power`, got {power!r}; 0.5 is the root."
        )
    if floor is not None and not 0 < floor <= 1:
        raise ValueError(
            f"powerm needs `floor` above 0 and at most 1, got {floor}; omit it for eps."
        )
    gap = None
    if gradient != "exact":
        gap = gap_function("powerm", gradient, options)
    elif options:
        raise TypeError(
            f'powerm takes no options with gradient "exact", got {sorted(options)}; they belong '
            "to the methods of `inverse_gap`."
        )
    matrix = symmetrized("powerm", matrix) if check else (matrix + matrix.mT) / 2
    return _Power.apply(matrix, float(power), floor, gap, check)[0]  # pyright: ignore


class _Power(torch.autograd.Function):
    """Powers, with floored eigenvalues and eigenvectors for the backward pass."""

    @staticmethod
    def forward(matrix: Tensor, power: float, floor: float | None, gap: Gap | None, check: bool):
        values, vectors = descending(matrix)
        values = nonnegative("powerm", values, rounding_level(matrix), check=check)
        least = torch.finfo(values.dtype)
        largest = values[..., :1]
        low = (largest * (least.eps if floor is None else floor)).clamp(min=least.tiny)
        values = torch.maximum(values, torch.where(largest > 0, low, 1.0))
        raised = torch.where(largest > 0, values**power, 0.0)
        return vectors * raised.unsqueeze(-2) @ vectors.mT, values, vectors, largest

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.power, _, ctx.gap, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor):  # pyright: ignore
        values, vectors, largest = ctx.saved_tensors
        given = (grads[0] + grads[0].mT) / 2
        if ctx.gap is None:
            divided = divided_differences(values, ctx.power)
        else:
            raised = values**ctx.power
            divided = ctx.gap(values) * (raised.unsqueeze(-1) - raised.unsqueeze(-2))
            divided = divided + torch.diag_embed(ctx.power * values ** (ctx.power - 1))
        inner = (vectors.mT @ given @ vectors) * divided * (largest > 0).unsqueeze(-1)
        return vectors @ inner @ vectors.mT, None, None, None, None


def divided_differences(values: Tensor, power: float) -> Tensor:
    """F_ij of positive eigenvalues `(*b, n)`, `(*b, n, n)`; accurate also in a near tie."""
    high = torch.maximum(values.unsqueeze(-1), values.unsqueeze(-2))
    low = torch.minimum(values.unsqueeze(-1), values.unsqueeze(-2))
    apart = (high - low) / high
    close = apart < 0.5
    log = torch.where(close, torch.log1p(-torch.where(close, apart, 0.0)), (low / high).log())
    tied = apart == 0
    quotient = -torch.expm1(power * log) / torch.where(tied, 1.0, apart)
    return high ** (power - 1) * torch.where(tied, power, quotient)


def inverse_sqrtm(
    matrix: Tensor,
    *,
    method: str = "eigh",
    steps: int | None = None,
    degree: int | None = None,
    scale: str = "frobenius",
    floor: float | None = None,
    check: bool = True,
) -> Tensor:
    r"""The inverse square root of symmetric positive semi-definite matrices, for whitening.

    - `"eigh"`: `powerm` to the power -1/2, with its exact gradient. Eigenvalues below `floor` times
      the largest count as that.
    - `"newton_schulz"`: Z of N = `steps` iterations, by default 10, divided by the root of the
      trace t; at most 1.5^N / sqrt(t), so small eigenvalues are damped. Its gradient is that of the
      iteration.
    - `"pade"`: the reciprocal of the approximant of `sqrtm`, whose zero eigenvalues give
      (2m+1) / f^(1/2). With R the inverse root and G its gradient, that of the matrix is
      -R^2 X R^2 with R X + X R = G, by `steps` iterations, by default 8 {cite}`song2022fast`; each
      matrix is scaled by its own norm, so that it does not depend on the batch.

    To whiten a rank-deficient covariance add a multiple of the identity yourself, as in
    decorrelated batch norm.

    Args:
        matrix: The matrices, as in `powerm`.
        method: One of the above.
        steps: Number of iterations.
        degree: Degree m of "pade", at most 200; None for 5.
        scale: As in `sqrtm`, for "pade".
        floor: As in `powerm`, for "eigh".
        check: False skips all checks that read numbers back from the device.

    Returns:
        The inverse roots `(*b, n, n)`. Differentiable once ("newton_schulz": twice).

    Raises:
        ValueError: As `powerm`; also if an option does not belong to the method.
        TypeError: If `matrix` is not float32 or float64.

    Example:
        >>> matrix = torch.tensor([[2.0, 2.0], [2.0, 5.0]])
        >>> root = inverse_sqrtm(matrix)
        >>> bool(torch.allclose(root @ matrix @ root, torch.eye(2), atol=1e-5))
        True
    """
    who = "inverse_sqrtm"
    check_choice(who, "method", method, ("eigh", "newton_schulz", "pade"), '"eigh" is exact')
    check_choice(who, "scale", scale, SCALES, '"bound" is more accurate')
    check_least(who, "omit them for the published numbers", steps=steps, degree=degree)
    known = {"eigh": ("floor",), "newton_schulz": ("steps",), "pade": ("steps", "degree")}[method]
    given = {"floor": floor, "steps": steps, "degree": degree}
    if wrong := [name for name, one in given.items() if one is not None and name not in known]:
        raise ValueError(
            f'{who} needs options of method "{method}" ({", ".join(known)}), got {wrong}; omit '
            "them."
        )
    if degree is not None and degree > 200:
        raise ValueError(f"{who} needs `degree` of at most 200, got {degree}; omit it.")
    if method == "eigh":
        return powerm(matrix, -0.5, floor=floor, check=check)
    matrix = symmetrized(who, matrix) if check else (matrix + matrix.mT) / 2
    if check:
        check_positive(who, matrix.detach())
    if method == "newton_schulz":
        return iterate(matrix, steps or 10, check=check)[-1][1] / positive(trace(matrix)).sqrt()
    return _Inverse.apply(matrix, _Given(degree or 5, scale, steps or 8))  # pyright: ignore


class _Given(NamedTuple):
    degree: int
    scale: str
    steps: int


class _Inverse(torch.autograd.Function):
    """Inverse roots by the approximant, gradients by iterations."""

    @staticmethod
    def forward(matrix: Tensor, given: _Given) -> Tensor:
        scale = scale_of(matrix, given.scale)
        return rational_root(matrix, "pade", given.degree, scale, inverse=True)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.steps = inputs[1].steps
        ctx.save_for_backward(output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor):  # pyright: ignore
        (root,) = ctx.saved_tensors
        square = root @ root
        found = solve_lyapunov(root, (grads[0] + grads[0].mT) / 2, [NEWTON] * ctx.steps)
        return -square @ found @ square, None
