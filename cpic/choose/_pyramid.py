r"""Draw positions where the levels of a pyramid say that something is.

The coarsest level is read whole. Its best blocks are split, the next finer level says what their
parts are worth, the best of these are split, and so on; all other blocks stay as they are. The rest
of the budget is drawn from all blocks, in proportion to score times volume, mixed with uniform
positions. The blocks depend on the levels alone, not on the draws, so the weights are exact, and
means unbiased whatever the levels say.

Shapes: `K` arrays, `m` blocks or positions, `D` axes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cpic.choose._points import Blocks, Draw
from cpic.linalg._maxvol import take_rows
from cpic.tt._entries import Entries, dense_entries
from cpic.tt._fibers import ask
from cpic.tt._points import all_points

Score = Callable[[Tensor], Tensor]
"""Values `(K, m)` of blocks to numbers of at least 0: how much is to be read there."""


class Level(NamedTuple):
    """A coarser version of K arrays: of each block one number, such as its mean.

    Args:
        entries: As those of the arrays.
        shape: Numbers along each axis; the blocks divide the arrays evenly.
    """

    entries: Entries
    shape: tuple[int, ...]


def as_levels(levels: Sequence[Level | Tensor], shape: Sequence[int], n_arrays: int) -> list[Level]:
    """Levels from the coarsest to the finest, each of which divides the blocks of the one before.

    Raises:
        ValueError: If there is none, or one does not fit the arrays or the others.
    """
    given = [
        Level(dense_entries(x), tuple(x.shape[1:])) if isinstance(x, Tensor) else Level(*x)
        for x in reversed(levels)
    ]
    sizes = [level.shape for level in given]
    fits = bool(given) and all(len(x) == n_arrays for x in levels if isinstance(x, Tensor))
    fits &= all(len(s) == len(shape) for s in sizes)
    # Each size divides the next finer one, and the finest is at most that of the arrays.
    fits = fits and all(
        1 <= a <= n and b % a == 0
        for coarse, fine in zip(sizes, [*sizes[1:], sizes[-1]], strict=True)
        for a, b, n in zip(coarse, fine, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"pyramid needs levels of {n_arrays} arrays of shape {tuple(shape)}, the finest first, "
            f"the sizes of each multiples of those of the next, got {sizes[::-1]}; crop or pad the "
            "arrays, or pass only the levels that fit."
        )
    return given


def above_median(values: Tensor) -> Score:
    """The square of how far a value is above the median of `values` `(K, m)`."""
    middle = values.median(1, keepdim=True).values
    return lambda x: (x - middle).clamp_min(0).square()


def descend(
    levels: Sequence[Level], shape: Sequence[int], spend: int, score: Score | None, draw: Draw
) -> tuple[Blocks, int]:
    """Blocks of the coarsest level, of which the best are split at each finer one.

    Args:
        levels: From the coarsest to the finest.
        shape: Sizes of the arrays.
        spend: Numbers that may be read of the finer levels.
        score: Of the blocks; None: `above_median` of the coarsest level.
        draw: For how many arrays, and where.

    Returns:
        The blocks, and how many numbers were read of each array.
    """
    cells = all_points(levels[0].shape, device=draw.device).expand(draw.n_arrays, -1, -1)
    values = ask(levels[0].entries, cells).detach()
    score = score or above_median(values)
    odds, sizes = _odds(score, values), levels[0].shape
    read, done = values.shape[1], []
    for level in levels[1:]:
        factors = [b // a for a, b in zip(sizes, level.shape, strict=True)]
        most = min(odds.shape[1], spend // (len(levels) - 1) // math.prod(factors))
        if most == 0:
            break
        order = odds.argsort(1, descending=True)
        best, others = order[:, :most].sort(1).values, order[:, most:].sort(1).values
        done.append(_blocks(take_rows(cells, others), odds.gather(1, others), sizes, shape))
        parts = all_points(factors, device=draw.device)
        cells = take_rows(cells, best)[:, :, None] * cells.new_tensor(factors) + parts
        cells = cells.flatten(1, 2)
        odds = _odds(score, ask(level.entries, cells).detach())
        sizes, read = level.shape, read + odds.shape[1]
    done.append(_blocks(cells, odds, sizes, shape))
    return Blocks(*(torch.cat(part, 1) for part in zip(*done, strict=True))), read


def _odds(score: Score, values: Tensor) -> Tensor:
    odds = score(values)
    if odds.shape != values.shape or not bool((odds.isfinite() & (odds >= 0)).all()):
        raise ValueError(
            f"pyramid needs a score of finite numbers of at least 0 for each of {values.shape} "
            f"values of a level, got {odds.shape} from {odds.min()} to {odds.max()}."
        )
    return odds


def _blocks(cells: Tensor, odds: Tensor, sizes: Sequence[int], shape: Sequence[int]) -> Blocks:
    """The blocks of a level of `sizes` with the numbers `cells` `(K, m, D)`."""
    n, m = cells.new_tensor(shape), cells.new_tensor(sizes)
    begins = cells * n // m
    return Blocks(begins, (cells + 1) * n // m - begins, odds.double())
