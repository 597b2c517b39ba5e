r"""Weights of many layers at once: one call of `frames` for all frames of one size.

Layers with equal plans form a group, whose numbers are stacked. The number of operations depends on
the number of different plans and of different frame sizes, not on the number of layers.

Shapes: `n` matrices `(d_out, d_in)`, those of all groups of channels of all layers with one plan.
References: {cite}`obukhov2021spectral`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.nn.spectral._chain import contracted
from cpic.nn.spectral._frames import frames
from cpic.nn.spectral._plan import Core, Plan

# Below the largest number of a spectrum; zeros stay zeros.
LEAST = 1e-8


class Parts(NamedTuple):
    """What the weight of a layer is made of, with the groups of channels first.

    `free` `(g, count)`: the free numbers of its frames. `scale`: its spectrum `(g, r)`, or the gain
    `(g, 1)` of a fixed one, or None for norm one. `signs` `(g, r)`: of a fixed spectrum, int8.
    """

    free: Tensor
    scale: Tensor | None
    signs: Tensor | None


class Group:
    """Layers with one plan: their frames, and products of these, made on first use.

    Products carry a gradient if the group was made where gradients are recorded.

    Attributes:
        plan: How the weights are made.
        left, right: Frames `(n, d_out, r)` and `(n, r, d_in)`; None for the identity.
        values: What is between them, `(n, r)`: singular values with signs.
        has_graph: Whether gradients go through them.
        dtype: Of the layers. Half precision is computed in single precision.
    """

    def __init__(self, plan: Plan, cores: Sequence[Tensor], parts: Parts, dtype: torch.dtype):
        self.plan, self.dtype = plan, dtype
        self.values = _values(plan, parts)
        n_left = len(plan.left)
        first, second = plan.orders
        self.left = self.right = None
        if first is not None:
            self.left = contracted(cores[:n_left], first).flatten(1, 2)
        if second is not None:
            self.right = contracted(cores[n_left:], second).flatten(2, 3)
        self._graph = torch.is_grad_enabled()
        used = [self.values, self.left, self.right]
        self.has_graph = any(part is not None and part.requires_grad for part in used)
        self._made: dict[str, Sequence[Tensor]] = {}

    def product(self, name: str) -> Sequence[Tensor]:
        """For each layer the `"weight"` as stored, or its factors `"outer"` and `"inner"`.

        The factors are `(groups, d_out, r)`, with the values, and `(groups, r, d_in)`.
        """
        if name not in self._made:
            with exactly(self.values.device), torch.set_grad_enabled(self._graph):
                made = {"weight": self._weights, "outer": self._outer, "inner": self._inner}[name]()
                self._made[name] = made.to(self.dtype).unbind(0)
        return self._made[name]

    def has(self, name: str) -> bool:
        """Whether a product was made."""
        return name in self._made

    def _weights(self) -> Tensor:
        if self.right is None:
            matrices = self._outer()
        elif self.left is None:
            matrices = (self.right * self.values.unsqueeze(-1)).unflatten(0, self._split)
        else:
            matrices = self._outer() @ self._inner()
        matrices = matrices.unflatten(-1, self.plan.shape.matrix[1:])
        if self.plan.shape.transposed:
            matrices = matrices.transpose(2, 3)
        return matrices.flatten(1, 2)

    def _outer(self) -> Tensor:
        if self.left is None:
            outer = torch.diag_embed(self.values)
        else:
            outer = self.left * self.values.unsqueeze(-2)
        return outer.unflatten(0, self._split)

    def _inner(self) -> Tensor:
        right = self.right
        if right is None:
            right = torch.eye(self.plan.rank, dtype=self.values.dtype, device=self.values.device)
            right = right.expand(len(self.values), -1, -1)
        return right.unflatten(0, self._split)

    @property
    def _split(self) -> tuple[int, int]:
        return (-1, self.plan.shape.groups)


def exactly(device: torch.device) -> ExitStack:
    """Where lasting results are made: in full precision, usable where gradients are recorded."""
    stack = ExitStack()
    if torch.compiler.is_compiling():
        return stack
    if torch.is_inference_mode_enabled():
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        stack.enter_context(torch.autocast(device.type, enabled=False))
    return stack


def groups_of(plans: Sequence[Plan], parts: Sequence[Parts]) -> list[tuple[Group, int]]:
    """For each layer its group, and its place there."""
    members: dict[tuple, list[int]] = {}
    for k, (plan, some) in enumerate(zip(plans, parts, strict=True)):
        members.setdefault((plan, some.free.dtype, some.free.device), []).append(k)
    found: dict[int, tuple[Group, int]] = {}
    with exactly(parts[0].free.device):
        stacked = [_stacked([parts[k] for k in ks]) for ks in members.values()]
        cores = _all_cores([key[0] for key in members], [some.free for some in stacked])
        for (key, ks), some, own in zip(members.items(), stacked, cores, strict=True):
            group = Group(key[0], own, some, key[1])
            found |= {k: (group, place) for place, k in enumerate(ks)}
    return [found[k] for k in range(len(plans))]


def _stacked(parts: Sequence[Parts]) -> Parts:
    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        some = [tensor for tensor in tensors if tensor is not None]
        if not some:
            return None
        whole = torch.cat(some) if len(some) > 1 else some[0]
        half = whole.is_floating_point() and whole.element_size() < 4
        return whole.float() if half else whole

    return Parts(*map(joined, zip(*parts, strict=True)))  # type: ignore[arg-type]


def _all_cores(plans: Sequence[Plan], free: Sequence[Tensor]) -> list[list[Tensor]]:
    """The cores `(n, l, size, r)` of every plan; frames of one size are made together."""
    wanted: dict[tuple, list[tuple[int, int, Tensor]]] = {}
    for k, (plan, numbers) in enumerate(zip(plans, free, strict=True)):
        sizes = plan.frames
        pieces = numbers.split([size.free for size in sizes], -1) if sizes else ()
        for j, (size, piece) in enumerate(zip(sizes, pieces, strict=True)):
            wanted.setdefault((size, piece.dtype, piece.device), []).append((k, j, piece))
    found: dict[tuple[int, int], Tensor] = {}
    for (size, *_), some in wanted.items():
        pieces = [piece for _, _, piece in some]
        whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        made = frames(whole, rows=size.rows, columns=size.columns, reduced=size.reduced)
        counts = [len(piece) for piece in pieces]
        for (k, j, _), frame in zip(some, made.split(counts), strict=True):
            found[k, j] = frame
    return [
        [_core(found[k, j], core, j < len(plan.left)) for j, core in enumerate(plan.cores)]
        for k, plan in enumerate(plans)
    ]


def _core(frame: Tensor, core: Core, is_left: bool) -> Tensor:
    if is_left:
        return frame.unflatten(-2, (core.left, core.size))
    return frame.mT.unflatten(-1, (core.size, core.right))


def _values(plan: Plan, parts: Parts) -> Tensor:
    """Singular values with signs, `(n, r)`."""
    scale, signs = parts.scale, parts.signs
    if signs is not None:
        signs = signs.to(parts.free)
        return signs if scale is None else signs * scale
    assert scale is not None
    return scale if plan.gain else normalized(scale)


def normalized(scale: Tensor) -> Tensor:
    """Spectra `(..., r)` divided by their largest absolute value."""
    largest = scale.abs().amax(-1, keepdim=True)
    return scale / largest.clamp(min=LEAST)
