"""One side of index sets: the multi-indices of all sites in one tensor, for batched operations.

Shapes: `K` tensors, `d` sites, `R` multi-indices of all sites together.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Side = Literal["left", "right"]


class Rows(NamedTuple):
    """One side of index sets.

    `whole`: multi-indices `(K, R, d)`, site after site, padded with zeros to all modes.
    `counts`: their number at each site. `side`: `"left"` or `"right"` of the site.
    """

    whole: Tensor
    counts: tuple[int, ...]
    side: Side

    @classmethod
    def of(cls, sets: Sequence[Tensor], side: Side) -> "Rows":
        """From the multi-indices `(K, r, k)` or `(K, r, d - k - 1)` of each site."""
        d = len(sets)
        around = [(0, d - k) if side == "left" else (k + 1, 0) for k in range(d)]
        pairs = zip(sets, around, strict=True)
        return cls.beside([torch.nn.functional.pad(*pair) for pair in pairs], side)

    @classmethod
    def beside(cls, sets: Sequence[Tensor], side: Side) -> "Rows":
        """From the padded multi-indices `(K, r, d)` of each site."""
        return cls(torch.cat(tuple(sets), 1), tuple(rows.shape[1] for rows in sets), side)

    def each(self) -> tuple[Tensor, ...]:
        """The padded multi-indices `(K, r, d)` of each site."""
        return self.whole.split(self.counts, 1)

    def alone(self) -> tuple[Tensor, ...]:
        """The multi-indices of each site without padding: the inverse of `of`."""
        left = self.side == "left"
        cut = [part[..., :k] if left else part[..., k + 1 :] for k, part in enumerate(self.each())]
        return tuple(part.contiguous() for part in cut)
