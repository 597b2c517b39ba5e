"""The libraries we compare with, behind one call.

A peer takes `function`, from int64 `(n, d)` to float64 `(n,)` in numpy, the sizes, a rank or a
tolerance, and a seed; it returns its cores as arrays `(l, size, r)`. All peers see the same numpy
function, so its cost is the same for all.
"""

import contextlib
import importlib
import io
import warnings
from functools import cache

import numpy as np
import torch

from cpic import tt
from cpic.tt._bonds import apart, batch_of, groups_of
from cpic.tt._interpolate import read_fibers
from cpic.tt._sweep import as_train

RANK_CAP = 64


def tntorch(function, sizes, *, rank=None, tol=None, seed=0, sweeps=4):
    """One-site maxvol sweeps, ranks fixed or raised by three a sweep."""
    import tntorch as peer

    torch.manual_seed(seed)
    domain = [torch.arange(n) for n in sizes]
    ranks = (
        {"ranks_tt": rank, "eps": 0.0, "max_iter": sweeps}
        if tol is None
        else {"eps": tol, "rmax": RANK_CAP}
    )
    train = peer.cross(
        lambda index: torch.from_numpy(function(index.long().numpy())),
        domain,
        function_arg="matrix",
        verbose=False,
        suppress_warnings=True,
        **ranks,
    )
    return [core.numpy() for core in train.cores]


def teneva(function, sizes, *, rank=None, tol=None, seed=0, sweeps=4):
    """One-site maxvol sweeps; with a tolerance the ranks grow by one a sweep and bond."""
    import teneva as peer

    start = peer.rand(list(sizes), rank or 2, seed=seed)
    growth = {"nswp": sweeps, "dr_min": 0, "dr_max": 0} if tol is None else {"e": tol, "nswp": 25}
    return peer.cross(function, start, **growth)


def torchtt(function, sizes, *, rank=None, tol=None, seed=0, sweeps=4):
    """Two-site SVD sweeps, rounded to the rank afterwards: it may return two more than its cap."""
    from torchtt.interpolate import dmrg_cross

    torch.manual_seed(seed)
    cap = {"rmax": rank, "nswp": sweeps} if tol is None else {"rmax": RANK_CAP}
    train = dmrg_cross(
        lambda index: torch.from_numpy(function(index.numpy())),
        list(sizes),
        eps=tol or 1e-12,
        **cap,
    )
    if rank is not None:
        train = train.round(1e-14, rank)
    return [core.numpy() for core in train.cores]


def seemps(function, sizes, *, rank=None, tol=None, seed=0, sweeps=4, strategy="maxvol"):
    """Rectangular maxvol or two-site SVD, from a random entry that is not zero."""
    from seemps.analysis import cross as peer
    from seemps.analysis.cross.black_box import BlackBox
    from seemps.analysis.cross.cross_dmrg import DEFAULT_CROSS_DMRG_STRATEGY

    class Entries(BlackBox):
        def __getitem__(self, index):
            return self.func(np.ascontiguousarray(index, dtype=np.int64))

    draw = np.random.default_rng(seed)
    start = draw.integers(0, sizes, size=(1000, len(sizes)))
    start = start[np.flatnonzero(function(start))[:1]]
    bounds = {
        "range_max_bonds": (1, rank or RANK_CAP),
        # It begins at rank 1 and adds little in a half-sweep; at its rank it stops by itself.
        "range_iters": (1, 2 * (max(sweeps, rank or 0) if tol is None else 25)),
    }
    options = {"tol": tol or 1e-14, "error_relative": True, "rng": draw, **bounds}
    if strategy == "greedy":
        chosen = peer.CrossStrategyGreedy(**options)
    elif strategy == "dmrg":
        # The bond range only stops the sweeps; the cap of the truncation is what holds the rank.
        truncation = DEFAULT_CROSS_DMRG_STRATEGY.replace(max_bond_dimension=rank or RANK_CAP)
        chosen = peer.CrossStrategyDMRG(strategy=truncation, **options)
    else:
        chosen = peer.CrossStrategyMaxvol(**options)
    result = peer.cross_interpolation(Entries(function, list(sizes)), chosen, start)
    return [np.asarray(core) for core in result.mps]


def seemps_dmrg(function, sizes, **options):
    """The two-site SVD variant of seemps."""
    return seemps(function, sizes, strategy="dmrg", **options)


def seemps_greedy(function, sizes, **options):
    """The variant of seemps that adds one pivot a bond and half-sweep."""
    return seemps(function, sizes, strategy="greedy", **options)


PEERS = {
    run.__name__.replace("_", "-"): run
    for run in (tntorch, teneva, torchtt, seemps, seemps_dmrg, seemps_greedy)
}


def missing(name: str) -> str | None:
    """Why a peer cannot run here, or None; imports it, so that no clock sees that."""
    module = {"torchtt": "torchtt.interpolate"}.get(name, name.split("-")[0])
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except ImportError as error:
        return f"not installed: {error}"
    return None


def run_peer(name, function, sizes, **options):
    """Run a peer quietly: several of them print or warn at every sweep."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return PEERS[name](function, sizes, **options)


def tntorch_forward(entries, sets):
    """`tntorch.cross_forward` on nested square sets of one tensor, as a train with its gradient."""
    import tntorch as peer

    found = peer.cross_forward(
        tntorch_places(sets),
        lambda index: entries(index.long()[None])[0],
        domain=[torch.arange(n) for n in sets.sizes],
        function_arg="matrix",
    )
    return tt.TensorTrain([core[None] for core in found.cores])


@cache
def tntorch_places(sets):
    """Our index sets as tntorch keeps them: rows of unfoldings on the left, zeros at the ends."""
    d = sets.n_sites
    locals_ = []
    for k in range(d - 1):
        before, rows = sets.left[k][0], sets.left[k + 1][0]
        where = (rows[:, None, :-1] == before).all(-1).long().argmax(-1)
        locals_.append((where * sets.sizes[k] + rows[:, -1]).numpy())
    return {
        "lsets": [np.array([[0]])] + [None] * (d - 1),
        "rsets": [sets.right[k][0].numpy() for k in range(d - 1)] + [np.array([[0]])],
        "left_locals": locals_,
        "Rs": np.array(sets.ranks),
    }


def plain_forward(entries, sets, how):
    """The same interpolation with `torch.linalg.lstsq` or `pinv`, whose gradients we compare."""

    def solve(matrix, pivot):
        if how == "lstsq":
            return torch.linalg.lstsq(pivot.mT, matrix.mT).solution.mT
        return matrix @ torch.linalg.pinv(pivot)

    (*matrices, last), rows = read_fibers(entries, sets)
    groups = groups_of(matrices, rows, how)
    cores = apart(groups, [solve(*batch_of(matrices, rows, bonds)) for bonds in groups])
    return as_train([*cores, last], sets.sizes, "right")
