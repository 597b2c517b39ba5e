"""Baselines of C-PIC: networks and features that read every voxel."""

from cpic.nn.baselines._blocks import block_means
from cpic.nn.baselines._downsample import DownsampleCNN
from cpic.nn.baselines._histogram import histogram_features
from cpic.nn.baselines._resnet import ResNet, resnet34

__all__ = ["DownsampleCNN", "ResNet", "block_means", "histogram_features", "resnet34"]
