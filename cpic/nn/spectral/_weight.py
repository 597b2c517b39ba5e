r"""The weight of one layer as a parametrization, and when it has to be computed again.

A weight that was computed without gradients is kept as long as the tensors that it was made of are
the same and were not changed in place. One with gradients belongs to the graph of one forward pass,
and is kept only while that lasts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from cpic.nn.spectral._factors import Group, Parts, groups_of
from cpic.nn.spectral._plan import Settings, Shape, most_rank
from cpic.nn.spectral._start import inverted

Stamp = tuple[int, int]


class Computed(NamedTuple):
    """The place of a layer in a group, and what that was computed from.

    `sources` are the tensors, `stamps` tell whether they changed. `region` tells where a graph is
    stored, such as the part of a network that is checkpointed.
    """

    group: Group
    place: int
    sources: tuple[Tensor, ...]
    stamps: tuple[Stamp | None, ...]
    region: object

    def product(self, name: str) -> Tensor:
        """One of the products of the group, for this layer."""
        return self.group.product(name)[self.place]


class SpectralWeight(nn.Module):
    """From free numbers and a spectrum to the weight of a layer, for `torch.nn.utils.parametrize`.

    Args:
        settings: How the weight is made,
        shape: and which weight.
        start: What the original tensors are when the parametrization is registered.
        apply: `"formed"`, `"direct"` or `"auto"`, see `parametrize`.

    Attributes:
        signs: For a fixed spectrum, the signs `(groups, r)` of its values.
    """

    signs: Tensor | None

    def __init__(self, settings: Settings, shape: Shape, start: Parts, *, apply: str):
        super().__init__()
        self.settings, self.plan, self.how = settings, settings.plan(shape), apply
        self.register_buffer("signs", start.signs)
        self._start: tuple[Tensor, ...] | None = _sources(start)
        self._computed: Computed | None = None

    def forward(self, free: Tensor, scale: Tensor | None = None) -> Tensor:
        """The weight as the layer stores it."""
        return self.computed(Parts(free, scale, self.signs)).product("weight")

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        """The numbers that a weight is made of, for an assignment `layer.weight = ...`."""
        if self._start is not None:
            start, self._start = self._start, None
            return start
        parts = inverted(self.plan, weight)
        self.signs = parts.signs
        return _sources(parts)

    def computed(self, parts: Parts) -> Computed:
        """What is kept, or computed now for this layer alone."""
        found = self.kept(parts)
        if found is None:
            found = _computed([self], [parts])[0]
            if not found.group.has_graph:
                self.keep(found)
        return found

    def kept(self, parts: Parts) -> Computed | None:
        """What is kept, if it still holds."""
        found = self._computed
        if found is None or torch.compiler.is_compiling():
            return None
        now = _sources(parts)
        same = len(now) == len(found.sources)
        same = same and all(a is b for a, b in zip(now, found.sources, strict=True))
        if not same or tuple(map(_stamp, now)) != found.stamps:
            return None
        if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in now):
            return found
        # What is checkpointed is computed twice, so it has to contain all of the computation.
        return found if found.group.has_graph and found.region == _region() else None

    def keep(self, found: Computed | None) -> None:
        """Keep what was computed; None forgets it."""
        if found is None or not (None in found.stamps or torch.compiler.is_compiling()):
            self._computed = found

    def fault(self, free: Tensor | None, scale: Tensor | None) -> str | None:
        """What is wrong with the tensors of a state; None where torch reports it, or nothing is."""
        groups = self.plan.shape.groups
        if free is not None and free.shape != (groups, self.plan.free):
            for rank in range(1, most_rank(self.plan.shape) + 1):
                plan = self.settings._replace(rank=rank).plan(self.plan.shape)
                if free.shape == (groups, plan.free):
                    return f"is of rank {rank}; parametrize with `rank={rank}`."
            return "is of another parametrization; parametrize with the options it was made with."
        if scale is None or scale.shape != (groups, self.plan.scales):
            return None
        if not bool(scale.isfinite().all()) or not bool(scale.any(-1).all()):
            return "has singular values that are NaN, infinite or all zero; load an earlier one."
        return None

    def __getstate__(self):
        return {**self.__dict__, "_computed": None}


def register(layer: nn.Module, own: SpectralWeight) -> None:
    """Make this the weight of a plain layer."""
    parametrize.register_parametrization(layer, "weight", own, unsafe=True)
    state = layer.parametrizations["weight"]  # type: ignore[index]
    state.register_load_state_dict_pre_hook(_check_state)  # type: ignore[operator]


def _check_state(module, state_dict, prefix, _, strict, missing, unexpected, errors) -> None:
    """One error for a layer, instead of one about the shape of each tensor."""
    own = module[0]
    fault = own.fault(state_dict.get(prefix + "original0"), state_dict.get(prefix + "original1"))
    if fault:
        name = prefix.removesuffix("parametrizations.weight.").removesuffix(".")
        errors.append(
            f"layer {name!r} is parametrized with rank {own.settings.rank} "
            f"({own.settings.kind}), the state {fault}"
        )
        # Loading fails anyway; torch is to find nothing more.
        state_dict |= {prefix + key: value for key, value in module.state_dict().items()}


def weight_of(module: nn.Module) -> SpectralWeight | None:
    """The parametrization of the weight of a layer, if it has one of this kind."""
    lists = getattr(module, "parametrizations", None)
    found = lists["weight"][0] if lists is not None and "weight" in lists else None
    return found if isinstance(found, SpectralWeight) else None


def parts_of(module: nn.Module) -> Parts:
    """What the weight of a layer is made of."""
    originals = module.parametrizations["weight"]  # type: ignore[index]
    scale = getattr(originals, "original1", None)
    return Parts(originals.original0, scale, originals[0].signs)  # type: ignore[arg-type]


def spectral_layers(net: nn.Module) -> list[tuple[str, nn.Module, SpectralWeight]]:
    """Names, layers and parametrizations inside a network."""
    named = [(name, module, weight_of(module)) for name, module in net.named_modules()]
    return [(name, module, own) for name, module, own in named if own is not None]


def fill(net: nn.Module) -> list[SpectralWeight]:
    """Compute all weights that do not hold any more, at once; returns those with a graph."""
    if torch.compiler.is_compiling():
        return []
    layers = [(own, parts_of(module)) for _, module, own in spectral_layers(net)]
    todo = [(own, parts) for own, parts in layers if own.kept(parts) is None]
    if not todo:
        return []
    owners = [own for own, _ in todo]
    for own, found in zip(owners, _computed(owners, [parts for _, parts in todo]), strict=True):
        own.keep(found)
    return [own for own in owners if own._computed is not None and own._computed.group.has_graph]


def _computed(owners: list[SpectralWeight], parts: list[Parts]) -> list[Computed]:
    found = groups_of([own.plan for own in owners], parts)
    sources = [_sources(some) for some in parts]
    region = None if torch.compiler.is_compiling() else _region()
    return [
        Computed(group, place, own, tuple(map(_stamp, own)), region)
        for (group, place), own in zip(found, sources, strict=True)
    ]


def _sources(parts: Parts) -> tuple[Tensor, ...]:
    return tuple(part for part in (parts.free, parts.scale) if part is not None)


def _region() -> object:
    """The hooks that store what a graph saves, which differ in each checkpointed region."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False)  # type: ignore[attr-defined]


def _stamp(tensor: Tensor) -> Stamp | None:
    """What changes when the numbers do; None where torch does not count changes."""
    try:
        return tensor._version, tensor.data_ptr()
    except RuntimeError:
        return None
