"""Turn a tensor that is given by its entries into a train, with gradients."""

from cpic.bottleneck._chunked import chunked
from cpic.bottleneck._grow import grow
from cpic.bottleneck._half_sweep import HalfSweep, half_sweep

__all__ = ["HalfSweep", "chunked", "grow", "half_sweep"]
