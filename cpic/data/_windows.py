"""Windows of volumes: their positions, and the number of voxels in their union.

Positions are few compared with voxels, so they are NumPy arrays, on whichever device the voxels
are: small operations are faster than in torch, and counting on the CPU blocks no device.

Shapes: `n` windows of `K` volumes, `D` axes, `s` the size of a window.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from cpic._errors import VolumeError


class Windows:
    """Distinct windows of K volumes of one shape: those of the first volume, of the second, ...

    Args:
        corners: Lowest positions (n, D), at most one window outside the shape.
        counts: Numbers of windows (K,) of each volume.
        size: Edge in voxels.
        shape: Shape of the volumes.
        device: Device of the requested positions.
        strides: Distance (n,) between neighboring voxels of each window; None: 1 for all.
    """

    def __init__(
        self,
        corners: np.ndarray,
        counts: np.ndarray,
        size: int,
        shape: tuple[int, ...],
        device: torch.device,
        strides: np.ndarray | None = None,
    ) -> None:
        self.corners, self.counts, self.size, self.shape = corners, counts, size, shape
        self.device, self.strides = device, strides

    def __len__(self) -> int:
        return len(self.corners)

    @functools.cached_property
    def owner(self) -> np.ndarray:
        """The volume of each window, (n,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @functools.cached_property
    def asked(self) -> list[int]:
        """The volumes that have windows; the first one if none has."""
        return np.flatnonzero(self.counts).tolist() or [0]

    @functools.cached_property
    def parts(self) -> list[slice]:
        """The windows of each volume."""
        ends = self.counts.cumsum().tolist()
        return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    @functools.cached_property
    def steps(self) -> np.ndarray:
        """Distances of the voxels of a window from its corner, (s,) or (n, s)."""
        steps = np.arange(self.size)
        return steps if self.strides is None else self.strides[:, None] * steps

    @property
    def reach(self) -> np.ndarray | int:
        """Voxels from the first to the last of a window along an axis; (n, 1) with strides."""
        return self.size if self.strides is None else self.steps[:, -1:] + 1

    @functools.cached_property
    def sticks_out(self) -> np.ndarray:
        """Which windows do not lie entirely inside the shape, (n,)."""
        outside = (self.corners < 0) | (self.corners + self.reach > self.shape)
        return np.logical_or.reduce(outside, axis=1)

    @functools.cached_property
    def axes(self) -> list[np.ndarray]:
        """Positions along each axis, clamped to the shape, (n, s)."""
        return [
            (self.corners[:, axis, None] + self.steps).clip(0, length - 1)
            for axis, length in enumerate(self.shape)
        ]

    def inside(self, rows: np.ndarray | slice, n_axes: int) -> np.ndarray:
        """Which voxels of some windows lie inside, along the first axes, (n, s, ..., s)."""
        steps = self.steps if self.strides is None else self.steps[rows, None]
        at = self.corners[rows, :n_axes, None] + steps
        good = (at >= 0) & (at < np.array(self.shape[:n_axes])[:, None])
        inside, *others = spread(list(good.swapaxes(0, 1)))
        for mask in others:
            inside = inside & mask
        return inside

    def keys(self) -> np.ndarray:
        """A number for each voxel of the windows within its volume, (n, s, ..., s)."""
        return joined(self.axes, self.shape)

    @functools.cached_property
    def n_distinct(self) -> np.ndarray:
        """Voxels in the union of the windows of each volume that lie inside the shape, (K,)."""
        return count_distinct(self)

    def of(self, members: Sequence[int]) -> tuple["Windows", np.ndarray]:
        """The windows of some of the volumes, and their rows among all."""
        rows = np.concatenate([np.arange(len(self))[self.parts[k]] for k in members])
        return self._like(self.corners[rows], self.counts[members], rows), rows

    def tiled(self, n_times: int) -> "Windows":
        """The same windows for `n_times` as many volumes."""
        corners, counts = np.tile(self.corners, (n_times, 1)), np.tile(self.counts, n_times)
        more = self._like(corners, counts, np.tile(np.arange(len(self)), n_times))
        more.n_distinct = np.tile(self.n_distinct, n_times)
        return more

    def mirrored(self, axes: np.ndarray) -> "Windows":
        """The windows after reversal of some axes, bool (K, D), of their volumes."""
        mirror = np.array(self.shape) - self.reach - self.corners
        corners = np.where(axes[self.owner], mirror, self.corners)
        other = self._like(corners, self.counts, slice(None))
        other.n_distinct = self.n_distinct
        return other

    def _like(self, corners: np.ndarray, counts: np.ndarray, rows: Any) -> "Windows":
        """Other windows, with the strides of some of these."""
        strides = None if self.strides is None else self.strides[rows]
        return Windows(corners, counts, self.size, self.shape, self.device, strides)


def distinct(
    owner: np.ndarray,
    centers: np.ndarray,
    n_volumes: int,
    size: int,
    shape: tuple[int, ...],
    device: torch.device,
    strides: Sequence[int] = (1,),
) -> tuple[Windows, np.ndarray | None]:
    """Windows around `centers` (n, D) of volumes `owner` (n,), and the window of each, or None.

    With several strides each center has one window after the other, (n * len(strides)). None means
    that the windows are in the order of the centers.
    """
    n_scales, step = len(strides), np.tile(strides, len(centers))
    if n_scales > 1:
        owner, centers = owner.repeat(n_scales), centers.repeat(n_scales, 0)
    # A center far outside gives the same empty window as one just outside, so clamping does not
    # change the result and bounds the key.
    half = size // 2 * max(strides)
    centers = centers.clip(-half - 1, np.array(shape) + half)
    lengths = [length + 2 * half + 2 for length in shape]
    if n_volumes * math.prod(lengths) * n_scales < 2**63:
        key = owner
        for axis, length in enumerate(lengths):
            key = key * length + (centers[:, axis] + (half + 1))
        if n_scales > 1:
            key = key * n_scales + np.tile(np.arange(n_scales), len(key) // n_scales)
    else:
        rows = np.column_stack([owner, centers, step])
        key = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
    inverse = None
    if not (key[1:] > key[:-1]).all():
        _, first, back = np.unique(key, return_index=True, return_inverse=True)
        if len(first) < len(key) or not (owner[1:] >= owner[:-1]).all():
            owner, centers, step, inverse = owner[first], centers[first], step[first], back
    counts = np.bincount(owner, minlength=n_volumes)
    corners = centers - size // 2 * step[:, None]
    dilated = None if max(strides) == 1 else step
    return Windows(corners, counts, size, shape, device, dilated), inverse


def spread(axes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """View D arrays (n, s) as (n, s, 1, 1), (n, 1, s, 1), (n, 1, 1, s), to broadcast."""
    n_axes = len(axes)
    return [
        values.reshape(len(values), *(values.shape[1] if k == axis else 1 for k in range(n_axes)))
        for axis, values in enumerate(axes)
    ]


def joined(axes: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """One number (n, s, ..., s) for positions (n, s) along each axis."""
    key, *others = spread(axes)
    for positions, length in zip(others, lengths[1:], strict=True):
        key = key * length + positions
    return key


def count_distinct(windows: Windows) -> np.ndarray:
    """Voxels in the union of the windows of each volume that lie inside the shape, (K,).

    If the windows have more voxels than the volumes, they are marked in a mask. Otherwise they are
    counted by runs along the last axis: sorted by start, each adds its part before the next. Those
    of windows with strides are marked, or sorted, one by one.

    Raises:
        VolumeError: If the positions of a volume cannot be numbered.
    """
    n_volumes, n_voxels = len(windows.counts), math.prod(windows.shape)
    if len(windows) == 0:
        return np.zeros(n_volumes, np.int64)
    if n_voxels >= 2**62:
        raise VolumeError(f"a volume needs fewer than 2^62 voxels, got shape {windows.shape}.")
    if windows.strides is not None:
        return np.array([_count_voxels(windows.of([k])[0]) for k in range(n_volumes)])
    if n_volumes * n_voxels <= len(windows) * windows.size ** len(windows.shape):
        return _paint(windows)
    n_keys = math.prod(windows.shape[:-1]) * (windows.shape[-1] + 2 * windows.size)
    if n_volumes > 1 and n_volumes * n_keys >= 2**62:
        return np.concatenate([count_distinct(windows.of([k])[0]) for k in range(n_volumes)])
    return _count_runs(windows, n_keys)


def _paint(windows: Windows) -> np.ndarray:
    size, n_axes = windows.size, len(windows.shape)
    painted = np.zeros([len(windows.counts), *(n + 2 * size for n in windows.shape)], bool)
    axes = tuple(range(1, n_axes + 1))
    view = sliding_window_view(painted, (size,) * n_axes, axes, writeable=True)
    view[(windows.owner, *(windows.corners + size).T)] = True
    middle = (slice(size, -size),) * n_axes
    return np.array([np.count_nonzero(volume[middle]) for volume in painted])


def _count_voxels(windows: Windows) -> int:
    """Voxels of windows of one volume, with any strides."""
    shape = windows.shape
    if math.prod(shape) <= 8 * len(windows) * windows.size ** len(shape):
        # What lies outside is marked behind the last voxel of the axis.
        at = (windows.corners[:, :, None] + windows.steps[:, None]).swapaxes(0, 1)
        axes = [np.where((of >= 0) & (of < n), of, n) for of, n in zip(at, shape, strict=True)]
        marks = np.zeros([n + 1 for n in shape], bool)
        marks.reshape(-1)[joined(axes, marks.shape)] = True
        return int(np.count_nonzero(marks[tuple(map(slice, shape))]))
    return len(np.unique(windows.keys()[windows.inside(slice(None), len(shape))]))


def _count_runs(windows: Windows, n_keys: int) -> np.ndarray:
    """`n_keys`: starts of runs in a volume with the last axis a window longer on both sides."""
    size, (*outer, length) = windows.size, windows.shape
    n_volumes, width = len(windows.counts), length + 2 * size
    small = n_volumes * n_keys < 2**31
    row = windows.owner.reshape(-1, *[1] * len(outer)).astype(np.int32 if small else np.int64)
    for positions, extent in zip(spread(windows.axes[:-1]), outer, strict=True):
        row = row * extent + positions.astype(row.dtype)
    inside = windows.inside(slice(None), len(outer)) if windows.sticks_out.any() else None
    if n_keys >= 2**62:
        row = np.unique(row, return_inverse=True)[1].reshape(row.shape)
    start = windows.corners[:, -1].reshape(-1, *[1] * len(outer)).astype(row.dtype)
    key = row * width + (start + size)
    key = np.sort(key.reshape(-1) if inside is None else key[inside])
    if len(key) == 0:
        return np.zeros(n_volumes, np.int64)
    covered = np.minimum(np.diff(key, append=key[-1] + size), size)
    if inside is not None:
        low = key - key // width * width - size
        covered = np.minimum(low + covered, length) - np.maximum(low, 0)
        covered = np.maximum(covered, 0)
    ends = np.array([*(k * n_keys for k in range(n_volumes)), np.iinfo(row.dtype).max], row.dtype)
    total = np.concatenate([[0], covered.cumsum(dtype=np.int64)])
    return np.diff(total[np.searchsorted(key, ends)])
