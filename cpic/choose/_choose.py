"""Which entries of an array to read, by name."""

from collections.abc import Sequence
from typing import Any

import torch

from cpic.choose._budget import check_shape, count_of
from cpic.choose._points import PLACERS, Draw, Points
from cpic.linalg._inputs import check_choice, check_least


def positions(
    shape: Sequence[int],
    *,
    by: str = "grid",
    budget: float,
    n_arrays: int = 1,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Points:
    """Positions in K arrays, chosen without reading any, and their quadrature weights.

    Args:
        shape: Sizes of the arrays, without the batch.
        by: `"grid"`, `"random"`, `"jittered"` or `"low-discrepancy"`.
        budget: How many entries may be read of one array: an int is their number, a float a
            share in (0, 1] of all.
        n_arrays: Number of arrays K; positions are drawn anew for each.
        generator: The only source of randomness; a grid with a fixed phase needs none.
        device: Where the answer lives.
        **options: Those of the chooser.

            `"grid"`: `phase`, where in its stride a position lies, from 0 to below 1, by default
            0.5; `"ends"` reaches from the first entry of each axis to its last; `"random"` draws
            it for each array.

    Returns:
        `positions` int64 `(K, m, D)` with m at most the budget, and `weights` float64 `(K, m)`:
        `(weights * values).sum(1)` estimates the mean of each array. The estimate is unbiased
        where the positions are drawn. Without gradient.

    Raises:
        ValueError: If there is no such chooser, or the budget is 0 or above everything.

    Example:
        >>> found = positions((6, 4), by="grid", budget=6)
        >>> found.positions[0].tolist()
        [[1, 1], [1, 3], [3, 1], [3, 3], [5, 1], [5, 3]]
        >>> float(found.weights.sum())
        1.0
    """
    shape = check_shape(shape)
    check_choice("positions", "by", by, PLACERS, "others look at values: call `choose`")
    check_least("positions", "it is the number of arrays", n_arrays=n_arrays)
    draw = Draw(n_arrays, generator, torch.device(device))
    return PLACERS[by](shape, count_of(budget, shape), draw, **options)
