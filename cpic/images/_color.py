"""Random colors as one affine map per image."""

import math

import torch
from torch import Tensor

from cpic._errors import ImageError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GRAY = (0.299, 0.587, 0.114)
# From red, green, blue to luma and two chroma, in whose plane a hue is an angle.
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def normalized(patches: Tensor) -> Tensor:
    """Scale pixels by the means and deviations of ImageNet, as published encoders expect them.

    Args:
        patches: (n, c, h, w) with c of at least 3, of which the first three are used; uint8, int32
            (16 bits), or floating point in [0, 1].

    Returns:
        (n, 3, h, w), floating point.

    Raises:
        ImageError: If there are fewer channels.

    Example:
        >>> normalized(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))[0, 0].item()
        -2.1179039478302
    """
    if patches.ndim != 4 or patches.shape[1] < 3:
        raise ImageError(f"normalized needs patches (n, 3, h, w), got {tuple(patches.shape)}.")
    top = {torch.uint8: 255, torch.int32: 65535}.get(patches.dtype)
    values = patches[:, :3] if top is None else patches[:, :3].float() / top
    mean, std = (values.new_tensor(x)[:, None, None] for x in (_MEAN, _STD))
    return (values - mean) / std


def color_jitter(
    n: int,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    generator: torch.Generator,
) -> Tensor:
    """Draw random changes of color for `n` images, one affine map each, for `recolor`.

    Brightness, contrast (around 0.5) and saturation are multiplied by uniform factors from
    `1 - x` to `1 + x`, and hues turn by a uniform part of a full turn from `-x` to `x`, in the
    plane of chroma at fixed luma.

    Args:
        n: Number of maps.
        brightness: Largest relative change.
        contrast: Largest relative change.
        saturation: Largest relative change.
        hue: Largest turn, at most 0.5.
        generator: On the CPU.

    Returns:
        (n, 3, 4), float32: a matrix, and what is added.

    Example:
        >>> color_jitter(2, generator=torch.Generator())[0].diagonal()
        tensor([1., 1., 1.])
    """
    if not (min(brightness, contrast, saturation, hue) >= 0 and hue <= 0.5):
        raise ImageError("color_jitter needs changes of at least 0, and a hue of at most 0.5.")
    draws = 2 * torch.rand(n, 4, 1, 1, generator=generator, dtype=torch.float64) - 1
    light, span, vivid = (
        1 + x * draws[:, k] for k, x in enumerate((brightness, contrast, saturation))
    )
    eye = torch.eye(3, dtype=torch.float64)
    gray = torch.tensor(_GRAY, dtype=torch.float64).expand(3, 3)
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    angle = 2 * math.pi * hue * draws[:, 3, 0, 0]
    turn = eye.repeat(n, 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    mix = yiq.inverse() @ turn @ yiq @ (vivid * eye + (1 - vivid) * gray)
    # Gray stays gray under `mix`, so what contrast adds can be added last.
    return torch.cat([mix * light * span, (0.5 * (1 - span)).expand(n, 3, 1)], 2).float()


def recolor(patches: Tensor, maps: Tensor) -> Tensor:
    """Apply affine maps of colors, and clamp to [0, 1].

    Args:
        patches: (n, 3, h, w), floating point in [0, 1].
        maps: (n, 3, 4), or (1, 3, 4) for all.

    Returns:
        (n, 3, h, w); differentiable.

    Example:
        >>> maps = color_jitter(1, brightness=0.1, generator=torch.Generator().manual_seed(0))
        >>> recolor(torch.ones(5, 3, 2, 2), maps).shape
        torch.Size([5, 3, 2, 2])
    """
    maps = maps.to(patches).expand(len(patches), 3, 4)
    mixed = torch.einsum("nij,njhw->nihw", maps[:, :, :3], patches)
    return (mixed + maps[:, :, 3, None, None]).clamp(0, 1)
