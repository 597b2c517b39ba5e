"""Turn parametrized layers back into plain ones."""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm

from cpic.nn.spectral._cached import uninstall
from cpic.nn.spectral._layers import stored
from cpic.nn.spectral._weight import weight_of


def remove(net: nn.Module, *, copy: bool = False) -> nn.Module:
    """Turn parametrized layers into plain ones with the weights that they have.

    The layers get back their own class, and their parameters their order. Make a new optimizer:
    the weights are new parameters.

    Args:
        net: A network with layers that `parametrize` or `spectral_norm` changed.
        copy: Return a changed copy, and leave the network as it is.

    Returns:
        The network.

    Raises:
        ValueError: If there is no such layer.

    Example:
        >>> from cpic.nn.spectral import parametrize
        >>> net = parametrize(torch.nn.Linear(8, 4), rank=2).net
        >>> type(remove(net)), [name for name, _ in net.named_parameters()]
        (<class 'torch.nn.modules.linear.Linear'>, ['weight', 'bias'])
    """
    if copy:
        net = deepcopy(net)
    layers = [module for module in net.modules() if _is_changed(module)]
    if not layers:
        raise ValueError(
            "remove needs a network with layers that `spectral.parametrize` or "
            "`spectral.spectral_norm` changed, got none."
        )
    for layer in layers:
        _make_plain(layer)
    for module in net.modules():
        uninstall(module)
    return net


def is_normalized(module: nn.Module) -> bool:
    """Whether power iterations divide the weight by its norm."""
    lists = getattr(module, "parametrizations", None)
    return lists is not None and "weight" in lists and isinstance(lists["weight"][0], _SpectralNorm)


def _is_changed(module: nn.Module) -> bool:
    return weight_of(module) is not None or is_normalized(module)


def _make_plain(layer: nn.Module) -> None:
    trained = any(p.requires_grad for p in layer.parametrizations["weight"].parameters())  # type: ignore[index]
    training = layer.training
    layer.eval()  # or power iterations would go on
    # A copy of a layer shares its class, from which torch deletes the weight: it gets its own.
    kind = type(layer)
    own = {name: value for name, value in vars(kind).items() if name != "forward"}
    layer.__class__ = type(  # type: ignore[assignment]
        kind.__name__, kind.__bases__, own
    )
    with torch.no_grad():
        parametrize.remove_parametrizations(layer, "weight")
    weight = stored(layer).detach().clone(memory_format=torch.contiguous_format)
    others = {name: value for name, value in layer._parameters.items() if name != "weight"}
    layer._buffers.pop("weight", None)
    layer._parameters.clear()
    layer._parameters.update({"weight": nn.Parameter(weight, requires_grad=trained), **others})
    layer.train(training)
