"""Networks around tensor trains: encoders before them, heads after them, and the whole model."""

from cpic.nn._components import Components
from cpic.nn._core_heads import CoreHead, CorePredictor
from cpic.nn._counts import Counts
from cpic.nn._cpic import CPIC
from cpic.nn._encoder import CubeEncoder, PatchEncoder
from cpic.nn._entries import VolumeEntries
from cpic.nn._features import FEATURES, count_features
from cpic.nn._heads import Classifier, QuantileHead, TwoHeadRegressor
from cpic.nn._memory import SetMemory
from cpic.nn._noise import FeatureNoise, feature_noise
from cpic.nn._options import Positions, Reading, Search

__all__ = [
    "CPIC",
    "FEATURES",
    "Classifier",
    "Components",
    "CoreHead",
    "CorePredictor",
    "Counts",
    "CubeEncoder",
    "FeatureNoise",
    "PatchEncoder",
    "Positions",
    "QuantileHead",
    "Reading",
    "Search",
    "SetMemory",
    "TwoHeadRegressor",
    "VolumeEntries",
    "count_features",
    "feature_noise",
]
