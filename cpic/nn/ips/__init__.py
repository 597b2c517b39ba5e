"""Iterative patch selection: classify an image of any size by the few patches that matter."""

from cpic.nn.ips._ats import AttentionSampling, MapNet, draw_patches, expectation
from cpic.nn.ips._bags import Bag, Bags, as_bags
from cpic.nn.ips._choosers import AllPatches, Chooser, CrossPatches, Iterative, RandomPatches
from cpic.nn.ips._dps import DifferentiableSelection, perturbed_topk
from cpic.nn.ips._encoders import ConvEncoder, FeatureProjector, ResNetEncoder
from cpic.nn.ips._encoding import positional_encoding
from cpic.nn.ips._model import Answer, PatchClassifier
from cpic.nn.ips._pools import CrossAttention, GatedAttention, WithCovariance
from cpic.nn.ips._select import Scorer, Selection, select
from cpic.nn.ips._tasks import (
    Heads,
    Target,
    roc_auc,
    target_chance,
    target_loss,
    target_metric,
)

__all__ = [
    "AllPatches",
    "Answer",
    "AttentionSampling",
    "Bag",
    "Bags",
    "Chooser",
    "ConvEncoder",
    "CrossAttention",
    "CrossPatches",
    "DifferentiableSelection",
    "FeatureProjector",
    "GatedAttention",
    "Heads",
    "Iterative",
    "MapNet",
    "PatchClassifier",
    "RandomPatches",
    "ResNetEncoder",
    "Scorer",
    "Selection",
    "Target",
    "WithCovariance",
    "as_bags",
    "draw_patches",
    "expectation",
    "perturbed_topk",
    "positional_encoding",
    "roc_auc",
    "select",
    "target_chance",
    "target_loss",
    "target_metric",
]
