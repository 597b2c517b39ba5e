"""Options by subject, and the commands composed of them."""

from cpic.options._command import command
from cpic.options._groups import Data, Model, MRData, Network, Optimization, Run, Training
from cpic.options._patches import Patches, PatchRun, PatchTraining, Selector
from cpic.options._pictures import (
    AdversarialRun,
    AdversarialSteps,
    Adversaries,
    Classes,
    ClassifierSteps,
    PictureRun,
    PictureSet,
    Scaled,
)
from cpic.options._pooling import Descent, Pictures, Pooling

__all__ = [
    "AdversarialRun",
    "AdversarialSteps",
    "Adversaries",
    "Classes",
    "ClassifierSteps",
    "Data",
    "Descent",
    "MRData",
    "Model",
    "Network",
    "Optimization",
    "PatchRun",
    "PatchTraining",
    "Patches",
    "PictureRun",
    "PictureSet",
    "Pictures",
    "Pooling",
    "Run",
    "Scaled",
    "Selector",
    "Training",
    "command",
]
