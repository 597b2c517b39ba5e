r"""Encode volumes at positions that are chosen without a search.

In training mode the positions of a step are drawn, the same for all volumes; in evaluation mode
they are fixed, so that a prediction depends only on the volume. "grid+peaks" reads a grid, and
then more densely around the positions where a channel is largest. "attended" takes a dense grid as
a bag of cubes and reads those again, with gradient, that the attention of the model weighs most
{cite}`bergner2023iterative`.

Shapes: `K` volumes, `m` positions, `n` channels, `D` axes.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic import choose
from cpic.linalg._maxvol import take_rows
from cpic.nn._entries import VolumeEntries
from cpic.nn._features import BASED, Encoded, Points, Pooled, check_kinds
from cpic.nn._options import Positions
from cpic.tt import TensorTrain

# Grids and one position a block: the positions of a step follow each other as in every other one.
ORDERED = ("grid", "jittered", "grid+peaks")
# Positions that are looked at without gradient, for each that is kept.
_LOOKED = 8


def matched(
    positions: Positions | str, features: Sequence[str]
) -> tuple[Positions, tuple[str, ...]]:
    """Positions and features of a model, if they fit each other.

    Raises:
        ValueError: If a name is unknown, or components or learned features have no fixed positions.
    """
    positions = Positions(by=positions) if isinstance(positions, str) else positions
    check_kinds(features)
    if positions.by == "attended" and not {"attention"} <= set(features) <= {
        "attention",
        "maximum",
    }:
        raise ValueError(
            'CPIC needs the feature "attention", and at most "maximum" besides, for positions '
            f'"attended", got {list(features)}; integrals need positions that are not chosen by '
            "value."
        )
    based = [kind for kind in features if kind in BASED]
    if based and positions.by not in ("cross", *ORDERED):
        raise ValueError(
            f"CPIC needs positions in a fixed order for {based[0]}, got {positions.by!r}; use "
            '"grid" or "jittered", or other features.'
        )
    return positions, tuple(features)


def sites(
    positions: Positions, shape: tuple[int, ...], n_dims: int, sizes: tuple[int, ...]
) -> tuple[int, ...]:
    """Sizes of the trains: `sizes` of the cross, else one site with all vectors of a step."""
    if positions.by == "cross":
        return sizes
    points = chosen(shape, positions.by, positions.coarse, None, torch.device("cpu"))
    return (points.positions.shape[1] * n_dims,)


def chosen(
    shape: tuple[int, ...],
    by: str,
    budget: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> choose.Points:
    """Positions `(1, m, D)` and weights `(1, m)`, drawn if there is a generator, else fixed.

    A budget above the number of voxels takes all of them.
    """
    by = "grid" if by in ("grid+peaks", "attended") else by
    options: dict[str, Any] = {"device": device}
    if by == "grid":
        options["phase"] = "random" if generator else 0.5
    source = generator or torch.Generator().manual_seed(0)
    budget = min(budget, math.prod(shape))
    return choose.positions(shape, by=by, budget=budget, generator=source, **options)


def encode(
    entries: VolumeEntries,
    positions: Positions,
    generator: torch.Generator | None,
    device: torch.device,
    pooled: Pooled | None = None,
) -> Encoded:
    """K volumes encoded at the positions of one step.

    Args:
        entries: The volumes through their encoder.
        positions: How to choose, and how many.
        generator: Draws the positions; None: they are fixed.
        device: Where the vectors go.
        pooled: Features that are not inner products; its attention chooses those "attended".
    """
    n_volumes, shape = len(entries.volumes), entries.shape
    if positions.by == "attended":
        assert pooled is not None
        assert pooled.logits is not None
        looked, _, _ = chosen(shape, "grid", _LOOKED * positions.budget, generator, device)
        looked = looked.expand(n_volumes, -1, -1)
        with torch.no_grad():
            logits = pooled.logits(entries.vectors(looked).to(pooled.logits.weight))[..., 0]
        best = logits.topk(min(positions.budget, logits.shape[1]), 1).indices
        vectors = entries.vectors(take_rows(looked, best.to(looked.device)))
        owner = torch.arange(n_volumes, device=vectors.device).repeat_interleave(vectors.shape[1])
        return Encoded(None, None, None, (vectors.flatten(0, 1), owner))
    at, weights, _ = chosen(shape, positions.by, positions.coarse, generator, device)
    at = at.expand(n_volumes, -1, -1)
    vectors = entries.vectors(at)
    trains = None
    if positions.by in ORDERED:
        trains = TensorTrain([vectors.flatten(1)[:, None, :, None]])
    points = Points(at, vectors * weights[..., None].to(vectors))
    if positions.by == "grid+peaks":
        near = _near_peaks(vectors.detach(), at, shape, positions.budget - at.shape[1])
        vectors = torch.cat([vectors, entries.vectors(near)], 1)
    owner = torch.arange(n_volumes, device=vectors.device).repeat_interleave(vectors.shape[1])
    return Encoded(trains, points, None, (vectors.flatten(0, 1), owner))


def beyond(
    entries: VolumeEntries, trains: TensorTrain, count: int, generator: torch.Generator | None
) -> tuple[Points, Tensor, Tensor]:
    """What encoded volumes are beyond their trains at about `count` positions inside them.

    Returns:
        The values there, times quadrature weights; the multi-indices `(m p, d)` of their channels;
        and the mean square of the values relative to that of the volumes, `(K,)`.
    """
    # A train is not zero in the padding, so it is corrected there, too.
    shape, n_volumes = entries.padded, len(entries.volumes)
    share = math.prod(shape) / math.prod(entries.shape)
    at, weights, _ = chosen(shape, "jittered", round(count * share), generator, trains.device)
    indices = entries.indices(at[0])
    everywhere = indices.expand(n_volumes, -1, -1)
    whole = entries(everywhere).view(n_volumes, at.shape[1], -1)
    values = whole - trains.entries(everywhere).view_as(whole)
    weights = share * weights[..., None].to(values)
    squares = [(weights * part.square()).flatten(1).sum(1) for part in (values, whole)]
    misfit = squares[0] / squares[1].clamp_min(torch.finfo(values.dtype).tiny)
    return Points(at.expand(n_volumes, -1, -1), weights * values), indices, misfit


def _near_peaks(vectors: Tensor, at: Tensor, shape: tuple[int, ...], budget: int) -> Tensor:
    """At most `budget` positions around those where a channel is largest, half a stride finer."""
    n_axes, n_channels = len(shape), vectors.shape[2]
    stride = (torch.tensor(shape).prod() / at.shape[1]) ** (1 / n_axes)
    step = max(1, round(float(stride) / 4))
    corners = torch.tensor(list(itertools.product((-step, step), repeat=n_axes)), device=at.device)
    n_peaks = min(max(1, budget // (n_channels * len(corners))), at.shape[1])
    peaks = vectors.topk(n_peaks, 1).indices.flatten(1)
    around = take_rows(at, peaks)[:, :, None] + corners
    last = torch.tensor(shape, device=at.device) - 1
    return around.flatten(1, 2)[:, :budget].clamp_min(0).minimum(last)
