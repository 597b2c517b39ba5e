r"""Singular values and vectors, with a choice of gradient.

The squares of the singular values are the eigenvalues of A A^T and A^T A, so the inverse gaps
F_ij = 1 / (s_i^2 - s_j^2) appear. With skew(X) = X - X^T, gradients g_U, g_S, g_V give that of A as

    U [diag(g_S) - (F o skew(U^T g_U)) S - S (F o skew(V^T g_V))] V^T
      + (1 - U U^T) g_U T V^T  +  U T g_V^T (1 - V V^T).

T = 1 / S comes from the gaps to the eigenvalue zero of the orthogonal complement: it is s times the
inverse gap of s^2 and 0, and bounded by the same method.

Shapes: `m` rows, `n` columns, `k = min(m, n)`, `*b` independent problems.
References: {cite}`ionescu2015matrix`.
"""

from typing import Any

import torch
from torch import Tensor

from cpic.linalg._gaps import Gap, gap_function
from cpic.linalg._inputs import check_dtype, check_finite


def svd(
    matrix: Tensor, *, gradient: str = "original", **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The thin singular value decomposition, with bounded gradients.

    The values are those of `torch.linalg.svd(matrix, full_matrices=False)`. The gradient of the
    singular values is exact if they are positive and distinct; that of the singular vectors
    uses `inverse_gap` of the squared singular values, divided by the largest, with the given method
    and options. Hence the gradient depends on the scale of `matrix` only through the factor
    1 / s_max, and with b the bound of the method for the largest eigenvalue 1, its Frobenius norm
    is at most |g_S| + 3 b (|g_U| + |g_V|) / s_max. Rank-deficient matrices and zero have finite
    gradients; by default, "topn" retains singular values above sqrt((k + 1) eps) s_max.

    Only losses that do not depend on the signs of the singular vectors, nor on the bases of
    those that share a singular value, have a derivative. Second derivatives are not supported.

    Args:
        matrix: The matrices, `(*b, m, n)`, float32 or float64.
        gradient: The method of `inverse_gap`.
        **options: Options of that method.

    Returns:
        `U` `(*b, m, k)`, the singular values `(*b, k)` in descending order, and `Vh` `(*b, k, n)`.

    Raises:
        ValueError: If `matrix` has fewer than two axes or is not finite, or the method is unknown.
        TypeError: If `matrix` is not float32 or float64, or the method has no such option.

    Example:
        >>> matrix = torch.ones(3, 2, requires_grad=True)  # rank one
        >>> left, values, right = svd(matrix, gradient="taylor")
        >>> (left * values @ right).sum().backward()
        >>> bool(matrix.grad.isfinite().all())
        True
    """
    gap = gap_function("svd", gradient, options)
    if matrix.ndim < 2:
        raise ValueError(
            f"svd needs matrices (*b, m, n), got shape {tuple(matrix.shape)}; pass "
            "`x.unsqueeze(0)` for a row."
        )
    check_dtype("svd", matrix.dtype)
    check_finite("svd", matrix)
    return _SVD.apply(matrix, gap)  # pyright: ignore[reportReturnType]


class _SVD(torch.autograd.Function):
    """Singular values and vectors; `gap` gives the inverse gaps of the backward pass."""

    @staticmethod
    def forward(matrix: Tensor, gap: Gap) -> tuple[Tensor, Tensor, Tensor]:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left, values, right

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*output)
        ctx.gap = inputs[1]

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        left, values, right = ctx.saved_tensors
        g_left, g_values, g_right = grads
        scale = values[..., :1] if values.shape[-1] else values.new_ones(())
        scale = torch.where(scale > 0, scale, 1.0)
        unit = values / scale
        # The last eigenvalue is the zero of the orthogonal complement of the singular vectors.
        gaps = ctx.gap(torch.nn.functional.pad(unit.square(), (0, 1)))
        inside, outside = gaps[..., :-1, :-1], unit * gaps[..., :-1, -1]
        turn_left, turn_right = left.mT @ g_left, right @ g_right.mT
        inner = inside * (turn_left - turn_left.mT) * unit.unsqueeze(-2)
        inner = inner + unit.unsqueeze(-1) * inside * (turn_right - turn_right.mT)
        rest = (g_left - left @ turn_left) * outside.unsqueeze(-2)
        beside = outside.unsqueeze(-1) * (g_right - turn_right.mT @ right)
        vectors = (rest - left @ inner) @ right + left @ beside
        exact = left * g_values.unsqueeze(-2) @ right
        return exact + vectors / scale.unsqueeze(-1), None
