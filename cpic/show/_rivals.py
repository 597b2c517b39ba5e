"""Reconstructions of one array by several choosers, side by side, and the voxels they read.

Each chooser has a column: above its reconstruction, below the voxels it read, in true size.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from cpic.show._anatomy import _cut, _Plane, _scale, _show
from cpic.show._figure import ACCENT, picture, place, to_numpy

if TYPE_CHECKING:
    from cpic.choose import Chosen

_WIDTH, _GAP, _TITLE = 9.2, 0.1, 0.28


def rivals(
    original: Any,
    chosen: "Mapping[str, Chosen]",
    *,
    axis: int = 2,
    at: int | None = None,
    thickness: int = 1,
    window: tuple[float, float] | None = None,
) -> Figure:
    """Draw one slice of what choosers rebuild, and below it the voxels they read there.

    The errors in the titles are those of the whole pictures, relative to the norm of the original;
    the shares are those of all voxels.

    Args:
        original: Array or tensor `(X, Y, Z)`, or `(H, W)` for a photograph.
        chosen: Answers of `cpic.choose.choose` for this one array (K = 1), by name.
        axis: The axis perpendicular to the slice; ignored for a photograph.
        at: Position of the slice; the middle by default.
        thickness: Draw the voxels read closer than this many voxels to the slice: 1 is the slice
            itself, in which a grid may have none.
        window: The values drawn black and white; the extremes of `original` by default.

    Returns:
        A matplotlib Figure: the original and a column for each name.

    Raises:
        ValueError: If there is nothing to draw, or shapes, position or window do not fit.

    Example:
        >>> from cpic import choose, tt
        >>> photograph = torch.rand(40, 30)
        >>> entries = tt.dense_entries(photograph[None])
        >>> figure = rivals(photograph, {"grid": choose.choose(entries, (40, 30), budget=0.2)})
        >>> figure.axes[2].get_title()
        'read 20 %'
    """
    array = to_numpy(original, "rivals", "an original")
    if not chosen or any((1, *array.shape) != (len(c.values), *c.shape) for c in chosen.values()):
        raise ValueError(
            f"rivals needs at least one answer of `choose` for one array of shape {array.shape}, "
            f"got {chosen}."
        )
    plane = _cut(array.shape, axis, at)
    window, ((w, h),) = _scale("rivals", array, [plane], window, None)
    width = (_WIDTH - _GAP * (len(chosen) + 2)) / (len(chosen) + 1)
    height = width * h / w
    figure = picture(
        _WIDTH,
        round(2 * (height + _TITLE) + _GAP, 2),
        f"Pictures and reading of {', '.join(chosen)}",
    )

    def axes(column: int, row: float):
        left, bottom = _GAP + column * (width + _GAP), _GAP / 2 + row * (height + _TITLE)
        made = place(figure, left, bottom, width, height)
        made.set(xticks=[], yticks=[])
        return made

    _show(axes(0, 0.5), plane, array, window, "original")
    for column, (name, one) in enumerate(chosen.items(), 1):
        rebuilt = one.dense()[0].detach().cpu().double().numpy()
        error = np.linalg.norm(rebuilt - array) / np.linalg.norm(array)
        _show(axes(column, 1), plane, rebuilt, window, f"{name}: error {error:.2g}")
        read = _near(one.positions[0].cpu().numpy(), array.shape, plane, thickness)
        share = f"read {100 * int(one.asked) / array.size:.2g} %"
        colors = ListedColormap(["#f2f2f2", ACCENT])
        _show(axes(column, 0), plane, read, (0, 1), share, colors).set_interpolation("nearest")
    return figure


def _near(
    positions: np.ndarray, shape: tuple[int, ...], plane: _Plane, thickness: int
) -> np.ndarray:
    """Ones at the positions near a plane, moved into it, and zeros elsewhere."""
    if plane.cut is not None:
        positions = positions[np.abs(positions[:, plane.cut] - plane.voxel) < thickness]
        positions = positions.copy()
        positions[:, plane.cut] = plane.voxel
    read = np.zeros(shape)
    read[tuple(positions.T)] = 1
    return read
