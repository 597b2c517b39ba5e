"""Generated cohorts with the trees of BraTS 2020 and OSIC and a known best possible error."""

from cpic.cohorts.synthetic._best import best_error
from cpic.cohorts.synthetic._brats import Lesion, make_brats_like, measure_lesion
from cpic.cohorts.synthetic._osic import Fibrosis, make_osic_like, measure_fibrosis

__all__ = [
    "Fibrosis",
    "Lesion",
    "best_error",
    "make_brats_like",
    "make_osic_like",
    "measure_fibrosis",
    "measure_lesion",
]
