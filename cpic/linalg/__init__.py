"""Select rows, columns and pivots of matrices; eigenvalues and roots with bounded gradients."""

from cpic.linalg._eigh import eigh
from cpic.linalg._gaps import inverse_gap
from cpic.linalg._lu import RankRevealingLU, rank_revealing_lu
from cpic.linalg._maxvol import Maxvol, maxvol
from cpic.linalg._powerm import inverse_sqrtm, powerm
from cpic.linalg._rect_maxvol import RectMaxvol, rect_maxvol
from cpic.linalg._safe import safe_gradients
from cpic.linalg._sqrtm import sqrtm
from cpic.linalg._svd import svd

__all__ = [
    "Maxvol",
    "RankRevealingLU",
    "RectMaxvol",
    "eigh",
    "inverse_gap",
    "inverse_sqrtm",
    "maxvol",
    "powerm",
    "rank_revealing_lu",
    "rect_maxvol",
    "safe_gradients",
    "sqrtm",
    "svd",
]
