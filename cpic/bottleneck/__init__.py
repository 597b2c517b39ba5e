"""Compute trains from the entries of tensors, with gradients."""

from cpic.bottleneck._base import Bottleneck
from cpic.bottleneck._by_name import BOTTLENECKS, bottleneck
from cpic.bottleneck._chunked import chunked
from cpic.bottleneck._cp import CP
from cpic.bottleneck._cross import Cross
from cpic.bottleneck._dense import TTSVD, BlockTT, Identity, MatrixSVD
from cpic.bottleneck._grow import grow
from cpic.bottleneck._half_sweep import HalfSweep, half_sweep

__all__ = [
    "BOTTLENECKS",
    "CP",
    "TTSVD",
    "BlockTT",
    "Bottleneck",
    "Cross",
    "HalfSweep",
    "Identity",
    "MatrixSVD",
    "bottleneck",
    "chunked",
    "grow",
    "half_sweep",
]
