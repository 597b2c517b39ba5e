"""How many entries may be read, and into how many parts that divides each axis."""

import math
from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor


def count_of(budget: float, shape: Sequence[int]) -> int:
    """The number of entries: an int is that number, a float a share in (0, 1] of all."""
    total = math.prod(shape)
    if isinstance(budget, bool) or not isinstance(budget, int | float):
        raise TypeError(f"budget needs an int (entries) or a float (share of all), got {budget!r}.")
    if isinstance(budget, int):
        count, good = budget, 1 <= budget <= total
    else:
        good = 0 < budget <= 1
        count = int(budget * total) if good else 0
    if not good or count < 1:
        raise ValueError(
            f"budget needs 1 to {total} entries, as an int, or a share of at least one entry and at"
            f" most 1.0, as a float, got {budget!r} for shape {tuple(shape)}; a budget is what may"
            " be read of one array."
        )
    return count


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape as a tuple of ints of at least 1, or one clear error."""
    try:
        sizes = tuple(map(index, shape))
    except TypeError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ValueError(
            f"shape needs at least one axis and every size a whole number >= 1, got {shape}; pass"
            " the sizes without the batch."
        )
    return sizes


def parts_of(shape: Sequence[int], count: int) -> tuple[int, ...]:
    """Into how many parts to divide each axis: equal strides, at most `count` parts in all."""

    def at(stride: float) -> list[int]:
        return [min(n, math.ceil(n / stride)) for n in shape]

    low, high = 1.0, float(max(shape))
    if math.prod(at(low)) <= count:
        return tuple(at(low))
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if math.prod(at(middle)) <= count else (middle, high)
    parts = at(high)
    # What is left goes where the strides are largest.
    for axis in sorted(range(len(parts)), key=lambda k: parts[k] / shape[k]):
        others = math.prod(parts) // parts[axis]
        if parts[axis] < shape[axis] and others * (parts[axis] + 1) <= count:
            parts[axis] += 1
    return tuple(parts)


def edges(size: int, parts: int, *, device: torch.device) -> Tensor:
    """Where the parts of an axis begin, and its end: int64 `(parts + 1,)`."""
    return torch.arange(parts + 1, device=device) * size // parts


def product(axes: Sequence[Tensor]) -> Tensor:
    """All combinations `(K, m_1 ... m_D, D)` of `(K, m_i)` along each axis, the last fastest."""
    sizes = [axis.shape[1] for axis in axes]
    columns = [
        axis.view(-1, *[1] * k, sizes[k], *[1] * (len(axes) - k - 1)).expand(-1, *sizes)
        for k, axis in enumerate(axes)
    ]
    return torch.stack(columns, -1).flatten(1, -2)


def weigh(axes: Sequence[Tensor]) -> Tensor:
    """Products `(K, m_1 ... m_D)` of weights `(K, m_i)` along each axis, the last fastest."""
    weights = axes[0]
    for axis in axes[1:]:
        weights = (weights[:, :, None] * axis[:, None, :]).flatten(1)
    return weights
