r"""Store the multi-indices at which a cross-approximation reads its tensor.

For every site k of a tensor with sizes n_0 .. n_{d-1}, `left[k]` lists multi-indices of the modes
before k and `right[k]` those of the modes after k. The fibers of site k are all combinations
left[k] x [n_k] x right[k]. Sets are *nested* if every left multi-index extends one of the previous
site and every right one extends one of the next site; then the pivots are among the fibers.

Shapes: `K` tensors, `d` sites, `ranks[k]` left and `ranks[k+1]` right multi-indices at site k.
References: {cite}`oseledets2010ttcross`.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index

import torch
from torch import Tensor

from cpic.tt._files import load_arrays, save_arrays
from cpic.tt._pivots import mirrored
from cpic.tt._points import complete_or, random_points, random_sides
from cpic.tt._rows import Rows, Side


def cap_ranks(sizes: Sequence[int], rank: int | Sequence[int]) -> tuple[int, ...]:
    """Largest ranks that `sizes` allow, at most `rank`.

    Args:
        sizes: Size of each of the `d` modes.
        rank: One bound for all bonds, or `d - 1` bounds, or `d + 1` with ones at the ends.

    Returns:
        `d + 1` ranks, with ones at the ends.

    Raises:
        ValueError: If a size or a rank is below one, or the number of ranks is wrong.

    Example:
        >>> cap_ranks((2, 2, 2, 2), 10)
        (1, 2, 4, 2, 1)
    """
    sizes = check_sizes(sizes)
    d = len(sizes)
    try:
        ranks = [index(r) for r in rank] if isinstance(rank, Iterable) else [index(rank)] * (d - 1)
    except TypeError:
        ranks = [0]  # not whole numbers
    if len(ranks) == d + 1 and ranks[0] == ranks[-1] == 1:
        ranks = ranks[1:-1]
    if len(ranks) != d - 1 or any(r < 1 for r in ranks):
        raise ValueError(
            f"cap_ranks needs one rank >= 1 or {d - 1} of them for {d} sites, got {rank}; "
            "pass an int for the same bound at all bonds."
        )
    ranks = [1, *ranks, 1]
    for k in range(d):
        ranks[k + 1] = min(ranks[k] * sizes[k], ranks[k + 1])
    for k in reversed(range(d)):
        ranks[k] = min(ranks[k], sizes[k] * ranks[k + 1])
    return tuple(ranks)


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes as a tuple of ints, or a `ValueError`."""
    try:
        sizes = tuple(map(index, sizes))
    except TypeError:
        raise ValueError(f"sizes needs whole numbers, got {sizes}; pass them as a tuple.") from None
    if not sizes or any(n < 1 for n in sizes):
        raise ValueError(
            f"sizes needs at least one mode and every size >= 1, got {sizes}; remove empty modes."
        )
    return sizes


