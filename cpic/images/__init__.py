"""Labeled pictures, and images larger than memory that are read patch by patch."""

from cpic.images._array import ArrayImage
from cpic.images._color import color_jitter, normalized, recolor
from cpic.images._compose import Canvas, make_megapixel_mnist
from cpic.images._image import Decoded, Fault, Image
from cpic.images._images import Images, PixelImages, split
from cpic.images._in_files import FileImages
from cpic.images._load import check_images, load
from cpic.images._megapixel import MegapixelMNIST, load_megapixel_mnist
from cpic.images._open import open_image
from cpic.images._openslide import OpenSlideImage
from cpic.images._pillow import PillowImage
from cpic.images._source import PatchSource, grid_corners
from cpic.images._sparse import SparseImage
from cpic.images._tiff import TiffImage
from cpic.images._traffic import (
    Sign,
    TrafficSigns,
    check_traffic,
    label_of,
    read_signs,
    read_traffic,
)
from cpic.images._zarr import ZarrImage

__all__ = [
    "ArrayImage",
    "Canvas",
    "Decoded",
    "Fault",
    "FileImages",
    "Image",
    "Images",
    "MegapixelMNIST",
    "OpenSlideImage",
    "PatchSource",
    "PillowImage",
    "PixelImages",
    "Sign",
    "SparseImage",
    "TiffImage",
    "TrafficSigns",
    "ZarrImage",
    "check_images",
    "check_traffic",
    "color_jitter",
    "grid_corners",
    "label_of",
    "load",
    "load_megapixel_mnist",
    "make_megapixel_mnist",
    "normalized",
    "open_image",
    "read_signs",
    "read_traffic",
    "recolor",
    "split",
]
