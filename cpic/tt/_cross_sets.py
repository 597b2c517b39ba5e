r"""Extend index sets, or derive them from a train that was not found by interpolation.

Shapes: `K` tensors, `m` rows of a matrix, `r` columns.
References: {cite}`goreinov2010how`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.linalg._maxvol import row_order, take_rows
from cpic.tt._pivots import extend_left, extend_right
from cpic.tt._points import all_points
from cpic.tt._sets import IndexSets
from cpic.tt._train import TensorTrain


def sets_of(train: TensorTrain, *, n_columns: int) -> IndexSets:
    """Nested sets at which a train is well determined, with more right than left multi-indices.

    Args:
        train: K trains.
        n_columns: Number of right multi-indices per bond, at least the rank of the train there.
    """
    cores, sizes = train.cores, train.sizes
    d = len(sizes)
    empty = torch.zeros(len(cores[0]), 1, 0, dtype=torch.int64, device=cores[0].device)
    left, right = [empty] * d, [empty] * d
    values = cores[0].new_ones(len(empty), 1, 1)
    for k in range(d - 1, 0, -1):
        values = torch.einsum("zlnr,zcr->zncl", cores[k], values).flatten(1, 2)
        rows = repeated_rows(values, max(n_columns, values.shape[2]))
        right[k - 1], values = extend_right(right[k], rows), take_rows(values, rows)
    values = cores[0].new_ones(len(empty), 1, 1)
    for k in range(d - 1):
        values = torch.einsum("zml,zlnr->zmnr", values, cores[k]).flatten(1, 2)
        rows = repeated_rows(values, min(values.shape[1:]))
        left[k + 1] = extend_left(left[k], rows, sizes[k])
        values = take_rows(values, rows)
    return IndexSets(sizes, tuple(left), tuple(right))


def repeated_rows(matrix: Tensor, n_rows: int) -> Tensor:
    """Rows `(K, n_rows)` by elimination, repeated among the rows that are left."""
    k, m, r = matrix.shape
    if n_rows >= m:
        return torch.arange(m, device=matrix.device).expand(k, m)
    rest, chosen, missing = matrix.clone(), [], n_rows
    while missing:
        swaps = torch.linalg.lu_factor_ex(rest).pivots
        rows = row_order(swaps, m)[:, : min(r, m, missing)]
        rest.scatter_(1, rows[..., None].expand(-1, -1, r), 0.0)
        chosen.append(rows)
        missing -= rows.shape[1]
    return torch.cat(chosen, 1)


def with_points(sets: IndexSets, points: Tensor) -> IndexSets:
    """The sets with the right parts of `points` `(K, n, d)` appended to the right ones."""
    pairs = enumerate(sets.right[:-1], start=1)
    right = [grow_right(rows, points[..., k:], sets.sizes[k:]) for k, rows in pairs]
    return IndexSets.unchecked(sets.sizes, sets.left, (*right, sets.right[-1]))


def grow_right(right: Tensor, tails: Tensor, sizes: Sequence[int]) -> Tensor:
    """A right set with `tails` appended, or all multi-indices of `sizes` if there are few."""
    whole = math.prod(sizes)
    if right.shape[1] == whole:
        return right
    if right.shape[1] + tails.shape[1] < whole:
        return torch.cat([right, tails], 1)
    return all_points(sizes, device=tails.device).expand(len(tails), -1, -1)
