"""Choose rows, columns and pivots of matrices; batched over all leading dimensions."""

from cpic.linalg._maxvol import Maxvol, maxvol

__all__ = ["Maxvol", "maxvol"]
