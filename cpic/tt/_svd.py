r"""Compress dense tensors by a sequence of truncated SVDs.

At each of the d-1 bonds the tensor is unfolded to a matrix M, and replaced by the projection
U U^T M onto its leading left singular vectors. The projections are orthogonal, so the squared
errors add; the unused part of the error allowed at a bond is passed on to the following bonds.

Shapes: `K` tensors, `d` sites, matrices `(K, m, n)`.
References: {cite}`oseledets2011tt`.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from cpic.linalg._inputs import check_dtype, check_finite
from cpic.tt._round import Budget, check_limits, floor_of, masked
from cpic.tt._train import TensorTrain

Choose: TypeAlias = Callable[[Tensor], Tensor]
"""From singular values `(K, n)` to ranks `(K,)`."""


def tt_svd(tensor: Tensor, *, tol: float | None = None, max_rank: int | None = None) -> TensorTrain:
    """Tensor trains of dense tensors, by tolerance, by rank, or both.

    With only `tol`, each train has a relative Frobenius error of at most `tol`. With only
    `max_rank`, the error is within a factor sqrt(d - 1) of the best possible at these ranks
    {eq}`eq-tt-error` {cite}`oseledets2011tt`. With neither, only components at rounding level are
    removed. Carries no gradient.

    Args:
        tensor: The tensors, `(K, *sizes)`, float32 or float64.
        tol: Allowed error relative to the norm of each tensor, at least 0.
        max_rank: Upper bound on all ranks; if it takes effect, the error may exceed `tol`.

    Returns:
        K trains; the left unfoldings of all cores but the last have orthonormal columns. Ranks are
        the largest that any of the K tensors needs; the others are padded with zeros.

    Raises:
        TypeError: If `tensor` is not float32 or float64.
        ValueError: If it has no axis besides the batch, an empty one, or values that are not
            finite, or if a bound is out of range.

    Example:
        >>> x = torch.arange(8.0)
        >>> train = tt_svd((x[:, None, None] + x[:, None] + x).unsqueeze(0))
        >>> train.ranks
        (1, 2, 2, 1)
    """
    _check(tensor)
    check_limits("tt_svd", tol or 0.0, max_rank)
    with torch.no_grad():
        cores = decompose(tensor, tol or 0.0, max_rank, truncated_basis)
    return TensorTrain(cores)


def _check(tensor: Tensor) -> None:
    check_dtype("tt_svd", tensor.dtype, "cast it first")
    if tensor.ndim < 2 or 0 in tensor.shape[1:]:
        raise ValueError(
            "tt_svd needs a batch of tensors (K, *sizes) without empty axes after K, got shape "
            f"{tuple(tensor.shape)}; give a single tensor a batch axis with `unsqueeze(0)`."
        )
    check_finite("tt_svd", tensor)


def decompose(
    tensor: Tensor, tol: float, max_rank: int | None, basis: Callable[[Tensor, Choose], Tensor]
) -> list[Tensor]:
    """Cores of the successive projections of each unfolding onto its `basis`.

    Args:
        tensor: Tensors `(K, *sizes)`.
        tol: Allowed relative error.
        max_rank: Upper bound on all ranks.
        basis: Function of matrices `(K, m, n)`, and of a function from their singular values to
            ranks that it calls once, to orthonormal columns `(K, m, r)`, zero beyond these ranks.
            Differentiable if `basis` is.
    """
    trains, *sizes = tensor.shape
    norm = torch.linalg.vector_norm(tensor.detach().flatten(1), dim=-1)
    budget = Budget((tol * norm) ** 2, len(sizes) - 1)
    cores, rank = [], 1
    rest = tensor.flatten(1).unsqueeze(1)
    for size in sizes[:-1]:
        rest = rest.reshape(trains, rank * size, rest.shape[-1] // size)
        floor = (floor_of(rest) * norm) ** 2
        vectors = basis(rest, partial(budget.choose, floor=floor, max_rank=max_rank))
        cores.append(vectors.reshape(trains, rank, size, vectors.shape[-1]))
        rank = vectors.shape[-1]
        rest = vectors.mT @ rest
    return [*cores, rest.reshape(trains, rank, sizes[-1], 1)]


def truncated_basis(matrix: Tensor, choose: Choose) -> Tensor:
    """The leading left singular vectors of matrices `(K, m, n)`."""
    if matrix.shape[-1] > matrix.shape[-2]:
        # The triangular factor of the transpose has the same ones, and Q need not be formed.
        matrix = torch.linalg.qr(matrix.mT, mode="r").R.mT
    vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    return masked(vectors, choose(values))
