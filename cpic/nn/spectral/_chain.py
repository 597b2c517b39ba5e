"""Contract neighboring cores of a train in the order that takes the fewest products."""

from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from cpic.nn.spectral._plan import Core

Order = int | tuple["Order", "Order"]


def contracted(cores: Sequence[Tensor], sizes: Sequence[Core]) -> Tensor:
    """The product `(n, l, size, r)` of cores `(n, l, size_k, r_k)`, whose sizes are multiplied."""
    order, _ = best_order(tuple(core[:3] for core in sizes))
    return _follow(order, cores)


def _follow(order: Order, cores: Sequence[Tensor]) -> Tensor:
    if isinstance(order, int):
        return cores[order]
    first, second = (_follow(part, cores) for part in order)
    product = first.flatten(1, 2) @ second.flatten(2, 3)
    return product.unflatten(1, first.shape[1:3]).unflatten(-1, second.shape[2:]).flatten(2, 3)


@lru_cache(maxsize=4096)
def best_order(sizes: tuple[tuple[int, int, int], ...]) -> tuple[Order, int]:
    """Nested pairs of cores, and the multiplications they take, by dynamic programming.

    Args:
        sizes: Left rank, size and right rank of each core.
    """
    count = len(sizes)
    best: dict[tuple[int, int], tuple[int, int, Order]] = {
        (k, k + 1): (0, sizes[k][1], k) for k in range(count)
    }
    for length in range(2, count + 1):
        for a in range(count - length + 1):
            b = a + length
            options = []
            for c in range(a + 1, b):
                (cost, size, order), (more, other, later) = best[a, c], best[c, b]
                product = sizes[a][0] * size * sizes[c][0] * other * sizes[b - 1][2]
                options.append((cost + more + product, size * other, (order, later)))
            best[a, b] = min(options, key=lambda option: option[0])
    cost, _, order = best[0, count]
    return order, cost
