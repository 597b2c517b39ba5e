"""Curves of a training run, from the table that it writes, and gradients along a network."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cpic._trust import read_regular
from cpic.show._figure import LINES, MARKS, WIDTH, picture, place

if TYPE_CHECKING:
    from torch import nn

_COLUMNS = 3


def training_curves(folder: str | os.PathLike, *, metrics: Sequence[str] | None = None) -> Figure:
    """Draw the metrics of a run by epoch, of training and of validation.

    Args:
        folder: Folder of a fold, such as `results/gcp_textures/fold_0`, with its `metrics.csv`.
        metrics: Columns of that file; by default all that begin with `train_` or `val_`.

    Returns:
        A matplotlib Figure with one panel for each; `train_error` shares that of `val_error`.

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
    names = [name for name in rows[0] if name.startswith(("train_", "val_"))]
    names = list(names if metrics is None else metrics)
    missing = [name for name in ["epoch", *names] if name not in rows[0]]
    if missing or not names:
        known = ", ".join(name for name in rows[0] if name != "epoch")
        raise ValueError(f"training_curves finds no {missing or 'metric'} in {path}, but {known}.")
    try:
        curves = {name: [float(row[name] or "nan") for row in rows] for name in ["epoch", *names]}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a cell that is no number ({error}).") from error
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.removeprefix("val_").removeprefix("train_"), []).append(name)
    n_rows, n_columns = math.ceil(len(panels) / _COLUMNS), min(len(panels), _COLUMNS)
    height, width = 2.3 * n_rows, (WIDTH - 0.1) / n_columns
    figure = picture(WIDTH, height, f"{', '.join(names)} by epoch of {Path(folder).name}")
    for k, (title, lines) in enumerate(panels.items()):
        bottom = height - 2.3 * (k // _COLUMNS + 1) + 0.5
        ax = place(figure, width * (k % _COLUMNS) + 0.62, bottom, width - 0.7, 1.5)
        for name, color, mark in zip(lines, LINES, MARKS, strict=False):
            part = "training" if name.startswith("train_") else "validation"
            style = {"color": color, "marker": mark, "markersize": 3.5, "label": part}
            ax.plot(curves["epoch"], curves[name], **style)
        if len(lines) > 1:
            ax.legend(fontsize=7)
        elif lines == [f"train_{title}"]:
            title = f"train {title}"
        ax.set_title(title.replace("_", " "), fontsize=9)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        ax.grid(color="0.85", linewidth=0.6)
        ax.set_axisbelow(True)
    return figure


def gradient_flow(network: "nn.Module") -> Figure:
    """Draw the gradients of the weights of a network, from its input to its output.

    Call it between `backward` and the reset of the gradients. A layer whose gradients are orders of
    magnitude below those of the others hardly learns. Biases, and other parameters of one axis, are
    left out.

    Args:
        network: A network whose parameters have gradients.

    Returns:
        A matplotlib Figure with a row for each weight: mean and largest absolute value, on a log
        scale. What is not finite, or zero, is not drawn.

    Raises:
        ValueError: If no weight has a gradient.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        >>> network(torch.ones(2, 3)).sum().backward()
        >>> [label.get_text() for label in gradient_flow(network).axes[0].get_yticklabels()]
        ['0.weight', '1.weight']
    """
    found = {
        name: weight.grad.detach().abs().double()
        for name, weight in network.named_parameters()
        if weight.grad is not None and weight.ndim > 1
    }
    if not found:
        raise ValueError(
            f"gradient_flow needs a network with gradients, got a {type(network).__name__} "
            "without; call backward() first."
        )
    height = 0.19 * len(found) + 1.1
    figure = picture(
        WIDTH, height, f"Gradients of {len(found)} weights of a network on a log scale"
    )
    ax = place(figure, 2.4, 0.55, WIDTH - 2.6, height - 0.65)
    rows = range(len(found))
    sizes = {"mean": [one.mean() for one in found.values()]}
    sizes["largest"] = [one.max() for one in found.values()]
    for (name, values), color, mark in zip(sizes.items(), LINES, MARKS, strict=False):
        drawn = [float(value) or math.nan for value in values]
        ax.plot(drawn, rows, color=color, marker=mark, markersize=3.5, label=name)
    ax.set_xscale("log")
    ax.set_yticks(rows, list(found), fontsize=7)
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlabel("absolute gradient")
    ax.grid(color="0.85", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(fontsize=7)
    return figure
