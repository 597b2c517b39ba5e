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
from cpic.tt._fibers import steps


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


def contributions(
    sizes: Sequence[int], grid: Quantics | None, n_axes: int
) -> tuple[Tensor, list[bool]]:
    """What each value of each site adds to the coordinates.

    Args:
        sizes: Sizes of the sites.
        grid: Map between sites and coordinates; None if sites are axes, a channel behind.
        n_axes: Number of axes D.

    Returns:
        The contributions, int64 `(sum(sizes), D)`, and for each site whether it is of the channel.
    """
    values = steps(sizes, torch.device("cpu"))
    coords = values if grid is None else grid.coords(values)
    channel = coords[:, n_axes:].any(1).split(tuple(sizes))
    return coords[:, :n_axes], [bool(of.any()) for of in channel]


def moments_of_trains(
    trains: TensorTrain,
    added: Tensor,
    channel: Sequence[bool],
    shape: Sequence[int],
    n_channels: int,
) -> Tensor:
    """Moments `(K, n, 1 + 2 D)` of encoded volumes given as trains, exact and differentiable.

    Args:
        trains: K trains of the volumes, zero outside their shape.
        added: Contributions of the sites to the coordinates, as in `contributions`.
        channel: Which sites are of the channel.
        shape: Sizes of the volumes.
        n_channels: Number of channels n.
    """
    like = trains.cores[0]
    size = torch.tensor(shape, dtype=like.dtype, device=like.device)
    start = 1 / size - 1
    # Sums of 1, x and x^2 for each axis: (3, K, D, channels so far, rank).
    state = _powers(start)[:, None, :, None, None].expand(3, len(like), -1, -1, -1)
    powers = _powers(2 * added.to(like) / size).split(trains.sizes, 1)
    for core, power, of_channel in zip(trains.cores, powers, channel, strict=True):
        if of_channel:
            # The bits of a channel come least significant first.
            state = torch.einsum("pkdcl,klqr->pkdqcr", state, core).flatten(3, 4)
            continue
        # From the one pass over the values of the site: its sums of 1, c and c^2.
        own = torch.einsum("pqd,klqr->pkdlr", power, core)
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


def _powers(x: Tensor) -> Tensor:
    """1, x and x^2, in front."""
    return torch.stack([torch.ones_like(x), x, x.square()])
