"""Dense layers, as all small networks here have them."""

from itertools import pairwise

from torch import nn


def dense(
    *widths: int, n_outputs: int | None = None, batch_norm: bool = True, momentum: float = 0.1
) -> list[nn.Module]:
    """Linear layers from width to width, each with batch norm and ReLU behind.

    Args:
        widths: Of the inputs, then of every layer.
        n_outputs: Width of one more layer with neither, if any.
        batch_norm: Whether there is batch norm.
        momentum: Of the batch norm.
    """
    layers: list[nn.Module] = []
    for before, behind in pairwise(widths):
        layers.append(nn.Linear(before, behind))
        if batch_norm:
            layers.append(nn.BatchNorm1d(behind, momentum=momentum))
        layers.append(nn.ReLU())
    return layers if n_outputs is None else [*layers, nn.Linear(widths[-1], n_outputs)]
