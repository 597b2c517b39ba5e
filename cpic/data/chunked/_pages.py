"""Positions of the voxels of windows in chunks, and copies of them.

Shapes: `n` windows, `s` the size of a window, `D` axes, `k` chunks of a window, `c` channels.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cpic.data._windows import Windows, joined, spread


class Pages(NamedTuple):
    """The `k` chunks that each window may overlap.

    Attributes:
        ids: (n, k) numbers of the chunks in the grid of chunks.
        needed: (n, k) whether the window overlaps the chunk.
        which: For each axis, (n, s), number of the chunk among those of the window.
        rest: For each axis, (n, s), position in the chunk.
        span: Number of chunks of a window along an axis.
        chunks: Sizes of a chunk.
    """

    ids: np.ndarray
    needed: np.ndarray
    which: list[np.ndarray]
    rest: list[np.ndarray]
    span: int
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, windows: Windows, chunks: tuple[int, ...], grid: tuple[int, ...]) -> "Pages":
        """The chunks of windows of any number of volumes with equal chunks."""
        found = [divmod(at, edge) for at, edge in zip(windows.axes, chunks, strict=True)]
        lows = [of[:, :1] for of, _ in found]
        which = [of - low for (of, _), low in zip(found, lows, strict=True)]
        span = 1 + max((int(of.max()) for of in which if of.size), default=0)
        steps, used = np.arange(span), []
        for axis, of in enumerate(which):
            low, length = windows.corners[:, axis, None], windows.shape[axis]
            if windows.strides is None:
                overlaps = (low < length) & (low + windows.size > 0)
                used.append((steps <= of[:, -1:]) & overlaps)
                continue
            # A window may step over a chunk.
            at = low + windows.steps
            hit = np.zeros((len(of), span + 1), bool)
            np.put_along_axis(hit, np.where((at >= 0) & (at < length), of, span), True, 1)
            used.append(hit[:, :span])
        needed = _flat(functools.reduce(np.logical_and, spread(used)))
        ids = _flat(joined([low + steps for low in lows], grid))
        return cls(ids, needed, which, [rest for _, rest in found], span, chunks)

    def part(self, rows: slice | np.ndarray) -> "Pages":
        """The chunks of some of the windows."""
        which, rest = ([of[rows] for of in axes] for axes in (self.which, self.rest))
        return self._replace(ids=self.ids[rows], needed=self.needed[rows], which=which, rest=rest)

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """For each voxel (n, s * ... * s), the value of its chunk of (n, k)."""
        place = _flat(joined(self.which, [self.span] * len(self.which)))
        return np.take_along_axis(values, place, 1)

    def places(self, starts: np.ndarray, channels: int) -> np.ndarray:
        """Positions in memory of all values (n, c, s * ... * s); `starts` (n, k) of the chunks."""
        return self._places(starts, channels)[:, None] + np.arange(channels)[:, None]

    def _places(self, starts: np.ndarray, channels: int) -> np.ndarray:
        """Positions of the first channel, (n, s * ... * s)."""
        at = self.chosen(starts)
        at += _flat(joined(self.rest, self.chunks)) * channels
        return at

    def copy(self, memory: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
        """Write the values of windows into `out` (n, c, s * ... * s); `starts` as in `places`.

        Windows whose lines along the last axis lie in one chunk are copied line by line.
        """
        which, rest = self.which[-1], self.rest[-1]
        channels, size = out.shape[1], rest.shape[1]
        as_lines = (which[:, -1] == 0) & (rest[:, -1] - rest[:, 0] == size - 1)
        as_lines &= (rest[:, 1:2] - rest[:, :1] == 1).all(1)  # neither spaced nor cut off
        rows, others = np.flatnonzero(as_lines), np.flatnonzero(~as_lines)
        if len(rows):
            part = self.part(rows)
            which, rest = ([*axes[:-1], axes[-1][:, :1]] for axes in (part.which, part.rest))
            at = part._replace(which=which, rest=rest)._places(starts[rows], channels)
            lines = sliding_window_view(memory, size * channels)[at]
            out[rows] = lines.reshape(len(rows), -1, channels).swapaxes(1, 2)
        if len(others):
            out[others] = memory.take(self.part(others).places(starts[others], channels))


def _flat(values: np.ndarray) -> np.ndarray:
    """View (n, ...) as (n, m)."""
    return values.reshape(len(values), math.prod(values.shape[1:]))
