"""Layers with few numbers: weights from orthonormal frames, with exposed singular values."""

from cpic.nn.spectral._cached import cached
from cpic.nn.spectral._frames import Reflectors, count_free, frames, reflectors
from cpic.nn.spectral._groups import parameter_groups
from cpic.nn.spectral._norm import Compensation, spectral_norm
from cpic.nn.spectral._operator import convolution_norm
from cpic.nn.spectral._penalties import penalty
from cpic.nn.spectral._remove import remove
from cpic.nn.spectral._report import (
    Compression,
    LayerReport,
    compression,
    report,
    spectra,
    stable_rank,
)
from cpic.nn.spectral._surgery import Surgery, parametrize

__all__ = [
    "Compensation",
    "Compression",
    "LayerReport",
    "Reflectors",
    "Surgery",
    "cached",
    "compression",
    "convolution_norm",
    "count_free",
    "frames",
    "parameter_groups",
    "parametrize",
    "penalty",
    "reflectors",
    "remove",
    "report",
    "spectra",
    "spectral_norm",
    "stable_rank",
]
