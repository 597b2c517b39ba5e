"""Train on cohorts, fold by fold: batches, losses and metrics, faults, checkpoints, results."""

from cpic.train._baseline import baseline
from cpic.train._batches import CohortData
from cpic.train._brats import brats
from cpic.train._checkpoints import read_checkpoint
from cpic.train._dense import HistogramLinear, dense
from cpic.train._fit import fit_fold
from cpic.train._osic import osic
from cpic.train._predict import predict
from cpic.train._results import FoldResult
from cpic.train._tasks import Classification, Quantiles, Regression

__all__ = [
    "Classification",
    "CohortData",
    "FoldResult",
    "HistogramLinear",
    "Quantiles",
    "Regression",
    "baseline",
    "brats",
    "dense",
    "fit_fold",
    "osic",
    "predict",
    "read_checkpoint",
]
