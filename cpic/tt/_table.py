"""Store the values of small tensors, so that none is requested twice.

Shapes: `K` tensors, `n` multi-indices, `d` sites.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cpic.tt._entries import Entries
from cpic.tt._fibers import ask
from cpic.tt._ledger import Reader
from cpic.tt._points import all_points

_ROOM = 2**20  # maximum number of entries of all tensors together


class Table(Reader):
    """A reader that stores all values of K tensors."""

    def __init__(
        self, entries: Entries, sizes: tuple[int, ...], device: torch.device, n_trains: int
    ):
        super().__init__(entries, sizes, device)
        self.size = math.prod(sizes)
        self.values = torch.full((n_trains, self.size), torch.nan, device=device).double()

    @staticmethod
    def fits(sizes: tuple[int, ...], n_trains: int) -> bool:
        """Whether all values fit."""
        return n_trains * math.prod(sizes) <= _ROOM

    def points(self, indices: Tensor, *, by: Callable[..., Tensor] = ask) -> Tensor:
        """Values `(K, n)` at `indices` `(K, n, d)`; unknown ones are requested."""
        keys = (indices * self.weights).sum(-1)
        new = self.values.gather(1, keys).isnan().any(0)
        if bool(new.any()):
            new = new.nonzero().squeeze(1)
            if len(keys) == 1:  # in a batch they may repeat
                order = keys[0, new].argsort(stable=True)
                first = keys[0, new[order]].diff(prepend=keys.new_tensor([-1])) != 0
                new = new[order[first]].sort().values
            asked = super().points(indices[:, new], by=by)
            scale = 1.0 if self.scale is None else self.scale
            self.values.scatter_(1, keys[:, new], (asked * scale).double())
            self.dtype = asked.dtype
        found = self.values.gather(1, keys).to(self.dtype)
        return found if self.scale is None else found / self.scale

    def whole(self) -> Tensor:
        """The tensors `(K, *sizes)`."""
        points = all_points(self.sizes, device=self.values.device)
        return self.points(points.expand(len(self.values), -1, -1)).unflatten(1, self.sizes)
