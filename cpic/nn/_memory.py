r"""Store index sets per volume.

The index sets of a volume change little from one visit to the next. So the next half-sweep of a
volume starts from the result of its last one, an epoch ago, and a single half-sweep is enough.

Shapes: `K` volumes of a call, `N` stored volumes, `d` sites.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cpic._renamed import renamed
from cpic.bottleneck import half_sweep
from cpic.tt import IndexSets
from cpic.tt._entries import Entries
from cpic.tt._rows import Rows

Towards = Literal["right", "left"]


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
        self._sides = [first.rows("left"), first.rows("right")]
        self._visits = np.zeros(1, np.int64)
        self._replaced: Replaced | None = None

    def visits(self, names: Sequence[str]) -> np.ndarray:
        """Number of visits of each name, int64 `(K,)`."""
        known = np.array([name in self.slots for name in names])
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
        rows = np.array([self._start])
        if n_names > 1:
            n_warm_starts = min(n_warm_starts, n_names)
            steps = np.arange(n_warm_starts) * n_names // n_warm_starts
            rows = 1 + (self._start - 1 + steps) % n_names
        return self._sets([_side_by_side(side, n_trains) for side in self._rows(rows)])

    def random(self, n_trains: int, generator: torch.Generator) -> IndexSets:
        """Random sets for K volumes."""
        sets = IndexSets.random(self.sizes, self.ranks, n_trains=n_trains, generator=generator)
        return sets.to(self.device)

    def put(self, names: Sequence[str], sets: IndexSets) -> None:
        """Store the sets of K names, and count a visit of each."""
        if self._replaced is not None:
            self._replaced.keep(names)
        fresh = [name for name in names if name not in self.slots]
        if fresh:
            self.slots.update({name: len(self._visits) + k for k, name in enumerate(fresh)})
            self._visits = np.pad(self._visits, (0, len(fresh)))
            self._sides = [_longer(side, len(fresh)) for side in self._sides]
        rows = self._places(names)
        self._visits[rows] += 1
        self._start = int(rows[0])
        for kept, side in zip(self._sides, (sets.rows("left"), sets.rows("right")), strict=True):
            kept.whole[self._on(rows)] = side.whole.to(self.device)

    def snapshot(self) -> "Replaced":
        """The present state, until the next snapshot; only what `put` replaces is copied."""
        self._replaced = Replaced(self)
        return self._replaced

    def towards(self, names: Sequence[str]) -> Towards:
        """The direction that is due for most of the names: it alternates with every visit."""
        odd = (self.visits(names) % 2).mean()
        return "left" if odd > 0.5 else "right"

    def _places(self, names: Sequence[str]) -> np.ndarray:
        return np.array([self.slots.get(name, self._start) for name in names])

    def _on(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _rows(self, rows: np.ndarray) -> list[Rows]:
        at = self._on(rows)
        return [side._replace(whole=side.whole[at]) for side in self._sides]

    def _sets(self, sides: Sequence[Rows]) -> IndexSets:
        return IndexSets.joined(self.sizes, *sides)  # what is kept is checked

    @property
    def device(self) -> torch.device:
        """Of the stored sets."""
        return self._sides[0].whole.device

    def _move(self, device: torch.device) -> None:
        self._sides = [side._replace(whole=side.whole.to(device)) for side in self._sides]

    def get_extra_state(self) -> dict[str, Any]:
        """The state for a checkpoint: names, their sets and visits, as plain tensors."""
        # Copies, since `put` writes in place.
        left, right = (list(side.alone()) for side in self._sides)
        visits = torch.from_numpy(self._visits.copy())
        state = {"names": list(self.slots), "visits": visits, "start": self._start}
        return {"sizes": list(self.sizes), **state, "left": left, "right": right}

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
        sets = IndexSets(self.sizes, state["left"], state["right"])
        self._replaced = None
        self.slots = {name: k for k, name in enumerate(state["names"], start=1)}
        self._visits, self._start = state["visits"].cpu().numpy().copy(), int(state["start"])
        device = self.device
        self._sides = [sets.rows("left"), sets.rows("right")]
        self._move(device)

    def _apply(self, fn: Any, recurse: bool = True) -> "SetMemory":
        super()._apply(fn, recurse)
        self._move(fn(torch.empty(0, device=self.device)).device)
        return self


class Replaced:
    """A state of a memory that can be restored, in copies of the rows replaced since then."""

    def __init__(self, memory: SetMemory):
        self._memory = memory
        self._n_rows, self._start = len(memory._visits), memory._start
        self._copies: list[tuple[np.ndarray, np.ndarray, list[Rows]]] = []

    def keep(self, names: Sequence[str]) -> None:
        """Copy the rows of these names, before they are replaced."""
        memory = self._memory
        rows = np.array([memory.slots.get(name, self._n_rows) for name in names])
        kept = np.concatenate([[self._n_rows], *(rows for rows, _, _ in self._copies)])
        rows = np.setdiff1d(rows[rows < self._n_rows], kept)
        self._copies.append((rows, memory._visits[rows], memory._rows(rows)))

    def restore(self) -> None:
        """Undo all changes since then."""
        memory = self._memory
        memory.slots = dict(islice(memory.slots.items(), self._n_rows - 1))
        memory._start, memory._visits = self._start, memory._visits[: self._n_rows]
        memory._sides = [side._replace(whole=side.whole[: self._n_rows]) for side in memory._sides]
        for rows, visits, sides in self._copies:
            memory._visits[rows] = visits
            for kept, side in zip(memory._sides, sides, strict=True):
                kept.whole[memory._on(rows)] = side.whole.to(memory.device)


def _side_by_side(side: Rows, n_trains: int) -> Rows:
    """The multi-indices of all rows, for each of K trains; the empty one only once."""
    empty = 0 if side.side == "left" else len(side.counts) - 1
    sets = [rows.flatten(0, 1) if k != empty else rows[0] for k, rows in enumerate(side.each())]
    return Rows.beside([rows.expand(n_trains, *rows.shape) for rows in sets], side.side)


def _longer(side: Rows, n: int) -> Rows:
    """With the first row `n` times more behind the last one."""
    return side._replace(whole=torch.cat([side.whole, side.whole[:1].expand(n, -1, -1)]))


@torch.no_grad()
def sought(entries: Entries, sets: IndexSets, ranks: Sequence[int], n_sweeps: int) -> IndexSets:
    """Sets after some half-sweeps, the last one leftward; a wide start ends narrow."""
    for k in reversed(range(n_sweeps)):
        towards = "right" if k % 2 else "left"
        sets = half_sweep(entries, sets, towards=towards, ranks=ranks).sets
    return sets
