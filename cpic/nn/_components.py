r"""Features of trains in a basis that becomes fixed.

The basis of TT-PCA follows the trains at first, while they change most, and is then fixed: a head
cannot learn from features whose meaning changes. The features are centered and divided by their
standard deviation, since the first component, the mean of the volumes, is much larger than the
components that distinguish them.

Shapes: `K` trains, `r` features.
References: {cite}`usvyatsov2021cherry`.
"""

from typing import Any

from torch import Tensor

from cpic.nn._checks import check_positive
from cpic.nn._standard import Standard
from cpic.project import Basis, gather, project, update
from cpic.project._gradient import gap_of
from cpic.project._update import check_forgetting
from cpic.tt import TensorTrain


class Components(Standard):
    """Centered and scaled features `(K, r)` of K trains.

    Args:
        rank: Number of features.
        follow: Number of training steps in which the basis follows the trains; None: always.
        refresh: Number of steps between updates of the basis.
        forgetting: As in `cpic.project.update`.
        gradient: As in `cpic.project.project`.
        max_rank: Upper bound on the ranks of the basis.
        momentum: Weight of a new batch in mean and standard deviation of the features, from 0,
            the average of all batches, to 1.

    Raises:
        ValueError: If an option is unknown or out of range.

    Attributes:
        basis: The basis, or None before the first batch.
        steps: Number of training steps so far.
    """

    def __init__(
        self,
        rank: int,
        *,
        follow: int | None = 60,
        refresh: int = 4,
        forgetting: float = 0.9,
        gradient: str = "detached",
        max_rank: int | None = None,
        momentum: float = 0.1,
    ):
        bounds = {"rank": rank, "refresh": refresh, "max_rank": 1 if max_rank is None else max_rank}
        check_positive("Components", **bounds)
        check_positive("Components", least=0, follow=0 if follow is None else follow)
        check_forgetting("Components", forgetting)
        gap_of("Components", gradient, {})
        super().__init__(rank, momentum=momentum)
        self.rank, self.follow, self.refresh = rank, follow, refresh
        self.forgetting, self.gradient, self.max_rank = forgetting, gradient, max_rank
        self.basis: Basis | None = None

    def forward(
        self, trains: TensorTrain, at: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Features of K trains; in training mode basis and statistics are updated.

        Args:
            trains: The K trains.
            at: Multi-indices `(n, d)` of entries where a residual is known.
            residual: What the tensors have beyond the trains there, times the quadrature weights
                `(K, n)`: the inner products of the tensors with the basis are then estimated
                without bias, whatever the trains are.
        """
        raw = self._followed(trains) if self.training else self._known().features(trains)
        if at is not None and residual is not None:
            raw = raw + residual @ self._known().entries(at)
        return self.standardized(raw)

    def _followed(self, trains: TensorTrain) -> Tensor:
        due = self.follow is None or self.steps < self.follow
        if self.basis is not None and not (due and self.steps % self.refresh == 0):
            return self.basis.features(trains)
        everyone = gather(trains.detach()) if self.gradient == "detached" else trains
        options = {"gradient": self.gradient, "max_rank": self.max_rank}
        if self.basis is None:
            found = project(everyone, self.rank, **options)
            check_first("Components", found.basis, everyone, self.rank)
        else:
            found = update(self.basis, everyone, forgetting=self.forgetting, **options)
        self.basis = found.basis
        return found.features if everyone is trains else self.basis.features(trains)

    def _known(self) -> Basis:
        if self.basis is None:
            raise ValueError(
                "Components needs a basis, got none; train the model or load a checkpoint first."
            )
        return self.basis

    def get_extra_state(self) -> dict[str, Any]:
        """Basis and step count, as plain tensors."""
        state: dict[str, Any] = super().get_extra_state()
        if self.basis is not None:
            state |= {"cores": list(self.basis.cores), "factor": self.basis.factor}
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the state of `get_extra_state`."""
        self.steps = int(state["steps"])
        self.basis = Basis(state["cores"], state["factor"]) if "cores" in state else None
        self._apply(lambda tensor: tensor.to(self.mean.device))

    def _apply(self, fn: Any, recurse: bool = True) -> "Components":
        super()._apply(fn, recurse)
        if self.basis is not None:
            self.basis = self.basis.to(self.mean.device)
        return self


def check_first(owner: str, basis: Basis, trains: TensorTrain, rank: int) -> None:
    """Raise unless the first batch of trains gives a basis."""
    if basis.n_filled == 0:
        raise ValueError(
            f"{owner} needs trains that are not all zero, got {trains.n_trains} zero ones; "
            "check that the volumes are not empty."
        )
    if trains.n_trains < rank:
        raise ValueError(
            f"{owner} needs a first batch of at least {rank} samples for {rank} "
            f"features, got {trains.n_trains}; raise the batch size or lower the rank. See "
            '"What the model stores" in chapter 9 of the book.'
        )
