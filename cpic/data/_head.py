"""A head as a formula: shells, folds and texture at any resolution."""

import functools

import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._formula import FormulaVolume

# Half axes on [-1, 1]^3 and brightness of nested ellipsoids, each painted over the outer ones.
_SHELLS = (
    (0.92, 0.96, 0.90, 0.80),  # scalp
    (0.86, 0.90, 0.84, 0.10),  # bone
    (0.80, 0.84, 0.78, 0.25),  # fluid
    (0.76, 0.80, 0.74, 0.55),  # gray matter
    (0.66, 0.70, 0.64, 0.85),  # white matter
    (0.14, 0.32, 0.16, 0.20),  # ventricles
)
_FOLDED = (3, 4)
_EDGE = 0.015


class _Head:
    """Brightness at integer positions of a grid of `shape`."""

    def __init__(self, shape: tuple[int, ...], waves: Tensor) -> None:
        self.shape, self.waves = shape, waves

    def __call__(self, *axes: Tensor) -> Tensor:
        points = [
            ((2 * axis + 1).double() / length - 1).float()
            for axis, length in zip(axes, self.shape, strict=True)
        ]
        folds = self._waves(points, self.waves[0])
        texture = self._waves(points, self.waves[1])
        value = torch.zeros((), dtype=folds.dtype, device=folds.device)
        for number, (*half, brightness) in enumerate(_SHELLS):
            squares = [(p / a).square() for p, a in zip(points, half, strict=False)]
            radius = functools.reduce(torch.add, squares).sqrt()
            if number in _FOLDED:
                radius = radius + 0.06 * folds
            weight = torch.sigmoid((1 - radius) / _EDGE)
            value = value + weight * (brightness - value)
        return value * (1 + 0.08 * texture)

    def _waves(self, points: list[Tensor], waves: Tensor) -> Tensor:
        """Mean of products of sines along the axes; each factor has the length of its axis."""
        waves = waves.to(points[0].device)
        factors = [
            torch.sin(point[..., None] * waves[:, axis, 0] + waves[:, axis, 1])
            for axis, point in enumerate(points)
        ]
        *first, last = factors
        return torch.einsum("...g,...g->...", functools.reduce(torch.mul, first), last)


def brain_like(shape: tuple[int, ...], *, seed: int = 0) -> FormulaVolume:
    """A head phantom: scalp, bone, fluid, folded gray and white matter, ventricles, texture.

    The same head at every resolution, up to 8192^3 and beyond, without any array. It is not
    anatomy: it shares with a scan only edges, nested shells and detail at several scales.

    Args:
        shape: Two sizes (its middle slice) or three.
        seed: Seed of the folds and the texture.

    Returns:
        float32 volume with values between 0 and about 1.1.

    Example:
        >>> brain_like((8192, 8192, 8192))
        FormulaVolume(8192x8192x8192, float32)
    """
    if len(shape) not in (2, 3):
        raise VolumeError(f"brain_like needs two or three sizes, got {tuple(shape)}.")
    generator = torch.Generator().manual_seed(seed)
    # Folds are coarse and texture is fine; (kind, wave, axis, frequency and phase).
    waves = torch.rand(2, 8, 3, 2, generator=generator, dtype=torch.float32, device="cpu")
    low, high = waves.new_tensor([8.0, 30.0]), waves.new_tensor([22.0, 90.0])
    waves[..., 0] = low[:, None, None] + (high - low)[:, None, None] * waves[..., 0]
    waves[..., 1] = 2 * torch.pi * waves[..., 1]
    return FormulaVolume(_Head(tuple(shape), waves), shape, dtype=torch.float32)
