"""The common interface of all bottlenecks: from entries to K trains."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.linalg._inputs import check_least
from cpic.tt import Entries, TensorTrain
from cpic.tt._fibers import ask
from cpic.tt._points import all_points
from cpic.tt._sets import check_sizes


class Bottleneck(torch.nn.Module, ABC):
    """Computes K trains from the entries of K tensors: `train = bottleneck(entries)`.

    Differentiable in what `entries` returns. A module, so that its state, if any, is saved
    and moved with that of a model. Any callable with this signature can be used instead.

    Args:
        sizes: Sizes of the modes of the entries, which may be bits or axes.
        rank: Upper bound on the ranks, or the number of terms.
        n_trains: Number of tensors K.
        generator: Source of randomness of `Cross` and `CP`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        rank: int = 10,
        n_trains: int = 1,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.sizes = check_sizes(sizes)
        check_least(type(self).__name__, "raise it", rank=rank, n_trains=n_trains)
        self.rank, self.n_trains, self.generator = rank, n_trains, generator
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Device of the multi-indices."""
        return self.get_buffer("_place").device

    @abstractmethod
    def forward(self, entries: Entries) -> TensorTrain:
        """Trains of the tensors with these `entries`."""

    def extra_repr(self) -> str:
        """Sizes and rank."""
        return f"{self.sizes}, rank={self.rank}, n_trains={self.n_trains}"

    def read_all(self, entries: Entries, max_entries: int) -> Tensor:
        """All entries `(K, prod(sizes))` in one call."""
        count = self.n_trains * math.prod(self.sizes)
        if count > max_entries:
            raise ValueError(
                f"{type(self).__name__} reads every entry, at most {max_entries}, got {count}; "
                "use Cross, or raise `max_entries`."
            )
        every = all_points(self.sizes, device=self.device)
        return ask(entries, every.expand(self.n_trains, -1, -1))
