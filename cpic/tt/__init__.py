"""Tensor trains: store, round, search and reconstruct tensors from few of their entries."""

from cpic.tt._cross import cross
from cpic.tt._cross_run import CrossResult, CrossState
from cpic.tt._entries import Entries, dense_entries
from cpic.tt._extrema import Extrema, find_extrema
from cpic.tt._interpolate import interpolate
from cpic.tt._ledger import CrossLedger
from cpic.tt._quantics import Quantics
from cpic.tt._sets import IndexSets, cap_ranks
from cpic.tt._svd import tt_svd
from cpic.tt._train import TensorTrain

__all__ = [
    "CrossLedger",
    "CrossResult",
    "CrossState",
    "Entries",
    "Extrema",
    "IndexSets",
    "Quantics",
    "TensorTrain",
    "cap_ranks",
    "cross",
    "dense_entries",
    "find_extrema",
    "interpolate",
    "tt_svd",
]
