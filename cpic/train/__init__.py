"""Train on cohorts, fold by fold: batches, losses and metrics, faults, checkpoints, results."""

from cpic.train.loop._batches import CohortData
from cpic.train.loop._checkpoints import read_checkpoint
from cpic.train.loop._fit import fit_fold
from cpic.train.prediction._predict import predict
from cpic.train.results._results import FoldResult
from cpic.train.tasks._baseline import baseline
from cpic.train.tasks._brats import brats
from cpic.train.tasks._dense import HistogramLinear, dense
from cpic.train.tasks._osic import osic
from cpic.train.tasks._tasks import Classification, Quantiles, Regression

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
