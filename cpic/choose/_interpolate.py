"""Linear interpolation between the positions of a grid that need not be regular.

Shapes: `K` arrays, `m` positions along an axis of `n` entries.
"""

import torch
from torch import Tensor


def brackets(axis: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """For places `at` `(K, n)`: the position below among `axis` `(K, m)`, and how far beyond it.

    Beyond the first and the last position the share is 0 or 1, so the end values go on.
    """
    m = axis.shape[1]
    if m == 1:
        return torch.zeros_like(at), torch.zeros_like(at, dtype=torch.float64)
    low = torch.searchsorted(axis.contiguous(), at.contiguous(), right=True).sub(1)
    low = low.clamp(0, m - 2)
    left, right = axis.gather(1, low), axis.gather(1, low + 1)
    return low, ((at - left) / (right - left).double()).clamp(0, 1)


def matrix(axis: Tensor, size: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Weights `(K, size, m)` that interpolate from positions `axis` `(K, m)` to all of an axis."""
    k, m = axis.shape
    low, share = brackets(axis, torch.arange(size, device=axis.device).expand(k, -1))
    weights = torch.zeros(k, size, m, dtype=torch.float64, device=axis.device)
    weights.scatter_(2, low[..., None], 1 - share[..., None])
    if m > 1:
        weights.scatter_add_(2, low[..., None] + 1, share[..., None])
    return weights.to(dtype)
