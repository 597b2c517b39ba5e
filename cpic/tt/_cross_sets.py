r"""Read index sets off a train that was not found by interpolation.

Shapes: `K` tensors, `m` rows of a matrix, `r` columns.
References: {cite}`goreinov2010how`.
"""

import torch
from torch import Tensor

from cpic.tt._pivots import extend_left, extend_right, take_blocks
from cpic.tt._sets import IndexSets
from cpic.tt._train import TensorTrain


def sets_of(train: TensorTrain, *, n_columns: int) -> IndexSets:
    """Nested sets at which a train is well determined, with more right than left multi-indices.

    Args:
        train: K trains.
        n_columns: Right multi-indices of a bond, at least the rank of the train there.
    """
    cores, sizes = train.cores, train.sizes
    d = len(sizes)
    empty = torch.zeros(len(cores[0]), 1, 0, dtype=torch.int64, device=cores[0].device)
    left, right = [empty] * d, [empty] * d
    values = cores[0].new_ones(len(empty), 1, 1)
    for k in range(d - 1, 0, -1):
        values = torch.einsum("zlnr,zcr->zncl", cores[k], values).flatten(1, 2)
        rows = repeated_rows(values, max(n_columns, values.shape[2]))
        right[k - 1], values = extend_right(right[k], rows), take_blocks(values, rows)
    values = cores[0].new_ones(len(empty), 1, 1)
    for k in range(d - 1):
        values = torch.einsum("zml,zlnr->zmnr", values, cores[k]).flatten(1, 2)
        rows = repeated_rows(values, min(values.shape[1:]))
        left[k + 1] = extend_left(left[k], rows, sizes[k])
        values = take_blocks(values, rows)
    return IndexSets(sizes, tuple(left), tuple(right))


def repeated_rows(matrix: Tensor, n_rows: int) -> Tensor:
    """Rows `(K, n_rows)` by elimination, again and again among those that are left."""
    k, m, r = matrix.shape
    if n_rows >= m:
        return torch.arange(m, device=matrix.device).expand(k, m)
    rest, chosen, missing = matrix.clone(), [], n_rows
    while missing:
        swaps = torch.linalg.lu_factor_ex(rest).pivots
        rows = _top_rows(swaps, m)[:, : min(r, missing)]
        rest.scatter_(1, rows[..., None].expand(-1, -1, r), 0.0)
        chosen.append(rows)
        missing -= rows.shape[1]
    return torch.cat(chosen, 1)


def _top_rows(swaps: Tensor, m: int) -> Tensor:
    """The rows that row exchanges (counted from one) move to the top, `(K, r)`."""
    order = torch.arange(m, device=swaps.device).repeat(len(swaps), 1)
    for step, there in enumerate((swaps.long() - 1).split(1, 1)):
        here = order[:, step : step + 1].clone()
        order[:, step : step + 1] = order.gather(1, there)
        order.scatter_(1, there, here)
    return order[:, : swaps.shape[1]]
