"""Pooling of feature maps by second-order statistics, and networks around it.

References: {cite}`li2017second`, {cite}`li2018towards`, {cite}`song2021approximate`,
{cite}`song2022fast`, {cite}`song2022eigenvalues`.
"""

from cpic.nn.pooling._backbones import small_backbone
from cpic.nn.pooling._bilinear import Bilinear, CompactBilinear, GlobalAverage
from cpic.nn.pooling._covariance import CovariancePool, triangle
from cpic.nn.pooling._power import MatrixPower, ScaledRoot, Switched
from cpic.nn.pooling._second_order import REPRESENTATIONS, SecondOrder, representation
from cpic.nn.pooling._surgery import Features, Reduction, ThreeParts, feature_layers
from cpic.nn.pooling._whitening import DecorrelatedBatchNorm, transfer_statistics

__all__ = [
    "REPRESENTATIONS",
    "Bilinear",
    "CompactBilinear",
    "CovariancePool",
    "DecorrelatedBatchNorm",
    "Features",
    "GlobalAverage",
    "MatrixPower",
    "Reduction",
    "ScaledRoot",
    "SecondOrder",
    "Switched",
    "ThreeParts",
    "feature_layers",
    "representation",
    "small_backbone",
    "transfer_statistics",
    "triangle",
]
