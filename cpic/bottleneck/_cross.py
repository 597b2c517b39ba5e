r"""Cross-interpolation that stores its index sets.

Each call in training mode is one half-sweep from the sets of the previous call, in the other
direction. The sets carry no gradient, so they are state, not parameters.

References: {cite}`oseledets2010ttcross`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from cpic.bottleneck._base import Bottleneck
from cpic.bottleneck._grow import grow
from cpic.bottleneck._half_sweep import half_sweep
from cpic.linalg._inputs import need_generator
from cpic.tt import Entries, IndexSets, TensorTrain, interpolate


class Cross(Bottleneck):
    """Half-sweeps of cross-interpolation, one per call {cite}`oseledets2010ttcross`.

    In training mode, a call selects the sets of one side, stores them and reverses the direction.
    In evaluation mode it interpolates on the current sets and does not change them. Sets of new
    tensors are random at first: a few calls without gradient, or `sets` from `cross`, find
    good ones. `state_dict` contains the sets, the direction and the state of the generator, as
    plain tensors: a resumed run takes the same steps.

    Args:
        sizes, rank, n_trains, generator: Those of `Bottleneck`;
            the generator draws the initial sets and those that are added.
        sets: Initial sets instead of random ones.
        tol: Accuracy of the ranks after `adapt`; see `half_sweep`.
        **options: `solver`, `ridge` and `rtol` of `interpolate`.

    Attributes:
        sets: Current index sets.
        towards: Direction of the next half-sweep, `"right"` or `"left"`.
        condition: Condition numbers of the pivots of the last half-sweep `(K, d - 1)`, or None.

    Example:
        >>> cross = Cross((4, 4, 4), rank=2, generator=torch.Generator().manual_seed(0))
        >>> train = cross(lambda i: i.double().sum(-1))
        >>> round(float(train.full()[0, 1, 2, 3]), 6)
        6.0
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        rank: int = 10,
        n_trains: int = 1,
        generator: torch.Generator | None = None,
        sets: IndexSets | None = None,
        tol: float | None = None,
        **options: Any,
    ):
        super().__init__(sizes, rank=rank, n_trains=n_trains, generator=generator)
        if sets is None:
            generator = need_generator("Cross", generator)
            sets = IndexSets.random(self.sizes, rank, n_trains=n_trains, generator=generator)
        self.tol, self.options = tol, options
        self.towards: Literal["right", "left"] = "right"
        self.condition: Tensor | None = None
        self._more = 0
        self.sets = self._checked(sets)

    def forward(self, entries: Entries) -> TensorTrain:
        """Trains of the tensors with these `entries`."""
        if not self.training:
            return interpolate(entries, self.sets, **self.options)
        sets, tol = self.sets, None
        if self._more:
            generator = need_generator("Cross", self.generator)
            sets = grow(sets, towards=self.towards, by=self._more, generator=generator)
            tol, self._more = self.tol, 0
        found = half_sweep(
            entries, sets, towards=self.towards, tol=tol, max_rank=self.rank, **self.options
        )
        self.sets, self.condition = found.sets, found.condition
        self.towards = "left" if self.towards == "right" else "right"
        return found.train

    def adapt(self, by: int = 2) -> None:
        """Let the next call try `by` more ranks at every bond, and retain those that `tol` needs.

        For use between epochs: ranks rise by at most `by`, up to `rank`, and fall by any number.
        """
        if self.tol is None or by < 1:
            raise ValueError(
                f"adapt needs a Cross with a `tol` and `by >= 1`, got {self.tol}, {by}."
            )
        need_generator("Cross", self.generator)
        self._more = by

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the search in `state_dict`."""
        state = {"towards": self.towards, "more": self._more}
        state["left"], state["right"] = list(self.sets.left), list(self.sets.right)
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of `get_extra_state`."""
        move = [tuple(rows.to(self.device) for rows in state[side]) for side in ("left", "right")]
        self.sets = self._checked(IndexSets(self.sizes, *move))
        self.towards, self._more = state["towards"], state["more"]
        if self.generator is not None and "generator" in state:
            self.generator.set_state(state["generator"].cpu())

    def _checked(self, sets: IndexSets) -> IndexSets:
        if sets.sizes != self.sizes or sets.n_trains != self.n_trains:
            raise ValueError(
                f"Cross needs index sets of {self.n_trains} tensors of sizes {self.sizes}, got "
                f"{sets.n_trains} of {sets.sizes}; create a Cross for those."
            )
        return sets

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Cross":
        super()._apply(fn, recurse)
        self.sets = self.sets.to(self.device)
        return self
