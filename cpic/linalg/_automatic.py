r"""The fastest square root on a CPU that is certain to be within 1e-4 of the true one.

Where a Cholesky factor of A - c s 1, with a bound s on the largest eigenvalue, shows that no
eigenvalue is below c s, few products of single precision suffice. Small matrices take the coupled
iteration with the polynomials of `best_steps`. For large ones, of which an inverse takes as long as
two products, it begins with the rational function of Zolotarev,
r(x) = x (1 + sum of a_j / (x^2 + p_j)), which maps [`LEAST`, 1] to [`LOW`, `HIGH`]
{cite}`nakatsukasa2016computing`: with eigenvalues x^2 of A it takes the inverses of all A + p_j 1
and no product, and one step of degree 3 finishes.

All of these miss an eigenvalue of the root by less than 8e-5, relative; the rest is for rounding.

Shapes: `n` rows, `*b` independent problems.
"""

import torch
from torch import Tensor

from cpic.linalg._iterations import best_steps, identity_of

# Numbers in a batch below which the calls of functions cost more than they save, as measured from 4
# to 64 rows.
WORTH = 4096
# Number of rows from which inverses are faster.
LARGE = 96
# For products, the c of the degrees 9, 5, 5, 5 in x, and of 9 and 5: 14 and 6 products.
SMALLEST, MANY = 2.5e-4, (9, 5, 5, 5)
SMALL, FEW = 0.06, (9, 5)
# For inverses, as `data_scripts/derive_zolotarev.py` derives them; c is the square of `LEAST`.
LEAST = 0.0125
POLES = (0.00013241808707111, 0.00542019850161376, 0.15961694435528295)
RESIDUES = (0.0339827198409426, 0.14975545344896837, 0.8608732855145547)
LOW, HIGH = 1.8870693974180035, 1.9253036363533016


def quick_root(matrix: Tensor) -> Tensor | None:
    """Roots of symmetric matrices `(*b, n, n)`; None if they are few, or have small eigenvalues.

    Reads up to three numbers back.
    """
    if matrix.numel() < WORTH:
        return None
    matrix, shape = matrix.detach().reshape(-1, *matrix.shape[-2:]), matrix.shape
    large = shape[-1] >= LARGE
    least = LEAST**2 if large else SMALLEST
    # Where all have small eigenvalues, the first one shows it at a fraction of the cost.
    if len(matrix) > 1 and not _at_least(matrix[0], least * _bound(matrix[0])):
        return None
    size = _bound(matrix)
    scaled = (matrix / size).float()
    if not _at_least(scaled, least):
        return None
    root, scale = _by_inverses(scaled) if large else _by_products(scaled)
    return ((root + root.mT) * ((scale * size).sqrt() / 2)).view(shape)


def _bound(matrix: Tensor) -> Tensor:
    """What no eigenvalue is above, `(*b, 1, 1)`."""
    return matrix.abs().sum(-1, keepdim=True).amax(-2, keepdim=True)


def _by_products(matrix: Tensor) -> tuple[Tensor, Tensor]:
    square = matrix @ matrix
    bound = torch.linalg.vector_norm(square, dim=(-2, -1), keepdim=True).sqrt().clamp(max=1.0)
    well = _at_least(matrix, SMALL * bound)
    first, *others = best_steps(SMALL**0.5, FEW) if well else best_steps(SMALLEST**0.5, MANY)
    identity, matrix, square = identity_of(matrix), matrix / bound, square / bound.square()
    high = (first[3] * matrix).add_(square, alpha=first[4])
    low = (first[1] * matrix).add_(square, alpha=first[2]).add_(identity, alpha=first[0])
    z = torch.baddbmm(low, square, high)
    y = matrix @ z
    for k, (a, b, c) in enumerate(others, 1):
        inner = z @ y
        turn = (b * inner).add_(identity, alpha=a).baddbmm_(inner, inner, alpha=c)
        y = y @ turn
        if k < len(others):  # the last step needs no Z
            z = turn @ z
    return y, bound


def _by_inverses(matrix: Tensor) -> tuple[Tensor, Tensor]:
    identity = identity_of(matrix)
    poles, residues = matrix.new_tensor([POLES, RESIDUES])
    shifted = matrix + poles[:, None, None, None] * identity
    inverses = inverse_by_blocks(shifted.flatten(0, 1)).view(len(POLES), -1)
    # Z = 1 + sum of a_j / (A + p_j), and Y = A Z = A + sum of a_j (1 - p_j / (A + p_j)).
    z, y = (torch.stack([residues, -residues * poles]) @ inverses).view(2, *matrix.shape)
    z, y = z.add_(identity), y.add_(matrix).add_(identity, alpha=sum(RESIDUES))
    ((a, b),) = best_steps(LOW / HIGH, (3,))
    turn = torch.baddbmm(identity, z, y, beta=a / HIGH, alpha=b / HIGH**3)
    return y @ turn, matrix.new_ones(())


def inverse_by_blocks(matrix: Tensor) -> Tensor:
    """Inverses of positive definite matrices `(b, n, n)`, by those of halves and their products.

    A product reaches five times the rate of a Cholesky inverse.
    """
    n = matrix.shape[-1]
    if n <= 32:
        return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)
    half = n // 2
    beside = matrix[:, :half, half:]
    first = inverse_by_blocks(matrix[:, :half, :half])
    turn = first @ beside
    rest = torch.baddbmm(matrix[:, half:, half:], beside.mT, turn, alpha=-1)
    last = inverse_by_blocks(rest)
    corner = -turn @ last
    found = torch.empty_like(matrix)
    torch.baddbmm(first, corner, turn.mT, alpha=-1, out=found[:, :half, :half])
    found[:, :half, half:], found[:, half:, :half] = corner, corner.mT
    found[:, half:, half:] = last
    return found


def _at_least(matrix: Tensor, least: Tensor | float) -> bool:
    """Whether no eigenvalue is below `least`; a matrix with NaN has no Cholesky factor."""
    low = matrix - least * identity_of(matrix)
    return not bool(torch.linalg.cholesky_ex(low).info.any())
