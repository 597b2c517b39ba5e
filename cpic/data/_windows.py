"""Windows of a volume: their positions, and how many voxels they hold together."""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError


def windows(corners: Tensor, size: int, shape: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Per axis the clamped positions (n, size) of each window, and which lie inside."""
    steps = torch.arange(size, device=corners.device)
    result = []
    for axis, length in enumerate(shape):
        positions = corners[:, axis, None] + steps
        clamped = positions.clamp(0, length - 1)
        result.append((clamped, clamped == positions))
    return result


def spread(axes: list[Tensor]) -> list[Tensor]:
    """View D tensors (n, s) as (n, s, 1, 1), (n, 1, s, 1), (n, 1, 1, s), to broadcast."""
    n_axes = len(axes)
    return [
        values.reshape(len(values), *(values.shape[1] if k == axis else 1 for k in range(n_axes)))
        for axis, values in enumerate(axes)
    ]


def grid(corners: Tensor, size: int, shape: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Clamped positions of the voxels of windows, one tensor an axis, and which lie inside.

    The positions broadcast against each other, to (n, size, ..., size).
    """
    axes = windows(corners, size, shape)
    inside = functools.reduce(torch.logical_and, spread([valid for _, valid in axes]))
    return spread([positions for positions, _ in axes]), inside


def _paint(corners: Tensor, size: int, shape: tuple[int, ...]) -> int:
    painted = np.zeros([length + 2 * size for length in shape], bool)
    view = np.lib.stride_tricks.sliding_window_view(painted, (size,) * len(shape), writeable=True)
    top = corners.new_tensor(shape)
    places = corners.clamp(min=-size).minimum(top) + size
    view[tuple(places.numpy().T)] = True
    return int(np.count_nonzero(painted[(slice(size, -size),) * len(shape)]))


def count_distinct(corners: Tensor, size: int, shape: tuple[int, ...]) -> int:
    """Voxels in the union of the windows at `corners` (n, D) that lie inside `shape`.

    Where the windows hold more voxels than the volume they are painted. Else they are counted by
    runs along the last axis: sorted by start, each run adds what lies before the next.
    """
    if len(corners) == 0:
        return 0
    if math.prod(shape) <= len(corners) * size ** len(shape) and not corners.is_cuda:
        return _paint(corners, size, shape)
    if math.prod(shape) >= 2**62:
        raise VolumeError(f"a volume needs fewer than 2^62 voxels, got shape {shape}.")
    outer, inside = grid(corners[:, :-1], size, shape[:-1])
    row = torch.zeros_like(outer[0])
    for length, positions in zip(shape[:-1], outer, strict=True):
        row = row * length + positions
    low, high = (
        (row * shape[-1] + ends.clamp(0, shape[-1]).reshape(-1, *[1] * len(outer)))[inside]
        for ends in (corners[:, -1], corners[:, -1] + size)
    )
    start, end = low.sort()[0], high.sort()[0]
    if len(start) == 0:
        return 0
    # Runs are equally long before clipping, so sorting starts and ends separately keeps pairs.
    following = torch.cat([start[1:], end[-1:]])
    return int((torch.minimum(end, following) - start).sum())
