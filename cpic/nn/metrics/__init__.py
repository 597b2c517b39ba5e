"""Losses, metrics of a whole fold, and distances between sets."""

from cpic.nn.metrics._dice import Dice, dice
from cpic.nn.metrics._distances import KernelDistance, frechet_distance, kernel_distance
from cpic.nn.metrics._fold import RMSE, FoldMean
from cpic.nn.metrics._quantiles import laplace_log_likelihood, pinball

__all__ = [
    "RMSE",
    "Dice",
    "FoldMean",
    "KernelDistance",
    "dice",
    "frechet_distance",
    "kernel_distance",
    "laplace_log_likelihood",
    "pinball",
]
