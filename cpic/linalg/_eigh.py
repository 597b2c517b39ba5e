r"""Eigenvalues and eigenvectors of symmetric matrices, with a choice of gradient.

From A = V diag(l) V^T follow dl = diag(V^T dA V) and V^T dV = F^T o (V^T dA V) with the inverse
gaps F, so that gradients g_l and g_V are propagated to A as

    V (diag(g_l) + F^T o skew(V^T g_V)) V^T,    skew(X) = (X - X^T) / 2.

Shapes: `n` rows, `*b` independent problems.
References: {cite}`ionescu2015matrix`, {cite}`song2021approximate`.
"""

from typing import Any

import torch
from torch import Tensor

from cpic.linalg._gaps import Gap, gap_function
from cpic.linalg._inputs import symmetrized


def eigh(matrix: Tensor, *, gradient: str = "original", **options: Any) -> tuple[Tensor, Tensor]:
    r"""Eigenvalues in descending order and eigenvectors, with bounded gradients.

    The values are those of `torch.linalg.eigh`, the largest first. The gradient of the eigenvalues
    is exact; that of the eigenvectors, the adjoint {eq}`eq-spectra-backward` of
    {eq}`eq-spectra-derivative`, uses `inverse_gap` with the given method and options, and is
    bounded by it: with b the bound of the method, the gradient with respect to `matrix` has at most
    the Frobenius norm |g_l| + b |g_V|. It is finite for every finite input, also with repeated
    eigenvalues, if that product is.

    Signs of the eigenvectors, and bases of the eigenvectors of one eigenvalue, are arbitrary: a
    loss that depends on them has no derivative. Second derivatives are exact for "original"
    and distinct eigenvalues; for the others they are those of the bounded formula.

    Args:
        matrix: The matrices, `(*b, n, n)`, float32 or float64, symmetric to 100 n eps of their
            largest entry; the symmetric part is used.
        gradient: The method of `inverse_gap`.
        **options: Options of that method.

    Returns:
        The eigenvalues `(*b, n)` and the eigenvectors `(*b, n, n)`, in columns. The gradient with
        respect to `matrix` is symmetric.

    Raises:
        ValueError: If `matrix` is not square, not symmetric or not finite, or the method is
            unknown.
        TypeError: If `matrix` is not float32 or float64, or the method has no such option.

    Example:
        >>> values, vectors = eigh(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> values
        tensor([3., 1.])
        >>> matrix = torch.eye(2, requires_grad=True)  # a tie
        >>> eigh(matrix, gradient="trunc")[1].sum().backward()
        >>> bool(matrix.grad.isfinite().all())
        True
    """
    gap = gap_function("eigh", gradient, options)
    return eigh_with(symmetrized("eigh", matrix), gap)


def eigh_with(matrix: Tensor, gap: Gap) -> tuple[Tensor, Tensor]:
    """`eigh` of a matrix known to be symmetric, with a given function for the inverse gaps."""
    return _Eigh.apply(matrix, gap)  # pyright: ignore[reportReturnType]


def descending(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix, the largest first."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(-1), vectors.flip(-1)


class _Eigh(torch.autograd.Function):
    """Eigenvalues and eigenvectors; `gap` gives the inverse gaps of the backward pass."""

    @staticmethod
    def forward(matrix: Tensor, gap: Gap) -> tuple[Tensor, Tensor]:
        return descending(matrix)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*output)
        ctx.gap = inputs[1]

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        g_values, g_vectors = grads
        turn = vectors.mT @ g_vectors
        inner = torch.diag_embed(g_values) - ctx.gap(values) * (turn - turn.mT) / 2
        return vectors @ inner @ vectors.mT, None
