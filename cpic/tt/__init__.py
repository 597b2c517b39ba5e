"""Tensor trains: hold, round, search and rebuild tensors through few of their entries."""

from cpic.tt._entries import Entries, dense_entries
from cpic.tt._svd import tt_svd
from cpic.tt._train import TensorTrain

__all__ = ["Entries", "TensorTrain", "dense_entries", "tt_svd"]
