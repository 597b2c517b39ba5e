r"""Build trains from chosen entries: the search for index sets.

The square search alternates half-sweeps that choose the multi-indices of one side by maxvol, given
those of the other side. It is exact where the ranks are. On data of full rank interpolation
amplifies what lies outside the rank; there the oversampled search fits every core to more rows and
columns than its rank by least squares.

Shapes: `K` tensors, `d` sites.
References: {cite}`oseledets2010ttcross`, {cite}`savostyanov2014quasioptimality`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cpic.tt._cross_square import SquareSearch
from cpic.tt._entries import Entries
from cpic.tt._fibers import with_dtype
from cpic.tt._ledger import CrossLedger, Reader
from cpic.tt._sets import IndexSets, cap_ranks, check_sizes
from cpic.tt._threads import one_thread
from cpic.tt._train import TensorTrain

Method = Literal["auto", "square", "least_squares"]


@dataclass(frozen=True, eq=False)
class CrossState:
    """What a callback sees after each half-sweep.

    Args:
        half_sweep: Number of half-sweeps made.
        sets: Index sets now.
        train: Interpolation of this half-sweep.
        error: Held-out relative error `(K,)`.
        asked: Entries asked for so far, of each tensor.
    """

    half_sweep: int
    sets: IndexSets
    train: TensorTrain
    error: Tensor
    asked: int


@dataclass(frozen=True, eq=False)
class CrossResult:
    """What `cross` found.

    Args:
        train: The K trains.
        sets: Consistent index sets, for `interpolate` and as a warm start.
        errors: Held-out errors after each half-sweep `(half_sweeps, K)`.
        error: The last of them `(K,)`.
        converged: Whether each search may stop `(K,)`.
        ledger: What the search cost.
    """

    train: TensorTrain
    sets: IndexSets
    errors: Tensor
    error: Tensor
    converged: Tensor
    ledger: CrossLedger


def cross(
    entries: Entries,
    sizes: Sequence[int],
    *,
    n_trains: int = 1,
    rank: int | Sequence[int] | None = None,
    tol: float | None = None,
    max_rank: int = 64,
    sweeps: int = 4,
    method: Method = "auto",
    sets: IndexSets | None = None,
    generator: torch.Generator,
    callback: Callable[[CrossState], object] | None = None,
    n_probes: int = 1000,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> CrossResult:
    r"""Approximate K tensors by trains that read a small part of their entries.

    Carries no gradient; call `interpolate` on the returned sets for that.
    """
    with one_thread(), torch.no_grad():
        return _cross(
            entries,
            check_sizes(sizes),
            n_trains,
            rank,
            tol,
            max_rank,
            sweeps,
            method,
            sets,
            generator,
            callback,
            n_probes,
            dtype,
            torch.device(device),
        )


def _cross(
    entries,
    sizes,
    n_trains,
    rank,
    tol,
    max_rank,
    sweeps,
    method,
    sets,
    generator,
    callback,
    n_probes,
    dtype,
    device,
):
    start = time.perf_counter()
    reader = Reader(with_dtype(entries, dtype), sizes, device)
    ranks = cap_ranks(sizes, max_rank if rank is None else rank)
    search = SquareSearch(reader, n_trains, generator, n_probes)
    search.start(sets, ranks)
    errors = []
    for half in range(2 * sweeps):
        cores = search.left() if half % 2 == 0 else search.right()
        train = TensorTrain(cores)
        errors.append(search.error(train))
        if callback is not None:
            callback(CrossState(half + 1, search.sets(), train, errors[-1], reader.asked))
        if half % 2 and tol is not None and bool((errors[-1] <= tol).all()):
            break
    errors = torch.stack(errors)
    converged = errors[-1] <= (1e-6 if tol is None else tol)
    ledger = reader.ledger(len(errors) / 2, time.perf_counter() - start)
    return CrossResult(train, search.sets(), errors, errors[-1], converged, ledger)
