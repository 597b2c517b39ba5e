r"""Which frames make up the weight of a layer, for two parametrizations.

The weight is a matrix `(d_out, d_in)`, the output channels against all else, or one such matrix for
each group. With SVDP it is U diag(s) V^T with two frames. With STTP both U and V^T are trains over
the prime factors of the channels; the unfoldings of all cores are frames, tall ones to the left of
the bond that carries s, and transposed ones to its right. The ranks are

    R_k = min(n_1 ... n_k, n_{k+1} ... n_d, rank).

The orthogonal matrices that could be inserted at a bond are no freedom of the weight. They are
removed by reduced frames everywhere but next to s; and if s is fixed, to the left of it as well. A
square reduced frame is the negative identity: it is left out, and its sign is kept.

References: {cite}`obukhov2021spectral`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple

from cpic.nn.spectral._frames import count_free

Kind = Literal["svdp", "sttp"]
Spectrum = Literal["learned", "fixed"]


class Shape(NamedTuple):
    """The weight of a layer: `size` as stored, `groups`, and whether inputs come first."""

    size: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def matrix(self) -> tuple[int, ...]:
        """The sizes `(d_out, c, *kernel)` of the matrix of one group."""
        first, second, *kernel = self.size
        if self.transposed:
            return (second, first // self.groups, *kernel)
        return (first // self.groups, second, *kernel)

    @property
    def widths(self) -> tuple[int, int]:
        """Rows and columns `(d_out, d_in)` of the matrix of one group."""
        rows, *rest = self.matrix
        return rows, math.prod(rest)


class Core(NamedTuple):
    """A core `(left, size, right)`, and whether its frame is reduced."""

    left: int
    size: int
    right: int
    reduced: bool


class FrameSize(NamedTuple):
    """The shape of a frame, and whether it is reduced."""

    rows: int
    columns: int
    reduced: bool

    @property
    def free(self) -> int:
        """Free numbers of such a frame."""
        return count_free(self.rows, self.columns, reduced=self.reduced)


@dataclass(frozen=True)
class Plan:
    """How the weight of a layer is made; layers with equal plans are computed together.

    Attributes:
        shape: The weight.
        spectrum: `"fixed"`: all singular values are equal. `"learned"`: they are not.
        gain: Whether the norm is learned as well; without it, the largest singular value is 1.
        left: Cores to the left of the spectrum; none if they are the identity.
        right: Cores to its right.
        rank: Number of singular values.
        sign: Sign of the product of all cores that were left out.
    """

    shape: Shape
    spectrum: Spectrum
    gain: bool
    left: tuple[Core, ...]
    right: tuple[Core, ...]
    rank: int
    sign: int

    @property
    def cores(self) -> tuple[Core, ...]:
        """All cores, from the left to the right."""
        return (*self.left, *self.right)

    @property
    def frames(self) -> tuple[FrameSize, ...]:
        """The frames of all cores, from the left to the right."""
        left = [FrameSize(a * n, b, reduced) for a, n, b, reduced in self.left]
        return (*left, *(FrameSize(n * b, a, reduced) for a, n, b, reduced in self.right))

    @property
    def free(self) -> int:
        """Free numbers of all frames of one group."""
        return sum(frame.free for frame in self.frames)

    @property
    def scales(self) -> int:
        """Numbers of one group that are not of its frames: of the spectrum, or the gain."""
        return self.rank if self.spectrum == "learned" else int(self.gain)

    @property
    def parameters(self) -> int:
        """Free numbers of the layer."""
        return self.shape.groups * (self.free + self.scales)


def most_rank(shape: Shape) -> int:
    """The largest number of singular values that a weight can have."""
    return min(shape.widths)


@lru_cache(maxsize=4096)
def plan_of(
    shape: Shape,
    *,
    kind: Kind,
    rank: int,
    spectrum: Spectrum = "learned",
    gain: bool = False,
    split_kernel: bool = False,
) -> Plan:
    """The plan of a layer; `rank` bounds all ranks."""
    rows, columns = shape.widths
    _, channels, *kernel = shape.matrix
    if kind == "svdp":
        left, right = [rows], [columns]
    else:
        left = primes(rows)
        # A kernel of one position is a mode of size one, and one sign more.
        positions = [p for size in kernel for p in primes(size)] if split_kernel else []
        right = primes(channels) + (positions or [math.prod(kernel)] * bool(kernel))
    modes = [*left, *right]
    ahead = list(accumulate(modes, lambda a, b: a * b, initial=1))
    ranks = [min(done, rows * columns // done, rank) for done in ahead]
    cores = []
    for k, size in enumerate(modes):
        last_left, first_right = k == len(left) - 1, k == len(left)
        full = first_right or (last_left and spectrum == "learned")
        cores.append(Core(ranks[k], size, ranks[k + 1], not full))
    before, after = cores[: len(left)], cores[len(left) :]
    n_left, n_right = _identities(before), _identities([_mirrored(core) for core in after[::-1]])
    kept = _merged(before, n_left)
    mirrored = _merged([_mirrored(core) for core in after[::-1]], n_right)
    return Plan(
        shape=shape,
        spectrum=spectrum,
        gain=gain,
        left=tuple(kept),
        right=tuple(_mirrored(core) for core in mirrored[::-1]),
        rank=ranks[len(left)],
        sign=(-1) ** (n_left + n_right),
    )


def _mirrored(core: Core) -> Core:
    return core._replace(left=core.right, right=core.left)


def _identities(cores: Sequence[Core]) -> int:
    """How many cores, from the outer end on, have frames without free numbers."""
    for k, core in enumerate(cores):
        if FrameSize(core.left * core.size, core.right, core.reduced).free:
            return k
    return len(cores)


def _merged(cores: Sequence[Core], count: int) -> list[Core]:
    """Without the first cores, whose modes join that of the next."""
    if not count or count == len(cores):
        return list(cores[count:])
    first = cores[count]
    return [first._replace(left=1, size=first.left * first.size), *cores[count + 1 :]]


@lru_cache(maxsize=4096)
def primes(number: int) -> list[int]:
    """Prime factors of a positive integer, ascending; none of 1."""
    found, factor = [], 2
    while factor * factor <= number:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found + [number] * (number > 1)
