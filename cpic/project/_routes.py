r"""Three routes from K trains to their uncentered principal components.

`qr`: orthogonalize the stack of all trains, then one SVD of a K x K matrix: accurate to rounding.

`gram`: the eigenvectors of the K x K matrix of inner products are the left singular vectors, and
the tensors follow as combinations of the trains. Squaring costs half the digits: a component
below sqrt(K eps) of the largest is lost {cite}`aldaas2022gram`.

`tree`: merge neighboring stacks in pairs, truncating the ranks after every merge, until one is left
{cite}`usvyatsov2021cherry`. Only small stacks are in memory; what a merge truncates is lost.

Shapes: `K` trains, cores `(K, l, size, r)`; results as in `Reduced` with `b = 1`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from cpic.project._pairs import right_grams
from cpic.project._stack import Reduced, decompose, orthogonalize, truncate
from cpic.tt._arith import concatenate
from cpic.tt._round import Budget

# Below this ratio of singular values, combinations of trains are orthonormal to less than 1e-10.
_SPREAD = 1e3


def by_qr(cores: Sequence[Tensor], rank: int, tol: float | None, max_rank: int | None) -> Reduced:
    """One sweep over the stack of all trains."""
    carries, frames = orthogonalize([[core.unsqueeze(0) for core in cores]])
    return truncate(decompose(carries[0].squeeze(2), frames, rank), tol, max_rank)


def by_tree(cores: Sequence[Tensor], rank: int, tol: float | None, max_rank: int | None) -> Reduced:
    """Pairs of stacks, pairs of pairs, and so on; an unpaired one is paired with zeros."""
    trains = len(cores[0])
    cap = None if max_rank is None else max(rank, max_rank)
    lead, stack = cores[0].new_ones(trains, 1, 1), list(cores)
    while True:
        if len(lead) > 1 and len(lead) % 2:
            lead = pad(lead, (0, 0, 0, 0, 0, 1))
            stack = [pad(core, (0, 0) * 3 + (0, 1)) for core in stack]
        pairs = min(2, len(lead))
        split = [core.unflatten(0, (-1, pairs)) for core in stack]
        (carry,), frames = orthogonalize([split])
        rows = lead.unflatten(0, (-1, pairs)) @ carry
        last = len(rows) == 1
        found = truncate(
            decompose(rows.flatten(1, 2), frames, rank if last else cap), tol, max_rank
        )
        if last:
            return found._replace(left=found.left[:, :trains])
        lead, stack = found.left * found.values.unsqueeze(-2), found.cores


def by_gram(cores: Sequence[Tensor], rank: int, tol: float | None, max_rank: int | None) -> Reduced:
    """Inner products of all pairs, then combinations of the trains."""
    grams = right_grams(cores, cores)
    squares, vectors = torch.linalg.eigh(grams[0].flatten(2).squeeze(-1))
    trains = len(squares)
    floor = trains * torch.finfo(squares.dtype).eps * squares[-1].clamp_min(0)
    filled = max(1, min(rank, int((squares > floor).sum())))
    left, values = vectors.flip(-1)[:, :filled], squares.flip(-1)[:filled].clamp_min(0).sqrt()
    if tol is not None or max_rank is not None:
        short = _combine(cores, left, grams, tol or 0.0, max_rank)
        carries, frames = orthogonalize([[core[None, None] for core in short]])
        found = decompose(carries[0].squeeze(1), frames, filled)
        return found._replace(left=left @ found.left)
    if values[-1] * _SPREAD < values[0]:
        carries, frames = orthogonalize([[core.unsqueeze(0) for core in cores]])
        found = decompose(left.mT @ carries[0].squeeze(2), frames, filled)
        return found._replace(left=left @ found.left)
    weights = torch.where(values > 0, left / values, 0.0)
    _, *blocks = concatenate(cores)
    first = (weights.mT @ blocks[0].flatten(2)).view(1, filled, *blocks[0].shape[2:])
    return Reduced(left[None], values[None], [first, *blocks[1:]])


def _combine(
    cores: Sequence[Tensor],
    left: Tensor,
    grams: Sequence[Tensor],
    tol: float,
    max_rank: int | None,
) -> list[Tensor]:
    """Combinations `left (K, p)` of the trains in one set of cores `(p, size, q)` of low ranks.

    With G the Gram matrix of everything to the right of a bond, the left singular vectors of
    M G^(1/2) are the eigenvectors of the small matrix M G M^T.
    """
    square = (left * (grams[0].flatten(1) @ left)).sum()
    budget = Budget(tol**2 * square[None], len(cores) - 1)
    floor = torch.finfo(left.dtype).eps * square
    carry = left.unsqueeze(-1)  # K, p, l
    short = []
    for site, core in enumerate(cores[:-1]):
        trains, _, size, right = core.shape
        matrix = (carry @ core.flatten(2)).view(trains, -1, right)
        flat = matrix.transpose(0, 1).flatten(1)
        gram = grams[site + 1].transpose(1, 2).reshape(trains * right, -1)
        squares, vectors = torch.linalg.eigh(flat @ gram @ flat.mT)
        values = squares.flip(-1).clamp_min(0).sqrt()
        keep = budget.choose(values[None], floor, max_rank)
        frame = vectors.flip(-1)[:, : int(keep)]
        short.append(frame.reshape(carry.shape[1], size, -1))
        carry = frame.mT @ matrix
    last = cores[-1]
    return [*short, (carry @ last.flatten(2)).sum(0).unsqueeze(-1)]
