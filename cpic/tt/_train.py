r"""Represent K tensors of equal sizes by products of small cores.

An entry of a tensor train is a product of matrices, one selected at each site:

    A[i_1, ..., i_d] = G_1[:, i_1, :] G_2[:, i_2, :] ... G_d[:, i_d, :],

with first and last rank one. A batch of K trains shares sizes and ranks; a train of lower rank
is padded with zeros.

Shapes: `K` trains, `d` sites, `size` of a site, `l` and `r` the ranks to its left and right.
References: {cite}`oseledets2011tt`.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from cpic.tt import _arith, _contract
from cpic.tt._draw import draw, human
from cpic.tt._entries import check_indices
from cpic.tt._round import round_cores

_FULL_LIMIT = 2**28


class TensorTrain:
    """K tensors of the same sizes in the tensor-train format {cite}`oseledets2011tt`.

    `full`, `entries`, `inner`, `norm`, `slice`, `concatenate` and the arithmetic are
    differentiable in the cores; `norm` once, the others to any order. `round` carries no
    gradient. No operation changes a train in place.

    Args:
        cores: One floating-point tensor `(K, l, size, r)` per site, with `r` of one site equal to
            `l` of the next, and the outer ranks one.

    Raises:
        TypeError: If the cores are not floating-point tensors of one dtype.
        ValueError: If there is no core, or their shapes or devices do not match.

    Example:
        >>> train = TensorTrain([torch.ones(1, 1, 4, 2), torch.ones(1, 2, 3, 1)])
        >>> train
        TensorTrain: 1 train, 2 sites, float32 on cpu, 56 B
          4     3
          |     |
          o--2--o
        >>> train.entries(torch.tensor([[[0, 0], [3, 2]]]))
        tensor([[2., 2.]])
    """

    def __init__(self, cores: Sequence[Tensor]):
        self.cores = tuple(cores)
        _check(self.cores)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the sites."""
        return tuple(core.shape[2] for core in self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The `n_sites + 1` ranks of the bonds, 1 at both ends."""
        return (*(core.shape[1] for core in self.cores), self.cores[-1].shape[3])

    @property
    def n_trains(self) -> int:
        """K, the number of tensors in the batch."""
        return len(self.cores[0])

    @property
    def n_sites(self) -> int:
        """Number of sites of each train."""
        return len(self.cores)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the cores."""
        return self.cores[0].dtype

    @property
    def device(self) -> torch.device:
        """Device of the cores."""
        return self.cores[0].device

    def memory(self) -> int:
        """Size of the cores in bytes."""
        return sum(core.numel() * core.element_size() for core in self.cores)

    def entries(self, indices: Tensor) -> Tensor:
        """Entries `(K, n)` at int64 multi-indices `(K, n, d)`; this method is an `Entries`."""
        check_indices(indices, self.n_trains, self.sizes)
        return _contract.entries(self.cores, indices)

    def full(self, *, max_entries: int = _FULL_LIMIT) -> Tensor:
        """The dense tensors `(K, *sizes)`; a `ValueError` above `max_entries` in total."""
        count = self.n_trains * math.prod(self.sizes)
        if count > max_entries:
            raise ValueError(
                f"full needs at most {max_entries} entries, got {count}; read single ones with "
                "`entries`, fix sites with `slice`, or raise `max_entries`."
            )
        return _contract.full(self.cores)

    def inner(self, other: "TensorTrain") -> Tensor:
        """Inner products `(K,)` of the tensors: sums of products over all entries."""
        self._match(other, "inner")
        return _contract.inner(self.cores, other.cores)

    def norm(self) -> Tensor:
        """Frobenius norms `(K,)`, accurate even for a difference of nearly equal trains."""
        return _contract.norm(self.cores)

    def round(
        self,
        tol: float = 0.0,
        max_rank: int | Sequence[int] | None = None,
        *,
        method: Literal["qr", "gram"] = "qr",
    ) -> "TensorTrain":
        """Lower the ranks, with a relative Frobenius error of at most `tol` in each train.

        Carries no gradient. The ranks of the batch are the largest that any of its trains
        needs; the others are padded with zeros.

        Args:
            tol: Allowed error relative to the norm of each train, at least 0. With 0, only
                components at rounding level are removed.
            max_rank: Upper bound on all ranks, or one for each bond as in `cap_ranks`; if it takes
                effect, the error may exceed `tol`.
            method: `"qr"` orthogonalizes and is accurate to rounding; `"gram"` uses Gram
                matrices, is faster for large sizes and loses half the digits: it cannot reach
                errors below the square root of the dtype's epsilon.

        Returns:
            The rounded trains.

        Raises:
            ValueError: If an argument is out of range, or a core is not finite.
        """
        return TensorTrain(round_cores(self.cores, tol, max_rank, method))

    def slice(self, site: int, index: int | Tensor) -> "TensorTrain":
        """Fix one site at an index, the same for all trains or one per train `(K,)`."""
        if self.n_sites == 1:
            raise ValueError(
                "slice needs at least two sites, got a train with 1; read its values with "
                "`entries`."
            )
        if not -self.n_sites <= site < self.n_sites:
            raise IndexError(
                f"slice needs a site from 0 to {self.n_sites - 1}, got {site}; see `n_sites`."
            )
        site %= self.n_sites
        chosen = torch.as_tensor(index, device=self.device).expand(self.n_trains)
        if ((chosen < 0) | (chosen >= self.sizes[site])).any():
            raise IndexError(
                f"slice needs an index from 0 to {self.sizes[site] - 1} at site {site}, got "
                f"{index}; see `sizes`."
            )
        return TensorTrain(_arith.fix(self.cores, site, chosen))

    def concatenate(self) -> "TensorTrain":
        """One train with a new leading site of size K, whose slices are the K trains."""
        if self.n_trains == 0:
            raise ValueError(
                "concatenate needs at least one train, got 0; a site of size 0 has no train."
            )
        return TensorTrain(_arith.concatenate(self.cores))

    def scale(self, factor: Tensor | float) -> "TensorTrain":
        """The product with a number, or one number per train `(K,)`."""
        if isinstance(factor, Tensor) and factor.ndim and factor.shape != (self.n_trains,):
            raise ValueError(
                f"scale needs a number or a tensor of shape ({self.n_trains},), got shape "
                f"{tuple(factor.shape)}; pass one factor for each train."
            )
        return TensorTrain([_arith.scale(self.cores[0], factor), *self.cores[1:]])

    def __add__(self, other: "TensorTrain | Tensor | float") -> "TensorTrain":
        if isinstance(other, TensorTrain):
            self._match(other, "+")
            return TensorTrain(_arith.add(self.cores, other.cores))
        return self + TensorTrain(_arith.constant(self.cores, 1.0)).scale(other)

    def __mul__(self, other: "TensorTrain | Tensor | float") -> "TensorTrain":
        if isinstance(other, TensorTrain):
            self._match(other, "*")
            return TensorTrain(_arith.multiply(self.cores, other.cores))
        return self.scale(other)

    def __neg__(self) -> "TensorTrain":
        return self.scale(-1.0)

    def __sub__(self, other: "TensorTrain | Tensor | float") -> "TensorTrain":
        return self + (-other)

    def __rsub__(self, other: Tensor | float) -> "TensorTrain":
        return -self + other

    def __truediv__(self, other: Tensor | float) -> "TensorTrain":
        return self.scale(1 / other)

    __radd__, __rmul__ = __add__, __mul__
    __array_priority__ = 1  # so that a NumPy number on the left defers to `__rmul__`

    def __getitem__(self, trains: "int | slice | Tensor") -> "TensorTrain":
        """Some trains of the batch, indexed like the first axis of a tensor, which is retained."""
        if isinstance(trains, int):
            if not -self.n_trains <= trains < self.n_trains:
                raise IndexError(
                    f"a batch of {self.n_trains} trains has no train {trains}; see `n_trains`."
                )
            trains = [trains]  # type: ignore[assignment]
        return TensorTrain([core[trains] for core in self.cores])

    def __len__(self) -> int:
        return self.n_trains

    def to(self, *args, **kwargs) -> "TensorTrain":
        """Trains with moved or cast cores; arguments are those of `torch.Tensor.to`."""
        return TensorTrain([core.to(*args, **kwargs) for core in self.cores])

    def detach(self) -> "TensorTrain":
        """The same trains without gradient."""
        return TensorTrain([core.detach() for core in self.cores])

    def __repr__(self) -> str:
        trains = "1 train" if self.n_trains == 1 else f"{self.n_trains} trains"
        sites = "1 site" if self.n_sites == 1 else f"{self.n_sites} sites"
        dtype = str(self.dtype).removeprefix("torch.")
        head = f"TensorTrain: {trains}, {sites}, {dtype} on {self.device}, {human(self.memory())}"
        return f"{head}\n{draw(self.sizes, self.ranks)}"

    def _match(self, other: "TensorTrain", operation: str) -> None:
        mine, yours = (self.n_trains, *self.sizes), (other.n_trains, *other.sizes)
        if mine != yours:
            raise ValueError(
                f"{operation} needs trains of equal number and sizes, got {mine} and {yours}; "
                "repeat a single train with `train[[0] * K]`."
            )


def _check(cores: tuple[Tensor, ...]) -> None:
    if not cores:
        raise ValueError("TensorTrain needs at least one core, got none; pass one per site.")
    for site, core in enumerate(cores):
        if not core.is_floating_point() or core.dtype != cores[0].dtype:
            raise TypeError(
                f"TensorTrain needs floating-point cores of one dtype, got {core.dtype} at site "
                f"{site} and {cores[0].dtype} at site 0; cast them with `core.to(dtype)`."
            )
        if core.ndim != 4 or 0 in core.shape[1:]:
            raise ValueError(
                "TensorTrain needs cores of shape (K, l, size, r) without empty axes after K, "
                f"got {tuple(core.shape)} at site {site}; add a batch axis to a single train with "
                "`core.unsqueeze(0)`."
            )
        if core.device != cores[0].device or len(core) != len(cores[0]):
            raise ValueError(
                f"TensorTrain needs cores of one batch on one device, got {len(core)} trains on "
                f"{core.device} at site {site} and {len(cores[0])} on {cores[0].device} at "
                "site 0; stack and move the cores first."
            )
    shapes = [tuple(core.shape[1:]) for core in cores]
    inside = all(a[2] == b[0] for a, b in pairwise(shapes))
    if not inside or shapes[0][0] != 1 or shapes[-1][2] != 1:
        raise ValueError(
            "TensorTrain needs ranks that agree between neighbors and are 1 at both ends, got "
            f"cores (l, size, r) {shapes}; pad the smaller of two ranks with zeros."
        )
