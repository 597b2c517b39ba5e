"""Baselines of C-PIC: networks and features that read every voxel, or every pixel."""

from cpic.nn.baselines._blocks import block_means
from cpic.nn.baselines._downsample import DownsampleCNN
from cpic.nn.baselines._histogram import histogram_features
from cpic.nn.baselines._resnet import ResNet, resnet34
from cpic.nn.baselines._wresnet import SmallResNet, WideResNet

__all__ = [
    "DownsampleCNN",
    "ResNet",
    "SmallResNet",
    "WideResNet",
    "block_means",
    "histogram_features",
    "resnet34",
]
