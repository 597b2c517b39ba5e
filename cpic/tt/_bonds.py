"""Solve for the cores of all bonds of a train at once.

Shapes: `K` samples, `m` rows of fibers, `r` rows, `c` columns of pivots.
"""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from cpic.linalg._maxvol import take_rows
from cpic.tt._solvers import Solving, System


def solve_bonds(
    matrices: Sequence[Tensor],
    rows: Sequence[Tensor],
    *,
    with_condition: bool,
    **options: Unpack[Solving],
) -> tuple[list[Tensor], list[Tensor]]:
    """The cores of many bonds, and how well their pivots are conditioned.

    Bonds of one shape are one batch, and whether any pivots are singular is read once for all.

    Args:
        matrices: Fibers `(K, m, c)` of each bond.
        rows: Which of them are its pivots, int64 `(K, r)`.
        with_condition: Whether the second list is wanted.
        **options: Those of `solve_core`.

    Returns:
        Cores `(K, m, r)` and condition numbers `(K,)` as `pivot_condition` gives them.
    """
    groups = by_shape(matrices, rows)
    batches = [joined(groups, parts) for parts in (matrices, rows)]
    pivots = map(take_rows, *batches)
    systems = [System(pivot, **options) for pivot in pivots]
    lowered = torch.stack([system.bad.any() for system in systems]).tolist() if systems else []
    cores = [
        system.core(matrix, lowered=low)
        for system, matrix, low in zip(systems, batches[0], lowered, strict=True)
    ]
    conditions = [system.condition() for system in systems] if with_condition else []
    return apart(groups, cores), apart(groups, conditions) if with_condition else []


def by_shape(*parts: Sequence[Tensor]) -> list[list[int]]:
    """Bonds whose parts have the same shapes."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for k, bond in enumerate(zip(*parts, strict=True)):
        groups.setdefault(tuple(part.shape for part in bond), []).append(k)
    return list(groups.values())


def joined(groups: list[list[int]], parts: Sequence[Tensor]) -> list[Tensor]:
    """One batch for each group: samples times bonds."""
    return [torch.cat([parts[k] for k in bonds]) for bonds in groups]


def apart(groups: list[list[int]], batches: Sequence[Tensor]) -> list[Tensor]:
    """The parts of each bond, which `joined` made batches of."""
    found: dict[int, Tensor] = {}
    for bonds, batch in zip(groups, batches, strict=True):
        found.update(zip(bonds, batch.chunk(len(bonds)), strict=True))
    return [found[k] for k in sorted(found)]
