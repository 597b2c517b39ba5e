"""Volumes on another grid: in memory, or block by block into a store on the disk."""

from cpic.data._resample import resample

__all__ = ["resample"]
