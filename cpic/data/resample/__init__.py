"""Resample volumes to another grid: in memory, or block by block into a store on disk."""

from cpic.data._resample import resample
from cpic.data.resample._upsample import upsample

__all__ = ["resample", "upsample"]
