r"""Lower the ranks of trains.

`qr`: a sweep of QR factorizations makes all cores but the last orthogonal, then a sweep of SVDs
in the other direction truncates each bond {cite}`oseledets2011tt`.

`gram`: with G the Gram matrix of everything to the right of a bond and M the left unfolding of a
core whose left neighbors are orthogonal, the singular values at the bond are those of M G^(1/2),
whose Gram matrix is r x r {cite}`aldaas2022gram`. Squaring costs half the digits.

Shapes: cores `(K, l, size, r)`, singular values `(K, n)`, squared errors `(K,)`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.linalg._inputs import check_choice, check_finite, check_least
from cpic.tt._arith import from_left, from_right
from cpic.tt._sets import cap_ranks


def check_limits(name: str, tol: float, max_rank: int | None) -> None:
    """Raise unless a tolerance and a bound on the ranks are valid."""
    advice = "0 removes only rounding noise"
    check_least(name, advice, least=0, tol=-1.0 if tol == float("inf") else tol)
    check_least(name, "pass None for no bound", max_rank=max_rank)


def floor_of(matrix: Tensor) -> float:
    """Relative size of the singular values produced by rounding."""
    return min(matrix.shape[-2:]) * torch.finfo(matrix.dtype).eps


def choose_ranks(values: Tensor, budget: Tensor, max_rank: int | None) -> tuple[Tensor, Tensor]:
    """Smallest ranks `(K,)` whose squared tails are within the budgets, and those tails."""
    tails = values.square().flip(-1).cumsum(-1).flip(-1)
    keep = (tails > budget.unsqueeze(-1)).sum(-1).clamp(1, max_rank)
    tails = torch.nn.functional.pad(tails, (0, 1))
    return keep, tails.gather(-1, keep.unsqueeze(-1)).squeeze(-1)


class Budget:
    """The squared error that a sweep may still make, shared by the remaining bonds.

    Args:
        square: Total squared errors `(K,)`.
        n_bonds: Number of bonds; what one does not use is passed on to the following ones.
    """

    def __init__(self, square: Tensor, n_bonds: int):
        self.left, self.n_bonds = square, n_bonds

    def choose(self, values: Tensor, floor: Tensor, max_rank: int | None) -> Tensor:
        """Ranks `(K,)` at the next bond, where squared tails up to `floor` are always cut."""
        share = self.left.clamp_min(0) / self.n_bonds
        keep, spent = choose_ranks(values, torch.maximum(share, floor), max_rank)
        self.left, self.n_bonds = self.left - spent, self.n_bonds - 1
        return keep


def masked(columns: Tensor, keep: Tensor) -> Tensor:
    """The first columns of matrices `(K, m, n)`, zero beyond the rank of each."""
    most = int(keep.max()) if keep.numel() else 1
    position = torch.arange(most, device=keep.device)
    return columns[..., :most] * (position < keep.unsqueeze(-1)).unsqueeze(-2)


def round_cores(
    cores: Sequence[Tensor], tol: float, max_rank: int | Sequence[int] | None, method: str
) -> list[Tensor]:
    """Cores of lower ranks; see `TensorTrain.round`."""
    check_limits("round", tol, max_rank if isinstance(max_rank, int) else None)
    check_choice("round", "method", method, ("qr", "gram"), '"qr" is more accurate')
    advice = "check how the train was made"
    check_finite("round", *cores, what="cores", advice=advice)
    sizes = [core.shape[2] for core in cores]
    bounds = [None] * (len(sizes) + 1) if max_rank is None else cap_ranks(sizes, max_rank)
    with torch.no_grad():
        route = _round_qr if method == "qr" else _round_gram
        return route([core.detach() for core in cores], tol, bounds)


def lowered(cores: Sequence[Tensor], tol: float, bounds: Sequence[int | None]) -> list[Tensor]:
    """Truncate the bonds from left to right; all cores but the last become left-orthonormal.

    Args:
        cores: All but the first are right-orthonormal; the first has any left rank.
        tol: Allowed relative error.
        bounds: Maximum rank of each bond.
    """
    cores = list(cores)
    norm = torch.linalg.vector_norm(cores[0].flatten(1), dim=-1)
    budget = Budget((tol * norm) ** 2, len(cores) - 1)
    for site, bound in enumerate(bounds):
        matrix = cores[site].flatten(1, 2)
        vectors, values, right = torch.linalg.svd(matrix, full_matrices=False)
        keep = budget.choose(values, (floor_of(matrix) * norm) ** 2, bound)
        frame = masked(vectors, keep)
        cores[site] = frame.view(*cores[site].shape[:3], frame.shape[-1])
        carry = masked((values.unsqueeze(-1) * right).mT, keep).mT
        cores[site + 1] = from_left(carry, cores[site + 1])
    return cores


def _round_qr(cores: list[Tensor], tol: float, bounds: Sequence[int | None]) -> list[Tensor]:
    for site in range(len(cores) - 1):
        core = cores[site]
        frame, carry = torch.linalg.qr(core.flatten(1, 2))
        cores[site] = frame.view(*core.shape[:3], frame.shape[-1])
        cores[site + 1] = from_left(carry, cores[site + 1])
    # From the right end, as the left one of the mirrored train.
    mirrored = [core.transpose(1, 3) for core in reversed(cores)]
    return [core.transpose(1, 3) for core in reversed(lowered(mirrored, tol, bounds[-2:0:-1]))]


def _round_gram(cores: list[Tensor], tol: float, bounds: Sequence[int | None]) -> list[Tensor]:
    grams = _right_grams(cores)
    norm = grams[0].reshape(len(cores[0])).clamp_min(0).sqrt()
    floor = torch.finfo(norm.dtype).eps ** 0.5 * norm
    budget = Budget((tol * norm) ** 2, len(cores) - 1)
    for site in range(len(cores) - 1):
        matrix = cores[site].flatten(1, 2)
        half = _half(grams[site + 1])
        weighted = matrix @ half
        squares, vectors = torch.linalg.eigh(weighted.mT @ weighted)
        values = squares.clamp_min(0).sqrt().flip(-1)
        keep = budget.choose(values, floor**2, bounds[site + 1])
        inverse = torch.where(values > 0, 1 / values, 0.0).unsqueeze(-2)
        frame = masked((weighted @ vectors.flip(-1)) * inverse, keep)
        cores[site] = frame.reshape(*cores[site].shape[:3], frame.shape[2])
        cores[site + 1] = from_left(frame.mT @ matrix, cores[site + 1])
    return cores


def _right_grams(cores: list[Tensor]) -> list[Tensor]:
    """Gram matrices `(K, l, l)` of the product of the cores from each site to the end."""
    gram = cores[-1].new_ones(len(cores[-1]), 1, 1)
    grams = []
    for core in reversed(cores):
        weighted = from_right(core, gram)
        gram = weighted.flatten(2) @ core.flatten(2).mT
        grams.append(gram)
    return grams[::-1]


def _half(gram: Tensor) -> Tensor:
    """A matrix whose product with its transpose is `gram`."""
    values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
