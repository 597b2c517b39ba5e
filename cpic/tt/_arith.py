r"""Arithmetic on the cores of trains; ranks add or multiply, nothing is rounded.

Shapes: `K` trains, cores `(K, l, size, r)`.
References: {cite}`oseledets2011tt`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


def add(left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
    """Cores of a sum: block diagonal, joined in a row at the first site, a column at the last."""
    if len(left) == 1:
        return [left[0] + right[0]]
    first = torch.cat([left[0], right[0]], dim=-1)
    middle = [_diagonal(a, b) for a, b in zip(left[1:-1], right[1:-1], strict=True)]
    return [first, *middle, torch.cat([left[-1], right[-1]], dim=1)]


def _diagonal(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([pad(a, (0, b.shape[-1])), pad(b, (a.shape[-1], 0))], dim=1)


def multiply(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    """Cores of an entrywise product: Kronecker products of the slices."""
    cores = []
    for a, b in zip(first, second, strict=True):
        trains, left, size, right = a.shape
        product = a[:, :, None, :, :, None] * b[:, None, :, :, None, :]
        cores.append(product.reshape(trains, left * b.shape[1], size, right * b.shape[-1]))
    return cores


def constant(cores: Sequence[Tensor], value: Tensor | float) -> list[Tensor]:
    """Cores of rank one, with the sizes of `cores`, of a tensor whose entries are all `value`."""
    ones = [core.new_ones(len(core), 1, core.shape[2], 1) for core in cores]
    return [scale(ones[0], value), *ones[1:]]


def scale(core: Tensor, factor: Tensor | float) -> Tensor:
    """A core times a number, or one number per train `(K,)`."""
    if isinstance(factor, Tensor) and factor.ndim:
        factor = factor.view(-1, 1, 1, 1)
    return core * factor


def padded(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A core or other tensor, padded with zeros to a larger shape; itself if it has that shape."""
    missing = [wanted - got for got, wanted in zip(tensor.shape, shape, strict=True)]
    sides = [side for amount in reversed(missing) for side in (0, amount)]
    return pad(tensor, sides) if any(sides) else tensor


def concatenate(cores: Sequence[Tensor]) -> list[Tensor]:
    """Cores of one train with a leading site that selects one of the K trains."""
    trains = len(cores[0])
    leading = torch.eye(trains, dtype=cores[0].dtype, device=cores[0].device)
    joined = [leading.view(1, 1, trains, trains)]
    for core in cores[:-1]:
        _, left, size, right = core.shape
        # The block diagonal matrix of a batch is the diagonal of an outer product with it.
        block = core.permute(2, 1, 3, 0)[..., None, :] * leading  # size, l, r, train, train
        joined.append(block.permute(4, 1, 0, 3, 2).reshape(1, trains * left, size, trains * right))
    return [*joined, cores[-1].flatten(0, 1).unsqueeze(0)]


def from_left(matrix: Tensor, core: Tensor) -> Tensor:
    """A core `(K, l, size, r)` multiplied from the left by a matrix `(K, m, l)`."""
    return (matrix @ core.flatten(2)).view(len(core), matrix.shape[1], *core.shape[2:])


def from_right(core: Tensor, matrix: Tensor) -> Tensor:
    """A core `(K, l, size, r)` multiplied from the right by a matrix `(K, r, m)`."""
    return (core.flatten(1, 2) @ matrix).view(*core.shape[:3], matrix.shape[2])


def fix(cores: Sequence[Tensor], site: int, index: Tensor) -> list[Tensor]:
    """Cores of the slice at one index per train `(K,)`; its matrix is absorbed by a neighbor."""
    core = cores[site]
    where = index.view(-1, 1, 1, 1).expand(-1, core.shape[1], 1, core.shape[3])
    matrix = core.gather(2, where).squeeze(2)
    before, after = list(cores[:site]), list(cores[site + 1 :])
    if after:
        after[0] = from_left(matrix, after[0])
    else:
        before[-1] = from_right(before[-1], matrix)
    return before + after
