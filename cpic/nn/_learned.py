r"""Features of trains in a basis that is learned.

The components of a batch are the directions in which its volumes vary most, not those that tell of
the target. Here the basis itself is a parameter, begun at the components of the first batch: a
train whose cores a loss can turn towards what matters.

Shapes: `K` trains, `r` features, cores `(p, size, q)` as in `cpic.project.Basis`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_positive
from cpic.nn._components import check_first
from cpic.nn._standard import Standard
from cpic.project import Basis, gather, project
from cpic.tt import TensorTrain, cap_ranks


class Learned(Standard):
    """Inner products `(K, r)` of K trains with learned tensors, centered and scaled.

    Args:
        rank: Number of features.
        sizes: Sizes of the sites of the trains.
        max_rank: Upper bound on the ranks of the learned tensors.
        momentum: As in `Components`.

    Attributes:
        cores: Parameters, each scaled such that its entries are about 1 at first: an optimizer
            moves all of them at one rate, whatever the sizes.
    """

    def __init__(self, rank: int, sizes: Sequence[int], *, max_rank: int, momentum: float = 0.1):
        check_positive("Learned", rank=rank, max_rank=max_rank)
        super().__init__(rank, momentum=momentum)
        self.rank, self.max_rank = rank, max_rank
        bonds = [rank, *cap_ranks((rank, *sizes), max_rank)[2:]]
        shapes = [(p, size, q) for (p, q), size in zip(pairwise(bonds), sizes, strict=True)]
        self.cores = nn.ParameterList(torch.zeros(*s, dtype=torch.float64) for s in shapes)

    def forward(
        self, trains: TensorTrain, at: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Features of K trains; arguments as in `Components`."""
        if self.steps == 0:
            self._begin(trains)
        basis = Basis([self._unit(core) * core.to(trains.cores[0]) for core in self.cores])
        raw = basis.features(trains)
        if at is not None and residual is not None:
            raw = raw + residual @ basis.entries(at)
        return self.standardized(raw)

    @staticmethod
    def _unit(core: Tensor) -> float:
        """Typical size of the entries of a core whose rows are orthonormal."""
        return (core.shape[1] * core.shape[2]) ** -0.5

    @torch.no_grad()
    def _begin(self, trains: TensorTrain) -> None:
        """Start at the components of a batch."""
        if not self.training:
            raise ValueError(
                "Learned needs a basis, got none; train the model or load a checkpoint first."
            )
        everyone = gather(trains.detach())
        first = project(everyone, self.rank, max_rank=self.max_rank).basis
        check_first("Learned", first, everyone, self.rank)
        for core, found in zip(self.cores, first.cores, strict=True):
            p, _, q = found.shape
            core.zero_()[:p, :, :q] = found.to(core) / self._unit(core)
