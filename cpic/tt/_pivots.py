r"""Select rows of the unfolded fibers of a site: one batched step of a sweep.

Shapes: `K` tensors, `m` rows (a multi-index and a position of the site), `c` columns (multi-indices
of the other side), `r` selected rows.
References: {cite}`oseledets2010ttcross`, {cite}`goreinov2010how`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.linalg import Maxvol, maxvol
from cpic.linalg._maxvol import row_order, take_rows

_SWAPS = 10  # maximum number of swaps in each selection


def pick_rows(matrix: Tensor, max_rank: int, *, generator: torch.Generator) -> Maxvol:
    """Rows that represent each matrix, and the coefficients that reconstruct it from them.

    If fewer rows than columns are requested, the columns are mixed at random first: then the
    leading ones span the dominant part, and the pivots of an elimination decrease with the rank. In
    an elimination of unmixed columns, a negligible one could hide a later one.

    Args:
        matrix: Matrices `(K, m, c)`.
        max_rank: Maximum number of rows.
        generator: Mixes the columns.

    Returns:
        `rows` int64 `(K, r)`, `coeffs` `(K, m, r)` with `coeffs @ matrix[rows]` close to
        `matrix`, equal if the rank allows.
    """
    m, c = matrix.shape[1:]
    rank = min(max_rank, m, c)
    if rank < c:
        matrix = _mixed(matrix, min(m, c), generator)[..., :rank]
    return maxvol(matrix, max_iters=_SWAPS, on_deficient="report")


def leading_rows(matrix: Tensor, most: int, floor: Tensor, generator: torch.Generator) -> Tensor:
    """The first rows `(K, r)` of an elimination of mixed columns, while pivots exceed `floor`.

    Args:
        matrix: Matrices `(K, m, c)`.
        most: Maximum number of rows.
        floor: Sizes `(K,)` above which a pivot counts; the batch uses its largest count.
        generator: Mixes the columns.
    """
    m, c = matrix.shape[1:]
    lu, swaps, _ = torch.linalg.lu_factor_ex(_mixed(matrix, min(m, c, most), generator))
    sizes = lu.diagonal(dim1=-2, dim2=-1).abs()
    count = int((sizes > floor[:, None]).sum(1).max()) if len(sizes) else 0
    return row_order(swaps, m)[:, :count]


def _mixed(matrix: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """`width` random linear combinations of the columns of each matrix, of their mean size."""
    c = matrix.shape[2]
    mixer = torch.randn(c, width, generator=generator, dtype=matrix.dtype, device=generator.device)
    return matrix @ (mixer.to(matrix.device) / c**0.5)


def extend_left(before: Tensor, rows: Tensor, size: int) -> Tensor:
    """Multi-indices `(K, r, k+1)` of `rows` of left x [size]."""
    parent = rows.div(size, rounding_mode="floor")
    return torch.cat([take_rows(before, parent), (rows - parent * size)[..., None]], -1)


def extend_right(after: Tensor, rows: Tensor) -> Tensor:
    """Multi-indices `(K, r, d-k)` of `rows` of [size] x right."""
    n_after = after.shape[1]
    step = rows.div(n_after, rounding_mode="floor")
    return torch.cat([step[..., None], take_rows(after, rows - step * n_after)], -1)


def mirrored(side: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The sets of one side as those of the other side, for the tensor with reversed modes."""
    return tuple(rows.flip(-1) for rows in reversed(side))


def uniform(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uniform random numbers in [0, 1) on the generator's device."""
    return torch.rand(shape, generator=generator, dtype=dtype, device=generator.device)


def draw_points(points: Tensor, weights: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw `n` of `points` `(K, m, d)` without replacement, with `weights` `(K, m)`."""
    n = min(n, points.shape[1])
    peak = weights.amax(-1, keepdim=True)
    weights = weights / torch.where(peak > 0, peak, 1.0)
    noise = uniform(generator, *weights.shape).to(weights.device)
    # Exponential clocks: the n that ring first are a draw without replacement.
    clock = -noise.log() / weights.clamp_min(1e-12)
    return take_rows(points, clock.argsort(-1)[:, :n])


def draw_missed(points: Tensor, missed: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """The worst of `points` and `n - 1` more, drawn with weights `missed` `(K, m)`."""
    worst = take_rows(points, missed.argmax(-1, keepdim=True))
    return torch.cat([worst, draw_points(points, missed, n - 1, generator)], 1)
