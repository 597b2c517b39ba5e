"""Networks around the trains: encoders before them, heads behind them."""

from cpic.nn._core_heads import CoreHead, CorePredictor
from cpic.nn._encoder import CubeEncoder, PatchEncoder
from cpic.nn._entries import VolumeEntries
from cpic.nn._heads import Classifier, QuantileHead, TwoHeadRegressor

__all__ = [
    "Classifier",
    "CoreHead",
    "CorePredictor",
    "CubeEncoder",
    "PatchEncoder",
    "QuantileHead",
    "TwoHeadRegressor",
    "VolumeEntries",
]
