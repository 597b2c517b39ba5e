"""Train on cohorts, fold by fold: batches, losses and metrics, faults, checkpoints, results."""

from cpic.train._batches import CohortData
from cpic.train._checkpoints import read_checkpoint
from cpic.train._dense import HistogramLinear, dense
from cpic.train._fit import fit_fold
from cpic.train._results import FoldResult, write_summary
from cpic.train._tasks import Classification, Quantiles, Regression

__all__ = [
    "Classification",
    "CohortData",
    "FoldResult",
    "HistogramLinear",
    "Quantiles",
    "Regression",
    "dense",
    "fit_fold",
    "read_checkpoint",
    "write_summary",
]