@dataclass(frozen=True, eq=False)
class IndexSets:
    """Left and right multi-indices of every site, for K tensors of the same sizes.

    Args:
        sizes: Size of each of the `d` modes.
        left: `d` int64 tensors `(K, l_k, k)`, `l_0 = 1`.
        right: `d` int64 tensors `(K, r_{k+1}, d-k-1)`, the last with one empty multi-index.

    Raises:
        ValueError: If shapes, dtypes or index values do not fit `sizes`.

    Example:
        >>> sets = IndexSets.random((2,) * 28, 10, generator=torch.Generator().manual_seed(0))
        >>> sets.n_entries, sets.nested
        (4488, True)
    """

    sizes: tuple[int, ...]
    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]

    def __post_init__(self):
        object.__setattr__(self, "sizes", check_sizes(self.sizes))
        object.__setattr__(self, "left", tuple(self.left))
        object.__setattr__(self, "right", tuple(self.right))
        d = self.n_sites
        if len(self.left) != d or len(self.right) != d:
            raise ValueError(
                f"IndexSets needs {d} left and {d} right sets for {d} sites, got "
                f"{len(self.left)} and {len(self.right)}."
            )
        sides = [("left", k, rows, slice(0, k)) for k, rows in enumerate(self.left)]
        sides += [("right", k, rows, slice(k + 1, d)) for k, rows in enumerate(self.right)]
        for side, k, rows, sites in sides:
            self._check_shape(f"{side}[{k}]", rows, len(self.sizes[sites]))
        bound = torch.tensor(self.sizes, device=self.device)
        flags = [((rows < 0) | (rows >= bound[sites])).any() for _, _, rows, sites in sides]
        # One transfer from the device for all flags.
        for (side, k, _, sites), outside in zip(sides, torch.stack(flags).tolist(), strict=True):
            if outside:
                raise ValueError(
                    f"IndexSets needs the indices of {side}[{k}] within sizes "
                    f"{self.sizes[sites]}, got one outside."
                )

    def _check_shape(self, name: str, rows: Tensor, n_sites: int) -> None:
        fits = rows.ndim == 3 and rows.dtype == torch.int64 and rows.shape[1] >= 1
        fits = fits and (rows.shape[0], rows.shape[2]) == (self.n_trains, n_sites)
        if not fits or (n_sites == 0 and rows.shape[1] > 1):
            raise ValueError(
                f"IndexSets needs {name} as int64 (K={self.n_trains}, rows >= 1, {n_sites}), got "
                f"{rows.dtype} {tuple(rows.shape)}."
            )

    @classmethod
    def random(
        cls,
        sizes: Sequence[int],
        rank: int | Sequence[int],
        *,
        generator: torch.Generator,
        n_trains: int = 1,
        points: Tensor | None = None,
    ) -> "IndexSets":
        """Random nested sets of capped rank.

        Near the ends, where the rank allows all multi-indices, a set is complete.

        Args:
            sizes: Size of each of the `d` modes.
            rank: As in `cap_ranks`.
            generator: The only source of randomness.
            n_trains: Number of tensors K.
            points: Multi-indices `(K, n, d)` to start from instead of uniform ones.

        Returns:
            Nested sets with `cap_ranks(sizes, rank)` multi-indices at the bonds.
        """
        sizes, ranks = check_sizes(sizes), cap_ranks(sizes, rank)
        d, n = len(sizes), max(ranks)
        if points is None:
            return cls(sizes, *random_sides(sizes, ranks, n_trains, generator))
        if points.shape[1] < n:
            more = random_points(sizes, n - points.shape[1], n_trains=n_trains, generator=generator)
            points = torch.cat([points, more.to(points.device)], 1)
        left = [complete_or(sizes[:k], points[:, : ranks[k], :k]) for k in range(d)]
        right = [complete_or(sizes[k + 1 :], points[:, : ranks[k + 1], k + 1 :]) for k in range(d)]
        return cls(sizes, tuple(left), tuple(right))

    @classmethod
    def unchecked(
        cls, sizes: tuple[int, ...], left: tuple[Tensor, ...], right: tuple[Tensor, ...]
    ) -> "IndexSets":
        """Sets derived from checked ones; another check would read from the device."""
        return cls._made(sizes=sizes, left=left, right=right)

    @classmethod
    def joined(cls, sizes: tuple[int, ...], left: Rows, right: Rows) -> "IndexSets":
        """Sets derived from checked ones; those of single sites are extracted on access."""
        return cls._made(sizes=sizes, _left=left, _right=right)

    @classmethod
    def _made(cls, **parts: object) -> "IndexSets":
        made = object.__new__(cls)
        made.__dict__.update(parts)
        return made

    def __getattr__(self, name: str) -> tuple[Tensor, ...]:
        if name in ("left", "right") and f"_{name}" in self.__dict__:
            return self.__dict__.setdefault(name, self.__dict__[f"_{name}"].alone())
        raise AttributeError(f"IndexSets has no attribute {name!r}")

    def rows(self, side: Side) -> Rows:
        """The multi-indices of all sites on one side."""
        if f"_{side}" not in self.__dict__:
            self.__dict__[f"_{side}"] = Rows.of(getattr(self, side), side)
        return self.__dict__[f"_{side}"]

    def counts(self, side: Side) -> tuple[int, ...]:
        """Number of multi-indices of each site on one side."""
        known = self.__dict__.get(f"_{side}")
        return (
            tuple(rows.shape[1] for rows in getattr(self, side)) if known is None else known.counts
        )

    @property
    def n_sites(self) -> int:
        """Number of sites d."""
        return len(self.sizes)

    @property
    def n_trains(self) -> int:
        """Number of tensors K."""
        return len(self._any)

    @property
    def device(self) -> torch.device:
        """Where the sets are stored."""
        return self._any.device

    @property
    def _any(self) -> Tensor:
        return self.left[0] if "left" in self.__dict__ else self.rows("left").whole

    @property
    def ranks(self) -> tuple[int, ...]:
        """Number of left multi-indices at the `d + 1` bonds, ones at the ends."""
        return (*self.counts("left"), 1)

    @property
    def n_entries(self) -> int:
        """Entries of a tensor that an interpolation requests, all fibers {eq}`eq-scale-entries`."""
        each = zip(self.counts("left"), self.sizes, self.counts("right"), strict=True)
        return sum(before * n * after for before, n, after in each)

    @property
    def nested(self) -> bool:
        """Whether every multi-index extends one of the neighboring site."""
        both = (self.left, mirrored(self.right))
        pairs = [pair for side in both for pair in pairwise(side)]
        return all(_extends(rows, before) for before, rows in pairs)

    @property
    def square(self) -> bool:
        """Whether every bond has as many left as right multi-indices."""
        return self.counts("left")[1:] == self.counts("right")[:-1]

    def mirrored(self) -> "IndexSets":
        """The sets of the tensors with their modes reversed."""
        return self.unchecked(self.sizes[::-1], mirrored(self.right), mirrored(self.left))

    def to(self, device: torch.device | str) -> "IndexSets":
        """The same sets on another device."""
        move = [tuple(rows.to(device) for rows in side) for side in (self.left, self.right)]
        return self.unchecked(self.sizes, *move)

    def save(self, path: str | os.PathLike) -> None:
        """Write the sets as plain integer arrays, atomically.

        Args:
            path: File to write; an existing one is replaced when the new one is complete.
        """
        arrays = {"sizes": torch.tensor(self.sizes)}
        for k in range(self.n_sites):
            arrays[f"left{k}"], arrays[f"right{k}"] = self.left[k], self.right[k]
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "IndexSets":
        """Read a file written by `save`; nothing in it is executed.

        Args:
            path: File written by `save`.

        Raises:
            ValueError: If the file does not contain saved index sets.
        """

        def make(arrays: dict[str, Tensor]) -> IndexSets:
            sizes = tuple(arrays["sizes"].tolist())
            left, right = (
                tuple(arrays[f"{side}{k}"] for k in range(len(sizes))) for side in ("left", "right")
            )
            return cls(sizes, left, right)

        return load_arrays(path, "IndexSets", make)


def _extends(rows: Tensor, before: Tensor) -> bool:
    """Whether each of the `rows` (K, r, k+1) extends one of `before` (K, l, k)."""
    return bool((rows[:, :, None, :-1] == before[:, None]).all(-1).any(-1).all())
