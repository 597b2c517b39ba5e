r"""Combine many trains into one orthonormal set of cores.

K tensors as the rows of a matrix X are one train with a leading mode: its cores are block
diagonal with one block per tensor. A sweep of QR factorizations from the last site to the first,

    blocks_k (I x carry_{k+1}) = carry_k frame_k,        frame_k frame_k^T = I,

never forms the zeros between the blocks. It leaves X = carry_0 frames, so that the SVD of the
small matrix carry_0 is the SVD of X.

Shapes: `b` stacks at once, `m` blocks in a group of equal ranks, cores `(b, m, l, size, r)` of a
group, `p` rows of a frame, cores `(b, p, size, q)` of the result.
References: {cite}`oseledets2011tt`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.tt._arith import from_left
from cpic.tt._round import lowered


class Reduced(NamedTuple):
    """`left diag(values) cores`: rows of X in `left`, orthonormal tensors in `cores`."""

    left: Tensor  # (b, rows, p), orthonormal columns
    values: Tensor  # (b, p), descending
    cores: list[Tensor]  # (b, p, size, q), rows orthonormal in each


def orthogonalize(groups: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Carries `(b, m, l, p)` of every group, and right-orthonormal cores common to all groups."""
    carries = [group[-1].new_ones(*group[-1].shape[:2], 1, 1) for group in groups]
    cores: list[Tensor] = []
    for site in range(len(groups[0]) - 1, -1, -1):
        shapes = [group[site].shape[1:4] for group in groups]
        parts = [
            (group[site].flatten(2, 3) @ carry).unflatten(2, shape[1:]).flatten(3).flatten(1, 2)
            for group, carry, shape in zip(groups, carries, shapes, strict=True)
        ]
        frame, weights = torch.linalg.qr(torch.cat(parts, 1).mT)
        cores.insert(0, frame.mT.unflatten(2, (shapes[0][2], -1)))
        each = weights.mT.split([blocks * rank for blocks, rank, _ in shapes], 1)
        carries = [part.unflatten(1, shape[:2]) for part, shape in zip(each, shapes, strict=True)]
    return carries, cores


def decompose(rows: Tensor, cores: Sequence[Tensor], rank: int | None) -> Reduced:
    """The largest singular triplets of `rows (b, n, p)` times orthonormal cores."""
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    left, values, right = left[..., :rank], values[:, :rank], right[:, :rank]
    return Reduced(left, values, [from_left(right, cores[0]), *cores[1:]])


def truncate(found: Reduced, tol: float | None, max_rank: int | None) -> Reduced:
    """Lower the ranks between the sites, weighted by the values, and orthonormalize again.

    The rank-weighted tensors move by at most `tol` relative to the norm of all of them.
    """
    if tol is None and max_rank is None:
        return found
    bounds = [max_rank] * (len(found.cores) - 1)
    first = from_left(torch.diag_embed(found.values), found.cores[0])
    cores = lowered([first, *found.cores[1:]], tol or 0.0, bounds)
    rows, cores = orthogonalize([[core.unsqueeze(1) for core in cores]])
    again = decompose(rows[0].squeeze(1), cores, found.values.shape[1])
    return Reduced(found.left @ again.left, again.values, again.cores)
