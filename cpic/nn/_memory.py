r"""Store index sets per volume.

The index sets of a volume change little from one visit to the next. So the next half-sweep of a
volume starts from the result of its last one, an epoch ago, and a single half-sweep is enough.

Shapes: `K` volumes of a call, `N` stored volumes, `d` sites.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cpic._renamed import renamed
from cpic.tt import IndexSets

Towards = Literal["right", "left"]
_HOST = torch.device("cpu")  # of what is counted, whatever the default device


class SetMemory(nn.Module):
    """Index sets by name.

    A name that was never stored starts from the sets stored last, of another volume: volumes of a
    cohort are similar. The very first sets are random.

    Args:
        sizes: Sizes of the modes.
        rank: Upper bound on the ranks.
        generator: Draws the first sets.
    """

    def __init__(self, sizes: Sequence[int], rank: int, *, generator: torch.Generator):
        super().__init__()
        first = IndexSets.random(sizes, rank, generator=generator)
        self.sizes, self.ranks = first.sizes, first.ranks
        self.slots: dict[str, int] = {}
        self._start = 0
        # Left and right sets, one row per name, after a first row for new names.
        self._parts = [*first.left, *first.right]
        self._visits = torch.zeros(1, dtype=torch.int64, device=_HOST)

    @property
    def device(self) -> torch.device:
        """Where the sets are stored."""
        return self._parts[0].device

    def visits(self, names: Sequence[str]) -> Tensor:
        """Number of visits of each name, int64 `(K,)`."""
        known = torch.tensor([name in self.slots for name in names], device=_HOST)
        return self._visits[self._places(names)] * known

    def get(self, names: Sequence[str]) -> IndexSets:
        """Sets of K names."""
        return self._sets(self._rows(self._places(names)))

    @renamed(n_starts="n_warm_starts")
    def begin(self, n_trains: int, *, n_warm_starts: int = 1) -> IndexSets:
        """Initial sets for K volumes, whatever their names: the sets stored last.

        With `n_warm_starts` above 1, the sets of so many names together, or of all there are.
        """
        n_names = len(self._visits) - 1
        rows = torch.tensor([self._start], device=_HOST)
        if n_names > 1:
            n_warm_starts = min(n_warm_starts, n_names)
            steps = torch.arange(n_warm_starts, device=_HOST) * n_names // n_warm_starts
            rows = 1 + (self._start - 1 + steps) % n_names
        return self._sets(_side_by_side(part, n_trains) for part in self._rows(rows))

    def put(self, names: Sequence[str], sets: IndexSets) -> None:
        """Store the sets of K names, and count a visit of each."""
        fresh = [name for name in names if name not in self.slots]
        if fresh:
            self.slots.update({name: len(self._visits) + k for k, name in enumerate(fresh)})
            more = torch.zeros(len(fresh), dtype=torch.int64, device=_HOST)
            self._visits = torch.cat([self._visits, more])
            self._parts = [
                torch.cat([part, part[:1].expand(len(fresh), -1, -1)]) for part in self._parts
            ]
        rows = self._places(names)
        self._visits[rows] += 1
        self._start = int(rows[0])
        for kept, part in zip(self._parts, (*sets.left, *sets.right), strict=True):
            kept[rows.to(kept.device)] = part.to(kept.device)

    def towards(self, names: Sequence[str]) -> Towards:
        """The direction that is due for most of the names: it alternates with every visit."""
        odd = (self.visits(names) % 2).double().mean()
        return "left" if odd > 0.5 else "right"

    def _places(self, names: Sequence[str]) -> Tensor:
        return torch.tensor([self.slots.get(name, self._start) for name in names], device=_HOST)

    def _rows(self, rows: Tensor) -> list[Tensor]:
        rows = rows.to(self.device)
        return [part[rows] for part in self._parts]

    def _sets(self, parts: Iterable[Tensor]) -> IndexSets:
        parts, d = tuple(parts), len(self.sizes)
        return IndexSets.unchecked(self.sizes, parts[:d], parts[d:])  # what is kept is checked

    def get_extra_state(self) -> dict[str, Any]:
        """The state for a checkpoint: names, their sets and visits, as plain tensors."""
        # Copies, since `put` writes in place.
        parts, d = [part.clone() for part in self._parts], len(self.sizes)
        state = {"names": list(self.slots), "visits": self._visits.clone(), "start": self._start}
        return {"sizes": list(self.sizes), **state, "left": parts[:d], "right": parts[d:]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of `get_extra_state`.

        Raises:
            ValueError: If the sets have other sizes or ranks, or their number does not match the
                names.
        """
        ranks = (*(part.shape[1] for part in state["left"]), 1)
        if (tuple(state["sizes"]), ranks) != (self.sizes, self.ranks):
            raise ValueError(
                f"SetMemory needs sets of sizes {self.sizes} and ranks {self.ranks}, got sizes "
                f"{tuple(state['sizes'])} and ranks {ranks}; make the model with the shape, rank "
                "and order of the checkpoint."
            )
        n_rows, parts = 1 + len(state["names"]), [*state["left"], *state["right"]]
        tables = [state["visits"], *parts]
        if any(len(part) != n_rows for part in tables) or not 0 <= int(state["start"]) < n_rows:
            raise ValueError(
                f"SetMemory needs sets and visits of {n_rows - 1} names and of a first one, got "
                f"other numbers of them, or begins with {state['start']}; use another checkpoint."
            )
        IndexSets(self.sizes, state["left"], state["right"])  # checks them
        self.slots = {name: k for k, name in enumerate(state["names"], start=1)}
        self._visits, self._start = state["visits"].to(_HOST, copy=True), int(state["start"])
        self._parts = [part.to(self.device, copy=True) for part in parts]

    def _apply(self, fn: Any, recurse: bool = True) -> "SetMemory":
        super()._apply(fn, recurse)
        device = fn(torch.empty(0, device=self.device)).device
        self._parts = [part.to(device) for part in self._parts]
        return self


def _side_by_side(rows: Tensor, n_trains: int) -> Tensor:
    """The multi-indices of all rows, for each of K trains; empty ones only once."""
    rows = rows.flatten(0, 1) if rows.shape[-1] else rows[0]
    return rows.expand(n_trains, *rows.shape)
