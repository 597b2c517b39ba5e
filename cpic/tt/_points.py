"""Random multi-indices, and all of them.

Shapes: `K` tensors, `d` modes, `n` multi-indices.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def random_points(
    sizes: Sequence[int], n: int, *, n_trains: int, generator: torch.Generator
) -> Tensor:
    """Uniform multi-indices `(K, n, d)` on the generator's device."""
    uniform = torch.rand(
        n_trains, n, len(sizes), generator=generator, dtype=torch.float64, device=generator.device
    )
    bound = torch.tensor(sizes, dtype=torch.float64, device=generator.device)
    return (uniform * bound).long()


def all_points(sizes: Sequence[int], *, device: torch.device | str = "cpu") -> Tensor:
    """All multi-indices of modes of these sizes `(prod(sizes), len(sizes))`, last one fastest."""
    numbers = torch.arange(math.prod(sizes), device=device)
    columns = []
    for n in reversed(tuple(sizes)):
        columns.append(numbers % n)
        numbers = numbers // n
    if not columns:
        return torch.zeros(1, 0, dtype=torch.int64, device=device)
    return torch.stack(columns[::-1], -1)
