"""Tensors accessed by single entries."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Entries: TypeAlias = Callable[[Tensor], Tensor]
"""Entries of K tensors at multi-indices: from int64 `(K, n, d)` to floating point `(K, n)`."""


def dense_entries(tensor: Tensor) -> Entries:
    """Entries of K dense tensors that are held in memory.

    Differentiable in `tensor`.

    Args:
        tensor: The tensors, `(K, *sizes)`, with at least one site.

    Returns:
        A function from int64 multi-indices `(K, n, d)` to the entries `(K, n)`. It raises a
        `ValueError` for indices of another shape, and an `IndexError` outside the sizes.

    Raises:
        ValueError: If `tensor` has no axis besides the batch.

    Example:
        >>> ask = dense_entries(torch.arange(12.0).reshape(1, 3, 4))
        >>> ask(torch.tensor([[[2, 1], [0, 3]]]))
        tensor([[9., 3.]])
    """
    if tensor.ndim < 2:
        raise ValueError(
            f"dense_entries needs a batch of tensors (K, *sizes), got shape {tuple(tensor.shape)};"
            " put a batch axis of size 1 in front with `tensor.unsqueeze(0)`."
        )
    trains, sizes = len(tensor), tuple(tensor.shape[1:])
    flat = tensor.flatten(1)
    stride = torch.tensor(strides(sizes), device=tensor.device)
    limit = torch.tensor(sizes, device=tensor.device)

    def ask(indices: Tensor) -> Tensor:
        check_indices(indices, trains, sizes, limit)
        return flat.gather(1, (indices * stride).sum(-1))

    return ask


def strides(sizes: Sequence[int]) -> list[int]:
    """Distances of neighbors along each mode in a flattened tensor, last mode fastest."""
    return [math.prod(sizes[k + 1 :]) for k in range(len(sizes))]


def check_indices(
    indices: Tensor, trains: int, sizes: tuple[int, ...], limit: Tensor | None = None
) -> None:
    """Raise unless `indices` are int64 `(trains, n, len(sizes))` and inside the sizes."""
    wrong_shape = indices.ndim != 3 or indices.shape[0] != trains or indices.shape[-1] != len(sizes)
    if wrong_shape or indices.dtype != torch.int64:
        raise ValueError(
            f"entries need int64 indices of shape ({trains}, n, {len(sizes)}), got "
            f"{indices.dtype} of shape {tuple(indices.shape)}; pass one row of "
            f"{len(sizes)} indices per point, for each of {trains} trains."
        )
    check_inside("entries need indices", indices, sizes, limit)


def check_inside(
    who: str, indices: Tensor, sizes: Sequence[int], limit: Tensor | None = None
) -> None:
    """Raise unless `indices` `(..., len(sizes))` are from 0 to below the sizes, or known to be."""
    if _is_known(indices, tuple(sizes)):
        return
    limit = torch.tensor(sizes, device=indices.device) if limit is None else limit
    if ((indices < 0) | (indices >= limit)).any():
        raise IndexError(
            f"{who} from 0 to below the sizes {tuple(sizes)}, got {int(indices.amin())} to "
            f"{int(indices.amax())}; clamp or mask them first."
        )


def known_inside(indices: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The same tensor, marked as derived from checked indices, which need no second check.

    Tensors derived from this one are not marked, and a write to it removes the mark.
    """
    if not indices.is_inference():  # which does not count writes
        indices._cpic_inside = (sizes, indices._version)  # pyright: ignore[reportAttributeAccessIssue]
    return indices


def _is_known(indices: Tensor, sizes: tuple[int, ...]) -> bool:
    mark = getattr(indices, "_cpic_inside", None)
    return mark is not None and mark == (sizes, indices._version)
