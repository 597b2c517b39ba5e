"""Pictures of volumes: slices, reconstruction errors, sampled positions.

A volume has axes (x, y, z); a slice shows the earlier axis to the right and the later one
upwards, in radiological convention. An array with two axes is a photograph: rows downwards.

Shapes: `X`, `Y`, `Z` sizes of a volume, `H` and `W` of a photograph, `n` positions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from cpic.show._figure import ACCENT, check_window, panels, to_numpy

NAMES = "xyz"
# Few enough colors that a lossless picture of three panels has a palette: half the bytes.
GRAYS = colormaps["gray"].resampled(96)
DIVERGING = colormaps["PuOr_r"].resampled(33)


class _Plane(NamedTuple):
    """A picture to draw: the axes it shows, and where it cuts the third."""

    right: int
    up: int
    cut: int | None
    voxel: int

    def take(self, array: np.ndarray) -> np.ndarray:
        """Rows and columns of the picture."""
        if self.cut is None:
            return array
        return np.take(array, self.voxel, axis=self.cut).T

    def extent(self, shape: Sequence[int], spacing: Sequence[float]) -> tuple[float, float]:
        return shape[self.right] * spacing[self.right], shape[self.up] * spacing[self.up]


def slices(
    volume: Any,
    *,
    at: Sequence[int] | None = None,
    window: tuple[float, float] | None = None,
    titles: Sequence[str] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> Figure:
    """Draw the three orthogonal slices of a volume through one voxel.

    Args:
        volume: Array or tensor `(X, Y, Z)` of any real dtype and device.
        at: The voxel; the middle of the volume by default.
        window: The values drawn black and white; the extremes of the volume by default.
            Pass it to compare several pictures.
        titles: Titles of the three slices.
        spacing: Size of a voxel along each axis.

    Returns:
        A matplotlib Figure whose size depends only on shape and spacing.

    Raises:
        ValueError: If `volume` does not have three axes or has NaN, `at` is outside, or `window`,
            `titles` or `spacing` is invalid.

    Example:
        >>> import torch
        >>> figure = slices(torch.rand(20, 24, 16), window=(0, 1))
        >>> len(figure.axes)
        3
    """
    array = to_numpy(volume, "slices", "a volume")
    planes = _planes(array.shape, at, "slices", dims=(3,))
    window, extents = _scale("slices", array, planes, window, spacing)
    titles = [f"{NAMES[p.cut or 0]} = {p.voxel}" for p in planes] if titles is None else titles
    if len(titles) != 3:
        raise ValueError(f"slices needs three titles, got {len(titles)}.")
    figure, axes, _ = panels(extents, f"Three orthogonal slices: {', '.join(titles)}")
    for ax, plane, title in zip(axes, planes, titles, strict=True):
        _show(ax, plane, array, window, title)
    return figure


def triplet(
    original: Any,
    rebuilt: Any,
    *,
    axis: int = 2,
    at: int | None = None,
    window: tuple[float, float] | None = None,
    error: float | None = None,
    spacing: Sequence[float] | None = None,
) -> Figure:
    """Draw a slice of the original, of the reconstruction, and of their difference.

    Window and error scale depend on `original` only, so that pictures of different ranks can be
    compared by eye. The title of the error has its norm relative to the original, over the whole
    array, not only the slice.

    Args:
        original: Array or tensor `(X, Y, Z)`, or `(H, W)` for a photograph.
        rebuilt: The reconstruction, of the same shape.
        axis: The axis perpendicular to the slice; ignored for a photograph.
        at: Position of the slice; the middle by default.
        window: The values drawn black and white; the extremes of `original` by default.
        error: The difference at the ends of the color scale; a quarter of the window by default.
        spacing: Size of a voxel along each axis, one everywhere by default.

    Returns:
        A matplotlib Figure with three pictures and the color bar of the error.

    Raises:
        ValueError: If the shapes differ or do not have two or three axes, or a position, window or
            scale is invalid.

    Example:
        >>> import torch
        >>> volume = torch.rand(20, 24, 16)
        >>> figure = triplet(volume, volume.round(), window=(0, 1), error=0.5)
        >>> [ax.get_title() for ax in figure.axes][:2]
        ['original', 'rebuilt']
    """
    first = to_numpy(original, "triplet", "an original")
    second = to_numpy(rebuilt, "triplet", "a rebuilt volume")
    if first.shape != second.shape:
        raise ValueError(f"triplet needs two equal shapes, got {first.shape} and {second.shape}.")
    plane = _cut(first.shape, axis, at)
    window, extents = _scale("triplet", first, [plane], window, spacing)
    scale = (window[1] - window[0]) / 4 if error is None else float(error)
    if not scale > 0:
        raise ValueError(f"triplet needs a positive error scale, got {error}.")
    difference = second - first
    norm = float(np.linalg.norm(first))
    relative = float(np.linalg.norm(difference)) / norm if norm else float("nan")
    alt = f"Original, reconstruction and their difference, {relative:.3g} of the norm"
    figure, axes, bar = panels(extents * 3, alt, bar=True)
    _show(axes[0], plane, first, window, "original")
    _show(axes[1], plane, second, window, "rebuilt")
    title = f"error ({relative:.3g} of norm)" if norm else "error"
    image = _show(axes[2], plane, difference, (-scale, scale), title, DIVERGING)
    figure.colorbar(image, cax=bar, extend="both", ticks=[-scale, 0, scale], format="%.3g")
    return figure


def positions(
    background: Any,
    coords: Any,
    *,
    at: Sequence[int] | None = None,
    thickness: int | None = None,
    window: tuple[float, float] | None = None,
    size: float = 2.0,
    spacing: Sequence[float] | None = None,
) -> Figure:
    """Draw sampled positions over anatomy.

    Args:
        background: Array or tensor `(X, Y, Z)`, or `(H, W)` for a photograph.
        coords: Integer positions `(n, 3)`, or `(n, 2)` on a photograph, inside its shape; `n` may
            be 0. Positions that coincide in a picture are drawn once.
        at: The voxel that the slices pass through; the middle by default.
        thickness: Draw only positions closer than this many voxels to each slice (1: in the slice
            itself); by default all of them, projected through the volume.
        window: The values drawn black and white; the extremes by default.
        size: Side of a mark in points.
        spacing: Size of a voxel along each axis, one everywhere by default.

    Returns:
        A matplotlib Figure with three pictures, or one of a photograph; each title has the number
        of its marks.

    Raises:
        ValueError: If shapes do not match or a position is outside.

    Example:
        >>> import torch
        >>> figure = positions(torch.rand(20, 24, 16), torch.tensor([[10, 12, 8]]))
        >>> figure.axes[0].get_title()
        'x = 10: 1 position'
    """
    array = to_numpy(background, "positions", "a background")
    planes = _planes(array.shape, at, "positions", dims=(2, 3))
    points = _check_coords(coords, array.shape)
    window, extents = _scale("positions", array, planes, window, spacing)
    alt = f"{len(points)} sampled positions drawn over the picture that they sample"
    figure, axes, _ = panels(extents, alt)
    for ax, plane in zip(axes, planes, strict=True):
        near = points
        if thickness is not None and plane.cut is not None:
            near = points[np.abs(points[:, plane.cut] - plane.voxel) < thickness]
        marks = np.unique(near[:, [plane.right, plane.up]], axis=0)
        count = f"{len(marks):,} position{'' if len(marks) == 1 else 's'}"
        title = count if plane.cut is None else f"{NAMES[plane.cut]} = {plane.voxel}: {count}"
        _show(ax, plane, array, window, title)
        style: dict[str, Any] = {"c": ACCENT, "marker": "s", "linewidths": 0, "alpha": 0.85}
        ax.scatter(marks[:, 0], marks[:, 1], s=size**2, **style)
    return figure


def _scale(
    who: str, array: np.ndarray, planes: Sequence[_Plane], window: Any, spacing: Any
) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """Check and return the window, and the extent of each picture."""
    levels = check_window(window, array, who)
    sizes = (1.0,) * array.ndim if spacing is None else tuple(float(s) for s in spacing)
    if len(sizes) != array.ndim or any(not s > 0 for s in sizes):
        raise ValueError(
            f"{who} needs one positive spacing for each of {array.ndim} axes, got {sizes}."
        )
    return levels, [plane.extent(array.shape, sizes) for plane in planes]


def _show(
    ax: Axes,
    plane: _Plane,
    array: np.ndarray,
    window: tuple[float, float],
    title: str,
    cmap: Colormap = GRAYS,
):
    style: dict[str, Any] = {"origin": "upper" if plane.cut is None else "lower", "aspect": "auto"}
    # Interpolating colors instead of values would create colors that the scale does not have.
    style |= {"cmap": cmap, "interpolation_stage": "data"}
    ax.set_title(title, fontsize=9.5, pad=4)
    return ax.imshow(plane.take(array), vmin=window[0], vmax=window[1], **style)


def _planes(
    shape: tuple[int, ...], at: Sequence[int] | None, who: str, dims: tuple[int, ...]
) -> list[_Plane]:
    if len(shape) not in dims:
        wanted = " or ".join(str(d) for d in dims)
        raise ValueError(f"{who} needs an array with {wanted} axes, got shape {shape}.")
    if len(shape) == 2:
        return [_Plane(1, 0, None, 0)]
    voxel = [n // 2 for n in shape] if at is None else [int(i) for i in at]
    if len(voxel) != 3 or any(not 0 <= i < n for i, n in zip(voxel, shape, strict=True)):
        raise ValueError(f"{who} needs a voxel `at` inside shape {shape}, got {voxel}.")
    return [_Plane(1, 2, 0, voxel[0]), _Plane(0, 2, 1, voxel[1]), _Plane(0, 1, 2, voxel[2])]


def _cut(shape: tuple[int, ...], axis: int, at: int | None) -> _Plane:
    if axis not in (0, 1, 2):
        raise ValueError(f"triplet needs an axis 0, 1 or 2, got {axis}.")
    planes = _planes(shape, None, "triplet", dims=(2, 3))
    if len(planes) == 1:
        return planes[0]
    if at is not None and not 0 <= at < shape[axis]:
        raise ValueError(f"triplet needs `at` from 0 to {shape[axis] - 1}, got {at}.")
    return planes[axis] if at is None else planes[axis]._replace(voxel=at)


def _check_coords(coords: Any, shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(coords.detach().cpu() if hasattr(coords, "detach") else coords)
    if found.ndim != 2 or found.shape[1] != len(shape):
        raise ValueError(f"positions needs coords of shape (n, {len(shape)}), got {found.shape}.")
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"positions needs coords of an integer dtype, got {found.dtype}.")
    if ((found < 0) | (found >= np.array(shape))).any():
        raise ValueError(
            f"positions needs coords inside shape {shape}, got some from {found.min(0).tolist()} "
            f"to {found.max(0).tolist()}; leave out those in the padding first."
        )
    return found
