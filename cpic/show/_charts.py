"""Charts of a compression: the spectra it truncates, the errors it leaves.

Scales are logarithmic, with limits that a caller can fix so that the pictures of one slider
agree.

Shapes: `x` points of a curve, `s` seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, NullLocator

from cpic.show._figure import DASHES, LINES, MARKS, WIDTH, picture, place, to_numpy

MAX_LEGEND = 8


def spectra(
    source: Any,
    *,
    tol: float | None = None,
    floor: float = 1e-8,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw the singular values of every bond, divided by their norm, on a log scale.

    Args:
        source: One array or tensor `(*sizes)` of at least two axes, whose unfoldings give the
            singular values; or a list with the singular values of each bond.
        tol: Draw a line at this relative size.
        floor: The lower end of the scale, the same in every picture; the upper end is 1.
        labels: Names of the bonds; `bond 1`, `bond 2`, ... by default.

    Returns:
        A matplotlib Figure. Up to eight bonds have a legend, more have a color bar.

    Raises:
        ValueError: If there are no bonds, values are negative, all zero or NaN, or the number of
            `labels` is wrong.

    Example:
        >>> import torch
        >>> figure = spectra(torch.ones(4, 3, 5), tol=1e-3)
        >>> len(figure.axes[0].lines)  # two bonds and the line of tol
        3
    """
    if not 0 < floor < 1:
        raise ValueError(f"spectra needs a floor between 0 and 1, got {floor}.")
    values = _bond_values(source)
    names = [f"bond {k + 1}" for k in range(len(values))] if labels is None else list(labels)
    if len(names) != len(values):
        raise ValueError(f"spectra needs {len(values)} labels, got {len(names)}.")
    figure = picture(WIDTH, 3.4, f"Singular values of {len(values)} bonds on a log scale")
    ax = place(figure, 0.75, 0.55, WIDTH - 2.1, 2.7)
    many = len(values) > MAX_LEGEND
    for k, s in enumerate(values):
        style = _style(k, 3.5)
        if many:
            style["color"] = colormaps["viridis"](0.9 * k / (len(values) - 1))
        # Zero cannot be drawn on a log scale; it is drawn below the floor.
        shares = np.maximum(s / np.linalg.norm(s), floor / 10)
        ax.plot(np.arange(1, len(s) + 1), shares, label=names[k], **style)
    _level(ax, "tol", tol)
    ax.set(yscale="log", ylim=(floor, 1.5), xlabel="number", ylabel="singular value / norm")
    ax.set_xlim(0.5, max(max(len(s) for s in values), 2) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if many:
        bar = place(figure, WIDTH - 1.15, 0.55, 0.14, 2.7)
        scale = ScalarMappable(Normalize(1, (len(values) - 1) / 0.9 + 1), "viridis")
        edges = np.arange(0.5, len(values) + 1)
        ticks = MaxNLocator(6, integer=True)
        figure.colorbar(scale, cax=bar, label="bond", boundaries=edges, ticks=ticks)
    else:
        _legend(ax)
    return figure


def error_curve(
    x: Any,
    errors: Any,
    *,
    xlabel: str = "voxels read",
    ylabel: str = "relative error",
    goal: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw errors against numbers of samples on log scales, with the range over seeds.

    Args:
        x: Numbers of samples `(x,)`, positive.
        errors: Errors `(x,)`, or `(s, x)` with one row per seed, drawn as their median within the
            range from minimum to maximum; or a dict of names and such arrays.
        xlabel: Label of the horizontal axis.
        ylabel: Label of the vertical axis.
        goal: Draw a line at this error.
        limits: Limits of the error scale; fitted to the errors by default.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If an array has the wrong length, or is negative, NaN or empty.

    Example:
        >>> figure = error_curve([10, 100, 1000], {"cross": [0.5, 0.2, 0.1]}, goal=0.15)
        >>> figure.axes[0].get_xscale()
        'log'
    """
    points = to_numpy(x, "error_curve", "samples")
    if points.ndim != 1 or (points <= 0).any():
        raise ValueError(f"error_curve needs positive samples (x,), got shape {points.shape}.")
    curves = errors if isinstance(errors, Mapping) else {"": errors}
    if not curves:
        raise ValueError("error_curve needs at least one curve, got none.")
    figure = picture(WIDTH, 3.4, f"{ylabel} against {xlabel}: {', '.join(curves)}")
    ax = place(figure, 0.85, 0.55, WIDTH - 2.4, 2.7)
    for k, (name, values) in enumerate(curves.items()):
        _draw_curve(ax, points, to_numpy(values, "error_curve", "errors"), k, name)
    _level(ax, "goal", goal)
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    if limits is not None:
        ax.set_ylim(*limits)
    # "0.2" takes less room than a power of ten with a factor.
    ax.yaxis.set_major_formatter(_ShortFormatter())
    ax.yaxis.set_minor_formatter(_ShortFormatter(minor_thresholds=(2, 0.5)))
    ax.grid(which="major", color="0.85", linewidth=0.6)
    ax.set_axisbelow(True)
    if points.max() < 100 * points.min() and len(points) <= 8:  # few decades: mark the samples
        ax.set_xticks(points, [f"{x:g}" for x in points])
        ax.xaxis.set_minor_locator(NullLocator())
    if any(curves) or goal is not None:
        _legend(ax)
    return figure


class _ShortFormatter(LogFormatter):
    """Selects the ticks to label as its parent does, with short labels."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _draw_curve(ax: Axes, x: np.ndarray, errors: np.ndarray, k: int, name: str) -> None:
    rows = np.atleast_2d(errors)
    if rows.ndim != 2 or rows.shape[1] != len(x) or (rows < 0).any():
        raise ValueError(
            f"error_curve needs errors >= 0 of shape ({len(x)},) or (seeds, {len(x)}), got "
            f"{errors.shape} with least value {errors.min():.3g}."
        )
    # An exact result cannot be drawn on a log scale either.
    rows = np.maximum(rows, np.finfo(np.float64).eps / 10)
    style = _style(k, 4.5)
    # A leading underscore keeps an unnamed curve out of the legend.
    ax.plot(x, np.median(rows, 0), label=name or "_", **style)
    if len(rows) > 1:
        ax.fill_between(x, rows.min(0), rows.max(0), color=style["color"], alpha=0.2, linewidth=0)


def _style(k: int, size: float) -> dict[str, Any]:
    looks = {"color": LINES, "linestyle": DASHES, "marker": MARKS}
    return {"markersize": size, **{name: row[k % len(row)] for name, row in looks.items()}}


def _level(ax: Axes, name: str, at: float | None) -> None:
    if at is not None:
        ax.axhline(at, color="0.45", linestyle=(0, (1, 1)), label=f"{name} {at:g}")


def _legend(ax: Axes) -> None:
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)


def _bond_values(source: Any) -> list[np.ndarray]:
    if not isinstance(source, list | tuple):
        array = to_numpy(source, "spectra", "a tensor")
        if array.ndim < 2:
            raise ValueError(f"spectra needs a tensor of at least two axes, got {array.shape}.")
        rows = [int(np.prod(array.shape[:k])) for k in range(1, array.ndim)]
        values = [np.linalg.svd(array.reshape(m, -1), compute_uv=False) for m in rows]
    else:
        values = [to_numpy(s, "spectra", "singular values") for s in source]
    if not values or any(s.ndim != 1 or (s < 0).any() or not s.any() for s in values):
        raise ValueError(
            "spectra needs for each bond one list of singular values that are not negative and "
            f"not all zero, got shapes {[s.shape for s in values]}."
        )
    return [np.sort(s)[::-1] for s in values]
