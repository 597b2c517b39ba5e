r"""Integrals and first and second moments of the channels of encoded volumes.

With coordinates x from -1 to 1 along each axis, the moments of a channel f are the means of f,
x_a f and x_a^2 f over the voxels. A coordinate is a sum of contributions c_s(q_s) of the sites of
a train, so they come from one pass over the cores that carries the sums of 1, x_a and x_a^2.

Shapes: `K` volumes, `n` channels, `D` axes, `m` positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpic.tt import Quantics, TensorTrain


def count_moments(n_axes: int) -> int:
    """Number of moments of a channel."""
    return 1 + 2 * n_axes


def moments_of_points(positions: Tensor, weighted: Tensor, shape: Sequence[int]) -> Tensor:
    """Moments `(K, n, 1 + 2 D)` from values at positions.

    Args:
        positions: int64 `(K, m, D)`.
        weighted: Values times quadrature weights, `(K, m, n)`.
        shape: Sizes of the volumes.
    """
    sizes = torch.tensor(shape, device=positions.device)
    x = (2 * positions + 1) / sizes.to(weighted) - 1
    powers = torch.cat([torch.ones_like(x[..., :1]), x, x.square()], -1)
    return weighted.mT @ powers.to(weighted)


def moments_of_trains(
    trains: TensorTrain, grid: Quantics | None, shape: Sequence[int], n_channels: int
) -> Tensor:
    """Moments `(K, n, 1 + 2 D)` of encoded volumes given as trains, exact and differentiable.

    Args:
        trains: K trains of the volumes, zero outside their shape.
        grid: Map between sites and coordinates; None if sites are axes, a channel behind.
        shape: Sizes of the volumes.
        n_channels: Number of channels n.
    """
    n_axes, like = len(shape), trains.cores[0]
    size = torch.tensor(shape, dtype=like.dtype, device=like.device)
    start = 1 / size - 1
    # Sums of 1, x and x^2 for each axis: (3, K, D, channels so far, rank).
    state = torch.stack([torch.ones_like(start), start, start.square()])
    state = state[:, None, :, None, None].expand(3, len(like), -1, -1, -1)
    for site, core in enumerate(trains.cores):
        steps, channel = _contributions(trains.sizes, site, grid, n_axes)
        if channel:
            # The bits of a channel come least significant first.
            state = torch.einsum("pkdcl,klqr->pkdqcr", state, core).flatten(3, 4)
            continue
        by = 2 * steps.to(like) / size
        powers = torch.stack([torch.ones_like(by), by, by.square()])
        # From the one pass over the values of the site: its sums of 1, c and c^2.
        own = torch.einsum("pqd,klqr->pkdlr", powers, core)
        ones, first, second = state.unbind()
        state = torch.stack(
            [
                ones @ own[0],
                first @ own[0] + ones @ own[1],
                second @ own[0] + 2 * first @ own[1] + ones @ own[2],
            ]
        )
    found = state[..., :n_channels, 0] / size.prod()
    return torch.cat([found[0][:, :1], found[1], found[2]], 1).mT


def _contributions(
    sizes: Sequence[int], site: int, grid: Quantics | None, n_axes: int
) -> tuple[Tensor, bool]:
    """What each value of a site adds to coordinates `(size, D)`; whether it is of the channel."""
    values = torch.zeros(sizes[site], len(sizes), dtype=torch.int64)
    values[:, site] = torch.arange(sizes[site])
    coords = values if grid is None else grid.coords(values)
    return coords[:, :n_axes], bool(coords[:, n_axes:].any())
