r"""Sums of products of vectors (CP), fitted by alternating least squares with gradients.

For A[i_1, ..., i_d] ~ sum_r F_1[r, i_1] ... F_d[r, i_d], one sweep solves for one factor at a time:

    F_k = (H_k + ridge trace(H_k) / R)^{-1} T_k,

with T_k the tensor contracted with all other factors, and H_k the elementwise product of their
Gram matrices. The number of sweeps is fixed and every step is a product or a solve with a
positive definite matrix, so the fit is differentiable. Contractions with the modes
after k are shared by the whole sweep, which then costs about four passes over the tensor for
each term, for any number of modes.

Shapes: `K` tensors, `n` size of a mode, `R` terms.
References: {cite}`kolda2009tensor`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.bottleneck._base import Bottleneck
from cpic.linalg._inputs import check_least, need_generator
from cpic.tt import Entries, TensorTrain


class CP(Bottleneck):
    """CP decomposition by a fixed number of alternating sweeps {cite}`kolda2009tensor`.

    As a train it has diagonal cores, all of rank `rank`, which is not bounded by the sizes. The
    gradient passes through all sweeps. On many small modes, such as bits, convergence is slow and
    depends on the initial factors, which are drawn once and are the same for all tensors and calls.

    Args:
        sizes: Sizes of the modes of the entries.
        sweeps: Number of sweeps over all factors.
        ridge: Weight of the regularization, relative to the mean eigenvalue; at least
            100 times the rounding unit.
        max_entries: Upper bound on the entries that are read at once.
        **common: `rank`, the number of terms, `n_trains`, and `generator`, which draws the initial
            factors: those of `Bottleneck`.

    Example:
        >>> cp = CP((4, 4, 4), rank=2, generator=torch.Generator().manual_seed(0))
        >>> train = cp(lambda i: (1.0 + i.double()).prod(-1))
        >>> round(float(train.full()[0, 1, 2, 3]), 3)
        24.0
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        sweeps: int = 20,
        ridge: float = 1e-9,
        max_entries: int = 2**22,
        **common: Any,
    ):
        super().__init__(sizes, **common)
        drawn = need_generator("CP", self.generator)
        check_least("CP", "20 is a good number", sweeps=sweeps)
        if not ridge > 0:
            raise ValueError(f"CP needs `ridge > 0`, got {ridge}; 1e-9 is a good weight.")
        self.sweeps, self.ridge, self.max_entries = sweeps, ridge, max_entries
        for k, n in enumerate(self.sizes):
            shape = (1, self.rank, n)
            start = torch.randn(shape, generator=drawn, dtype=torch.float64, device=drawn.device)
            self.register_buffer(f"start{k}", start)

    def forward(self, entries: Entries) -> TensorTrain:
        """Trains of the tensors with these `entries`."""
        values = self.read_all(entries, self.max_entries)
        peak = values.detach().abs().amax(-1, keepdim=True)
        peak = torch.where(peak > 0, peak, 1.0)
        starts = [self.get_buffer(f"start{k}") for k in range(len(self.sizes))]
        factors = [start.to(values.dtype).expand(self.n_trains, -1, -1) for start in starts]
        for _ in range(self.sweeps):
            factors = self._sweep(values / peak, [_unit(factor) for factor in factors])
        *first, last = factors
        return TensorTrain(_diagonal([*first, last * peak[..., None]]))

    def _sweep(self, values: Tensor, factors: list[Tensor]) -> list[Tensor]:
        """New factors; all but the last have rows of length one."""
        behind = _contractions(values, factors)
        after = [torch.ones_like(factors[0][..., :1] @ factors[0][..., :1].mT)]
        for factor in factors[:0:-1]:
            after.append(after[-1] * (factor @ factor.mT))
        before = torch.ones_like(after[0])
        products = values.new_ones(len(values), self.rank, 1)
        solved: list[Tensor] = []
        for k, n in enumerate(self.sizes):
            contracted = products.unsqueeze(-2) @ behind[k].unflatten(2, (-1, n))
            factor = self._solve(before * after[-1 - k], contracted.squeeze(-2))
            if k < len(self.sizes) - 1:
                factor = _unit(factor)
                before = before * (factor @ factor.mT)
                products = (products[..., None] * factor[:, :, None]).flatten(2)
            solved.append(factor)
        return solved

    def _solve(self, gram: Tensor, contracted: Tensor) -> Tensor:
        size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
        ridge = max(self.ridge, 100 * torch.finfo(gram.dtype).eps)  # definite in spite of rounding
        weight = torch.where(size > 0, ridge * size, 1.0)
        identity = torch.eye(self.rank, dtype=gram.dtype, device=gram.device)
        return torch.linalg.solve(gram + weight * identity, contracted)


def _contractions(values: Tensor, factors: list[Tensor]) -> list[Tensor]:
    """The tensor contracted with the factors after each mode, `(K, R or 1, n_1 ... n_k)`."""
    behind = [values.unsqueeze(1)]
    for factor in factors[:0:-1]:
        parts = behind[-1].unflatten(2, (-1, factor.shape[-1]))
        if len(behind) == 1:
            behind.append(factor @ parts.squeeze(1).mT)
        else:
            behind.append((parts @ factor.unsqueeze(-1)).squeeze(-1))
    return behind[::-1]


def _unit(factor: Tensor) -> Tensor:
    """Rows scaled to norm one; zero rows are unchanged."""
    square = factor.square().sum(-1, keepdim=True)
    return factor / torch.where(square > 0, square, 1.0).sqrt()


def _diagonal(factors: list[Tensor]) -> list[Tensor]:
    """Cores `(K, R, n, R)` that multiply entry by entry; the ends are a row and a column."""
    if len(factors) == 1:
        return [factors[0].sum(1)[:, None, :, None]]
    cores = [torch.diag_embed(factor.mT).transpose(1, 2) for factor in factors]
    cores[0] = factors[0].mT.unsqueeze(1)
    cores[-1] = factors[-1].unsqueeze(-1)
    return cores
