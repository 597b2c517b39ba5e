"""Losses, and metrics of a whole fold."""

from cpic.nn.metrics._fold import RMSE, FoldMean
from cpic.nn.metrics._quantiles import laplace_log_likelihood, pinball

__all__ = ["RMSE", "FoldMean", "laplace_log_likelihood", "pinball"]
