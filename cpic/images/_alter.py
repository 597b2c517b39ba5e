"""Alter all pictures of a batch at once: resize, shift, random parts, mirror images.

Shapes: `B` pictures, `c` channels, `h`, `w` sides.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_CHUNK = 4096  # pictures resized at once
_TRIES = 10


def resized(pixels: Tensor, size: int) -> Tensor:
    """Pixels `(n, c, h, w)` of uint8 with both sides `size`, by bilinear means without aliasing."""
    if tuple(pixels.shape[2:]) == (size, size):
        return pixels
    parts = [
        functional.interpolate(
            part.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
        )
        for part in pixels.split(_CHUNK)
    ]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])


def shifted(images: Tensor, most: int, *, generator: torch.Generator) -> Tensor:
    """Each picture moved by a random whole number of pixels, at most `most` along each axis.

    Args:
        images: `(B, c, h, w)`.
        most: Largest shift.
        generator: Random number generator.

    Returns:
        Pictures of the same size, with zeros where there was nothing.

    Example:
        >>> shifted(torch.ones(2, 1, 4, 4), 0, generator=torch.Generator()).sum().item()
        32.0
    """
    n, _, h, w = images.shape
    moves = torch.randint(-most, most + 1, (2, n, 1), generator=generator).to(images.device)
    padded = functional.pad(images, (most,) * 4)
    rows = torch.arange(h, device=images.device) + most + moves[0]
    columns = torch.arange(w, device=images.device) + most + moves[1]
    which = torch.arange(n, device=images.device)[:, None, None]
    # Indexed axes come first.
    return padded.movedim(1, -1)[which, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def random_parts(
    images: Tensor,
    *,
    generator: torch.Generator,
    pad: int = 4,
    areas: tuple[float, float] = (0.08, 1.0),
    ratio: float = 4 / 3,
) -> Tensor:
    """A random part of each padded picture, resized, and mirrored with probability 1/2.

    The parts are drawn as `RandomResizedCrop` of torchvision draws them: of ten parts with a
    uniform area and a log-uniform ratio of the sides, the first that fits, otherwise the middle.

    Args:
        images: `(B, c, h, w)`.
        generator: Random number generator.
        pad: Zeros added on each side before.
        areas: Least and largest area of a part, as a share of the padded picture.
        ratio: Largest ratio of its sides, and the inverse of the least one.

    Returns:
        Pictures of the same size.

    Example:
        >>> random_parts(torch.rand(2, 3, 8, 8), generator=torch.Generator()).shape
        torch.Size([2, 3, 8, 8])
    """
    n, _, h, w = images.shape
    padded = functional.pad(images, (pad,) * 4)
    height, width = padded.shape[2:]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    area = height * width * uniform(*areas, n, _TRIES)
    shape = uniform(-math.log(ratio), math.log(ratio), n, _TRIES).exp()
    tall, wide = (area / shape).sqrt().round(), (area * shape).sqrt().round()
    fits = (tall <= height) & (wide <= width) & (tall > 0) & (wide > 0)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)
    side = float(min(height, width))
    tall, wide = (torch.where(found, one.gather(1, first)[:, 0], side) for one in (tall, wide))
    places = []
    for length, whole, out in ((tall, height, h), (wide, width, w)):
        free = whole - length
        start = torch.where(found, (uniform(0, 1, n) * (free + 1)).floor(), (free / 2).floor())
        steps = (torch.arange(out, dtype=torch.float64) + 0.5) / out
        # Within the part: no pixel from beside it.
        inner = (length[:, None] * steps - 0.5).clamp(min=0).minimum(length[:, None] - 1)
        places.append((2 * (start[:, None] + inner) + 1) / whole - 1)
    rows, columns = places
    mirrored = uniform(0, 1, n) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    grid = torch.stack(
        (columns[:, None, :].expand(n, h, w), rows[:, :, None].expand(n, h, w)), dim=-1
    )
    return functional.grid_sample(padded, grid.to(images), align_corners=False)
