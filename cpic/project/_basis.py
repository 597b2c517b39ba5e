r"""Store orthonormal tensors that share one set of cores.

Tensor a of a basis is B_a[i_1 .. i_d] = C_1[a, i_1] C_2[:, i_2] ... C_d[:, i_d], with cores whose
rows are orthonormal; then <B_a, B_b> is one for a = b and zero otherwise. A `factor` F contains
their weights: F^T F is the matrix of second moments of all samples so far, and
its eigenvalues are the energies.

Shapes: `r` tensors, `d` sites, cores `(p, size, q)` with `p = r` at the first site and `q = 1` at
the last, `K` trains.
References: {cite}`oseledets2011tt`, {cite}`usvyatsov2021cherry`.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from cpic.project import _pairs
from cpic.tt import TensorTrain
from cpic.tt._entries import check_indices
from cpic.tt._files import load_arrays, save_arrays


class Basis:
    """Orthonormal tensors in one train, to compute features of other trains.

    Made by `project` and `update`. A basis of fewer directions than `rank` ends with zero tensors:
    the features along them are zero. It carries no gradient.

    Args:
        cores: One tensor `(p, size, q)` per site, `q` of one site equal to `p` of the next, the
            last `q` one, the rows of each orthonormal (rows of the first may be zero).
        factor: Weights `(rank, rank)`; row k is the k-th principal direction of all samples
            so far, times its singular value. Identity by default.

    Raises:
        TypeError: If the cores are not of one dtype, float32 or float64.
        ValueError: If shapes do not match.

    Example:
        >>> basis = Basis([torch.eye(2).view(2, 2, 1), torch.ones(1, 1, 1)])
        >>> basis.rank, basis.sizes, basis.ranks
        (2, (2, 1), (2, 1, 1))
        >>> train = TensorTrain([torch.tensor([3.0, 4.0]).view(1, 1, 2, 1), torch.ones(1, 1, 1, 1)])
        >>> basis.features(train)
        tensor([[3., 4.]])
    """

    def __init__(self, cores: Sequence[Tensor], factor: Tensor | None = None):
        self.cores = tuple(cores)
        _check(self.cores)
        made = {"dtype": self.dtype, "device": self.device}
        self.factor = torch.eye(self.rank, **made) if factor is None else factor
        if self.factor.shape != (self.rank, self.rank) or self.factor.dtype != self.dtype:
            raise ValueError(
                f"Basis needs a factor of shape {(self.rank, self.rank)} and {self.dtype}, got "
                f"{tuple(self.factor.shape)} and {self.factor.dtype}; omit it."
            )

    @property
    def rank(self) -> int:
        """Number of tensors, and length of a feature vector."""
        return len(self.cores[0])

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the sites."""
        return tuple(core.shape[1] for core in self.cores)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks around and between the sites; the first is `rank`, the last 1."""
        return (*(len(core) for core in self.cores), 1)

    @property
    def n_filled(self) -> int:
        """Number of tensors that are not zero."""
        return int(self.cores[0].flatten(1).any(-1).sum())

    @property
    def energies(self) -> Tensor:
        """Sums of squared features `(rank,)` along the principal directions, descending."""
        return torch.linalg.svdvals(self.factor).square()

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the cores."""
        return self.cores[0].dtype

    @property
    def device(self) -> torch.device:
        """Device of the cores."""
        return self.cores[0].device

    def features(self, trains: TensorTrain) -> Tensor:
        """Inner products `(K, rank)` of K trains with the tensors; differentiable in the trains.

        Args:
            trains: Trains with the sizes, dtype and device of the basis, of any ranks.

        Raises:
            TypeError: If the dtypes differ.
            ValueError: If sizes or device differ.
        """
        self.check_match(trains, "features")
        return _pairs.features(self._merged, _pairs.merged(trains.cores))

    @cached_property
    def _merged(self) -> list[Tensor]:
        return [core[0] for core in _pairs.merged([core[None] for core in self.cores])]

    def entries(self, indices: Tensor) -> Tensor:
        """Entries `(n, rank)` of the tensors at int64 multi-indices `(n, d)`."""
        check_indices(indices[None], 1, self.sizes)
        state = self.cores[-1].new_ones(len(indices), 1, 1)
        for core, index in zip(reversed(self.cores), reversed(indices.unbind(1)), strict=True):
            state = core.transpose(0, 1)[index] @ state
        return state.squeeze(-1)

    def gram(self) -> Tensor:
        """Inner products `(rank, rank)` of the tensors: the identity, except for zero tensors."""
        return _pairs.between(self.cores, self.cores)

    def full(self) -> Tensor:
        """The dense tensors `(rank, *sizes)`; a `ValueError` above the limit of trains."""
        leading = torch.eye(self.rank, dtype=self.dtype, device=self.device)
        return TensorTrain([leading[None, None], *(c.unsqueeze(0) for c in self.cores)]).full()[0]

    def rotated(self, rotation: Tensor) -> "Basis":
        """The basis whose tensor a is the sum of `rotation[a, b]` times tensor b.

        Args:
            rotation: Orthogonal `(rank, rank)`. Features `F` become `F @ rotation.mT`.
        """
        first = (rotation @ self.cores[0].flatten(1)).view_as(self.cores[0])
        return Basis([first, *self.cores[1:]], self.factor @ rotation.mT)

    def to(self, *args, **kwargs) -> "Basis":
        """The basis moved or cast, with the arguments of `torch.Tensor.to`."""
        cores = [core.to(*args, **kwargs) for core in self.cores]
        return Basis(cores, self.factor.to(*args, **kwargs))

    def save(self, path: str | os.PathLike) -> None:
        """Write the basis as plain arrays, atomically.

        Args:
            path: File to write; an existing one is replaced when the new one is complete.
        """
        cores = {f"core{k}": core for k, core in enumerate(self.cores)}
        save_arrays(path, {**cores, "factor": self.factor})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Basis":
        """Read a file written by `save`, onto the CPU; nothing in it is executed.

        Args:
            path: File written by `save`.

        Raises:
            ValueError: If the file does not contain a saved basis.
        """

        def make(arrays: dict[str, Tensor]) -> Basis:
            cores = [arrays[f"core{k}"] for k in range(len(arrays) - 1)]
            return cls(cores, arrays["factor"])

        return load_arrays(path, "Basis", make)

    def check_match(self, trains: TensorTrain, operation: str) -> None:
        """Raise unless trains have the sizes, dtype and device of the basis.

        Args:
            trains: Any trains.
            operation: Name of the operation, for the message.
        """
        checks = (
            ("sizes", ValueError, "a basis applies only to tensors of its sizes"),
            ("dtype", TypeError, "cast one of them with `.to(dtype)`"),
            ("device", ValueError, "move one of them with `.to(device)`"),
        )
        for name, kind, advice in checks:
            own, given = getattr(self, name), getattr(trains, name)
            if given != own:
                raise kind(
                    f"{operation} needs trains with the {name} {own} of the basis, got {given}; "
                    f"{advice}."
                )

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"Basis: {self.rank} tensors ({self.n_filled} filled), {len(self.cores)} sites, "
            f"largest rank {max(self.ranks)}, {dtype} on {self.device}"
        )


def _check(cores: tuple[Tensor, ...]) -> None:
    if not cores or any(core.ndim != 3 or 0 in core.shape for core in cores):
        raise ValueError(
            "Basis needs at least one core and cores of shape (p, size, q) without empty axes, got "
            f"{[tuple(core.shape) for core in cores]}; `project` makes a basis from trains."
        )
    dtypes = {core.dtype for core in cores}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        raise TypeError(
            f"Basis needs cores of one dtype, float32 or float64, got {sorted(map(str, dtypes))}; "
            "cast them with `core.to(dtype)`."
        )
    if any(a.shape[2] != len(b) for a, b in pairwise(cores)) or cores[-1].shape[2] != 1:
        raise ValueError(
            "Basis needs ranks that agree between neighbors and end with 1, got cores "
            f"{[tuple(core.shape) for core in cores]}; `project` makes a basis from trains."
        )
