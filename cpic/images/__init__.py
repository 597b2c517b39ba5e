"""Labeled pictures: built in, or from the user's copy of a published data set."""

from cpic.images._images import Images, PixelImages, split
from cpic.images._load import load

__all__ = ["Images", "PixelImages", "load", "split"]
