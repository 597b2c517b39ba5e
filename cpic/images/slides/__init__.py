"""Slides of pathology: threshold, foreground tiles, annotations, features and heat maps."""

from cpic.images.slides._annotations import Annotation, read_annotation
from cpic.images.slides._features import FeatureBag, extract_features
from cpic.images.slides._heat import Scores, heat_map, read_scores, save_scores
from cpic.images.slides._otsu import Threshold, gray, otsu_threshold
from cpic.images.slides._slides import Slide, Slides, read_slides
from cpic.images.slides._stores import open_features
from cpic.images.slides._tiles import Tiles, foreground, foreground_tiles

__all__ = [
    "Annotation",
    "FeatureBag",
    "Scores",
    "Slide",
    "Slides",
    "Threshold",
    "Tiles",
    "extract_features",
    "foreground",
    "foreground_tiles",
    "gray",
    "heat_map",
    "open_features",
    "otsu_threshold",
    "read_annotation",
    "read_scores",
    "read_slides",
    "save_scores",
]
