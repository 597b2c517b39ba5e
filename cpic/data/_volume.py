"""Read small cubes and single voxels of a volume that may be larger than memory.

A volume is anything that keeps these clauses; `tests/data/test_conformance.py` runs them on all
implementations, against a dense twin.

1. `shape` (2 or 3 sizes, spatial), `channels` and `dtype` are known without reading a voxel.
2. `cubes(centres, size=s)` with int64 centres (n, D) and s odd gives (n, c, s, ..., s); the voxel
   at a centre lies in the middle, what lies outside the shape is 0.
3. `voxels(coords)` with int64 coords (..., D) gives (...), or (..., c) for c > 1; 0 outside.
4. A centre may lie outside the shape, however far: its cube holds what overlaps and 0 elsewhere.
5. The answer for a position depends on neither its place in the call nor on its neighbours; equal
   positions are read once.
6. Only what the call touches is read; `ledger` counts it. Only `read()` reads all of it.
7. All positions are int64 and all products of sizes are Python integers, so 8192^3 is safe.
8. A volume pickles, so that workers can have it; the copy starts with the ledger's totals.
9. Nothing is written to the place a volume is read from.
10. A voxel that is NaN raises `VolumeError` when it is read, unless `nan=` gave its replacement.

Answers lie on the device of the stored tensor (files: the CPU); a formula's on that of the
positions.

Shapes: `n` positions, `D` spatial axes, `c` channels, `s` size of a cube.
"""

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._ledger import Ledger


@runtime_checkable
class Volume(Protocol):
    """What readers of scans, stores and formulas have in common; clauses in the module docstring.

    Example:
        >>> import torch
        >>> from cpic.data import ArrayVolume
        >>> isinstance(ArrayVolume(torch.zeros(4, 4, 4)), Volume)
        True
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial sizes, two or three."""
        ...

    @property
    def channels(self) -> int:
        """Values at a position."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the answers."""
        ...

    @property
    def ledger(self) -> Ledger:
        """What was asked and read so far."""
        ...

    def cubes(self, centres: Tensor, *, size: int) -> Tensor:
        """Cubes (n, c, size, ..., size) around int64 `centres` (n, D), zero padded."""
        ...

    def voxels(self, coords: Tensor) -> Tensor:
        """Values (...) or (..., c) at int64 `coords` (..., D), zero outside."""
        ...

    def read(self) -> Tensor:
        """All of it, (*shape) or (*shape, c); only for what fits in memory."""
        ...


