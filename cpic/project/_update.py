r"""Follow the principal components of a stream of batches.

All samples so far enter the components only through their second moments X^T X, which the r
directions of the basis, each times its singular value, represent up to truncation. So the
components of all samples are those of r + K tensors: the weighted old ones and the new trains.

Components have no sign, and near-equal ones no well-defined direction. With C the inner products
of the old with the new directions and C = U S V^T, the rotation U V^T of the new directions makes
them closest to the old ones (Procrustes), so that features change no more than the subspace does.

Shapes: `r` tensors of the basis, `K` new trains, `n = r + K` samples.
References: {cite}`ross2008incremental`, {cite}`brand2006fast`, {cite}`schonemann1966generalized`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpic.linalg._gaps import Gap
from cpic.linalg._inputs import check_finite
from cpic.project._basis import Basis
from cpic.project._gradient import components, gap_of
from cpic.project._pairs import between, inner_pairs
from cpic.project._project import (
    Projection,
    basis_of,
    check_batch,
    check_options,
    filled,
    projection,
    signs,
)
from cpic.project._stack import decompose, orthogonalize, truncate
from cpic.tt import TensorTrain
from cpic.tt._threads import one_thread


def update(
    basis: Basis,
    trains: TensorTrain,
    *,
    rank: int | None = None,
    align: bool = True,
    forgetting: float = 1.0,
    gradient: str = "detached",
    max_rank: int | None = None,
    tol: float | None = None,
    **options: Any,
) -> Projection:
    """Features of new trains in a basis that follows them: one step of an incremental PCA.

    The cost depends on the basis and the new trains, not on the number of previous batches
    {cite}`ross2008incremental`. One SVD of the old basis and the new samples gives the new one
    {eq}`eq-features-update`. If all samples together span at most `rank` directions and no rank is
    truncated, the result spans the space of `project` of all samples {cite}`brand2006fast`.

    Args:
        basis: Result of `project` or an earlier `update`; unchanged.
        trains: The K new trains, one or more.
        rank: Number of features, by default that of the basis. Another one needs `align=False`.
        align: Rotate the new basis closest to the old one, see `align`. False sorts the directions
            by energy and selects signs as `project` does; then features of one sample may jump
            from step to step.
        forgetting: Factor in (0, 1] on the weight of previous samples. Below one, samples
            decay: with 0.9, a batch ten steps old counts a third.
        gradient: As in `project`; the old basis is a constant. The alignment is also
            differentiated, up to rotations among directions that become nonzero in the same step.
        max_rank: Upper bound on the ranks between the sites, by default the largest rank of the
            basis or the trains, so that they do not grow from step to step.
        tol: Allowed change by this rounding, relative to the norm of all weighted samples.
        **options: Options of the method in `gradient`.

    Returns:
        The features `(K, rank)` of the new trains; the energies `(rank,)` along the principal
        directions of all samples, descending; and the new basis.

    Raises:
        TypeError: If dtypes differ or are not float32 or float64.
        ValueError: If sizes or devices differ, the rank differs with `align`, there is
            no train, a core is not finite, or an option is out of range.

    Example:
        >>> from cpic.project import project
        >>> first, second = torch.tensor([[3.0, 0.0], [0.0, 4.0]]).view(2, 1, 1, 2, 1)
        >>> basis = project(TensorTrain([first]), 2).basis
        >>> features, energies, basis = update(basis, TensorTrain([second]))
        >>> features.abs(), energies
        (tensor([[0., 4.]]), tensor([16.,  9.]))
    """
    rank = basis.rank if rank is None else rank
    check_batch(trains, "update")
    check_options("update", rank, tol, max_rank)
    basis.check_match(trains, "update")
    advice = "create a new one with `project`"
    check_finite("update", *basis.cores, basis.factor, what="basis", advice=advice)
    if align and rank != basis.rank:
        raise ValueError(
            f"update needs the rank {basis.rank} of the basis to align with it, got {rank}; pass "
            "`align=False`, or create a basis of the new rank with `project`."
        )
    check_forgetting("update", forgetting)
    gap = gap_of("update", gradient, options)
    cap = max(*basis.ranks, *trains.ranks) if max_rank is None else max_rank
    with torch.no_grad(), one_thread():
        old = [core[None, None] for core in basis.cores]
        (before, now), frames = orthogonalize([old, [core[None] for core in trains.cores]])
        weighted = forgetting * basis.factor @ before.squeeze(1)
        rows = torch.cat([weighted, now.squeeze(2)], 1)
        found = truncate(decompose(rows, frames, rank), tol, cap)
        plain = basis_of(found, rank, trains.n_sites)
        rotation = torch.diag(signs(plain.features(trains)))
        if align:
            rotation = _closest(basis, plain.rotated(rotation)) @ rotation
        new = plain.rotated(rotation)

    def moving(gap: Gap) -> Tensor:
        return _moving(basis, forgetting, trains, filled(found, plain), gap, rotation, align)

    return projection(new, trains, gap, moving)


def align(basis: Basis, reference: Basis) -> Basis:
    """Rotate a basis closest to another one, in the sum of squares.

    This is the orthogonal Procrustes problem {cite}`schonemann1966generalized`. If both bases
    span the same space, the result is the reference; zero tensors stay zero.

    Args:
        basis: The basis to rotate.
        reference: A basis of the same rank, sizes, dtype and device.

    Returns:
        The rotated basis, with its factor rotated accordingly.

    Raises:
        ValueError: If rank, sizes, dtype or device differ.

    Example:
        >>> one = Basis([torch.eye(2).view(2, 2, 1)])
        >>> rotated = one.rotated(torch.tensor([[0.6, 0.8], [-0.8, 0.6]]))
        >>> torch.allclose(align(rotated, one).cores[0], one.cores[0])
        True
    """
    mine, yours = ((one.rank, one.sizes, one.dtype, str(one.device)) for one in (basis, reference))
    if mine != yours:
        raise ValueError(
            f"align needs two bases of equal rank, sizes, dtype and device, got {mine} and "
            f"{yours}; `update` with `align=False` changes the rank."
        )
    with torch.no_grad():
        return basis.rotated(_closest(reference, basis))


def check_forgetting(operation: str, forgetting: float) -> None:
    """Raise unless the factor is in (0, 1]."""
    if not 0 < forgetting <= 1:
        raise ValueError(
            f"{operation} needs 0 < forgetting <= 1, got {forgetting}; 1 forgets nothing."
        )


def _closest(reference: Basis, basis: Basis) -> Tensor:
    """The rotation of `basis` that brings it closest to `reference`, among filled tensors.

    If `basis` has more of them, the additional ones follow, sorted by energy.
    """
    n, known = basis.n_filled, min(reference.n_filled, basis.n_filled)
    rotation = torch.eye(basis.rank, dtype=basis.dtype, device=basis.device)
    left, _, right = torch.linalg.svd(between(reference.cores, basis.cores)[:known, :n])
    rotation[:known, :n] = left @ right[:known]
    rest = right[known:]
    weighted = basis.factor[:, :n] @ rest.mT
    rest = torch.linalg.eigh(weighted.mT @ weighted).eigenvectors.flip(-1).mT @ rest
    rotation[known:n, :n] = rest * signs(rest.mT).unsqueeze(-1) if known < n else rest
    return rotation


def _moving(
    basis: Basis,
    forgetting: float,
    trains: TensorTrain,
    found: tuple[Tensor, Tensor],
    gap: Gap,
    rotation: Tensor,
    align: bool,
) -> Tensor:
    """Features of the new trains with the gradient of components and alignment."""
    seen = forgetting * basis.factor  # the old samples, in coordinates of the old basis
    cross = basis.features(trains)
    top = torch.cat([seen @ seen.mT, seen @ cross.mT], 1)
    bottom = torch.cat([cross @ seen.mT, inner_pairs(trains.cores, trains.cores)], 1)
    left, values = components(torch.cat([top, bottom]), *found, gap)
    n = len(values)
    turn = rotation[:n, :n]
    if align and n:
        old = torch.cat([seen, cross])[:, :n]  # inner products of all samples with the old basis
        turn = _polar(turn, old.mT @ (left / values))
    moved = (left * values)[len(seen) :] @ turn.mT
    return F.pad(moved, (0, len(rotation) - n))


def _polar(rotation: Tensor, products: Tensor) -> Tensor:
    """The polar factor `rotation` of `products`, with its gradient.

    With C = R P, the change of R is R W, where P W + W P is twice the skew part of R^T dC.
    """
    with torch.no_grad():
        stretch = rotation.mT @ products
        levels, axes = torch.linalg.eigh((stretch + stretch.mT) / 2)
        total = levels.unsqueeze(-1) + levels
        # Directions that the old basis lacks have levels of rounding: their rotation is free.
        floor = 8 * len(levels) * torch.finfo(levels.dtype).eps * levels.abs().max()
        inverse = torch.where(total > floor, 1 / total, 0.0)
    change = rotation.mT @ (products - products.detach())
    skew = axes.mT @ (change - change.mT) @ axes
    identity = torch.eye(len(levels), dtype=axes.dtype, device=axes.device)
    return rotation @ (identity + axes @ (skew * inverse) @ axes.mT)
