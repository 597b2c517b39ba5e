"""Means over blocks: a volume at a coarse resolution."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def block_means(volumes: Tensor, *, n_blocks: int | Sequence[int] = 8) -> Tensor:
    """Means of the voxels in equal blocks, for each contrast.

    Features for a linear model, as differentiable as the mean. Where a size is not a multiple of
    the number of blocks, neighboring blocks share a layer of voxels.

    Args:
        volumes: Voxels `(K, c, *shape)`, with two or three axes.
        n_blocks: Number of blocks along each axis, or along all of them.

    Returns:
        The means `(K, c * product of n_blocks)`, by contrast, then in the order of the axes, in the
        unit, dtype and on the device of the volumes.

    Raises:
        ValueError: If the volumes have another number of axes, or an axis has fewer voxels than
            blocks.

    Example:
        >>> import torch
        >>> block_means(torch.arange(16.0).view(1, 1, 4, 4), n_blocks=2)
        tensor([[ 2.5000,  4.5000, 10.5000, 12.5000]])
    """
    n_axes = volumes.ndim - 2
    blocks = [n_blocks] * n_axes if isinstance(n_blocks, int) else list(n_blocks)
    sizes = tuple(volumes.shape[2:])
    if n_axes not in (2, 3) or len(blocks) != n_axes:
        raise ValueError(
            f"block_means needs volumes (K, c, *shape) with two or three axes and n_blocks for "
            f"each, got {tuple(volumes.shape)} and {n_blocks}."
        )
    if any(not 1 <= n <= size for n, size in zip(blocks, sizes, strict=True)):
        raise ValueError(
            f"block_means needs from 1 block to as many as voxels along each axis, got {blocks} "
            f"for {sizes}; lower n_blocks."
        )
    pool: Any = (
        nn.functional.adaptive_avg_pool3d if n_axes == 3 else nn.functional.adaptive_avg_pool2d
    )
    return pool(volumes, blocks).flatten(1)
