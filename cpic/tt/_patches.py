r"""Read windows of voxels from a quantics train.

In the sequential order the sites of an axis are neighbors. Their product at one coordinate is a
matrix, so an axis of any length acts like one site, and a window like its slices at `w`
coordinates: the D axes are multiplied one after the other, and w^D voxels cost little more than
w. In the interleaved order voxels are evaluated individually, each distinct one once.

Shapes: `K` trains, `n` centers, `w` width of a window, `p` voxels of a patch so far, `u` distinct
coordinates, `l` and `r` ranks around an axis.
References: {cite}`khoromskij2011quantics`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.tt._bits import Bit, Bits
from cpic.tt._contract import advance
from cpic.tt._entries import strides
from cpic.tt._train import TensorTrain

# Maximum number of values per step; more centers are read in pieces.
_PIECE = 2**25


class Modes(NamedTuple):
    """True and padded sizes of the modes, the bits that each site holds, and their map."""

    sizes: tuple[int, ...]
    padded: tuple[int, ...]
    groups: list[list[Bit]]
    bits: Bits


def read(train: TensorTrain, modes: Modes, windows: list[Tensor], *, by_axis: bool) -> Tensor:
    """Voxels `(K, n, w_1, ..., w_D)` at the product of the windows `(K, n, w)` of each mode."""
    trains, n, _ = windows[0].shape
    count = math.prod(window.shape[-1] for window in windows)
    piece = max(1, _PIECE // max(1, trains * count * max(*train.ranks, len(modes.groups))))
    route = _by_axis if by_axis and modes.groups[0] else _by_voxel
    parts = []
    for some in zip(*(window.split(piece, dim=1) for window in windows), strict=True):
        last = [size - 1 for size in modes.sizes]
        inside = [(x >= 0) & (x <= top) for x, top in zip(some, last, strict=True)]
        held = [x.clamp(0, top) for x, top in zip(some, last, strict=True)]
        values = route(train, modes, held)
        parts.append(torch.where(_outer(inside), values, torch.zeros_like(values)))
    patches = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
    return patches.view(trains, n, *(window.shape[-1] for window in windows))


def _outer(flags: Sequence[Tensor]) -> Tensor:
    """Conjunction `(K, n, p)` over the product of the windows."""
    total = flags[0]
    for flag in flags[1:]:
        total = (total.unsqueeze(-1) & flag.unsqueeze(-2)).flatten(2)
    return total


def _by_axis(train: TensorTrain, modes: Modes, windows: Sequence[Tensor]) -> Tensor:
    trains, n, _ = windows[0].shape
    state = train.cores[0].new_ones(trains * n, 1, 1)
    for mode, window in enumerate(windows):
        sites = [s for s, group in enumerate(modes.groups) if group[0][0] == mode]
        p, w = state.shape[1], window.shape[-1]
        if not sites:  # an axis of size 1 has no bits
            state = state.unsqueeze(2).expand(-1, -1, w, -1).flatten(1, 2)
            continue
        distinct, where = torch.unique(window, return_inverse=True)
        groups = [[(0, bit) for _, bit in modes.groups[s]] for s in sites]
        places = Bits(groups, 1).sites(distinct[:, None])
        table = _axis_slices([train.cores[s] for s in sites], places)
        u, left, right = table.shape[1:]
        offset = torch.arange(trains, device=window.device).view(-1, 1, 1) * u
        slices = table.view(trains * u, left * right).index_select(0, (where + offset).flatten())
        slices = (
            slices.view(trains * n, w, left, right)
            .transpose(1, 2)
            .reshape(trains * n, left, w * right)
        )
        state = (state @ slices).view(trains * n, p * w, right)
    return state.view(trains, n, state.shape[1])


def _axis_slices(cores: Sequence[Tensor], sites: Tensor) -> Tensor:
    """Products `(K, u, l, r)` of the slices of neighboring cores at sites `(u, s)`."""
    trains, left = cores[0].shape[:2]
    u = len(sites)
    eye = torch.eye(left, dtype=cores[0].dtype, device=cores[0].device)
    state = eye.expand(trains, u, left, left).reshape(trains, u * left, left)
    for core, index in zip(cores, sites.unbind(-1), strict=True):
        state = advance(state, core, index.repeat_interleave(left).expand(trains, -1))
    return state.view(trains, u, left, state.shape[-1])


def _by_voxel(train: TensorTrain, modes: Modes, windows: Sequence[Tensor]) -> Tensor:
    trains, n, w = windows[0].shape
    coords = windows[0].unsqueeze(-1)
    for window in windows[1:]:
        p, w = coords.shape[2], window.shape[-1]
        grown = coords.unsqueeze(3).expand(-1, -1, -1, w, -1)
        added = window[:, :, None, :, None].expand(-1, -1, p, -1, -1)
        coords = torch.cat([grown, added], dim=-1).flatten(2, 3)
    p = coords.shape[2]
    if math.prod(modes.padded) < 2**63:
        # All trains read the union of the voxels, which is faster only if the windows overlap.
        sizes = torch.tensor(modes.padded, device=coords.device)
        stride = torch.tensor(strides(modes.padded), device=coords.device)
        distinct, where = torch.unique((coords * stride).sum(-1), return_inverse=True)
        if len(distinct) < n * p:
            sites = modes.bits.sites(distinct[:, None] // stride % sizes)
            values = train.entries(sites.expand(trains, -1, -1))
            return values.gather(1, where.view(trains, n * p)).view(trains, n, p)
    sites = modes.bits.sites(coords.flatten(1, 2))
    return train.entries(sites).view(trains, n, p)
