"""Networks around tensor trains: encoders before them, heads after them, and the whole model."""

from cpic.nn._components import Components
from cpic.nn._core_heads import CoreHead, CorePredictor
from cpic.nn._cpic import CPIC, Counts
from cpic.nn._encoder import CubeEncoder, PatchEncoder
from cpic.nn._entries import VolumeEntries
from cpic.nn._heads import Classifier, QuantileHead, TwoHeadRegressor
from cpic.nn._memory import SetMemory
from cpic.nn._options import Reading, Search

__all__ = [
    "CPIC",
    "Classifier",
    "Components",
    "CoreHead",
    "CorePredictor",
    "Counts",
    "CubeEncoder",
    "PatchEncoder",
    "QuantileHead",
    "Reading",
    "Search",
    "SetMemory",
    "TwoHeadRegressor",
    "VolumeEntries",
]
