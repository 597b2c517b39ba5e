r"""Request the entries of a tensor from a function, and check them.

Everything between index sets and values: the multi-indices of fibers, and checks of the returned
values.

Shapes: `K` tensors, `l` left and `r` right multi-indices, `n` the size of the site, `d` sites.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cpic.linalg._inputs import all_finite
from cpic.tt._entries import Entries, known_inside


def product(*parts: Tensor) -> Tensor:
    """All combinations of rows `(K, n_i, s_i)` of the parts `(K, n_1 ... n_p, s_1 + ... + s_p)`.

    The last part changes fastest. A part of one tensor applies to all K.
    """
    trains, counts = len(parts[0]), [part.shape[1] for part in parts]
    spread = []
    for i, part in enumerate(parts):
        alone = [n if i == j else 1 for j, n in enumerate(counts)]
        part = part.view(len(part), *alone, part.shape[2])
        spread.append(part.expand(trains, *counts, part.shape[-1]))
    return torch.cat(spread, -1).flatten(1, -2)


def fiber_indices(left: Tensor, size: int, right: Tensor) -> Tensor:
    """All combinations left x [size] x right as `(K, l*size*r, d)`, right fastest.

    Args:
        left: `(K, l, k)`.
        size: Size of site k.
        right: `(K, r, d-k-1)`.
    """
    return product(left, torch.arange(size, device=left.device)[None, :, None], right)


def steps(sizes: Sequence[int], device: torch.device) -> Tensor:
    """The positions of every site `(sum(sizes), d)`, zero at the other sites.

    Multi-indices of different modes are then combined by adding them, see `sums`.
    """
    site = np.repeat(np.arange(len(sizes)), sizes)
    table = np.zeros((len(site), len(sizes)), np.int64)
    table[np.arange(len(site)), site] = np.concatenate([np.arange(n) for n in sizes])
    return torch.from_numpy(table).to(device)


def sums(first: Tensor, second: Tensor) -> Tensor:
    """All sums `(K, m n, d)` of a row `(K, m, d)` and one of `(K, n, d)`, the latter fastest."""
    return (first.unsqueeze(2) + second.unsqueeze(1)).flatten(1, 2)


def ask(entries: Entries, indices: Tensor, *, known: Sequence[int] = ()) -> Tensor:
    """Values `(K, n)` at `indices` `(K, n, d)`, checked.

    Every call of a user's `entries` is made here. It gets a copy of the indices, and its values are
    copied, so that it may modify and reuse its own tensors.

    Args:
        entries: Function to call.
        indices: Multi-indices to request.
        known: Sizes that the indices are known to fit, since they derive from checked ones.

    Raises:
        ValueError: On another shape or device, complex, integer, NaN or infinite values.
    """
    values = ask_unchecked(entries, indices, known=known)
    check_values(values, lambda: indices)
    return values


def ask_unchecked(entries: Entries, indices: Tensor, *, known: Sequence[int] = ()) -> Tensor:
    """`ask` without `check_values`, which then checks the values of many calls at once."""
    given = indices.clone()
    values = entries(known_inside(given, tuple(known)) if known else given)
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
        hint = "approximate real and imaginary parts apart" if values.is_complex() else "cast"
        raise ValueError(
            f"entries must return float32 or float64 values, got {values.dtype}; {hint}."
        )
    return values.clone()


def check_values(values: Tensor, indices: Callable[[], Tensor]) -> None:
    """Reject values `(K, n)` that are NaN or infinite; `indices` makes their multi-indices."""
    if all_finite([values]):
        return
    train, place = (~torch.isfinite(values.detach())).nonzero()[0].tolist()
    where = tuple(indices()[train, place].tolist())
    raise ValueError(
        f"entries must return finite values, got {values[train, place].item()} at index "
        f"{where} of tensor {train}; mask or replace such entries first."
    )


def with_dtype(entries: Entries, dtype: torch.dtype) -> Entries:
    """The same entries in another floating type; complex ones are unchanged and rejected later."""

    def converted(indices: Tensor) -> Tensor:
        values = entries(indices)
        if isinstance(values, Tensor) and not values.is_complex():
            return values.to(dtype)
        return values

    return converted
