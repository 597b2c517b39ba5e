r"""Solve for the cores of all bonds of a train together.

Bonds of one shape form a batch, and so do square ones of similar shapes: with p the largest entry
of the pivots P, the solution of

    [M 0] = X [P  0 ]
              [0 pI]

is that of M = X P, padded with zeros, and pI does not make the system more singular or worse
conditioned.

Shapes: `K` samples, `m` rows of fibers, `r` rows and `c` columns of pivots.
"""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from cpic.linalg._maxvol import take_rows
from cpic.tt._arith import padded
from cpic.tt._solvers import Solving, System, peak_of

# Largest ratio of the numbers in a padded batch to those without padding.
_ROOM = 1.5


def solve_bonds(
    matrices: Sequence[Tensor],
    rows: Sequence[Tensor],
    *,
    with_condition: bool,
    **options: Unpack[Solving],
) -> tuple[list[Tensor], list[Tensor]]:
    """The cores of many bonds, and the condition numbers of their pivots.

    Whether pivots are singular is read from the device once for all bonds.

    Args:
        matrices: Fibers `(K, m, c)` of each bond.
        rows: Rows of the fibers that are pivots, int64 `(K, r)`.
        with_condition: Whether to compute the condition numbers; the list is empty otherwise.
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
    """Groups of bonds that are solved in one batch."""
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
    matrix = torch.cat([padded(part, (len(part), m, c)) for part in matrices])
    pivot = take_rows(matrix, torch.cat([padded(row, (len(row), r)) for row in rows]))
    if min(counts) == r:
        return matrix, pivot
    missing = np.arange(r) >= np.array(counts)[:, None]
    own, eye = (
        torch.from_numpy(table.astype(float)).to(pivot)
        for table in (~missing[:, None, :, None], missing[:, None, None] * np.eye(r))
    )
    pivot = pivot.unflatten(0, (len(rows), -1)) * own
    return matrix, (pivot + eye * peak_of(pivot)).flatten(0, 1)


def _narrowed(core: Tensor, m: int, r: int) -> Tensor:
    return core if core.shape[1:] == (m, r) else core[:, :m, :r]


def apart(groups: list[list[int]], batches: Sequence[Tensor]) -> list[Tensor]:
    """The results of each bond, in the order of the bonds, from those of the batches."""
    found: dict[int, Tensor] = {}
    for bonds, batch in zip(groups, batches, strict=True):
        found.update(zip(bonds, batch.chunk(len(bonds)), strict=True))
    return [found[k] for k in sorted(found)]
