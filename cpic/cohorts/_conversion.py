"""The preprocessing of every scan of a cohort."""

import dataclasses
import math
from typing import Literal

import numpy as np

from cpic._errors import CohortError, VolumeError
from cpic.data._resample import resample

Intensity = Literal["none", "minmax", "zscore"]


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Preprocessing options of every scan; part of the name of the result.

    Attributes:
        shape: Grid to resample or pad the scan to, or None for its own.
        order: Order of the resampling splines (3 as published, 0 nearest, 1 linear), or None to pad
            with zeros at the end of each axis instead.
        intensity: "none"; "minmax", to [0, 1] per scan, after resampling; or "zscore", mean 0 and
            standard deviation 1 over the nonzero voxels (the brain of a skull-stripped scan),
            before resampling, where 0 stays 0.
        pad: Finally, pad with zeros at the end of each axis to the next power of two.
        chunks: Sizes of a chunk, the unit of reading; cubes much smaller than a chunk waste reads.
        nan: Value to replace NaN and infinity with; None skips patients with such voxels.

    Raises:
        CohortError: If an option is invalid.
    """

    shape: tuple[int, ...] | None = None
    order: int | None = 3
    intensity: Intensity = "none"
    pad: bool = True
    chunks: tuple[int, ...] = (32, 32, 32)
    nan: float | None = None

    def __post_init__(self) -> None:
        for name, sizes in (("shape", self.shape), ("chunks", self.chunks)):
            if sizes is None:
                continue
            if len(sizes) != 3 or any(int(n) != n or n < 1 for n in sizes):
                raise CohortError(f"{name} needs three sizes of at least 1, got {sizes}.")
            object.__setattr__(self, name, tuple(int(n) for n in sizes))
        if self.nan is not None and not math.isfinite(self.nan):
            raise CohortError(f"nan needs to be a finite number, or None, got {self.nan}.")
        if self.order not in (None, 0, 1, 2, 3, 4, 5):
            raise CohortError(
                f"order needs to be that of a spline, 0 to 5, or None to pad, got {self.order}."
            )
        if self.intensity not in ("none", "minmax", "zscore"):
            raise CohortError(
                f"intensity needs to be 'none', 'minmax' or 'zscore', got {self.intensity!r}."
            )

    def apply(self, values: np.ndarray, *, labels: bool = False) -> np.ndarray:
        """Convert the voxels of one contrast, (X, Y, Z), to float32 on the grid.

        Args:
            values: Real numbers.
            labels: Use the nearest label, and keep the values unchanged.

        Raises:
            VolumeError: If a voxel is or becomes infinite, or the scan is larger than the grid to
                pad to.
        """
        if values.ndim != 3:
            raise VolumeError(f"it has shape {values.shape}, a patient's scan needs three axes.")
        grid = self.shape or values.shape
        with np.errstate(over="ignore", invalid="ignore"):
            values = _finite(values.astype(np.float32))
            if self.intensity == "zscore" and not labels:
                values = _zscored(values)
            if self.order is not None and values.shape != grid:
                values = resample(values, grid, order=0 if labels else self.order)
            if self.intensity == "minmax" and not labels:
                low, high = float(values.min()), float(values.max())
                values = (values - low) / ((high - low) or 1.0)
        values = _finite(values)
        if any(have > want for have, want in zip(values.shape, grid, strict=True)):
            raise VolumeError(
                f"its shape {values.shape} does not fit into {grid} without resampling: pass an "
                "order, or a larger shape."
            )
        if self.pad:
            grid = tuple(1 << (n - 1).bit_length() for n in grid)
        return np.pad(values, [(0, n - m) for n, m in zip(grid, values.shape, strict=True)])


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise VolumeError("it has voxels beyond the range of float32: check its scale.")
    return values


def _zscored(values: np.ndarray) -> np.ndarray:
    inside = values != 0
    if not inside.any():
        return values
    mean = float(values[inside].mean(dtype=np.float64))
    deviation = float(values[inside].std(dtype=np.float64)) or 1.0
    return np.where(inside, (values - mean) / deviation, 0).astype(np.float32)
