"""From latent trains back to voxels: decoders that read patches."""

from cpic.nn.patches._autoencoder import Autoencoder
from cpic.nn.patches._decoder import PatchDecoder
from cpic.nn.patches._model import PatchModel
from cpic.nn.patches._positions import BalancedPositions, class_of
from cpic.nn.patches._segmenter import Segmenter

__all__ = [
    "Autoencoder",
    "BalancedPositions",
    "PatchDecoder",
    "PatchModel",
    "Segmenter",
    "class_of",
]
