"""What opens the patches of an image, and makes small views of it; may be sent to a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic.images import (
    ArrayImage,
    Images,
    MegapixelMNIST,
    PatchSource,
    TrafficSigns,
    color_jitter,
    normalized,
    recolor,
)
from cpic.nn.ips import Bag

# As published: changes of color, and of position in pixels of the scaled photograph.
_JITTER, _SHIFT = 0.1, 100


class Altered:
    """Color patches of a source, with new colors if there is a map, scaled as encoders expect."""

    def __init__(self, source: PatchSource, colors: Tensor | None):
        self.source, self.colors = source, colors

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Tensor) -> Tensor:
        """Patches `(k, 3, h, w)`, float32."""
        patches = self.source.read(indices)
        if self.colors is not None:
            patches = recolor(patches.float() / 255, self.colors)
        return normalized(patches)


@dataclass(eq=False)
class MegapixelReader:
    """Opens images of megapixel MNIST."""

    images: MegapixelMNIST
    patch: int
    stride: int | None
    edge: int = 1

    def __call__(self, k: int, generator: torch.Generator | None) -> PatchSource:
        return self.images.source(k, patch=self.patch, stride=self.stride)

    def look(self, k: int) -> Tensor:
        """A view of `edge` pixels, or fewer if the image is smaller."""
        height, width = (min(self.edge, size) for size in self.images.shape)
        return self.images.image(k).thumbnail((height, width))


@dataclass(eq=False)
class EnlargedReader:
    """Opens single digits, enlarged to a canvas."""

    images: Images
    canvas: tuple[int, int]
    patch: int
    stride: int | None
    edge: int = 1

    def __call__(self, k: int, generator: torch.Generator | None) -> PatchSource:
        return PatchSource(
            ArrayImage(self._scaled(k, self.canvas)), size=self.patch, stride=self.stride
        )

    def look(self, k: int) -> Tensor:
        """A view of `edge` pixels, or fewer if the canvas is smaller."""
        height, width = (min(self.edge, size) for size in self.canvas)
        return torch.from_numpy(self._scaled(k, (height, width)))[None] / 255

    def _scaled(self, k: int, size: tuple[int, int]) -> np.ndarray:
        from PIL import Image as pillow

        digit = pillow.fromarray(self.images.read([k])[0, 0].numpy())
        return np.array(digit.resize((size[1], size[0]), pillow.Resampling.BILINEAR))


@dataclass(eq=False)
class SignReader:
    """Opens photographs of roads."""

    signs: TrafficSigns
    patch: int
    stride: int | None
    edge: int = 1

    def __call__(self, k: int, generator: torch.Generator | None) -> Altered:
        options: dict[str, Any] = {"patch": self.patch, "stride": self.stride}
        if generator is None:
            return Altered(self.signs.source(k, **options), None)
        shift = torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=generator).tolist()
        jitter = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), _JITTER)
        colors = color_jitter(1, **jitter, generator=generator)
        return Altered(self.signs.source(k, shift=tuple(shift), **options), colors)

    def look(self, k: int) -> Tensor:
        """A view of at most `edge` pixels along each side."""
        image = self.signs.source(k, patch=self.patch).image
        whole = image.read(torch.zeros(1, 2, dtype=torch.int64), size=image.shape)
        size = [min(self.edge, side) for side in image.shape]
        return torch.nn.functional.interpolate(whole.float() / 255, size, mode="area")[0]


@dataclass(eq=False)
class FeatureReader:
    """Opens features of slides."""

    bags: Sequence[Any]

    def __call__(self, k: int, generator: torch.Generator | None) -> Bag:
        return self.bags[k]
