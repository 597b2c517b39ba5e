"""The training loop of one fold: batches, faults, checkpoints, several processes."""

from cpic._vision import declare_operators

declare_operators()  # Lightning imports torchvision
