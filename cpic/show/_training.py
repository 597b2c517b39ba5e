"""Curves of a training run, from the table that it writes."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cpic._trust import read_regular
from cpic.show._figure import LINES, MARKS, WIDTH, picture, place

_COLUMNS = 3


def training_curves(folder: str | os.PathLike, *, metrics: Sequence[str] | None = None) -> Figure:
    """Draw the training loss and the validation metrics of a run by epoch.

    Args:
        folder: Folder of a fold, such as `results/gcp_textures/fold_0`, with its `metrics.csv`.
        metrics: Columns of that file; by default `train_loss` and all that begin with `val_`.

    Returns:
        A matplotlib Figure with one panel for each.

    Raises:
        ValueError: If there is no such table, it has no row, a column is missing, or a value is no
            number.

    Example:
        >>> figure = training_curves("results/gcp_textures/fold_0")  # doctest: +SKIP
        >>> figure.savefig("curves.pdf")  # doctest: +SKIP
    """
    path = Path(folder) / "metrics.csv"
    try:
        rows = list(csv.DictReader(read_regular(path).decode().splitlines()))
    except (OSError, ValueError) as error:
        raise ValueError(f"training_curves needs a run with {path} ({error}).") from error
    if not rows:
        raise ValueError(f"training_curves needs at least one epoch in {path}, got none.")
    names = [name for name in rows[0] if name == "train_loss" or name.startswith("val_")]
    names = list(names if metrics is None else metrics)
    missing = [name for name in ["epoch", *names] if name not in rows[0]]
    if missing or not names:
        known = ", ".join(name for name in rows[0] if name != "epoch")
        raise ValueError(f"training_curves finds no {missing or 'metric'} in {path}, but {known}.")
    try:
        curves = {name: [float(row[name] or "nan") for row in rows] for name in ["epoch", *names]}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a cell that is no number ({error}).") from error
    n_rows, n_columns = math.ceil(len(names) / _COLUMNS), min(len(names), _COLUMNS)
    height, width = 2.3 * n_rows, (WIDTH - 0.1) / n_columns
    figure = picture(WIDTH, height, f"{', '.join(names)} by epoch of {Path(folder).name}")
    for k, name in enumerate(names):
        bottom = height - 2.3 * (k // _COLUMNS + 1) + 0.5
        ax = place(figure, width * (k % _COLUMNS) + 0.62, bottom, width - 0.7, 1.5)
        style = {"color": LINES[k % len(LINES)], "marker": MARKS[k % len(MARKS)], "markersize": 3.5}
        ax.plot(curves["epoch"], curves[name], **style)
        ax.set_title(name.removeprefix("val_").replace("_", " "), fontsize=9)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        ax.grid(color="0.85", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure
