"""Generators and discriminators of images: networks, losses, paths between latent vectors."""

from cpic.nn.generative._blocks import ConditionalBatchNorm
from cpic.nn.generative._latent import lerp, sheet, slerp
from cpic.nn.generative._losses import hinge_discriminator, hinge_generator
from cpic.nn.generative._sngan import Discriminator, Generator, from_pixels, to_pixels

__all__ = [
    "ConditionalBatchNorm",
    "Discriminator",
    "Generator",
    "from_pixels",
    "hinge_discriminator",
    "hinge_generator",
    "lerp",
    "sheet",
    "slerp",
    "to_pixels",
]