class Reader(ABC):
    """What all implementations share: checks, duplicates, padding, the ledger, NaN."""

    # Whether a read may wait for a disk or a server; then several at once are quicker.
    waits = True

    def __init__(
        self, shape: tuple[int, ...], channels: int, dtype: torch.dtype, nan: float | None = None
    ):
        if len(shape) not in (2, 3) or min(shape, default=0) < 1:
            raise VolumeError(
                f"a volume needs two or three spatial sizes of at least 1, got {tuple(shape)}; "
                "put values of one position into the channels."
            )
        if channels < 1:
            raise VolumeError(f"a volume needs at least one channel, got channels={channels}.")
        self.shape = tuple(int(size) for size in shape)
        self.channels = int(channels)
        self.dtype = dtype
        self.ledger = Ledger()
        self.nan = nan

    def cubes(self, centres: Tensor, *, size: int) -> Tensor:
        """Read the cubes around `centres`, each distinct one once.

        Args:
            centres: (n, D), int64; may lie outside the shape, where the cube is 0.
            size: edge of a cube in voxels, odd, so that the centre is a voxel.

        Returns:
            (n, c, size, ..., size), `dtype`; no gradient reaches a file or `centres`.

        Raises:
            VolumeError: if `size` is even, `centres` has another shape or dtype, or a voxel is NaN.
        """
        self._check(centres, "cubes")
        if centres.ndim != 2:
            raise VolumeError(
                f"cubes needs centres of shape (n, {len(self.shape)}), got {tuple(centres.shape)}; "
                "flatten the leading axes first."
            )
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
            raise VolumeError(
                f"cubes needs an odd size of at least 1, got {size!r}; an even cube has no voxel "
                f"in its middle, ask for size {size + 1 if isinstance(size, int) else 'n'}."
            )
        corners, inverse = self._distinct_corners(centres, size)
        n_distinct = count_distinct(corners, size, self.shape)
        values = self._cubes(corners, size, n_distinct)
        self.ledger.add(asked=len(centres) * size ** len(self.shape), voxels=n_distinct)
        values = self._without_nan(values)
        return values if inverse is None else values[inverse]

    def voxels(self, coords: Tensor) -> Tensor:
        """Read single voxels.

        Args:
            coords: (..., D), int64; positions outside the shape give 0.

        Returns:
            (...) for one channel, else (..., c), `dtype`.

        Raises:
            VolumeError: if `coords` has another last axis or dtype, or a voxel is NaN.
        """
        self._check(coords, "voxels")
        # One step outside is as good as far outside, and cannot overflow.
        flat = coords.reshape(-1, len(self.shape)).clamp(min=-1)
        flat = flat.minimum(flat.new_tensor(self.shape))
        n_distinct = count_distinct(flat, 1, self.shape)
        values = self._without_nan(self._voxels(flat, n_distinct))
        self.ledger.add(asked=len(flat), voxels=n_distinct)
        lead = tuple(coords.shape[:-1])
        return values.reshape(lead if self.channels == 1 else (*lead, self.channels))

    @abstractmethod
    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        """Cubes (n, c, size, ..., size) from their distinct lowest `corners` (n, D)."""

    @abstractmethod
    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        """Values (n, c) at `coords` (n, D)."""

    def _check(self, positions: Tensor, who: str) -> None:
        if not isinstance(positions, Tensor):
            raise VolumeError(
                f"{who} needs positions as an int64 tensor, got {type(positions).__name__}; "
                "convert with torch.as_tensor."
            )
        if positions.dtype != torch.int64:
            raise VolumeError(
                f"{who} needs int64 positions, got {positions.dtype}; round, then call .long()."
            )
        if positions.ndim == 0 or positions.shape[-1] != len(self.shape):
            raise VolumeError(
                f"{who} needs positions with {len(self.shape)} coordinates in the last axis for a "
                f"volume of shape {self.shape}, got {tuple(positions.shape)}."
            )

    def _distinct_corners(self, centres: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
        # A centre far outside gives the same empty cube as one just outside, so clamping keeps
        # the answer and bounds the key.
        half = size // 2
        top = centres.new_tensor(self.shape) + half
        centres = centres.clamp(min=-half - 1).minimum(top)
        key = centres.new_zeros(len(centres))
        for axis, length in enumerate(self.shape):
            key = key * (length + 2 * half + 2) + centres[:, axis] + half + 1
        keys, inverse = key.unique(return_inverse=True)
        if len(keys) == len(centres):
            return centres - half, None
        first = inverse.new_empty(len(keys)).scatter_(
            0, inverse, torch.arange(len(inverse), device=inverse.device)
        )
        return centres[first] - half, inverse

    def _without_nan(self, values: Tensor) -> Tensor:
        if not values.dtype.is_floating_point:
            return values
        bad = values.isnan()
        if not bad.any():
            return values
        if self.nan is None:
            raise VolumeError(
                f"{self!r} has {int(bad.sum())} NaN voxels among the {values.numel()} read; pass "
                "nan=0.0 (or another value) when opening it to replace them."
            )
        return values.masked_fill(bad, self.nan)

    def __repr__(self) -> str:
        sizes = "x".join(map(str, self.shape))
        channels = f", {self.channels} channels" if self.channels > 1 else ""
        return f"{type(self).__name__}({sizes}{channels}, {str(self.dtype).removeprefix('torch.')})"


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
    *outer, (_, _) = windows(corners, size, shape)
    row = corners.new_zeros(len(corners), *[1] * len(outer))
    inside = torch.ones_like(row, dtype=torch.bool)
    for length, positions, valid in zip(
        shape[:-1], spread([o[0] for o in outer]), spread([o[1] for o in outer]), strict=True
    ):
        row, inside = row * length + positions, inside & valid
    low = corners[:, -1].clamp(0, shape[-1]).reshape(-1, *[1] * len(outer))
    high = (corners[:, -1] + size).clamp(0, shape[-1]).reshape(-1, *[1] * len(outer))
    start = (row * shape[-1] + low)[inside].sort()[0]
    end = (row * shape[-1] + high)[inside].sort()[0]
    if len(start) == 0:
        return 0
    # Runs are equally long before clipping, so sorting starts and ends separately keeps pairs.
    following = torch.cat([start[1:], end[-1:]])
    return int((torch.minimum(end, following) - start).sum())
