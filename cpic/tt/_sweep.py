r"""One half-sweep over the sites of K tensors, in either direction.

A half-sweep to the right reads the fibers of site k on the left multi-indices chosen so far and on
the right ones that are given, as a matrix M of (l n) rows and c columns. Rows of it are chosen,
without gradient, as the next left set; the values themselves keep their gradient, so that a core
made of M and M[rows] carries it. A half-sweep to the left is the same of the tensor with its modes
reversed.

Shapes: `K` tensors, `d` sites, `l` left and `c` right multi-indices at a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from cpic.linalg import Maxvol
from cpic.linalg._inputs import all_finite, check_choice
from cpic.tt._bonds import solve_bonds
from cpic.tt._fibers import check_values, steps
from cpic.tt._rows import Rows
from cpic.tt._sets import IndexSets
from cpic.tt._solvers import Solving
from cpic.tt._train import TensorTrain

Towards = Literal["right", "left"]
Choose = Callable[[Tensor, int], Maxvol]
"""From matrices `(K, m, c)` and the most rows that are wanted, to the rows."""


class Sweep(NamedTuple):
    """What `sweep` read and chose, in the order of the sites it came by.

    `matrices`: the fibers `(K, l * n, c)` of all sites. `choices`: the rows of all but the last.
    `sets`: those of one side as they were, those of the other chosen anew.
    """

    matrices: list[Tensor]
    choices: list[Maxvol]
    sets: IndexSets


def sweep(
    read: Callable[[Tensor], Tensor],
    sets: IndexSets,
    towards: Towards,
    bounds: Sequence[int],
    choose: Choose,
) -> Sweep:
    """Choose the sets of one side anew, given those of the other side.

    Args:
        read: Values `(K, n)` at multi-indices `(K, n, d)`, not yet known to be finite; called
            once a site.
        sets: Where to begin; going right, only the right ones are used.
        towards: `"right"` or `"left"`.
        bounds: Most rows to choose at the `d - 1` inner bonds.
        choose: What chooses them.

    Raises:
        ValueError: If a value is NaN or infinite. The device is asked once, in the end.
    """
    way, matrices, choices = _Way(sets, towards), [], []
    bounds = bounds if towards == "right" else bounds[::-1]
    try:
        for k in range(sets.n_sites):
            pairs, fibers = way.fibers(k)
            matrices.append(read(fibers).unflatten(1, (pairs.shape[1], -1)))
            if k < len(bounds):
                choices.append(choose(matrices[k].detach(), bounds[k]))
                way.choose(pairs, choices[k].rows)
    except Exception:
        way.check(matrices)  # what fails may do so on numbers that are not finite
        raise
    way.check(matrices)
    return Sweep(matrices, choices, way.sets())


class _Way:
    """The multi-indices of a half-sweep, with zeros at the sites that are not theirs."""

    def __init__(self, sets: IndexSets, towards: Towards):
        self.sizes, self.d = sets.sizes, sets.n_sites
        self.given = sets.rows(towards)
        self.others = self.given.whole.unsqueeze(1).split(self.given.counts, 2)
        self.steps = steps(sets.sizes, sets.device).split(sets.sizes)
        self.sites = range(self.d) if towards == "right" else range(self.d)[::-1]
        self.chosen = [self.given.whole.new_zeros(sets.n_trains, 1, self.d)]
        self.each = torch.arange(sets.n_trains, device=sets.device).unsqueeze(1)

    def fibers(self, k: int) -> tuple[Tensor, Tensor]:
        """Multi-indices of the rows of the k-th matrix, `(K, l n, d)`, and of its entries."""
        at = self.sites[k]
        pairs = (self.chosen[k].unsqueeze(2) + self.steps[at]).flatten(1, 2)
        return pairs, (pairs.unsqueeze(2) + self.others[at]).flatten(1, 2)

    def choose(self, pairs: Tensor, rows: Tensor) -> None:
        """Keep the `rows` `(K, r)` of what `fibers` made."""
        self.chosen.append(pairs[self.each, rows])

    def sets(self) -> IndexSets:
        """Those of one side as they were, those of the other chosen anew."""
        if self.given.side == "right":
            return IndexSets.joined(self.sizes, Rows.beside(self.chosen, "left"), self.given)
        return IndexSets.joined(self.sizes, self.given, Rows.beside(self.chosen[::-1], "right"))

    def check(self, matrices: Sequence[Tensor]) -> None:
        """Refuse values that are not finite, those asked for first before others."""
        if not all_finite(matrices):
            for k, matrix in enumerate(matrices):
                check_values(matrix.flatten(1), lambda k=k: self.fibers(k)[1])


def as_train(parts: Sequence[Tensor], sizes: Sequence[int], towards: Towards) -> TensorTrain:
    """The train of cores that are matrices `(K, l * n, r)`, in the order of a half-sweep."""
    cores, left = [], 1
    for part, n in zip(parts, sizes if towards == "right" else sizes[::-1], strict=True):
        kept = part[:, : left * n] if part.shape[1] > left * n else part
        cores.append(kept.unflatten(1, (left, n)))
        left = part.shape[-1]
    if towards == "left":
        cores = [core.permute(0, 3, 2, 1) for core in reversed(cores)]
    return TensorTrain(cores)


def solved_train(
    matrices: Sequence[Tensor],
    rows: Sequence[Tensor],
    sizes: Sequence[int],
    towards: Towards,
    *,
    with_condition: bool,
    **options: Unpack[Solving],
) -> tuple[TensorTrain, Tensor]:
    """The train that interpolates fibers on chosen rows, and the conditions `(K, d - 1)`.

    Args:
        matrices: Fibers `(K, m, c)` of all sites in the order of a half-sweep; pivots that are on
            no fiber may be behind them.
        rows: Which of them are pivots `(K, r)`, of all sites but the last.
        sizes: Sizes of the modes.
        towards: Direction of the half-sweep.
        with_condition: Whether the conditions are wanted; none without.
        **options: Those of `solve_core`.
    """
    *fibers, last = matrices
    cores, conditions = solve_bonds(fibers, rows, with_condition=with_condition, **options)
    train = as_train([*cores, last], sizes, towards)
    if not conditions:
        return train, last.new_zeros(len(last), 0)
    return train, torch.stack(conditions if towards == "right" else conditions[::-1], 1)


def mirrored_entries(read: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The entries of the tensors with their modes reversed."""
    return lambda indices: read(indices.flip(-1))


def check_towards(who: str, towards: str) -> None:
    """One clear error for a direction that is none."""
    check_choice(who, "towards", towards, ("right", "left"), "alternate between the two")
