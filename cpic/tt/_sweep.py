r"""One half-sweep over the sites of K tensors, in either direction.

A half-sweep to the right reads the fibers of site k on the left multi-indices selected so far and
on the given right ones, as a matrix M of (l n) rows and c columns. Rows of it are selected,
without gradient, as the next left set; the values retain their gradient, so that a core
computed from M and M[rows] has one. A half-sweep to the left is the same for the tensor with its
modes reversed.

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
from cpic.tt._fibers import check_values, steps, sums
from cpic.tt._rows import Rows
from cpic.tt._sets import IndexSets
from cpic.tt._solvers import Solving
from cpic.tt._train import TensorTrain

Towards = Literal["right", "left"]
Choose = Callable[[Tensor, int], Maxvol]
"""From matrices `(K, m, c)` and a maximum number of rows, to the rows."""


class Sweep(NamedTuple):
    """What `sweep` read and selected, in the order of the sites it visited.

    `matrices`: the fibers `(K, l * n, c)` of all sites. `choices`: the rows of all but the last.
    `sets`: those of one side unchanged, those of the other newly selected.
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
    """Select the sets of one side, given those of the other side.

    Args:
        read: Values `(K, n)` at multi-indices `(K, n, d)`, not yet known to be finite; called
            once per site.
        sets: Current sets; towards the right, only the right ones are used.
        towards: `"right"` or `"left"`.
        bounds: Maximum numbers of rows at the `d - 1` inner bonds.
        choose: Function that selects them.

    Raises:
        ValueError: If a value is NaN or infinite. This is read from the device once, at the end.
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
        way.check(matrices)  # values that are not finite may be the cause
        raise
    way.check(matrices)
    return Sweep(matrices, choices, way.sets())


class _Way:
    """The multi-indices of a half-sweep, padded with zeros to all sites."""

    def __init__(self, sets: IndexSets, towards: Towards):
        self.sizes, self.d = sets.sizes, sets.n_sites
        self.given = sets.rows(towards)
        self.others = self.given.each()
        self.steps = steps(sets.sizes, sets.device).unsqueeze(0).split(sets.sizes, 1)
        self.sites = range(self.d) if towards == "right" else range(self.d)[::-1]
        self.chosen = [self.given.whole.new_zeros(sets.n_trains, 1, self.d)]
        self.each = torch.arange(sets.n_trains, device=sets.device).unsqueeze(1)

    def fibers(self, k: int) -> tuple[Tensor, Tensor]:
        """Multi-indices of the rows of the k-th matrix, `(K, l n, d)`, and of its entries."""
        at = self.sites[k]
        pairs = sums(self.chosen[k], self.steps[at])
        return pairs, sums(pairs, self.others[at])

    def choose(self, pairs: Tensor, rows: Tensor) -> None:
        """Select the `rows` `(K, r)` of the pairs that `fibers` returned."""
        self.chosen.append(pairs[self.each, rows])

    def sets(self) -> IndexSets:
        """The sets, with one side newly selected."""
        if self.given.side == "right":
            return IndexSets.joined(self.sizes, Rows.beside(self.chosen, "left"), self.given)
        return IndexSets.joined(self.sizes, self.given, Rows.beside(self.chosen[::-1], "right"))

    def check(self, matrices: Sequence[Tensor]) -> None:
        """Reject values that are not finite, in the order of the requests."""
        if not all_finite(matrices):
            for k, matrix in enumerate(matrices):
                check_values(matrix.flatten(1), lambda k=k: self.fibers(k)[1])


def as_train(parts: Sequence[Tensor], sizes: Sequence[int], towards: Towards) -> TensorTrain:
    """The train of cores given as matrices `(K, l * n, r)`, in the order of a half-sweep."""
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
    """The train that interpolates fibers on selected rows, and the conditions `(K, d - 1)`.

    Args:
        matrices: Fibers `(K, m, c)` of all sites in the order of a half-sweep; pivots that lie on
            no fiber may follow.
        rows: Rows of the fibers that are pivots `(K, r)`, of all sites but the last.
        sizes: Sizes of the modes.
        towards: Direction of the half-sweep.
        with_condition: Whether to compute the conditions; empty otherwise.
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
    """Raise unless a direction is known."""
    check_choice(who, "towards", towards, ("right", "left"), "alternate between the two")
