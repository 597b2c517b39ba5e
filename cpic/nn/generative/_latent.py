r"""Paths and sheets between latent vectors.

A straight path between two normal vectors passes through short ones, which are rare in many
dimensions. `slerp` turns one direction into the other, and interpolates the lengths:

    n(t) = |a|^(1-t) |b|^t (sin((1-t) w) a/|a| + sin(t w) b/|b|) / sin w,  cos w = <a, b> / |a||b|

Shapes: `k` latent dimensions, `*batch` independent pairs.
References: {cite}`shoemake1985animating`, {cite}`white2016sampling`.
"""

import torch
from torch import Tensor

_SMALL = 1e-4


def lerp(first: Tensor, second: Tensor, share: Tensor | float) -> Tensor:
    """The straight path from one vector to the other.

    Args:
        first: Vectors `(*batch, k)`, at share 0.
        second: Vectors, at share 1.
        share: Position on the path: a number, or a tensor that broadcasts against the vectors.

    Returns:
        Vectors `(*batch, k)`, differentiable in all arguments.

    Example:
        >>> lerp(torch.zeros(2), torch.ones(2), 0.25)
        tensor([0.2500, 0.2500])
    """
    return first + share * (second - first)


def slerp(first: Tensor, second: Tensor, share: Tensor | float) -> Tensor:
    """The path along a great circle, with lengths interpolated geometrically.

    Vectors of any lengths are valid: directions follow the shorter arc, and lengths change by a
    constant factor. Nearly parallel directions are interpolated straight, and so are opposite
    directions and vectors of length zero, for which no arc is shorter than the others.

    Args:
        first: Vectors `(*batch, k)`, at share 0.
        second: Vectors, at share 1.
        share: Position on the path: a number, or a tensor that broadcasts against the vectors.

    Returns:
        Vectors `(*batch, k)`, differentiable in all arguments.

    Example:
        >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 4.0]), 0.5)
        tensor([1.4142, 1.4142])
    """
    share = torch.as_tensor(share, dtype=first.dtype, device=first.device)
    tiny = torch.finfo(first.dtype).tiny
    lengths = [one.norm(dim=-1, keepdim=True).clamp_min(tiny) for one in (first, second)]
    a, b = first / lengths[0], second / lengths[1]
    cosine = (a * b).sum(-1, keepdim=True)
    sine = (a - cosine * b).norm(dim=-1, keepdim=True)
    straight = (sine < _SMALL) | (a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True) < 0.5)
    angle = torch.atan2(sine, cosine)
    # The unused branch must be finite as well, or its gradient is not.
    safe = torch.where(straight, torch.ones_like(angle), angle)
    turned = (((1 - share) * safe).sin() * a + (share * safe).sin() * b) / safe.sin()
    length = lengths[0] ** (1 - share) * lengths[1] ** share
    return torch.where(straight, lerp(first, second, share), length * turned)


PATHS = {"lerp": lerp, "slerp": slerp}


def sheet(corners: Tensor, *, side: int, path: str = "slerp") -> Tensor:
    """Latent vectors of a square sheet between four corners.

    Args:
        corners: Vectors `(4, k)`: top left, top right, bottom left, bottom right.
        side: Vectors along each side, at least 2.
        path: "slerp" or "lerp".

    Returns:
        Vectors `(side * side, k)`, row by row.

    Raises:
        ValueError: If the corners have another shape, or an option is invalid.

    Example:
        >>> sheet(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), side=2, path="lerp").flatten()
        tensor([0., 1., 2., 3.])
    """
    if corners.ndim != 2 or len(corners) != 4 or side < 2 or path not in PATHS:
        raise ValueError(
            f"sheet needs corners (4, k), a side of at least 2 and a path out of "
            f"{', '.join(PATHS)}, got {tuple(corners.shape)}, {side} and {path!r}."
        )
    step = torch.linspace(0, 1, side, dtype=corners.dtype, device=corners.device)
    ends = PATHS[path](corners[:2, None], corners[2:, None], step[None, :, None])
    return PATHS[path](ends[0, :, None], ends[1, :, None], step[None, :, None]).flatten(0, 1)
