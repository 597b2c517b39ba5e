"""Random views of patches: crops, turns, colors, blur; all drawn for a batch at once."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cpic.images import color_jitter, normalized, recolor

_GRAY = (0.299, 0.587, 0.114)


def random_views(
    patches: Tensor,
    *,
    size: int = 224,
    scale: Sequence[float] = (0.2, 1.0),
    jitter: Sequence[float] = (0.8, 0.8, 0.8, 0.2),
    blur: float = 1.0,
    solarize: float = 0.0,
    generator: torch.Generator,
) -> Tensor:
    """One random view of each patch, as BYOL draws them for slides.

    Turns by multiples of 90 degrees, both flips, and a crop of a random share of the area and
    aspect ratio (3/4 to 4/3) are one bilinear interpolation; then come colors (with probability
    0.8), gray (0.2), a Gaussian blur with a standard deviation of 0.1 to 2 pixels and a kernel of a
    tenth of the size, solarizing, and normalization.

    Args:
        patches: (n, 3, h, w), uint8, or floating point in [0, 1].
        size: Edge of a view.
        scale: Smallest and largest share of the area.
        jitter: Brightness, contrast, saturation and hue, see `cpic.images.color_jitter`.
        blur: Probability of a blur.
        solarize: Probability to invert values above a half.
        generator: On the CPU.

    Returns:
        (n, 3, size, size), float32; not differentiable with respect to uint8.

    References: {cite}`grill2020bootstrap`.

    Example:
        >>> views = random_views(torch.rand(2, 3, 8, 8), size=6, generator=torch.Generator())
        >>> views.shape
        torch.Size([2, 3, 6, 6])
    """
    n, device = len(patches), patches.device
    values = patches.float() / 255 if patches.dtype == torch.uint8 else patches

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    def chosen(probability: float) -> Tensor:
        return (uniform(0, 1) < probability).to(device)[:, None, None, None]

    area, ratio = uniform(*scale), uniform(math.log(3 / 4), math.log(4 / 3)).exp()
    spans = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
    centers = (1 - spans) * (2 * torch.rand(n, 2, generator=generator) - 1)
    flips = torch.randint(2, (n, 2), generator=generator) * 2 - 1
    matrix = torch.diag_embed(spans * flips)
    turned = torch.randint(2, (n, 1, 1), generator=generator)
    # A quarter turn is an exchange of axes and a flip; flips of both axes are a half turn.
    matrix = torch.where(turned > 0, matrix.flip(2), matrix)
    grid = F.affine_grid(torch.cat([matrix, centers[:, :, None]], 2), [n, 3, size, size], False)
    values = F.grid_sample(values, grid.to(device), "bilinear", "reflection", False)
    maps = color_jitter(
        n,
        brightness=jitter[0],
        contrast=jitter[1],
        saturation=jitter[2],
        hue=jitter[3],
        generator=generator,
    )
    values = torch.where(chosen(0.8), recolor(values, maps), values)
    gray = torch.einsum("nchw,c->nhw", values, values.new_tensor(_GRAY))[:, None]
    values = torch.where(chosen(0.2), gray, values)
    values = torch.where(chosen(blur), _blurred(values, uniform(0.1, 2.0)), values)
    values = torch.where(chosen(solarize) & (values >= 0.5), 1 - values, values)
    return normalized(values)


def _blurred(values: Tensor, sigma: Tensor) -> Tensor:
    half = max(1, values.shape[-1] // 20)
    steps = torch.arange(-half, half + 1)
    kernel = (-(steps**2) / (2 * sigma[:, None] ** 2)).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(values).repeat_interleave(3, 0)[:, None]
    n, c, h, w = values.shape
    padded = F.pad(values, [half] * 4, "reflect").reshape(1, n * c, h + 2 * half, w + 2 * half)
    rows = F.conv2d(padded, kernel[:, :, :, None], groups=n * c)
    return F.conv2d(rows, kernel[:, :, None], groups=n * c).reshape(n, c, h, w)
