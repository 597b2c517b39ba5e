r"""Compress dense tensors by a sequence of truncated SVDs.

At each of the d-1 bonds the tensor is unfolded to a matrix M, and replaced by the projection
U U^T M on its leading left singular vectors. The projections are orthogonal, so the squared
errors add; what a bond leaves of its share of the allowed error goes to the bonds that follow.

Shapes: `K` tensors, `d` sites, matrices `(K, m, n)`.
References: {cite}`oseledets2011tt`.
"""

import torch
from torch import Tensor

from cpic.tt._round import check_limits, choose_ranks, floor_of, masked
from cpic.tt._train import TensorTrain


def tt_svd(tensor: Tensor, *, tol: float | None = None, max_rank: int | None = None) -> TensorTrain:
    """Tensor trains of dense tensors, by tolerance, by rank, or both.

    With only `tol`, each train has a relative Frobenius error of at most `tol`. With only
    `max_rank`, the error is within a factor sqrt(d - 1) of the best possible at these ranks
    {cite}`oseledets2011tt`. With neither, only what is below rounding is dropped. Carries
    no gradient.

    Args:
        tensor: The tensors, `(K, *sizes)`, float32 or float64.
        tol: Allowed error relative to the norm of each tensor, at least 0.
        max_rank: Bound on all ranks; where it takes effect, the error may exceed `tol`.

    Returns:
        K trains; all cores but the last have orthonormal columns as left unfoldings. Ranks are
        the largest that any of the K tensors needs, the others are padded with zeros.

    Raises:
        TypeError: If `tensor` is not float32 or float64.
        ValueError: If it has no axis besides the batch, an empty one, or numbers that are not
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
        cores = _decompose(tensor, tol or 0.0, max_rank)
    return TensorTrain(cores)


def _check(tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"tt_svd needs a float32 or float64 tensor, got {tensor.dtype}; cast it first."
        )
    if tensor.ndim < 2 or 0 in tensor.shape[1:]:
        raise ValueError(
            "tt_svd needs a batch of tensors (K, *sizes) without empty axes after K, got shape "
            f"{tuple(tensor.shape)}; give a single tensor a batch axis with `unsqueeze(0)`."
        )
    if not torch.isfinite(tensor).all():
        raise ValueError(
            "tt_svd needs finite numbers, got NaN or infinity; replace them with "
            "`torch.nan_to_num` or mask them first."
        )


def _decompose(tensor: Tensor, tol: float, max_rank: int | None) -> list[Tensor]:
    trains, *sizes = tensor.shape
    norm = torch.linalg.vector_norm(tensor.flatten(1), dim=-1)
    left = (tol * norm) ** 2
    cores, rank = [], 1
    rest = tensor.flatten(1).unsqueeze(1)
    for site, size in enumerate(sizes[:-1]):
        rest = rest.reshape(trains, rank * size, rest.shape[-1] // size)
        vectors, values = _left_vectors(rest)
        budget = left.clamp_min(0) / (len(sizes) - 1 - site)
        floor = floor_of(rest) * norm
        keep, spent = choose_ranks(values, torch.maximum(budget, floor**2), max_rank)
        left = left - spent
        vectors = masked(vectors, keep)
        cores.append(vectors.reshape(trains, rank, size, vectors.shape[-1]))
        rank = vectors.shape[-1]
        rest = vectors.mT @ rest
    return [*cores, rest.reshape(trains, rank, sizes[-1], 1)]


def _left_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors and values of matrices `(K, m, n)`."""
    if matrix.shape[-1] > matrix.shape[-2]:
        # The triangular factor of the transpose has them too, and Q need not be formed.
        matrix = torch.linalg.qr(matrix.mT, mode="r").R.mT
    vectors, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    return vectors, values
