r"""Which chooser to try on an array, from a few numbers measured on a small part of it.

`_measure` reads, `_rules` decides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpic.choose import _measure
from cpic.choose._budget import count_of
from cpic.choose._points import Draw
from cpic.choose._rules import decide
from cpic.data import Ledger, Volume
from cpic.linalg._inputs import check_least, need_generator


@dataclass(frozen=True)
class Advice:
    """Which chooser to try, and why.

    Args:
        by: Name for `choose`; for `"pyramid"` it needs the coarser levels, without any
            `"importance"` with a map of where the maxima may lie.
        options: Its options.
        shape: Sizes of the volume.
        budget: How many voxels may be read.
        expected: Errors to expect by chooser, relative to the root mean square of the voxels.
        measured: What was measured, as numbers.
        ranks: Ranks of the unfoldings that keep a relative error of 0.1.
        reasons: Why, in sentences.
        read: What measuring read.
    """

    by: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    budget: int
    expected: Mapping[str, float]
    measured: Mapping[str, float]
    ranks: tuple[int, ...]
    reasons: tuple[str, ...]
    read: Ledger

    def plain(self) -> dict[str, Any]:
        """All of it as numbers, strings, lists and mappings, as for JSON."""
        return {
            "by": self.by,
            "options": dict(self.options),
            "shape": list(self.shape),
            "budget": self.budget,
            "expected": dict(self.expected),
            "measured": dict(self.measured),
            "ranks": list(self.ranks),
            "reasons": list(self.reasons),
            "read": vars(self.read),
        }

    def __str__(self) -> str:
        total, options = (
            math.prod(self.shape),
            "".join(f", {k}={v!r}" for k, v in self.options.items()),
        )
        lines = [
            f"Try by={self.by!r}{options} for {self.budget:,} of {total:,} voxels "
            f"({self.budget / total:.2g} of all).",
            "",
            *self.reasons,
            "",
            "Errors to expect, relative to the root mean square of the voxels:",
            *(f"  {name:20} {_short(error)}" for name, error in self.expected.items()),
            "",
            "Measured:",
            *(f"  {name:20} {_short(value)}" for name, value in self.measured.items()),
            f"  {'ranks':20} {', '.join(map(str, self.ranks))} for an error of 0.1",
            "",
            f"Measuring read {self.read.voxels / total:.2g} of all: {self.read}.",
        ]
        return "\n".join(lines)


def advise(
    volume: Volume,
    *,
    budget: float = 0.01,
    generator: torch.Generator,
    n_probes: int = 512,
    channel: int = 0,
) -> Advice:
    r"""Measure a volume on few of its voxels, and say which chooser to try.

    Read are `n_probes` random voxels, 3 x 2^D around each for the errors of grids of two strides,
    5 D for the noise, 48 x 48 of each unfolding for the ranks, and lines through 16 of the probes
    for the size of details: about 26 000 voxels of a volume with three axes, of any size. In files
    of chunks or compressed ones more is decoded, as the ledger says.

    The advice is the chooser with the least error to expect. That of a grid is measured. Let `e` be
    the error of a grid of the budget and `q` of a quarter of it, both from end to end; `t` the
    share of the squared error of the latter in the worst tenth of the probes, `n` the noise, and
    `r` what the best train of the rank that the budget allows would miss. Coarse-to-fine is then
    expected to have the error `e exp(0.57 - 1.21 t + 0.12 log(q / e) + 0.06 n / e)`, and a cross
    `1.09 r`, which must be below half of the others. The five numbers are fitted to
    `book/results/choosers.json` (chapter 3) by `book/results/make_advice.py`. With numbers fitted
    to the other parts of that record, the advice was within 10 % of the best chooser for 91 % of
    372 arrays and budgets; always coarse-to-fine was for 73 %, always a grid for 44 %.

    Where half of the energy lies in the brightest hundredth of the values, it is `"pyramid"` for
    details that are narrower than the stride of the grid, else `"coarse-to-fine"`, as in
    `book/results/rare.json` (chapter 13). If no chooser promises an
    error below the spread that remains without the noise, it is `"random"`: the mean is the better
    picture, and random positions estimate it without bias.

    Args:
        volume: What `cpic.data.open_volume` returns, or another `Volume`.
        budget: How many voxels may be read later: an int is their number, a float a share of all.
        generator: The only source of randomness.
        n_probes: Number of probes, at least 32. A detail that fills less of the volume than about
            `3 / n_probes` may be missed by all of them.
        channel: Which channel is measured.

    Returns:
        The advice, with the errors to expect and what was measured.

    Raises:
        TypeError: If `budget` is no number.
        ValueError: If the budget is 0 or above everything, there is no such channel, there are
            fewer than 32 probes, or the volume has one axis.
        VolumeError: If a voxel is NaN or infinite, or cannot be read.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> x = torch.linspace(0, 3, 40)
        >>> smooth = ArrayVolume(torch.sin(x[:, None, None] + x[:, None] * x))
        >>> advise(smooth, budget=0.05, generator=torch.Generator().manual_seed(0)).by
        'grid'
    """
    shape, count = volume.shape, count_of(budget, volume.shape)
    check_least("advise", "fewer say nothing about a volume", least=32, n_probes=n_probes)
    if len(shape) < 2:
        raise ValueError(f"advise needs a volume with at least two axes, got {shape}.")
    if not 0 <= channel < volume.channels:
        raise ValueError(
            f"advise needs a channel from 0 to below {volume.channels}, got channel={channel}."
        )
    before, draw = (
        Ledger() + volume.ledger,
        Draw(1, need_generator("advise", generator), generator.device),
    )

    def read(places: Tensor) -> Tensor:
        values = volume.voxels(places[0])
        return (values if volume.channels == 1 else values[..., channel]).double()[None]

    found = _measure.measure(read, shape, count, n_probes=n_probes, draw=draw)
    numbers = _measure.numbers_of(found, 0)
    decision = decide(numbers)
    after = volume.ledger
    return Advice(
        by=decision.by,
        options=decision.options,
        shape=tuple(shape),
        budget=count,
        expected=decision.expected,
        measured=numbers,
        ranks=tuple(_measure.effective_ranks(found.spectra, 0.1)),
        reasons=decision.reasons,
        read=Ledger(
            after.asked - before.asked,
            after.voxels - before.voxels,
            after.bytes - before.bytes,
            after.chunks - before.chunks,
        ),
    )


def _short(number: float) -> str:
    return f"{number:.3g}"
