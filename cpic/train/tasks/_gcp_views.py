"""How the pictures of each benchmark are scaled, cut and normalized."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cpic._vision import torchvision

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_HALF = ((0.5,), (0.5,))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Preprocessing of one benchmark.

    Attributes:
        crop: Side of the pictures that the network gets.
        before: Shorter side to which pictures are scaled before, or height and width; None for
            those that are of one size.
        train: "resized", a random part of a random size; "center"; or "padded", a random part of
            the picture with a border of 4 zeros. Half of them are mirrored but for digits.
        views: Crops of the final evaluation.
        normal: Mean and standard deviation of the channels.
        mirrored: Whether training pictures are mirrored.
    """

    crop: int
    before: int | tuple[int, int] | None = None
    train: Literal["resized", "center", "padded"] = "center"
    views: Literal["center", "mirrored", "ten"] = "mirrored"
    normal: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET
    mirrored: bool = True

    def of_size(self, size: int | None) -> "Recipe":
        """The same with other crops; what is scaled before follows in proportion."""
        if size is None or size == self.crop:
            return self
        share, before = size / self.crop, self.before
        if isinstance(before, tuple):
            before = (round(before[0] * share), round(before[1] * share))
        elif before is not None:
            before = round(before * share)
        return dataclasses.replace(self, crop=size, before=before)


_PHOTO = Recipe(448, (448, 448))
_DIGITS = Recipe(28, None, views="center", normal=_HALF, mirrored=False)
RECIPES = {
    "textures": Recipe(64, None, normal=_HALF),
    "digits": _DIGITS,
    "small-digits": dataclasses.replace(_DIGITS, crop=8),
    "cifar10": Recipe(32, None, "padded", "center", _CIFAR),
    "imagenet": Recipe(224, 256, "resized", "ten"),
    "cub": Recipe(448, 448),
    "aircraft": Recipe(448, (512, 512)),
    "aircraft-family": Recipe(448, (512, 512)),
    "aircraft-manufacturer": Recipe(448, (512, 512)),
    "cars": _PHOTO,
    "dogs": Recipe(448, (512, 512)),
    "dogs-cropped": Recipe(448, (512, 512)),
    "flowers": Recipe(448, 448),
}


def views_of(recipe: Recipe, *, color: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Functions of a picture `(c, h, w)` of uint8: "train", "center", "mirrored" and "ten".

    Args:
        recipe: The recipe.
        color: Repeat a gray channel three times.

    Returns:
        Pictures `(c, s, s)` of float32; for "mirrored" and "ten" several of them, `(v, c, s, s)`.
    """
    torchvision()
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional

    size = recipe.crop
    kinds = {
        "resized": lambda: v2.RandomResizedCrop(size, antialias=True),
        "center": lambda: v2.CenterCrop(size),
        "padded": lambda: v2.RandomCrop(size, padding=4),
    }
    cut, flip = kinds[recipe.train](), v2.RandomHorizontalFlip()

    def normal(pictures: Tensor) -> Tensor:
        if color and pictures.shape[-3] == 1:
            pictures = pictures.expand(*pictures.shape[:-3], 3, -1, -1)
        mean, spread = (torch.tensor(one).view(-1, 1, 1) for one in recipe.normal)
        return (pictures.float() / 255 - mean) / spread

    def center(picture: Tensor) -> Tensor:
        return functional.center_crop(picture, [size, size])

    def mirrored(picture: Tensor) -> Tensor:
        middle = center(picture)
        return normal(torch.stack([middle, middle.flip(-1)]))

    def ten(picture: Tensor) -> Tensor:
        return normal(torch.stack(list(functional.ten_crop(picture, [size, size]))))

    def train(picture: Tensor) -> Tensor:
        picture = cut(picture)
        return normal(flip(picture) if recipe.mirrored else picture)

    return {
        "train": train,
        "center": lambda picture: normal(center(picture)),
        "mirrored": mirrored,
        "ten": ten,
    }
