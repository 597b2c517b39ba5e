r"""Ask a function for the entries of a tensor, and keep the books.

Everything here is about the way from index sets to values: building the multi-indices of fibers,
checking what comes back, counting what was asked.

Shapes: `K` tensors, `l` left and `r` right multi-indices, `n` the size of the site, `d` sites.
"""

import torch
from torch import Tensor

from cpic.tt._entries import Entries


def product(*parts: Tensor) -> Tensor:
    """All combinations of rows `(K, n_i, s_i)` of the parts `(K, n_1 ... n_p, s_1 + ... + s_p)`.

    The last part changes fastest. A part of one tensor counts for all K.
    """
    trains, counts = len(parts[0]), [part.shape[1] for part in parts]
    spread = []
    for i, part in enumerate(parts):
        alone = [n if i == j else 1 for j, n in enumerate(counts)]
        part = part.view(len(part), *alone, part.shape[2])
        spread.append(part.expand(trains, *counts, part.shape[-1]))
    return torch.cat(spread, -1).flatten(1, -2)


def fiber_indices(left: Tensor, size: int, right: Tensor, *, pairs: Tensor | None = None) -> Tensor:
    """All combinations left x [size] x right as `(K, l*size*r, d)`, right fastest.

    Args:
        left: `(K, l, k)`.
        size: Size of site k.
        right: `(K, r, d-k-1)`.
        pairs: `(K, m, k+1)` to use in place of left x [size].
    """
    if pairs is not None:
        return product(pairs, right)
    return product(left, torch.arange(size, device=left.device)[None, :, None], right)


def ask(entries: Entries, indices: Tensor) -> Tensor:
    """Values `(K, n)` at `indices` `(K, n, d)`, checked.

    Every call of a user's `entries` is made here. It gets a copy of the indices, and its values are
    copied, so that it may change and reuse what is its own.

    Raises:
        ValueError: On another shape or device, complex, integer, NaN or infinite values.
    """
    values = entries(indices.clone())
    if not isinstance(values, Tensor) or values.shape != indices.shape[:-1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(
            f"entries must return a tensor (K, n) = {tuple(indices.shape[:-1])} for indices "
            f"{tuple(indices.shape)}, got {got}; return one value for each multi-index."
        )
    if values.device != indices.device:
        raise ValueError(
            f"entries must return values on the device of the indices, {indices.device}, got "
            f"{values.device}; move them with `.to(indices.device)`."
        )
    if not values.is_floating_point():
        hint = "approximate real and imaginary part separately" if values.is_complex() else "cast"
        raise ValueError(
            f"entries must return float32 or float64 values, got {values.dtype}; {hint}."
        )
    if not torch.isfinite(values.detach().sum()):  # the sum is quicker than a test of each
        bad = (~torch.isfinite(values.detach())).nonzero()
        if len(bad):
            train, place = bad[0].tolist()
            raise ValueError(
                f"entries must return finite values, got {values[train, place].item()} at index "
                f"{tuple(indices[train, place].tolist())} of tensor {train}; mask or replace "
                "such entries first."
            )
    return values.clone()


def with_dtype(entries: Entries, dtype: torch.dtype) -> Entries:
    """The same entries in another floating type; complex ones are left to be refused."""

    def converted(indices: Tensor) -> Tensor:
        values = entries(indices)
        if isinstance(values, Tensor) and not values.is_complex():
            return values.to(dtype)
        return values

    return converted
