"""Random multi-indices, and all of them.

Shapes: `K` tensors, `d` modes, `n` multi-indices.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.tt._pivots import extend_left, extend_right, uniform


def random_points(
    sizes: Sequence[int], n: int, *, n_trains: int, generator: torch.Generator
) -> Tensor:
    """Uniform multi-indices `(K, n, d)` on the generator's device."""
    bound = torch.tensor(sizes, dtype=torch.float64, device=generator.device)
    return (uniform(generator, n_trains, n, len(sizes)) * bound).long()


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


def random_sides(
    sizes: tuple[int, ...], ranks: tuple[int, ...], n_trains: int, generator: torch.Generator
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Nested sets of different multi-indices: extensions drawn without repetition."""
    d, device = len(sizes), generator.device

    def draw(count: int, total: int) -> Tensor:
        noise = torch.rand(n_trains, total, generator=generator, device=device)
        return noise.argsort(-1)[:, :count].sort(-1).values

    empty = torch.zeros(n_trains, 1, 0, dtype=torch.int64, device=device)
    left, right = [empty], [empty]
    for k in range(d - 1):
        rows = draw(ranks[k + 1], ranks[k] * sizes[k])
        left.append(extend_left(left[-1], rows, sizes[k]))
    for k in range(d - 1, 0, -1):
        rows = draw(ranks[k], ranks[k + 1] * sizes[k])
        right.insert(0, extend_right(right[0], rows))
    return tuple(left), tuple(right)


def complete_or(sizes: tuple[int, ...], points: Tensor) -> Tensor:
    """All multi-indices if their number is that of `points` `(K, n, d)`, otherwise these."""
    if math.prod(sizes) != points.shape[1]:
        return points.contiguous()
    return all_points(sizes, device=points.device).expand(len(points), -1, -1).contiguous()
