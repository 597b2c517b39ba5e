r"""Communication between processes, so that together they take the step of the whole batch.

Without `torch.distributed`, or in one process, every function returns its input. Each function is
a collective: all processes must call it.

Shapes: `B` rows of this process, `N` of all processes.
References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cpic.project import gather
from cpic.tt import IndexSets, TensorTrain


def alone() -> bool:
    """Whether this is the only process."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


def everyones(value: Any) -> list[Any]:
    """Collect a small value from each process, in order of ranks."""
    if alone():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def all_names(names: Sequence[str]) -> list[str]:
    """Names of all processes."""
    return [name for part in everyones(list(names)) for name in part]


def all_sets(names: Sequence[str], sets: IndexSets) -> tuple[list[str], IndexSets]:
    """Names of all processes, with their index sets."""
    if alone():
        return list(names), sets
    parts = everyones([part.cpu() for part in (*sets.left, *sets.right)])
    whole = [torch.cat(same) for same in zip(*parts, strict=True)]
    d = sets.n_sites
    return all_names(names), IndexSets(sets.sizes, tuple(whole[:d]), tuple(whole[d:]))


def all_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """Rows `(N, t)` of all processes, differentiable in the local `(B, t)`, and their positions.

    The gradient of the local rows is the sum over the losses of all processes.
    """
    if alone():
        return rows, slice(None)
    counts = everyones(len(rows))
    first = sum(counts[: dist.get_rank()])
    # With one site, the train of a row is the row.
    whole = gather(TensorTrain([rows[:, None, :, None]])).cores[0].flatten(1)
    return whole, slice(first, first + len(rows))
