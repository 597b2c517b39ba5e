"""Stores of any size: written chunk by chunk on demand, and cached chunks in memory.

Chunks of an `OnDemandVolume` are written to disk when they are first touched, so that a volume of
8192^3 voxels takes only the space of the parts that were read. A `ChunkCache` holds decoded chunks
of several volumes within one bound.
"""

from cpic.data.chunked._cache import ChunkCache
from cpic.data.chunked._reader import Touched
from cpic.data.stores._on_demand import OnDemandVolume, Written

__all__ = ["ChunkCache", "OnDemandVolume", "Touched", "Written"]
