"""Common parts of the figures: a canvas with fixed positions, grays and one accent color.

Figures are created without pyplot, so that nothing is kept, shown twice or shared between
pictures of one slider. Foreground and background follow matplotlib's settings, black on white by
default.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Vermilion of the Okabe-Ito palette: distinct from every gray, with any color vision.
ACCENT = "#d55e00"
# Distinct in print by their dashes and markers as well.
LINES = ("#0072b2", "#d55e00", "#007a5a", "#8a4f7d", "#6b6b6b")
DASHES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D", "v")
DPI = 100
WIDTH = 7.2


class Picture(Figure):
    """A Figure that a notebook shows as PNG, with or without pyplot, and an `alt` text."""

    alt: str = ""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        FigureCanvasAgg(self).print_png(stream)
        return stream.getvalue()


def picture(width: float, height: float, alt: str) -> Picture:
    """Create an empty figure of a given size in inches."""
    figure = Picture(figsize=(width, height), dpi=DPI)
    figure.alt = alt
    return figure


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a position in inches, so that no label can move them."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def panels(
    extents: Sequence[tuple[float, float]], alt: str, *, bar: bool = False
) -> tuple[Picture, list[Axes], Axes | None]:
    """Place pictures of given widths and heights in a row on one scale.

    Args:
        extents: Width and height of each picture in any common unit.
        alt: Alternative text of the figure.
        bar: Leave room for a color bar at the right, and return its axes.
    """
    gap, title, margin = 0.12, 0.34, 0.06
    room = WIDTH - gap * (len(extents) - 1) - 2 * margin - (0.75 if bar else 0)
    # Long thin volumes would make a figure as tall as the page.
    scale = min(room / sum(w for w, _ in extents), 6.0 / max(h for _, h in extents))
    tallest = max(h for _, h in extents) * scale
    figure = picture(WIDTH, round(tallest + title + margin, 2), alt)
    left, axes = margin + (room - scale * sum(w for w, _ in extents)) / 2, []
    for w, h in extents:
        axes.append(place(figure, left, margin, w * scale, h * scale))
        axes[-1].set(xticks=[], yticks=[])
        left += w * scale + gap
    last = extents[-1][1] * scale
    return figure, axes, place(figure, left, margin, 0.14, last) if bar else None


def to_numpy(array: Any, who: str, what: str) -> np.ndarray:
    """Convert an array or a tensor on any device to float64 without NaN."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()
    try:
        found = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{who} needs {what} as an array or tensor of numbers, got {type(array).__name__}."
        ) from error
    if found.size == 0:
        raise ValueError(f"{who} needs {what} with at least one value, got shape {found.shape}.")
    if not np.isfinite(found).all():
        raise ValueError(
            f"{who} needs {what} without NaN or infinity, got "
            f"{int((~np.isfinite(found)).sum())} such values; replace them first."
        )
    return found


def check_window(window: Any, values: np.ndarray, who: str) -> tuple[float, float]:
    """Return the black and the white level, by default the extremes of `values`."""
    low, high = (values.min(), values.max()) if window is None else window
    if window is not None and not low < high:
        raise ValueError(f"{who} needs a window (black, white) with black < white, got {window}.")
    # The extremes of a constant picture coincide.
    return float(low), float(high if low < high else low + 1)
