"""Parameters of a network for an optimizer, by what weight decay means for them."""

from typing import Any

from torch import nn

from cpic.nn.spectral._weight import parts_of, spectral_layers


def parameter_groups(net: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimizer, with weight decay for all but the frames.

    Decay of the free numbers of a frame turns it towards the first unit vectors, and shrinks
    nothing. Decay of the singular values shrinks the weight if its norm is learned, with a `gain`.
    The published classifiers decay all numbers alike {cite}`obukhov2021spectral`.

    Args:
        net: A network, parametrized or not.
        weight_decay: Of all parameters that are not those of frames.

    Returns:
        Two groups for `torch.optim`: all others, and frames without decay; groups that would be
        empty are left out.

    Raises:
        ValueError: If the decay is negative.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> net = parametrize(torch.nn.Linear(8, 6), rank=3).net
        >>> groups = parameter_groups(net, weight_decay=1e-4)
        >>> [(group["weight_decay"], len(group["params"])) for group in groups]
        [(0.0001, 2), (0.0, 1)]
    """
    if not weight_decay >= 0:
        raise ValueError(
            f"parameter_groups needs `weight_decay` to be at least 0, got {weight_decay!r}."
        )
    frames = {
        id(parts_of(layer).free): parts_of(layer).free for _, layer, _ in spectral_layers(net)
    }
    others = [parameter for parameter in net.parameters() if id(parameter) not in frames]
    groups = [(others, weight_decay), (list(frames.values()), 0.0)]
    return [{"params": some, "weight_decay": decay} for some, decay in groups if some]
