r"""The weight of one layer as a parametrization, and when it has to be computed again.

A weight that was computed without gradients is kept as long as the tensors that it was made of are
the same and were not changed in place. One with gradients belongs to the graph of one forward pass,
and is kept only while that lasts.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cpic.nn.spectral._factors import Group, Parts, groups_of
from cpic.nn.spectral._plan import Plan
from cpic.nn.spectral._start import inverted

Stamp = tuple[int, int]


class Computed(NamedTuple):
    """The place of a layer in a group, and the tensors that it was computed from, with stamps."""

    group: Group
    place: int
    sources: tuple[Tensor, ...]
    stamps: tuple[Stamp | None, ...]

    def product(self, name: str) -> Tensor:
        """One of the products of the group, for this layer."""
        return self.group.product(name)[self.place]


class SpectralWeight(nn.Module):
    """From free numbers and a spectrum to the weight of a layer, for `torch.nn.utils.parametrize`.

    Args:
        plan: How the weight is made.
        start: What the original tensors are when the parametrization is registered.
        kind: Its name, for reports.
        apply: `"formed"`, `"direct"` or `"auto"`, see `parametrize`.

    Attributes:
        signs: For a fixed spectrum, the signs `(groups, r)` of its values.
    """

    signs: Tensor | None

    def __init__(self, plan: Plan, start: Parts, *, kind: str, apply: str):
        super().__init__()
        self.plan, self.kind, self.how = plan, kind, apply
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
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in now)
        return None if wanted and not found.group.has_graph else found

    def keep(self, found: Computed | None) -> None:
        """Keep what was computed; None forgets it."""
        if found is None or not (None in found.stamps or torch.compiler.is_compiling()):
            self._computed = found

    def __getstate__(self):
        return {**self.__dict__, "_computed": None}


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
    return [
        Computed(group, place, own, tuple(map(_stamp, own)))
        for (group, place), own in zip(found, sources, strict=True)
    ]


def _sources(parts: Parts) -> tuple[Tensor, ...]:
    return tuple(part for part in (parts.free, parts.scale) if part is not None)


def _stamp(tensor: Tensor) -> Stamp | None:
    """What changes when the numbers do; None where torch does not count changes."""
    try:
        return tensor._version, tensor.data_ptr()
    except RuntimeError:
        return None
