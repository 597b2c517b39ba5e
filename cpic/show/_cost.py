"""Drawings of the cost of a compression: trains to scale, bytes and voxels in readable units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from cpic.show._figure import ACCENT, WIDTH, picture, place

SCALES = {
    "bytes": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")),
    "voxels": ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e3, "thousand"), (1, "")),
}


def train_to_scale(train: Any, *, max_rank: int | None = None) -> Figure:
    """Draw a tensor train as boxes whose heights and widths are its ranks.

    Each box is one core: its height is the left rank, its width the right rank, so its area is that
    of the matrix that the core holds for each index. The number below is the size of the site, the
    number between boxes the rank, and the color shows the share of the core in all bytes. The units
    of width and height differ on paper, since long trains are much wider than tall.

    Args:
        train: An object with `ranks` (d + 1 integers) and `sizes` (d integers).
        max_rank: The rank that fills the height; the largest of the train by default. Pass it to
            compare several pictures.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If the numbers of ranks and sizes do not match, or `max_rank` is too small.

    Example:
        >>> from types import SimpleNamespace
        >>> figure = train_to_scale(SimpleNamespace(ranks=(1, 3, 1), sizes=(4, 4)))
        >>> [(box.get_width(), box.get_height()) for box in figure.axes[0].patches]
        [(3, 1), (1, 3)]
    """
    ranks, sizes = [int(r) for r in train.ranks], [int(n) for n in train.sizes]
    if len(ranks) != len(sizes) + 1 or not sizes or min(ranks + sizes) < 1:
        raise ValueError(
            f"train_to_scale needs d sizes and d + 1 positive ranks, got {sizes} and {ranks}."
        )
    top = max(ranks) if max_rank is None else max_rank
    if top < max(ranks):
        raise ValueError(f"train_to_scale needs max_rank >= {max(ranks)}, got {max_rank}.")
    entries = np.array([a * n * b for a, n, b in zip(ranks, sizes, ranks[1:], strict=False)])
    shares = entries / entries.sum()
    figure = picture(
        WIDTH, 2.5, f"Tensor train of {len(sizes)} cores to scale, largest rank {max(ranks)}"
    )
    ax = place(figure, 0.1, 0.35, WIDTH - 1.3, 1.8)
    bar = place(figure, WIDTH - 1.05, 0.35, 0.14, 1.8)
    # A round upper end of the scale, so that the cores of a long train still differ.
    most = next(end for end in (0.02, 0.05, 0.1, 0.2, 0.5, 1) if end >= min(shares.max(), 1))
    scale = ScalarMappable(Normalize(0, most), "cividis")
    gap, left = max(0.45 * top, 0.6), 0.0
    # Every rank except the outer two occurs once as a width and once as a height.
    full = (len(sizes) - 1) * top + 1 + gap * len(sizes)
    for k, (size, share) in enumerate(zip(sizes, shares, strict=True)):
        width, height = ranks[k + 1], ranks[k]
        box = Rectangle((left, -height / 2), width, height, facecolor=scale.to_rgba(share))
        box.set(edgecolor="0.45", linewidth=0.8)
        ax.add_patch(box)
        if len(sizes) <= 26:
            _write(ax, left + width / 2, -0.6 * top, str(size), "top")
            if k + 1 < len(sizes):
                _write(ax, left + width + gap / 2, 0.6 * top, str(width), "bottom")
        left += width + gap
    ax.set(xlim=(-gap / 2, full - gap / 2), ylim=(-0.85 * top, 0.85 * top))
    ax.set_axis_off()
    figure.text(0.1 / WIDTH, 0.92, "ranks above, sizes below, cores to scale", fontsize=9)
    percent = PercentFormatter(1, symbol=" %", decimals=0)
    ticks = [0, most / 2, most]
    figure.colorbar(scale, cax=bar, label="share of bytes", ticks=ticks, format=percent)
    return figure


def budget(
    rows: Mapping[str, float] | Sequence[tuple[str, float]],
    *,
    unit: str = "bytes",
    memory: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw amounts of very different sizes as bars on a log scale, in readable units.

    Args:
        rows: Names and amounts, from top to bottom. The first row, the reference, is gray; the
            others have the accent color.
        unit: `"bytes"` or `"voxels"`.
        memory: Draw a line at this many bytes, the memory of a GPU.
        limits: Limits of the scale; powers of ten around the amounts by default.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: If there are no rows, an amount is not positive, or the unit is unknown.

    Example:
        >>> figure = budget({"dense": 8192**3 * 4, "train": 210_000 * 4}, memory=80e9)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['2.2 TB', '840 kB', 'GPU memory 80 GB']
    """
    pairs = list(rows.items()) if isinstance(rows, Mapping) else [(n, v) for n, v in rows]
    if not pairs:
        raise ValueError("budget needs at least one row, got none.")
    if unit not in SCALES:
        raise ValueError(f"budget needs a unit of {[*SCALES]}, got {unit!r}.")
    amounts = [float(v) for _, v in pairs] + ([] if memory is None else [float(memory)])
    if not all(0 < v < float("inf") for v in amounts):
        raise ValueError(f"budget needs positive finite amounts, got {amounts}.")
    if limits is None:
        limits = (10 ** np.floor(np.log10(min(amounts)) - 1), 10 ** np.ceil(np.log10(max(amounts))))
    if not 0 < limits[0] < limits[1]:
        raise ValueError(f"budget needs limits 0 < low < high, got {limits}.")
    height = 0.42 * len(pairs)
    text = "; ".join(f"{name} {human(value, unit)}" for name, value in pairs)
    figure = picture(WIDTH, height + 1.05, f"Budget on a log scale: {text}")
    ax = place(figure, 1.9, 0.55, WIDTH - 3.0, height)
    for k, (_, value) in enumerate(pairs):
        ax.barh(k, value, height=0.62, color="0.55" if k == 0 else ACCENT)
        # Inside the figure, whatever the limits are.
        end = min(max(value, limits[0]), limits[1])
        ax.annotate(human(value, unit), (end, k), (4, 0), textcoords="offset points", va="center")
    if memory is not None:
        ax.axvline(memory, color="0.35", linestyle="--")
        _write(ax, memory, -0.62, f"GPU memory {human(memory, 'bytes')}", "bottom")
    ax.set(xscale="log", xlim=limits, ylim=(len(pairs) - 0.5, -0.5), xlabel=f"{unit} (log scale)")
    ax.set_yticks(range(len(pairs)), [name for name, _ in pairs])
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def human(value: float, unit: str = "bytes") -> str:
    """Format an amount with two or three digits and a common unit."""
    size, name = next((row for row in SCALES[unit] if value >= row[0]), SCALES[unit][-1])
    scaled = value / size
    digits = f"{scaled:.1f}".removesuffix(".0") if scaled < 10 else f"{scaled:.0f}"
    return f"{digits} {name}".strip()


def _write(ax: Axes, x: float, y: float, text: str, va: str) -> None:
    ax.text(x, y, text, ha="center", va=va, fontsize=8)
