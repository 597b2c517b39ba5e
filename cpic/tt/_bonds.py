r"""Solve for the cores of all bonds of a train together.

Bonds of one shape are one batch. So are square ones of nearly one shape: with p the largest entry
of the pivots P, the cores of

    [M 0] = X [P  0 ]
              [0 pI]

are those of M = X P with zeros behind, and pI changes neither the rank nor the condition of P.

Shapes: `K` samples, `m` rows of fibers, `r` rows, `c` columns of pivots.
"""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from cpic.linalg._maxvol import take_rows
from cpic.tt._solvers import Solving, System, peak_of

# How many times as many numbers a batch may have with zeros as without.
_ROOM = 1.5


def solve_bonds(
    matrices: Sequence[Tensor],
    rows: Sequence[Tensor],
    *,
    with_condition: bool,
    **options: Unpack[Solving],
) -> tuple[list[Tensor], list[Tensor]]:
    """The cores of many bonds, and how well their pivots are conditioned.

    Whether any pivots are singular is read once for all.

    Args:
        matrices: Fibers `(K, m, c)` of each bond.
        rows: Which of them are its pivots, int64 `(K, r)`.
        with_condition: Whether the second list is wanted.
        **options: Those of `solve_core`.

    Returns:
        Cores `(K, m, r)` and condition numbers `(K,)` as `pivot_condition` gives them.
    """
    groups = groups_of(matrices, rows, options.get("solver", "solve"))
    batches = [batch_of(matrices, rows, some) for some in groups]
    systems = [System(pivot, **options) for _, pivot in batches]
    lowered = torch.stack([system.bad.any() for system in systems]).tolist() if systems else []
    cores = [
        system.core(matrix, lowered=low)
        for system, (matrix, _), low in zip(systems, batches, lowered, strict=True)
    ]
    conditions = [system.condition() for system in systems] if with_condition else []
    sizes = zip(apart(groups, cores), matrices, rows, strict=True)
    cut = [_narrowed(core, matrix.shape[1], row.shape[1]) for core, matrix, row in sizes]
    return cut, apart(groups, conditions) if with_condition else []


def groups_of(matrices: Sequence[Tensor], rows: Sequence[Tensor], solver: str) -> list[list[int]]:
    """Bonds that are solved for in one batch."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for k, (matrix, row) in enumerate(zip(matrices, rows, strict=True)):
        groups.setdefault((*matrix.shape[1:], row.shape[1]), []).append(k)
    most = [max(part) for part in zip(*groups, strict=True)]
    square = solver == "solve" and all(r == c for _, c, r in groups)
    full = len(matrices) * np.prod(most[:2]) if most else 0
    if square and full <= _ROOM * sum(m * c * len(some) for (m, c, _), some in groups.items()):
        return [list(range(len(matrices)))] if matrices else []
    return list(groups.values())


def batch_of(
    matrices: Sequence[Tensor], rows: Sequence[Tensor], bonds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Fibers and pivots of some bonds as one batch, bonds times samples, of the largest shape."""
    matrices, rows = [matrices[k] for k in bonds], [rows[k] for k in bonds]
    m, c = (max(matrix.shape[k] for matrix in matrices) for k in (1, 2))
    counts = [row.shape[1] for row in rows]
    r = max(counts)
    matrix = torch.cat([_padded(part, (c, m)) for part in matrices])
    pivot = take_rows(matrix, torch.cat([_padded(row, (r,)) for row in rows]))
    if min(counts) == r:
        return matrix, pivot
    missing = np.arange(r) >= np.array(counts)[:, None]
    own, eye = (
        torch.from_numpy(table.astype(float)).to(pivot)
        for table in (~missing[:, None, :, None], missing[:, None, None] * np.eye(r))
    )
    pivot = pivot.unflatten(0, (len(rows), -1)) * own
    return matrix, (pivot + eye * peak_of(pivot)).flatten(0, 1)


def _padded(part: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """With zeros behind, up to these sizes of the last axes, the last one first."""
    missing = [size - have for size, have in zip(sizes, reversed(part.shape), strict=False)]
    return pad(part, [side for n in missing for side in (0, n)]) if any(missing) else part


def _narrowed(core: Tensor, m: int, r: int) -> Tensor:
    return core if core.shape[1:] == (m, r) else core[:, :m, :r]


def apart(groups: list[list[int]], batches: Sequence[Tensor]) -> list[Tensor]:
    """The parts of each bond, in the order of the bonds."""
    found: dict[int, Tensor] = {}
    for bonds, batch in zip(groups, batches, strict=True):
        found.update(zip(bonds, batch.chunk(len(bonds)), strict=True))
    return [found[k] for k in sorted(found)]
