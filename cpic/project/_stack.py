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
from cpic.tt._round import Budget, floor_of, masked


class Reduced(NamedTuple):
    """`left diag(values) cores`: rows of X in `left`, orthonormal tensors in `cores`."""

    left: Tensor  # (b, rows, p), orthonormal columns
    values: Tensor  # (b, p), descending
    cores: list[Tensor]  # (b, p, size, q), rows orthonormal in each


def orthogonalise(groups: Sequence[Sequence[Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    """Carries `(b, m, l, p)` of every group, and right-orthonormal cores common to all groups."""
    carries = [group[-1].new_ones(*group[-1].shape[:2], 1, 1) for group in groups]
    cores: list[Tensor] = []
    for site in range(len(groups[0]) - 1, -1, -1):
        shapes = [group[site].shape for group in groups]
        b, _, _, size, _ = shapes[0]
        parts = [
            (group[site].flatten(2, 3) @ carry).view(b, shape[1] * shape[2], -1)
            for group, carry, shape in zip(groups, carries, shapes, strict=True)
        ]
        frame, weights = torch.linalg.qr(torch.cat(parts, 1).mT)
        cores.insert(0, frame.mT.reshape(b, frame.shape[-1], size, -1))
        counts = [shape[1] * shape[2] for shape in shapes]
        carries = [
            part.reshape(b, *shape[1:3], -1)
            for part, shape in zip(weights.mT.split(counts, 1), shapes, strict=True)
        ]
    return carries, cores


def decompose(rows: Tensor, cores: Sequence[Tensor], rank: int | None) -> Reduced:
    """The largest singular triplets of `rows (b, n, p)` times orthonormal cores."""
    left, values, right = torch.linalg.svd(rows, full_matrices=False)
    left, values, right = left[..., :rank], values[:, :rank], right[:, :rank]
    return Reduced(left, values, [from_left(right, cores[0]), *cores[1:]])


def truncate(
    found: Reduced, tol: float | None, max_rank: int | None, cap_first: int | None = None
) -> Reduced:
    """Lower the ranks between the sites, weighted by the values, and orthonormalize again.

    The rank-weighted tensors move by at most `tol` relative to the norm of all of them.
    """
    if tol is None and max_rank is None:
        return found
    b, p = found.values.shape
    carry = torch.diag_embed(found.values)
    norm = torch.linalg.vector_norm(found.values, dim=-1)
    budget = Budget(((tol or 0.0) * norm) ** 2, len(found.cores) - 1)
    cores = []
    for core in found.cores[:-1]:
        matrix = (carry @ core.flatten(2)).view(b, -1, core.shape[-1])
        vectors, values, right = torch.linalg.svd(matrix, full_matrices=False)
        keep = budget.choose(values, (floor_of(matrix) * norm) ** 2, max_rank)
        frame = masked(vectors, keep)
        cores.append(frame.view(b, carry.shape[1], core.shape[2], -1))
        carry = masked((values.unsqueeze(-1) * right).mT, keep).mT
    cores.append(from_left(carry, found.cores[-1]))
    rows, cores = orthogonalise([[core.unsqueeze(1) for core in cores]])
    again = decompose(rows[0].squeeze(1), cores, p if cap_first is None else cap_first)
    return Reduced(found.left @ again.left, again.values, again.cores)
