r"""Half-sweeps of cross-approximation with as many rows as columns at every bond.

A half-sweep to the right reads the fibers V_k of site k, unfolds them to a matrix M_k of (l n) rows
and r columns, and keeps the rows of nearly maximal volume as the next left set. The coefficients
M_k M_k[rows]^{-1} are the core of that site, so a half-sweep to the right is an interpolation too.

Shapes: `K` tensors, `l` left and `r` right multi-indices at a site of size `n`.
References: {cite}`oseledets2010ttcross`.
"""

import torch
from torch import Tensor

from cpic.tt._ledger import Reader
from cpic.tt._pivots import extend_left, extend_right, pick_rows
from cpic.tt._sets import IndexSets, random_points
from cpic.tt._train import TensorTrain


def sweep_right(
    reader: Reader,
    left: list[Tensor],
    right: list[Tensor],
    ranks: list[int],
    floor: Tensor | None = None,
) -> list[Tensor]:
    """Choose the left sets anew, in place; return the cores of the interpolation.

    Args:
        reader: Where the values come from.
        left: Left sets; `left[0]` is kept.
        right: Right sets, kept.
        ranks: Largest ranks of the `d + 1` bonds; lowered in place where `floor` says so.
        floor: As in `pick_rows`.
    """
    cores = []
    last = len(reader.sizes) - 1
    for k, n in enumerate(reader.sizes):
        fibers = reader.fibers(left[k], right[k])
        if k == last:
            cores.append(fibers)
            break
        rows, coeffs = pick_rows(fibers.flatten(1, 2), max_rank=ranks[k + 1], floor=floor)
        ranks[k + 1] = rows.shape[1]
        left[k + 1] = extend_left(left[k], rows, n)
        cores.append(coeffs.unflatten(1, (left[k].shape[1], n)))
    return cores


def sweep_left(
    reader: Reader,
    left: list[Tensor],
    right: list[Tensor],
    ranks: list[int],
    floor: Tensor | None = None,
) -> list[Tensor]:
    """Choose the right sets anew, in place: the mirror of `sweep_right`."""
    cores = []
    for k in reversed(range(len(reader.sizes))):
        fibers = reader.fibers(left[k], right[k])
        if k == 0:
            cores.append(fibers)
            break
        rows, coeffs = pick_rows(fibers.flatten(2).mT.contiguous(), max_rank=ranks[k], floor=floor)
        ranks[k] = rows.shape[1]
        right[k - 1] = extend_right(right[k], rows)
        n_right = right[k].shape[1]
        cores.append(coeffs.mT.unflatten(2, (reader.sizes[k], n_right)))
    return cores[::-1]


class SquareSearch:
    """The state of a square search: sets, ranks, and probes it does not fit."""

    def __init__(self, reader: Reader, n_trains: int, generator: torch.Generator, n_probes: int):
        self.reader, self.generator = reader, generator
        device = reader.weights.device
        self.probes = random_points(
            reader.sizes, n_probes, n_trains=n_trains, generator=generator
        ).to(device)
        self.truth = reader.points(self.probes)

    def start(self, sets: IndexSets | None, ranks: tuple[int, ...]) -> None:
        """Begin at given sets, or at probes drawn by the square of their value."""
        self.ranks = list(ranks)
        if sets is None:
            points = draw_points(self.probes, self.truth, max(ranks), self.generator)
            sets = IndexSets.random(
                self.reader.sizes,
                ranks,
                generator=self.generator,
                n_trains=len(points),
                points=points,
            )
        self.left_sets, self.right_sets = list(sets.left), list(sets.right)

    def left(self) -> list[Tensor]:
        """A half-sweep to the left."""
        return sweep_left(self.reader, self.left_sets, self.right_sets, self.ranks)

    def right(self) -> list[Tensor]:
        """A half-sweep to the right."""
        return sweep_right(self.reader, self.left_sets, self.right_sets, self.ranks)

    def sets(self) -> IndexSets:
        """The index sets now."""
        return IndexSets(self.reader.sizes, tuple(self.left_sets), tuple(self.right_sets))

    def error(self, train: TensorTrain) -> Tensor:
        """Relative error on the probes `(K,)`."""
        return relative_error(self.truth, train.entries(self.probes))


def relative_error(truth: Tensor, values: Tensor) -> Tensor:
    """`|truth - values| / |truth|` along the last axis without overflow; 0 / 0 is 0."""
    peak = torch.maximum(truth.abs(), values.abs()).amax(-1, keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)
    gap = ((truth - values) / peak).norm(dim=-1)
    size = (truth / peak).norm(dim=-1)
    return torch.where(gap > 0, gap / size, 0.0)


def draw_points(points: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw `n` of `points` `(K, m, d)` without repetition, the more often the larger `values`."""
    n = min(n, points.shape[1])
    peak = values.abs().amax(-1, keepdim=True)
    weights = (values / torch.where(peak > 0, peak, 1.0)) ** 2
    noise = torch.rand(
        weights.shape, generator=generator, dtype=torch.float64, device=generator.device
    ).to(values.device)
    # Exponential clocks: the n that ring first are a draw without replacement.
    clock = -noise.log() / weights.clamp_min(1e-12)
    order = clock.argsort(-1)[:, :n]
    return points.gather(1, order[..., None].expand(-1, -1, points.shape[-1]))
