"""Choose rows, columns and pivots of matrices; batched over all leading dimensions."""

from cpic.linalg._lu import RankRevealingLU, rank_revealing_lu
from cpic.linalg._maxvol import Maxvol, maxvol
from cpic.linalg._rect_maxvol import RectMaxvol, rect_maxvol

__all__ = [
    "Maxvol",
    "RankRevealingLU",
    "RectMaxvol",
    "maxvol",
    "rank_revealing_lu",
    "rect_maxvol",
]
