r"""Matrices with orthonormal columns from reflections, and back.

Reflectors are the columns h_1 ... h_r of a unit lower trapezoidal H `(d, r)`. A frame is the
product of the reflections along them, applied to the first r unit vectors E. In compact form

    (I - 2 h_1 h_1^T / |h_1|^2) ... (I - 2 h_r h_r^T / |h_r|^2) E = E - H T H_top^T,
    T^-1 = strictly upper part of H^T H + half of its diagonal,

so that both directions take a few products with matrices of at most d x r numbers. A full frame has
d r - r (r + 1) / 2 free numbers, those of H below its diagonal. A reduced frame has (d - r) r: the
first r rows of H are the identity, and those of the frame are upper triangular. It stands for the
subspace that its columns span.

Shapes: `d` rows and `r` columns of a frame.
References: {cite}`schreiber1989storage`, {cite}`ballard2015reconstructing`,
{cite}`obukhov2021spectral`.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

_BLOCK, _FEW = 128, 16


class Reflectors(NamedTuple):
    """Free numbers `(..., count)` of frames, and the signs `(..., r)` of their columns.

    Where a sign is -1, the product of the reflections has the negative of the column.
    """

    free: Tensor
    signs: Tensor


def count_free(rows: int, columns: int, *, reduced: bool = False) -> int:
    """Free numbers of a frame: the dimension of the manifold of all of them.

    Args:
        rows: Its rows, at least as many as columns.
        columns: Its columns.
        reduced: Whether frames that span the same subspace count as one.

    Returns:
        The number.

    Example:
        >>> count_free(5, 2), count_free(5, 2, reduced=True)
        (7, 6)
    """
    count = (rows - columns) * columns
    return count if reduced else count + columns * (columns - 1) // 2


def frames(
    free: Tensor,
    *,
    rows: int,
    columns: int,
    reduced: bool = False,
    signs: Tensor | None = None,
    determinant: Literal[1] | None = None,
) -> Tensor:
    """Frames `(..., rows, columns)` by products of reflections {eq}`eq-spectral-frame`.

    All frames of a batch are made in one call; nothing is allocated that is larger than they are.
    Differentiable in `free`, to any order. The reduced frames are those of
    {cite}`obukhov2021spectral`.

    Args:
        free: Free numbers `(..., count)`, by `count_free`: the entries of the reflectors below the
            first `columns` rows, row by row, then, unless reduced, those of the first rows below
            the diagonal. Zeros give the negative of the first unit vectors.
        rows: Rows of a frame, at least as many as columns.
        columns: Columns of a frame.
        reduced: Whether the first rows of the reflectors are the identity.
        signs: Factors `(..., columns)` of the columns, such as those that `reflectors` returns.
        determinant: With 1, the last column of a square frame with an odd number of reflections is
            negated, so that the frame is a rotation.

    Returns:
        The frames, in the dtype and on the device of `free`.

    Raises:
        ValueError: If there are fewer rows than columns, no column, or another number of free
            numbers; or if a determinant is asked of a frame that is not square.

    Example:
        >>> x = frames(torch.randn(3, 7), rows=5, columns=2)
        >>> torch.allclose(x.mT @ x, torch.eye(2), atol=1e-6)
        True
    """
    if not 1 <= columns <= rows:
        raise ValueError(
            f"frames needs at least one column and as many rows, got {rows} x {columns}; to make "
            "rows orthonormal, transpose the frame of the transposed shape."
        )
    count = count_free(rows, columns, reduced=reduced)
    if free.shape[-1] != count:
        kind = "reduced" if reduced else "full"
        raise ValueError(
            f"frames needs {count} free numbers for a {kind} frame of {rows} x {columns}, got "
            f"{free.shape[-1]}; see `count_free`."
        )
    if determinant is not None and rows != columns:
        raise ValueError(
            f"frames needs a square frame for its determinant, got {rows} x {columns}; leave "
            "`determinant` out."
        )
    eye = torch.eye(columns, dtype=free.dtype, device=free.device)
    n_below = (rows - columns) * columns
    below = free[..., :n_below].unflatten(-1, (rows - columns, columns))
    # Half of the diagonal, and what is above it. Sums that hold a one come last: added to it one
    # by one, small numbers would be lost.
    half = torch.ones_like(eye).triu_().sub_(eye, alpha=0.5)
    gram = _gram(below)
    if reduced:
        product = -torch.linalg.solve_triangular((gram + eye) * half, eye, upper=True)
        head = eye + product
    else:
        strict = _strictly_lower(free[..., n_below:], columns)
        upper = (gram + strict.mT @ strict + eye) * half + strict.mT
        product = -torch.linalg.solve_triangular(upper, strict.mT + eye, upper=True)
        head = eye + product + strict @ product
    frame = torch.cat([head, below @ product], -2)
    if determinant is not None and columns % 2:
        last = 1 - 2 * eye[-1]
        signs = last if signs is None else last * signs
    return frame if signs is None else frame * signs.unsqueeze(-2)


def _gram(tall: Tensor) -> Tensor:
    """X^T X of long X with few columns, by blocks of rows.

    For few columns, libraries add up the rows one by one, with an error that grows with them.
    """
    rows, columns = tall.shape[-2:]
    n = rows // _BLOCK
    if columns > _FEW or n < 2:
        return tall.mT @ tall
    blocks = tall[..., : n * _BLOCK, :].unflatten(-2, (n, _BLOCK))
    rest = tall[..., n * _BLOCK :, :]
    return (blocks.mT @ blocks).sum(-3) + rest.mT @ rest


def _strictly_lower(numbers: Tensor, size: int) -> Tensor:
    """Square matrices with these numbers below the diagonal, row by row, and zeros elsewhere."""
    i, j = torch.tril_indices(size, size, -1, device=numbers.device)
    whole = numbers.new_zeros(*numbers.shape[:-1], size * size)
    return whole.index_copy(-1, i * size + j, numbers).unflatten(-1, (size, size))


def reflectors(matrix: Tensor, *, reduced: bool = False) -> Reflectors:
    """The reflectors of given frames, by a factorization without pivots.

    `E - frame` is the product of the reflectors and an upper triangular matrix, so elimination
    finds them {cite}`ballard2015reconstructing`. The signs are chosen such that all pivots are at
    least one, which makes it as stable as a QR factorization. Carries no gradient.

    Args:
        matrix: Frames `(..., d, r)` with orthonormal columns.
        reduced: Return those of a reduced frame. It is the same frame if its first r rows are
            upper triangular, and near it if they nearly are.

    Returns:
        Free numbers and signs with `frames(free, signs=signs) = matrix`.

    Raises:
        ValueError: If the matrices have more columns than rows.

    Example:
        >>> x = torch.linalg.qr(torch.randn(6, 3, dtype=torch.float64)).Q
        >>> free, signs = reflectors(x)
        >>> torch.allclose(frames(free, rows=6, columns=3, signs=signs), x)
        True
    """
    rows, columns = matrix.shape[-2:]
    if columns > rows:
        raise ValueError(
            f"reflectors needs at least as many rows as columns, got {rows} x {columns}; pass "
            "`matrix.mT`."
        )
    with torch.no_grad():
        wide = matrix.double()
        work, signs = wide[..., :columns, :].clone(), []
        for k in range(columns):
            pivot = work[..., k, k]
            signs.append(1 - 2 * (pivot > 0).to(pivot))
            pivot -= signs[-1]
            work[..., k + 1 :, k] /= pivot.unsqueeze(-1)
            column, row = work[..., k + 1 :, k, None], work[..., k, None, k + 1 :]
            work[..., k + 1 :, k + 1 :] -= column * row
        upper = work.triu()
        below = torch.linalg.solve_triangular(upper, wide[..., columns:, :], upper=True, left=False)
        free = below.flatten(-2)
        if not reduced:
            i, j = torch.tril_indices(columns, columns, -1, device=matrix.device)
            free = torch.cat([free, work[..., i, j]], -1)
        return Reflectors(free.to(matrix.dtype), torch.stack(signs, -1).to(matrix.dtype))


def triangular_gauge(matrix: Tensor) -> Tensor:
    """Rotations `(..., r, r)` by which frames get upper triangular first rows."""
    top = matrix[..., : matrix.shape[-1], :]
    return torch.linalg.qr(top.flip(-2).mT).Q.flip(-1)
