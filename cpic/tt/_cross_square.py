r"""Half-sweeps of cross-approximation with as many rows as columns at every bond.

The rows of nearly maximal volume of each site's fibers M are the next set, and the coefficients
M M[rows]^{-1} are the core of the site, so that the train interpolates on the new sets.

Shapes: `K` tensors, `d` sites, `n` probes.
References: {cite}`oseledets2010ttcross`.
"""

from functools import partial

import torch
from torch import Tensor

from cpic.tt._fibers import ask_unchecked
from cpic.tt._ledger import Reader
from cpic.tt._pivots import draw_points, pick_rows
from cpic.tt._sets import IndexSets
from cpic.tt._sweep import Towards, as_train, sweep
from cpic.tt._train import TensorTrain


def first_sets(
    sizes: tuple[int, ...],
    ranks: tuple[int, ...],
    probes: Tensor,
    truth: Tensor,
    generator: torch.Generator,
) -> IndexSets:
    """Sets of `probes` `(K, n, d)`, drawn with weights `truth ** 2`, their values `(K, n)`."""
    points = draw_points(probes, truth**2, max(ranks), generator)
    return IndexSets.random(sizes, ranks, generator=generator, n_trains=len(points), points=points)


def square_half_sweep(
    reader: Reader,
    sets: IndexSets,
    towards: Towards,
    ranks: tuple[int, ...],
    generator: torch.Generator,
) -> tuple[TensorTrain, IndexSets]:
    """The train of one half-sweep, and the sets it interpolates on."""
    choose = partial(pick_rows, generator=generator)
    read = partial(reader.points, by=ask_unchecked)
    matrices, choices, sets = sweep(read, sets, towards, ranks[1:-1], choose)
    parts = [*(choice.coeffs for choice in choices), matrices[-1]]
    return as_train(parts, sets.sizes, towards), sets


def relative_error(truth: Tensor, values: Tensor) -> Tensor:
    """`|truth - values| / |truth|` along the last axis without overflow; 0 / 0 is 0."""
    peak = torch.maximum(truth.abs(), values.abs()).amax(-1, keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)
    gap = ((truth - values) / peak).norm(dim=-1)
    size = (truth / peak).norm(dim=-1)
    return torch.where(gap == 0, 0.0, gap / size)
