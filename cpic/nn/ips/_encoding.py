"""Positions of patches as vectors: sines and cosines along each axis."""

from collections.abc import Sequence

import torch
from torch import Tensor


def positional_encoding(coordinates: Tensor, *, width: int) -> Tensor:
    r"""Sines and cosines of coordinates, in `width` channels {cite}`vaswani2017attention`.

    Along each axis, channel `2j` is $\sin(p\, 10000^{-2j/w})$ and channel `2j+1` the cosine; the
    axes share the channels equally, `w` each, and what remains is zero.

    Args:
        coordinates: `(..., A)` for A axes, of any numbers.
        width: Number of channels, even, and at least 2 for each axis.

    Returns:
        `(..., width)`, in the dtype of the coordinates if that is a floating one.

    Raises:
        ValueError: If the width is odd, or too small.

    Example:
        >>> positional_encoding(torch.tensor([[3.0]]), width=4)
        tensor([[ 0.1411, -0.9900,  0.0300,  0.9996]])
    """
    n_axes = coordinates.shape[-1]
    if width % 2 or width < 2 * n_axes:
        raise ValueError(
            f"positional_encoding needs an even width of at least {2 * n_axes} for {n_axes} axes, "
            f"got {width}."
        )
    each = width // (2 * n_axes)
    if not coordinates.is_floating_point():
        coordinates = coordinates.to(torch.get_default_dtype())
    steps = torch.arange(each, device=coordinates.device, dtype=coordinates.dtype)
    angles = coordinates[..., None] * 10_000.0 ** (-steps / each)
    found = torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)
    return torch.nn.functional.pad(found, (0, width - found.shape[-1]))


def cell_encoding(indices: Tensor, *, grid: Sequence[int], width: int) -> Tensor:
    """Encodings `(..., width)`, float64, of cells of a grid by their row-major indices `(...)`."""
    # Sines of large numbers in single precision are off by their rounding.
    cells = torch.stack(torch.unravel_index(indices, tuple(grid)), -1).double()
    return positional_encoding(cells, width=width)
