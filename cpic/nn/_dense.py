"""Dense layers, shared by all small networks."""

from itertools import pairwise

from torch import nn


def dense(
    *widths: int,
    n_outputs: int | None = None,
    batch_norm: bool = True,
    layer_norm: bool = False,
    momentum: float = 0.1,
) -> list[nn.Module]:
    """Linear layers from width to width, each followed by a norm and ReLU.

    Args:
        widths: Widths of the inputs and of every layer.
        n_outputs: Width of a final linear layer without both, if any.
        batch_norm: Whether to use batch norm.
        layer_norm: Whether to use layer norm.
        momentum: Momentum of the batch norm.
    """
    layers: list[nn.Module] = []
    for before, behind in pairwise(widths):
        layers.append(nn.Linear(before, behind))
        if layer_norm:
            layers.append(nn.LayerNorm(behind))
        if batch_norm:
            layers.append(nn.BatchNorm1d(behind, momentum=momentum))
        layers.append(nn.ReLU())
    return layers if n_outputs is None else [*layers, nn.Linear(widths[-1], n_outputs)]
