"""How much features depend on which part of a volume was read."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.nn._cpic import CPIC
from cpic.nn._readable import Readable


class FeatureNoise(NamedTuple):
    """Noise of features, in their standard deviations over the volumes, `(r,)`.

    Attributes:
        spread: Root mean square deviation between draws of positions and first index sets.
        error: Root mean square deviation from the features of all voxels; None if not computed.
    """

    spread: Tensor
    error: Tensor | None


@torch.no_grad()
def feature_noise(
    model: CPIC,
    volumes: Sequence[Readable],
    names: Sequence[str],
    *,
    draws: int = 3,
    dense: bool = False,
    generator: torch.Generator,
) -> FeatureNoise:
    """Noise of the features of a trained model over draws of the positions that it reads.

    A head cannot tell volumes apart whose features differ by less. The model is unchanged.

    Args:
        model: A model that has seen a batch.
        volumes: K volumes, at least 2: their spread is the unit.
        names: Their names.
        draws: Number of draws, at least 2.
        dense: Also encode all voxels, and compare with their features; with the cross only.
        generator: Draws positions and first index sets.

    Raises:
        ValueError: If there are fewer than 2 volumes or draws, or `dense` is not defined.

    Example:
        >>> noise = feature_noise(model, volumes, names, generator=generator)  # doctest: +SKIP
        >>> noise.spread.max() < 0.1  # doctest: +SKIP
        tensor(True)
    """
    if len(volumes) < 2 or draws < 2:
        raise ValueError(
            f"feature_noise needs at least 2 volumes and 2 draws, got {len(volumes)} and {draws}."
        )
    if dense and model.positions.by != "cross":
        raise ValueError(
            f'feature_noise needs positions by "cross" for `dense`, got {model.positions.by!r}; '
            "features at other positions are defined by the positions themselves."
        )
    was, positions = model.training, model.positions
    model.eval()
    try:
        drawn = torch.stack(
            [model.features_of(volumes, names, generator=generator) for _ in range(draws)]
        )
        unit = drawn.mean(0).std(0, correction=0).clamp_min(torch.finfo(drawn.dtype).tiny)
        spread = drawn.std(0).square().mean(0).sqrt() / unit
        if not dense:
            return FeatureNoise(spread, None)
        model.positions = replace(positions, correction=math.prod(model.shape))
        gap = drawn - model.features_of(volumes, names)
        return FeatureNoise(spread, gap.square().mean((0, 1)).sqrt() / unit)
    finally:
        model.positions = positions
        model.train(was)
