r"""Inner products of all pairs of trains, and features in a basis.

Both are sweeps of matrix products over the sites, for all trains at once, and differentiable in
every core.

Shapes: `K` and `J` trains, cores `(K, l, size, r)`; a basis has cores `(p, size, q)`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Maximum size of a merged site: larger ones cost more products than they save.
_WIDE = 16


def right_grams(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    """Inner products `(K, J, l, l')` of two sets of trains from each site to the end."""
    state = first[-1].new_ones(len(first[0]), len(second[0]), 1, 1)
    found = []
    for a, b in zip(reversed(first), reversed(second), strict=True):
        (k, left, size, _), (j, below, _, right) = a.shape, b.shape
        # (K, l size, r) times (K, r, J r'), then (J, K l, size r') times (J, size r', l').
        carried = a.flatten(1, 2) @ state.transpose(1, 2).flatten(2)
        carried = carried.view(k, left, size, j, right).permute(3, 0, 1, 2, 4)
        state = carried.reshape(j, k * left, size * right) @ b.flatten(2).mT
        state = state.view(j, k, left, below).transpose(0, 1)
        found.append(state)
    return found[::-1]


def inner_pairs(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Inner products `(K, J)` of every train of one set with every train of the other."""
    return right_grams(first, second)[0].flatten(1)


def features(basis: Sequence[Tensor], cores: Sequence[Tensor]) -> Tensor:
    """Inner products `(K, p)` of trains with the tensors of a basis, of as many sites."""
    trains = len(cores[0])
    state = cores[-1].new_ones(trains, 1, 1)
    for frame, core in zip(reversed(basis), reversed(cores), strict=True):
        # With few operations: a batched `@` expands and reshapes before and after.
        carried = core.flatten(1, 2).bmm(state).view(trains * core.shape[1], -1)
        state = carried.mm(frame.flatten(1).mT).view(trains, core.shape[1], len(frame))
    return state.flatten(1)


def merged(cores: Sequence[Tensor]) -> list[Tensor]:
    """The same trains with small neighboring sites merged, so that fewer products remain.

    Neighbors are merged twice if their common size is small; those of equal shapes in one product.
    """
    for _ in range(2):
        sizes = [core.shape[2] for core in cores]
        pairs, k = [], 0
        while k < len(cores):
            both = k + 1 < len(cores) and sizes[k] * sizes[k + 1] <= _WIDE
            pairs.append((k, k + 1) if both else (k,))
            k = pairs[-1][-1] + 1
        cores = _multiplied(cores, pairs)
    return list(cores)


def _multiplied(cores: Sequence[Tensor], pairs: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """One core for each pair, or its only core."""
    alike: dict[tuple[torch.Size, ...], list[tuple[int, ...]]] = {}
    for pair in pairs:
        alike.setdefault(tuple(cores[k].shape for k in pair), []).append(pair)
    found: dict[int, Tensor] = {}
    for shapes, some in alike.items():
        sides = [[cores[pair[j]] for pair in some] for j in range(len(shapes))]
        if len(sides) == 1:
            found.update((k, core) for (k,), core in zip(some, sides[0], strict=True))
            continue
        first, second = (torch.cat(side) if len(side) > 1 else side[0] for side in sides)
        (_, left, n, _), (_, _, m, right) = shapes
        whole = first.flatten(1, 2).bmm(second.flatten(2)).view(-1, left, n * m, right)
        parts = whole.chunk(len(some)) if len(some) > 1 else [whole]
        found.update(zip((pair[0] for pair in some), parts, strict=True))
    return [found[pair[0]] for pair in pairs]


def between(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Inner products `(p, p')` of the tensors of two bases."""
    state = first[-1].new_ones(1, 1)
    for a, b in zip(reversed(first), reversed(second), strict=True):
        carried = (a.flatten(0, 1) @ state).view(len(a), -1)
        state = carried @ b.flatten(1).mT
    return state
