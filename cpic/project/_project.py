r"""Compute K feature vectors of one length from K trains.

The cores of a train are not unique, so they are no features. The tensor they represent is: with
the K tensors as rows of X, the uncentered principal components X = U S V^T give the features
U_r S_r = X V_r, and the rows of V_r^T are an orthonormal basis that is also a train.

Shapes: `K` trains, `r` features.
References: {cite}`usvyatsov2021cherry`, {cite}`oseledets2011tt`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cpic.linalg._gaps import Gap
from cpic.linalg._inputs import check_choice, check_dtype, check_finite, check_least
from cpic.project._basis import Basis
from cpic.project._gradient import components, gap_of
from cpic.project._pairs import inner_pairs
from cpic.project._routes import by_gram, by_qr, by_tree
from cpic.project._stack import Reduced
from cpic.tt import TensorTrain
from cpic.tt._round import check_limits
from cpic.tt._threads import one_thread

ROUTES = {"qr": by_qr, "gram": by_gram, "tree": by_tree}


class Projection(NamedTuple):
    """Features `(K, r)`, energies `(r,)` and the basis, as `project` and `update` return them."""

    features: Tensor
    energies: Tensor
    basis: Basis


def project(
    trains: TensorTrain,
    rank: int,
    *,
    route: Literal["qr", "gram", "tree"] = "qr",
    gradient: str = "detached",
    max_rank: int | None = None,
    tol: float | None = None,
    pad: bool = True,
    **options: Any,
) -> Projection:
    """Features of K trains: the uncentered principal components of their tensors.

    With the tensors as rows of X = U S V^T, the features are X V = U S for the `rank` largest
    singular values {cite}`usvyatsov2021cherry`. The mean is not subtracted. In every column of the
    features the entry of largest magnitude is positive. The features are the inner products of the
    trains with the basis {eq}`eq-features-def`, so that the same tensor later has the same
    features.

    If the trains span fewer than `rank` directions (fewer trains than `rank`, equal samples),
    the remaining features, energies and basis tensors are zero, so that the length is constant.

    Args:
        trains: The K trains.
        rank: Number of features.
        route: `"qr"` is accurate to rounding. `"gram"` is faster and loses components below the
            square root of K times epsilon, relative to the largest. `"tree"` merges stacks in
            pairs and truncates in between: fast and lossy with a `max_rank`, slow without.
        gradient: `"detached"` treats the basis as a constant, and the gradient flows through the
            inner products with it. `"exact"` is the derivative of the components, through the
            matrix of inner products of the trains; unbounded where energies coincide. Any method
            of `cpic.linalg.eigh` bounds it. All ignore truncation by `max_rank` or `tol`, and
            the sign.
        max_rank: Upper bound on the ranks between the sites of the basis, which are otherwise up
            to K times the rank of the trains. With it, the basis is that of a nearby batch.
        tol: Allowed change of the components by this rounding, relative to their norm; with the
            route `"tree"`, of the stacks of every merge. None for no rounding.
        pad: If False, raise instead of appending zeros.
        **options: Options of the method in `gradient`.

    Returns:
        The features `(K, rank)`; energies `(rank,)`, the sums of the squares of each column,
        descending; and the basis, without gradient.

    Raises:
        TypeError: If the trains are not float32 or float64.
        ValueError: If there is no train, a core is not finite, an option is out of range, or
            features are missing and `pad` is False.

    Example:
        >>> trains = TensorTrain([torch.tensor([[3.0, 0], [4, 0]]).view(2, 1, 2, 1)])
        >>> project(trains, 2).features
        tensor([[3., 0.],
                [4., 0.]])
    """
    check_batch(trains, "project")
    check_options("project", rank, tol, max_rank)
    check_choice("project", "route", route, ROUTES, '"qr" is the most accurate')
    gap = gap_of("project", gradient, options)
    with torch.no_grad(), one_thread():
        found = ROUTES[route]([core.detach() for core in trains.cores], rank, tol, max_rank)
        plain = basis_of(found, rank, trains.n_sites)
        basis = plain.rotated(torch.diag(signs(plain.features(trains))))
    if not pad and basis.n_filled < rank:
        raise ValueError(
            f"project needs trains that span {rank} directions, got {trains.n_trains} trains that "
            f"span {basis.n_filled}; pass more trains, a smaller `rank`, or `pad=True` for zeros."
        )

    def moving(gap: Gap) -> Tensor:
        gram = inner_pairs(trains.cores, trains.cores)
        left, values = components(gram, *filled(found, basis), gap)
        return F.pad(left * values, (0, rank - len(values))) * signs(plain.features(trains))

    return projection(basis, trains, gap, moving)


def projection(
    basis: Basis, trains: TensorTrain, gap: Gap | None, moving: Callable[[Gap], Tensor]
) -> Projection:
    """Features in the basis; with a `gap`, their gradient is that of `moving`."""
    features = basis.features(trains)
    if gap is not None and features.requires_grad:
        change = moving(gap)
        features = features.detach() + (change - change.detach())
    return Projection(features, basis.energies, basis)


def filled(found: Reduced, basis: Basis) -> tuple[Tensor, Tensor]:
    """Left vectors `(n, p)` and values `(p,)` of the tensors that are not zero."""
    return found.left[0][:, : basis.n_filled], found.values[0][: basis.n_filled]


def basis_of(found: Reduced, rank: int, n_sites: int) -> Basis:
    """The basis without directions at rounding level, padded with zeros to `rank`."""
    values = found.values[0]
    floor = 8 * max(found.left.shape[1], n_sites) * torch.finfo(values.dtype).eps * values[0]
    values = values[values > floor]
    first = found.cores[0][0][: len(values)]
    missing = rank - len(values)
    first = F.pad(first, (0, 0, 0, 0, 0, missing))
    factor = torch.diag(F.pad(values, (0, missing)))
    return Basis([first, *(core[0] for core in found.cores[1:])], factor)


def signs(features: Tensor) -> Tensor:
    """Signs `(r,)` of the columns that make their entries of largest magnitude positive."""
    largest = features.gather(0, features.abs().argmax(0, keepdim=True)).squeeze(0)
    return torch.where(largest < 0, -1.0, 1.0).to(features)


def check_batch(trains: TensorTrain, operation: str) -> None:
    """Raise unless trains can be projected."""
    if trains.n_trains == 0:
        raise ValueError(f"{operation} needs at least one train, got 0; skip empty batches.")
    advice = "inner products over many sites need more digits, cast with `trains.to(torch.float32)`"
    check_dtype(f"{operation} of trains", trains.dtype, advice)
    advice = "check how the trains were made"
    check_finite(operation, *trains.cores, what="cores", advice=advice)


def check_options(operation: str, rank: int, tol: float | None, max_rank: int | None) -> None:
    """Raise unless ranks and tolerance are valid."""
    check_least(operation, "it is the number of features", rank=rank)
    check_limits(operation, tol or 0.0, max_rank)
