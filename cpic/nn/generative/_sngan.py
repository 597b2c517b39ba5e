r"""Generator and discriminator of a SNGAN, in the published sizes or narrower.

A generator maps latent vectors z to images in [-1, 1]; a discriminator maps images to one number,
higher for real ones. A conditional discriminator adds the inner product of its features with an
embedding of the class. Neither normalizes weights by itself: `cpic.nn.spectral` does.

Shapes: `K` images, `c` channels, `s` side of an image, `k` latent dimensions.
References: {cite}`miyato2018spectral`, {cite}`miyato2018cgans`, {cite}`obukhov2021spectral`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cpic.nn._checks import check_positive, check_volumes
from cpic.nn.generative._blocks import DownBlock, UpBlock, check_labels, initialize
from cpic.nn.generative._shapes import LATENT, shape_of


class Generator(nn.Module):
    """Residual generator of a SNGAN {cite}`miyato2018spectral`.

    Args:
        size: Side of the images: 32, 48, 64 or 128, as published, or 16.
        in_channels: Channels of the images.
        width: Channels that it starts with; the published number by default.
        n_latent: Dimensions of the latent vectors.
        n_classes: Classes, for conditional norms; None for an unconditional generator.

    Raises:
        ValueError: If a size is invalid, and, when called, if the inputs have another shape.

    Example:
        >>> make = Generator(16, in_channels=1, width=8).eval()
        >>> make(torch.randn(2, 128)).shape, make.pixels(torch.randn(2, 128)).dtype
        (torch.Size([2, 1, 16, 16]), torch.uint8)
    """

    def __init__(
        self,
        size: int = 32,
        *,
        in_channels: int = 3,
        width: int | None = None,
        n_latent: int = LATENT,
        n_classes: int | None = None,
    ):
        super().__init__()
        shape, width = shape_of("Generator", size, width=width, which="g")
        check_positive("Generator", in_channels=in_channels, n_latent=n_latent)
        self.size, self.in_channels, self.n_latent = size, in_channels, n_latent
        self.n_classes, self.width, self.bottom = n_classes, width, shape.bottom
        self.noise_to_conv = nn.Linear(n_latent, shape.bottom**2 * width)
        self.blocks = nn.ModuleList(
            UpBlock(width // one.before, width // one.after, n_classes=n_classes)
            for one in shape.up
        )
        last = width // shape.up[-1].after
        self.norm = nn.BatchNorm2d(last)
        self.last = nn.Conv2d(last, in_channels, 3, padding=1)
        initialize(self)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `(K, c, s, s)` in [-1, 1].

        Args:
            latent: Vectors `(K, k)`, standard normal in training.
            labels: Classes `(K,)` of a conditional generator.
        """
        if latent.ndim != 2 or latent.shape[1] != self.n_latent:
            raise ValueError(
                f"Generator needs latent vectors (K, {self.n_latent}), got {tuple(latent.shape)}."
            )
        conditions = check_labels(self, labels, self.n_classes, latent.shape[0])
        found = self.noise_to_conv(latent).view(-1, self.width, self.bottom, self.bottom)
        for block in self.blocks:
            found = block(found, *conditions)
        return self.last(functional.relu(self.norm(found))).tanh()

    def pixels(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `(K, c, s, s)` as uint8 from 0 to 255; not differentiable.

        Args:
            latent: Vectors `(K, k)`.
            labels: Classes `(K,)` of a conditional generator.
        """
        return to_pixels(self(latent, labels))


class Discriminator(nn.Module):
    """Residual discriminator of a SNGAN, with projection if conditional {cite}`miyato2018cgans`.

    Args:
        size: Side of the images: 32, 48, 64 or 128, as published, or 16.
        in_channels: Channels of the images.
        width: Channels that it ends with; the published number by default.
        n_classes: Classes; None for an unconditional discriminator.

    Raises:
        ValueError: If a size is invalid, and, when called, if the images have another shape.

    Example:
        >>> Discriminator(16, in_channels=1, width=8)(torch.rand(2, 1, 16, 16)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        size: int = 32,
        *,
        in_channels: int = 3,
        width: int | None = None,
        n_classes: int | None = None,
    ):
        super().__init__()
        shape, width = shape_of("Discriminator", size, width=width, which="d")
        check_positive("Discriminator", in_channels=in_channels)
        self.size, self.in_channels, self.n_classes = size, in_channels, n_classes
        first = DownBlock(in_channels, width // shape.stem, first=True)
        blocks = [
            DownBlock(width // one.before, width // one.after, halved=one.resized)
            for one in shape.down
        ]
        self.blocks = nn.Sequential(first, *blocks)
        self.last = nn.Linear(width, 1, bias=False)
        self.embedding = None if n_classes is None else nn.Embedding(n_classes, width)
        initialize(self)
        if self.embedding is not None:
            nn.init.xavier_uniform_(self.embedding.weight)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scores `(K,)` of images `(K, c, s, s)`, with classes `(K,)` if conditional."""
        check_volumes(self, images, self.in_channels, 2)
        conditions = check_labels(self, labels, self.n_classes, images.shape[0])
        features = functional.relu(self.blocks(images)).sum((2, 3))
        found = self.last(features).squeeze(1)
        for one in conditions if self.embedding is not None else ():
            found = found + (self.embedding(one) * features).sum(1)  # type: ignore[misc]
        return found


def to_pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8 from 0 to 255; not differentiable.

    Args:
        images: Any shape.

    Example:
        >>> to_pixels(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return (images * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def from_pixels(
    pixels: Tensor,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Pixels from 0 to 255 as numbers in [-1, 1], with noise if there is a generator.

    The noise is uniform in +-1/255, half of the step between two levels, and the result is clamped
    {cite}`obukhov2021spectral`: a discriminator cannot tell real images by their 256 levels.

    Args:
        pixels: uint8, any shape.
        generator: Random number generator of the noise; None for no noise.
        dtype: Of the result.

    Returns:
        Numbers on the device of the pixels.

    Example:
        >>> from_pixels(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    images = pixels.to(dtype) / 127.5 - 1
    if generator is None:
        return images
    noise = torch.rand(images.shape, generator=generator, device=generator.device, dtype=dtype)
    return (images + (2 * noise.to(images.device) - 1) / 255).clamp(-1, 1)
