r"""Bottlenecks that read every entry and truncate singular values.

A TT-SVD replaces unfoldings M by U U^T M with the leading left singular vectors U. Its value
depends only on the space they span, not on the basis. The gradient therefore involves only
rotations of retained vectors i towards truncated ones j, whose inverse gaps 1 / (s_i^2 - s_j^2)
are bounded unless the spectrum is flat at the cut; equal retained values are harmless. With G the
gradient with respect to U and W_ji = (U^T G)_ji / (s_i^2 - s_j^2) for these pairs, zero otherwise,

    grad M = U (W S + (S W)^T) V^T + (1 - U U^T) G S^{-1} V^T.

Shapes: `K` tensors, matrices `(K, m, n)`.
References: {cite}`oseledets2011tt`, {cite}`ionescu2015matrix`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpic.bottleneck._base import Bottleneck
from cpic.linalg import svd
from cpic.tt import Entries, TensorTrain
from cpic.tt._round import check_limits, masked
from cpic.tt._svd import Choose, decompose, truncated_basis


class TTSVD(Bottleneck):
    """TT-SVD of all entries {cite}`oseledets2011tt`, with modes of the given `sizes`.

    With the sizes of a `Quantics` these are bits, with `base=4` modes of size 4; with the shape of
    an array its axes.

    Args:
        sizes, rank, n_trains, generator: Those of `Bottleneck`;
            the generator is not used.
        tol: Allowed relative error, which lowers the ranks.
        gradient: `"subspace"`, exact for functions of the entries of the train that do not depend
            on the gauge of its cores, once differentiable; or `"detached"`, with constant bases;
            or a method of `cpic.linalg.svd`, exact also for the cores if gaps allow.
        max_entries: Upper bound on the entries that are read at once.
        **options: Options of that method.

    Example:
        >>> from cpic.tt import Quantics
        >>> grid = Quantics((8, 8), base=4)
        >>> bottleneck = TTSVD(grid.sizes, rank=3)
        >>> bottleneck(grid.entries(lambda x: (x[..., 0] - x[..., 1]).double().cos())).ranks
        (1, 2, 2, 2, 1)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        rank: int = 10,
        n_trains: int = 1,
        generator: torch.Generator | None = None,
        tol: float | None = None,
        gradient: str = "subspace",
        max_entries: int = 2**22,
        **options: Any,
    ):
        super().__init__(sizes, rank=rank, n_trains=n_trains, generator=generator)
        check_limits(type(self).__name__, tol or 0.0, rank)
        self.tol, self.gradient, self.max_entries = tol, gradient, max_entries
        self._basis = _basis(gradient, options)

    def forward(self, entries: Entries) -> TensorTrain:
        """Trains of the tensors with these `entries`."""
        return TensorTrain(self._cores(self._shaped(self.read_all(entries, self.max_entries))))

    def _shaped(self, values: Tensor) -> Tensor:
        return values.view(self.n_trains, *self.sizes)

    def _cores(self, tensor: Tensor) -> list[Tensor]:
        return decompose(tensor, self.tol or 0.0, self.rank, self._basis)


class BlockTT(TTSVD):
    """TT-SVD with the batch as the first mode {cite}`oseledets2011tt`.

    All trains share every core but the first, which absorbs the batch mode: the rank
    is that of the batch. Arguments are those of `TTSVD`; `tol` is relative to the whole batch.

    Example:
        >>> same = BlockTT((4, 4, 4), n_trains=3, rank=2)
        >>> train = same(lambda i: i.sum(-1).double())
        >>> train.n_trains, train.ranks
        (3, (1, 2, 2, 1))
    """

    def _cores(self, tensor: Tensor) -> list[Tensor]:
        batch, first, *rest = [core[0] for core in super()._cores(tensor.unsqueeze(0))]
        mixed = torch.einsum("akr,rns->kans", batch, first)
        return [mixed, *(core.expand(self.n_trains, *core.shape) for core in rest)]


