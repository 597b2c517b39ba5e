"""Resample to another grid by splines, with one small matrix per axis."""

import math
from typing import overload

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._array import _as_tensor
from cpic.data._volume import Volume

# Voxels repeated beyond each end before the filter, since a spline sees nothing beyond them.
_BEYOND = 12
# The largest pole of each prefilter: the factor per voxel by which a change decays.
_DECAY = (0.0, 0.0, 3 - 8**0.5, 2 - 3**0.5, 0.361341, 0.430575)
_MARGINS = [(k + 1) // 2 + (math.ceil(math.log(1e-6, z)) if z else 0) for k, z in enumerate(_DECAY)]


@overload
def resample(
    array: np.ndarray, shape: tuple[int, ...], *, order: int = 3, channels: int = 1
) -> np.ndarray: ...
@overload
def resample(
    array: Tensor | Volume, shape: tuple[int, ...], *, order: int = 3, channels: int = 1
) -> Tensor: ...
def resample(
    array: Tensor | np.ndarray | Volume,
    shape: tuple[int, ...],
    *,
    order: int = 3,
    channels: int = 1,
) -> Tensor | np.ndarray:
    """Resample to `shape` by splines through the voxels {cite}`unser1999splines`.

    The corner voxels of both grids coincide: voxel `i` of an axis of `m` voxels is at
    `i * (n - 1) / (m - 1)` of the `n` given voxels (at 0 for `m = 1`). Beyond its ends the array is
    extended by its end values. This equals `scipy.ndimage.zoom` with `mode="nearest"`, as one
    matrix product per axis. Linear, hence differentiable, in a floating-point tensor.

    Args:
        array: (*sizes) or, with `channels` above 1, (*sizes, channels); or a volume, which is read
            whole (`cpic.data.resample.upsample` holds only blocks).
        shape: The new sizes, one per axis.
        order: Order of the spline, 0 (nearest voxel) to 5; 3 is cubic.
        channels: Length of the last axis if it holds channels; a volume has its own.

    Returns:
        (*shape) or (*shape, channels), a NumPy array for a NumPy array, otherwise a tensor. float32
        and float64 are kept. Integers and half precision become float32 (32 bits and more:
        float64), except with `order=0`, which keeps every dtype.

    Raises:
        VolumeError: If `shape`, `order` or the array is invalid, or a value is not finite.

    Example:
        >>> import torch
        >>> resample(torch.tensor([[0.0, 2.0], [4.0, 6.0]]), (3, 3), order=1)
        tensor([[0., 1., 2.],
                [2., 3., 4.],
                [4., 5., 6.]])
    """
    if isinstance(array, Tensor):
        values = array
    elif isinstance(array, np.ndarray):
        values = _as_tensor(array)
    else:
        values, channels = array.read(), array.channels
    sizes = tuple(values.shape[:-1] if channels > 1 else values.shape)
    _check(sizes, shape, order)
    if channels > 1 and values.shape[-1] != channels:
        raise VolumeError(
            f"resample with channels={channels} needs them in the last axis, got shape "
            f"{tuple(values.shape)}; move the axis there."
        )
    if tuple(shape) == sizes:
        values = values.clone()
    if order > 0:
        values = as_floating(values)
    # Axes that shrink first, those that grow most last, to minimize memory and operations.
    for axis in sorted(range(len(sizes)), key=lambda k: shape[k] / sizes[k]):
        if sizes[axis] != shape[axis]:
            low, taken = weights(sizes[axis], shape[axis], order)
            values = along(values.narrow(axis, low, width_of(taken)), taken, axis)
    return values.numpy() if isinstance(array, np.ndarray) else values


def weights(
    n: int, m: int, order: int, start: int = 0, stop: int | None = None
) -> tuple[int, Tensor]:
    """Weights for the voxels `start` to `stop` of `m`, resampled from `n`.

    Only voxels within a margin contribute. A spline depends on a voxel `k` away by a factor of
    `decay^k`, and the margin reduces this to 1e-6; a window that ends inside the array is extended
    by its end values there, as the array is at its own ends.

    Returns:
        The first contributing voxel, and the weights (stop - start, width) of the `width` voxels
        from there on, float64; with `order=0` the indices of the voxels, (stop - start,), relative
        to it, int64.
    """
    step = (n - 1) / (m - 1) if m > 1 else 1.0
    positions = np.arange(start, m if stop is None else stop) * step
    if order == 0:
        nearest = np.floor(positions + 0.5).astype(np.int64)
        return int(nearest[0]), torch.from_numpy(nearest - nearest[0])
    margin = _MARGINS[order]
    low = max(0, int(positions[0]) - margin)
    high = min(n, int(positions[-1]) + 2 + margin)
    return low, spline_matrix(high - low, positions - low, order)


def width_of(taken: Tensor) -> int:
    """Number of voxels that `weights` cover."""
    return taken.shape[1] if taken.ndim == 2 else int(taken[-1]) + 1


def spline_matrix(n: int, positions: np.ndarray, order: int) -> Tensor:
    """Weights (len(positions), n), float64, of the spline through `n` voxels.

    Args:
        n: Number of voxels.
        positions: Increasing, from 0 to `n - 1`.
        order: From 0 to 5.
    """
    from scipy.interpolate import BSpline
    from scipy.ndimage import spline_filter1d

    voxels = np.pad(np.eye(n), ((_BEYOND, _BEYOND), (0, 0)), mode="edge")
    if order > 1:
        voxels = spline_filter1d(voxels, order, axis=0, mode="nearest")
    # Basis function j is centered at j: uniform knots, half the order to either side.
    knots = np.arange(len(voxels) + order + 1) - (order + 1) / 2
    basis = BSpline.design_matrix(np.asarray(positions) + _BEYOND, knots, order)
    return torch.from_numpy(basis @ voxels)


def along(values: Tensor, taken: Tensor, axis: int) -> Tensor:
    """Apply `weights` along an axis."""
    if taken.ndim == 1:
        return values.index_select(axis, taken.to(values.device))
    matrix = taken.to(values)
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    if not after:
        return values @ matrix.T
    flat = values.reshape(math.prod(before), -1, math.prod(after))
    return (matrix @ flat).reshape(*before, len(matrix), *after)


def floating(dtype: torch.dtype) -> torch.dtype:
    """The floating-point dtype in which values of `dtype` are resampled."""
    if dtype.is_floating_point:
        return torch.promote_types(dtype, torch.float32)
    return torch.float64 if dtype.itemsize > 2 else torch.float32


def as_floating(values: Tensor) -> Tensor:
    """The values in their floating-point dtype, checked to be finite: others would spread."""
    values = values.to(floating(values.dtype))
    bad = values.numel() - int(values.isfinite().sum())
    if bad:
        raise VolumeError(
            f"resample needs finite values, got {bad} that are NaN or infinite; replace them, for "
            "example with torch.nan_to_num."
        )
    return values


def check_order(who: str, order: int) -> None:
    """Raise unless there is a spline of this order."""
    if order not in range(6):
        raise VolumeError(f"{who} needs an order from 0 to 5, got {order!r}; 3 is cubic.")


def _check(sizes: tuple[int, ...], shape: tuple[int, ...], order: int) -> None:
    check_order("resample", order)
    whole = all(isinstance(n, int | np.integer) and n >= 1 for n in shape)
    if len(shape) != len(sizes) or not whole or min(sizes, default=0) < 1:
        raise VolumeError(
            f"resample needs one size of at least 1 for each axis of {sizes}, got {tuple(shape)}; "
            "pass channels= when the last axis holds channels."
        )
