"""The layers that can be parametrized, and which of a network are."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from cpic.nn.spectral._plan import Shape, most_rank

LAYERS = (
    nn.Linear,
    nn.Embedding,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def shape_of(layer: nn.Module) -> Shape:
    """The weight of a layer as a plan sees it."""
    size = tuple(stored(layer).shape)
    if isinstance(layer, _ConvNd):
        return Shape(size, layer.groups, layer.transposed)
    return Shape(size)


def stored(layer: nn.Module) -> Tensor:
    """The weight of a layer."""
    return layer.weight  # type: ignore[return-value]


def layers_of(net: nn.Module) -> dict[str, nn.Module]:
    """All layers of a network that have a weight of a supported kind, by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, LAYERS)}


def chosen(
    who: str,
    net: nn.Module,
    rank: int | Mapping[str, int] | None,
    ignore: Sequence[str],
    ignore_types: tuple[type[nn.Module], ...],
) -> dict[str, nn.Module]:
    """The layers that `who` changes, all of which can be.

    Raises:
        TypeError: If a weight is not of real floating-point numbers.
        ValueError: If there is none, a name matches none, or one cannot be parametrized.
    """
    layers = layers_of(net)
    if not layers:
        kinds = ", ".join(kind.__name__ for kind in LAYERS)
        raise ValueError(f"{who} needs a network with layers out of {kinds}, got none.")
    if isinstance(ignore, str):
        ignore = [ignore]
    dropped = set()
    for pattern in ignore:
        matched = {name for name in layers if _matches(name, pattern)}
        if not matched:
            raise ValueError(
                f"{who} needs names in `ignore` that match a layer, got {pattern!r}; the "
                f"layers are {_listed(layers)}."
            )
        dropped |= matched
    found = {
        name: layer
        for name, layer in layers.items()
        if name not in dropped and not isinstance(layer, ignore_types)
    }
    if isinstance(rank, Mapping):
        unknown = [name for name in rank if name not in found]
        if unknown:
            raise ValueError(
                f"{who} needs names of layers in `rank`, got {_listed(unknown)}; the layers "
                f"are {_listed(found)}."
            )
        found = {name: layer for name, layer in found.items() if name in rank}
    if not found:
        raise ValueError(f"{who} needs a layer that is not ignored, got none.")
    owners: dict[int, str] = {}
    for name, module in net.named_modules():
        for parameter in module._parameters.values():
            if parameter is None:
                continue
            other = owners.setdefault(id(parameter), name)
            if other != name and {name, other} & set(found):
                raise ValueError(
                    f"{who} needs weights of one layer each, got one that {other!r} and "
                    f"{name!r} share; ignore both."
                )
    for name, layer in found.items():
        _check_layer(who, name, layer)
        most = most_rank(shape_of(layer))
        if isinstance(rank, Mapping) and rank[name] > most:
            raise ValueError(
                f"{who} needs a rank of at most {most} for layer {name!r} with a weight of "
                f"{tuple(stored(layer).shape)}, got {rank[name]}."
            )
    return found


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


def _listed(names) -> str:
    some = [repr(name) for name in names]
    return ", ".join(some[:12]) + (", ..." if len(some) > 12 else "")


def _check_layer(who: str, name: str, layer: nn.Module) -> None:
    if parametrize.is_parametrized(layer, "weight"):
        raise ValueError(
            f"{who} needs plain layers, got {name!r}, whose weight is parametrized already; "
            "call `spectral.remove` first, or ignore it."
        )
    weight = layer._parameters.get("weight")
    if isinstance(weight, UninitializedParameter):
        raise ValueError(
            f"{who} needs layers of known size, got the lazy layer {name!r}; call the "
            "network once before."
        )
    if weight is None:
        raise ValueError(
            f"{who} needs weights that are parameters, got {name!r}, where a hook computes "
            "it; remove the hook first, or ignore the layer."
        )
    if not weight.dtype.is_floating_point:
        raise TypeError(
            f"{who} needs weights of real floating-point numbers, got {weight.dtype} in "
            f"{name!r}; ignore it."
        )
    if weight.numel() == 0:
        raise ValueError(
            f"{who} needs weights that are not empty, got {tuple(weight.shape)} in {name!r}; "
            "ignore it."
        )
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.sparse):
        raise ValueError(
            f"{who} needs embeddings without max_norm and sparse, which work on rows of a "
            f"stored weight, got {name!r}; build it without them, or ignore it."
        )


def set_bias(layer: nn.Module, wanted: bool) -> None:
    """Give a layer a bias of zeros, unless it has one, or take its bias away."""
    if isinstance(layer, nn.Embedding) or wanted == (layer.bias is not None):
        return
    if not wanted:
        layer.bias = None  # type: ignore[assignment]
        return
    like = next(layer.parameters())
    size = layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
    layer.bias = nn.Parameter(torch.zeros(size, dtype=like.dtype, device=like.device))  # type: ignore[arg-type,assignment]


def without_norms(net: nn.Module) -> None:
    """Replace all batch norms inside a network by identities."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, _NORMS):
                setattr(module, name, nn.Identity())