class MatrixSVD(TTSVD):
    """Truncated SVD of one unfolding of each tensor: a train of two sites.

    Arguments are those of `TTSVD` and `split`.

    Args:
        sizes: Sizes of the modes of the entries.
        split: Number of modes that form the rows; by default, the numbers of rows and columns are
            as equal as possible.
        **options: Those of `TTSVD`.

    Example:
        >>> MatrixSVD((4, 4, 2, 2), rank=3)(lambda i: 1 / (1 + i.sum(-1))).sizes
        (4, 16)
    """

    def __init__(self, sizes: Sequence[int], *, split: int | None = None, **options: Any):
        super().__init__(sizes, **options)
        d = len(self.sizes)
        if d < 2 or (split is not None and not 0 < split < d):
            raise ValueError(
                f"MatrixSVD needs a split between 1 and {d - 1} of at least two modes, got "
                f"{split} for {d}; use Identity for a vector."
            )
        self.split = min(range(1, d), key=self._unevenness) if split is None else split

    def _unevenness(self, split: int) -> float:
        return abs(math.log(math.prod(self.sizes[:split]) / math.prod(self.sizes[split:])))

    def _shaped(self, values: Tensor) -> Tensor:
        rows = math.prod(self.sizes[: self.split])
        return values.view(self.n_trains, rows, -1)


class Identity(TTSVD):
    """All entries as they are: a train of one site. Arguments are those of `TTSVD`.

    Example:
        >>> Identity((4, 4), n_trains=2)(lambda i: i.sum(-1).double()).sizes
        (16,)
    """

    def _shaped(self, values: Tensor) -> Tensor:
        return values


def _basis(gradient: str, options: dict[str, Any]) -> Callable[[Tensor, Choose], Tensor]:
    """The leading left singular vectors with the given gradient, for `decompose`."""
    if gradient in ("subspace", "detached"):
        if options:
            raise TypeError(f"gradient={gradient!r} has no options, got {', '.join(options)}.")
        return _subspace if gradient == "subspace" else torch.no_grad()(truncated_basis)
    svd(torch.eye(2), gradient=gradient, **options)  # rejects invalid options early

    def basis(matrix: Tensor, choose: Choose) -> Tensor:
        vectors, values, _ = svd(matrix, gradient=gradient, **options)
        return masked(vectors, choose(values.detach()))

    return basis


def _subspace(matrix: Tensor, choose: Choose) -> Tensor:
    with torch.no_grad():
        vectors, values, right = torch.linalg.svd(matrix, full_matrices=False)
        keep = choose(values)
    return _Subspace.apply(matrix, vectors, values, right, keep)  # pyright: ignore


class _Subspace(torch.autograd.Function):
    """Leading left singular vectors, with the gradient of the space they span only."""

    @staticmethod
    def forward(
        ctx, matrix: Tensor, vectors: Tensor, values: Tensor, right: Tensor, keep: Tensor
    ) -> Tensor:
        ctx.save_for_backward(vectors, values, right, keep)
        return masked(vectors, keep)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        vectors, values, right, keep = ctx.saved_tensors
        peak = values[:, :1]
        peak = torch.where(peak > 0, peak, 1.0)
        unit, eps = values / peak, torch.finfo(values.dtype).eps
        kept = torch.arange(values.shape[1], device=keep.device) < keep[:, None]
        grad = torch.nn.functional.pad(grad, (0, values.shape[1] - grad.shape[-1]))
        grad = grad * kept[:, None]
        across = vectors.mT @ grad
        gap = unit[:, None].square() - unit[..., None].square()
        used = kept[:, None] & ~kept[..., None] & (gap > eps)
        turn = torch.where(used, across / torch.where(used, gap, 1.0), 0.0)
        inside = turn * unit[:, None] + (turn * unit[..., None]).mT
        used = kept & (unit > 0)
        inverse = torch.where(used, 1 / torch.where(used, unit, 1.0), 0.0)
        total = vectors @ inside + (grad - vectors @ across) * inverse[:, None]
        return total @ right / peak[..., None], None, None, None, None
