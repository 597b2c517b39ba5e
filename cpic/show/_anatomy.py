"""Pictures of volumes: slices, what a rebuilt volume gets wrong, where it was sampled.

A volume has axes (x, y, z); a slice shows the earlier axis to the right and the later one
upwards, as radiologists hang scans. An array with two axes is a photograph: rows downwards.

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
# So few colours that a lossless picture of three panels has a palette: half the bytes.
GREYS = colormaps["gray"].resampled(96)
DIVERGING = colormaps["PuOr_r"].resampled(33)


class _Plane(NamedTuple):
    """A picture to draw: which axes it shows, where it cuts the third."""

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
            Pass it when several pictures are to be compared.
        titles: What to write above the three slices.
        spacing: Size of a voxel along each axis.

    Returns:
        A matplotlib Figure of a size that depends on the shape and spacing only.

    Raises:
        ValueError: If `volume` has not three axes or holds NaN, `at` lies outside, or
            `window`, `titles` or `spacing` make no sense.

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
    """Draw a slice of the original, of the rebuilt volume, and of their difference.

    Window and error scale depend on `original` only, so that pictures of different ranks
    can be compared by eye. Above the error stands its norm relative to the original, over
    all that was passed and not over the slice alone.

    Args:
        original: Array or tensor `(X, Y, Z)`, or `(H, W)` for a photograph.
        rebuilt: The same shape.
        axis: The axis across which to cut; ignored for a photograph.
        at: Where to cut; the middle by default.
        window: The values drawn black and white; the extremes of `original` by default.
        error: The difference at which the colours end; a quarter of the window by default.
        spacing: Size of a voxel along each axis, one everywhere by default.

    Returns:
        A matplotlib Figure with three pictures and the colour bar of the error.

    Raises:
        ValueError: If the shapes differ or have not two or three axes, or a place, window
            or scale makes no sense.

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
    alt = f"Original, rebuilt and their difference, {relative:.3g} of the norm"
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
        coords: Integer positions `(n, 3)`, or `(n, 2)` on a photograph, inside its shape;
            `n` may be 0. Positions that coincide in a picture are drawn once.
        at: The voxel through which the slices go; the middle by default.
        thickness: Draw only positions fewer than this many voxels from each slice (1: in
            the slice itself); all of them, seen through the volume, by default.
        window: The values drawn black and white; the extremes by default.
        size: Side of a mark in points.
        spacing: Size of a voxel along each axis, one everywhere by default.

    Returns:
        A matplotlib Figure with three pictures, or one of a photograph; above each the
        number of marks in it.

    Raises:
        ValueError: If shapes do not fit together or a position lies outside.

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
    """The window, and the extent of each picture, both checked."""
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
    cmap: Colormap = GREYS,
):
    style: dict[str, Any] = {"origin": "upper" if plane.cut is None else "lower", "aspect": "auto"}
    # Resampling colours instead of values would invent colours that the scale has not.
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
