r"""Build trains from selected entries: the search for index sets.

The square search alternates half-sweeps that select the multi-indices of one side by maxvol, given
those of the other side. It is exact if the ranks are. On data of full rank, interpolation
amplifies the components beyond the rank; there the cores are fitted by least squares to more rows
and columns than their rank (`_cross_sampled`).

Shapes: `K` tensors, `d` sites.
References: {cite}`oseledets2010ttcross`, {cite}`savostyanov2014quasioptimality`.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch

from cpic.linalg._inputs import check_choice, check_least
from cpic.tt._cross_run import CrossResult, CrossState, Run
from cpic.tt._entries import Entries
from cpic.tt._fibers import with_dtype
from cpic.tt._ledger import CrossLedger, Reader
from cpic.tt._sets import IndexSets, cap_ranks, check_sizes
from cpic.tt._table import Table
from cpic.tt._threads import one_thread
from cpic.tt._train import TensorTrain

Method = Literal["auto", "square", "least_squares"]


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
    max_entries: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> CrossResult:
    r"""Approximate K tensors by trains from a small part of their entries.

    The square search alternates half-sweeps of maxvol {cite}`oseledets2010ttcross`; of a matrix it
    finds the skeleton {eq}`eq-cross-skeleton`. With `rank` it makes `sweeps` sweeps, each to the
    left and back. With only `tol` it adds pivots where probes show errors, until new points confirm
    the tolerance or `6 * sweeps` rounds are over; it stores all values and requests none twice.
    Least squares suits measured data, which have full rank: it fits more rows and columns than the
    rank, and with only `tol` doubles the rank from 8 until the held-out error is at most `tol`.
    `"auto"` runs the square search and, if the error stays above one percent (and above `tol`),
    also least squares, and returns the better train of each tensor.

    With `rank` or least squares, the error is measured on `n_probes` random entries that no
    train is fitted to. With only `tol` it is an estimate of the error of the whole tensor, from
    new entries drawn in several ways: uniformly, where the train is large, around the largest entry
    found, and by climbing to larger errors. Twice its standard error is added. Tensors with at
    most 4096 entries, and those of up to 2^20 of which half would be read, are read completely and
    compressed by SVD: their error is exact. Carries no gradient: pass the sets to
    `interpolate`.

    With only `tol`, the guarantee of `converged` is statistical. Errors at a fraction p of what n
    draws sample are missed with probability (1 - p)^n: p is a fraction of all entries for the
    uniform half of the draws, at least `n_probes / 2`, and a fraction of the norm of the train for
    an eighth of them. Once a draw has found an isolated error (at a jump, or a spike that no line
    leads to), draws without another one are required until it is likely that no more remain than
    `tol` allows. If these would be too many, the tensor is read completely, provided that it has at
    most 2^20 entries and at most `256 n_probes` or eight times those requested; otherwise it has
    not converged. A spike that no probe, climb or fiber hits is missed, and so is one that only the
    fitted fibers hit: raise `n_probes` if features are small. Values rounded to float32 have an
    error of at least 3e-8, and do not converge below it.

    Args:
        entries: Maps int64 multi-indices `(K, n, d)` to real values `(K, n)`.
        sizes: Size of each of the `d` modes.
        n_trains: Number of tensors K, searched together; 0 gives empty trains.
        rank: Rank of the trains, as in `cap_ranks`; lowered to what `sizes` allow.
        tol: Relative error to reach. Required if `rank` is not given.
        max_rank: Upper bound on the rank if `rank` is not given.
        sweeps: Maximum number of sweeps.
        method: `"square"`, `"least_squares"` or `"auto"`.
        sets: Initial sets, for instance `result.sets` of an earlier search.
        generator: The only source of randomness.
        callback: Called with a `CrossState` after each half-sweep.
        n_probes: Number of random entries to measure the error on, and of those to find errors on
            (with only `tol` half as many).
        max_entries: Upper bound on the entries that a least-squares fit reads; by default what the
            rank needs, about 200 000 for rank 10 on 256^3.
        dtype: Type of the values and trains.
        device: Device of the multi-indices and trains.

    Returns:
        Trains, sets, held-out errors `(half_sweeps, K)`, `converged` `(K,)` and the ledger. Sets of
        a train by least squares or tolerance have more right than left multi-indices. A tensor has
        converged if its error is at most `tol`; without `tol`, at most 1e-6. The ranks are
        within `rank` or `max_rank` at every bond. If all probes are zero, tensors of up to 65 536
        entries are read completely; nothing is known of larger ones: the error is NaN, and the
        tensor has not converged.

    Raises:
        ValueError: If neither `rank` nor `tol` is given, an argument is invalid, or `entries`
            returns a wrong shape or device, complex, NaN or infinite values.

    Example:
        >>> seed = torch.Generator().manual_seed(0)
        >>> found = cross(lambda i: 1.0 / (1.0 + i.sum(-1)), (20,) * 5, rank=6, generator=seed)
        >>> bool(found.error < 1e-3), found.train.ranks
        (True, (1, 6, 6, 6, 6, 1))
    """
    sizes = check_sizes(sizes)
    _check(rank, tol, max_rank, sweeps, method, n_trains, n_probes, dtype)
    if sets is not None and (sets.sizes != sizes or sets.n_trains != n_trains):
        raise ValueError(
            f"cross needs starting sets for {n_trains} tensors of sizes {sizes}, got "
            f"{sets.n_trains} of sizes {sets.sizes}."
        )
    device = torch.device(device)
    ranks = cap_ranks(sizes, max_rank if rank is None else rank)
    if n_trains == 0:
        return _nothing(sizes, ranks, generator, dtype, device)
    read = with_dtype(entries, dtype)
    if rank is None and Table.fits(sizes, n_trains):
        reader = Table(read, sizes, device, n_trains)
    else:
        reader = Reader(read, sizes, device)
    with one_thread(), torch.no_grad():
        run = Run(reader, ranks, n_trains, tol, sweeps, generator, n_probes, rank is None, callback)
        if method != "least_squares":
            run.square(sets, hasty=method == "auto")
        if method == "least_squares" or (method == "auto" and run.unlike_low_rank()):
            run.sampled(max_entries)
        return run.result()


def _check(rank, tol, max_rank, sweeps, method, n_trains, n_probes, dtype) -> None:
    if rank is None and tol is None:
        raise ValueError("cross needs a rank or a tol, got neither; pass rank=10 or tol=1e-6.")
    check_choice("cross", "method", method, get_args(Method), "auto chooses")
    if tol is not None and not 0 < tol < float("inf"):
        raise ValueError(f"cross needs a finite tol > 0, got {tol}; omit it for a fixed rank.")
    check_least("cross", "raise it", max_rank=max_rank, sweeps=sweeps, n_probes=n_probes)
    check_least("cross", "0 gives empty trains", least=0, n_trains=n_trains)
    if not dtype.is_floating_point:
        raise ValueError(
            f"cross needs float32 or float64, got {dtype}; search real and imaginary parts apart."
        )


def _nothing(sizes, ranks, generator, dtype, device) -> CrossResult:
    """The result for zero tensors; `entries` is not called."""
    cores = [
        torch.zeros(0, ranks[k], n, ranks[k + 1], dtype=dtype, device=device)
        for k, n in enumerate(sizes)
    ]
    sets = IndexSets.random(sizes, ranks, generator=generator, n_trains=0).to(device)
    none = torch.zeros(0, dtype=torch.float64, device=device)
    return CrossResult(
        TensorTrain(cores), sets, none[None], none, none.bool(), CrossLedger(0, 0, 0.0)
    )
