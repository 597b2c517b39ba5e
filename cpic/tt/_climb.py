"""Hill climbing along the modes towards entries where the error of a train is large.

Shapes: `K` tensors, `d` sites, `s` starting points, `n` multi-indices.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.tt._contract import entries
from cpic.tt._train import TensorTrain

Read = Callable[[Tensor], Tensor]


class Climb(NamedTuple):
    """Multi-indices `(K, n, d)` that were read, their values and errors `(K, n)`.

    `lines` `(K, d, n_k)` are the absolute errors along all modes through the highest point that was
    expanded; shorter modes are padded with zeros.
    """

    points: Tensor
    values: Tensor
    gaps: Tensor
    lines: Tensor


def climb(
    read: Read,
    train: TensorTrain | None,
    points: Tensor,
    height: Tensor,
    sizes: Sequence[int],
    *,
    rounds: int = 3,
) -> Climb:
    """Climb to larger errors of the train from each of `points` `(K, s, d)`.

    A round evaluates all modes through each point, then moves to the best index of every mode at
    once, or of the best mode alone if the error is larger there.

    Args:
        read: Values `(K, n)` at multi-indices `(K, n, d)`.
        train: The approximation; None climbs on the entries themselves.
        points: Starting points.
        height: Absolute errors there `(K, s)`.
        sizes: Size of each of the `d` modes.
        rounds: Maximum number of rounds.
    """
    d, bound = len(sizes), torch.tensor(sizes, device=points.device)
    mode, steps = torch.arange(d, device=points.device), bound.new_tensor(range(max(sizes)))
    site, step = ((steps > 0) & (steps < bound[:, None])).nonzero().unbind(1)
    column = torch.arange(len(site), device=points.device)
    seen, found, missed = [], [], []

    def look(where: Tensor) -> Tensor:
        seen.append(where.flatten(1, -2))
        found.append(read(seen[-1]))
        known = 0.0 if train is None else entries(train.cores, seen[-1])
        missed.append(found[-1] - known)
        return missed[-1].abs().view(where.shape[:-1])

    view = torch.empty(0)
    for _ in range(rounds):
        lines = points[:, :, None].repeat(1, 1, len(site), 1)
        lines[:, :, column, site] = (points[..., site] + step) % bound[site]
        sides = height[..., None, None].repeat(1, 1, d, len(steps))
        sides[..., 1:] = 0.0
        sides[:, :, site, step] = look(lines)
        view = _of_highest(height, points, sides, bound)
        heights, best = sides.max(-1)
        top, way = heights.max(-1)
        if not bool((top > height).any()):
            break
        # Only the modes of a sum or product are independent; otherwise the best mode is followed.
        every = (points + best) % bound
        one = torch.where(way[..., None] == mode, every, points)
        height, way = torch.stack([top, look(every)]).max(0)
        points = torch.where(way[..., None] == 1, every, one)
    return Climb(torch.cat(seen, 1), torch.cat(found, 1), torch.cat(missed, 1), view)


def _of_highest(height: Tensor, points: Tensor, sides: Tensor, bound: Tensor) -> Tensor:
    """Heights `(K, d, n)` along the modes through the highest point, by index instead of step."""
    each, highest = torch.arange(len(points), device=points.device), height.argmax(1)
    steps = torch.arange(sides.shape[-1], device=points.device)
    index = (points[each, highest][..., None] + steps) % bound[:, None]
    lines = sides[each, highest]
    return torch.zeros_like(lines).scatter_(2, index.where(steps < bound[:, None], steps), lines)


def stands_alone(lines: Tensor, share: float) -> Tensor:
    """Whether all other heights on the lines `(K, d, n)` are at most `share` of the peak."""
    peak = lines.amax((1, 2), keepdim=True)
    return (lines > share * peak).sum((1, 2)) == lines.shape[1]
