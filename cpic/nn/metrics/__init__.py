"""Losses, and metrics of a whole fold."""

from cpic.nn.metrics._dice import Dice, dice
from cpic.nn.metrics._fold import RMSE, FoldMean
from cpic.nn.metrics._quantiles import laplace_log_likelihood, pinball

__all__ = ["RMSE", "Dice", "FoldMean", "dice", "laplace_log_likelihood", "pinball"]
