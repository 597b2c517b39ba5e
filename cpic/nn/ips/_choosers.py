"""Ways to choose patches of a bag, with one interface: iterative selection and simple baselines.

Shapes: `B` bags, `N` patches of the largest, `M` chosen ones.
References: {cite}`bergner2023iterative`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cpic.choose import choose
from cpic.nn._checks import check_positive
from cpic.nn.ips._bags import Bags, shuffled
from cpic.nn.ips._select import (
    Encoder,
    Scorer,
    Selection,
    encode,
    evaluating,
    everything,
    select,
)


class Chooser(Protocol):
    """Chooses patches of bags; a user's own one needs only this call."""

    def __call__(
        self,
        bags: Bags,
        encoder: Encoder,
        scorer: Scorer,
        /,
        *,
        training: bool,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """The chosen patches; without randomness unless `training`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Iterative:
    """Iterative patch selection, see `select`.

    Args:
        m: Number of patches to choose.
        i: Number of patches of each bag that are encoded at once; `m` by default.
        by: "exact" or "official".
        shuffle: Order of the patches in training: "batch", "instance" or None, see `select`. In
            evaluation they keep their order, so that a prediction does not depend on a seed.
        together: Number of bags that are looked through at once; all by default. With 1, only the
            patches of one image are in memory.

    Raises:
        ValueError: If a number is below 1.
    """

    m: int
    i: int | None = None
    by: Literal["exact", "official"] = "exact"
    shuffle: Literal["batch", "instance"] | None = "batch"
    together: int | None = None

    def __post_init__(self) -> None:
        sizes = {"m": self.m, "i": self.i or self.m, "together": self.together or 1}
        check_positive("Iterative", **sizes)

    def __call__(
        self,
        bags: Bags,
        encoder: Encoder,
        scorer: Scorer,
        *,
        training: bool,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """The chosen patches."""
        size = self.together or len(bags)
        parts = [
            select(
                bags.group(start, start + size),
                encoder,
                scorer,
                m=self.m,
                i=self.i,
                by=self.by,
                shuffle=self.shuffle if training else None,
                generator=generator,
            )
            for start in range(0, len(bags), size)
        ]
        return parts[0] if len(parts) == 1 else _together(parts)


@dataclass(frozen=True, kw_only=True)
class RandomPatches:
    """`m` random patches of each bag, without replacement.

    In evaluation they are drawn from a fixed seed: a batch gets the same ones again, and an image
    others in another place of a batch.

    Args:
        m: Number of patches to choose.

    Raises:
        ValueError: If it is below 1.
    """

    m: int

    def __post_init__(self) -> None:
        check_positive("RandomPatches", m=self.m)

    def __call__(
        self,
        bags: Bags,
        encoder: Encoder,
        scorer: Scorer,
        *,
        training: bool,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """The chosen patches."""
        if not training:
            generator = torch.Generator().manual_seed(0)
        width = min(self.m, bags.largest)
        mask = bags.valid(0, width)
        order = shuffled(bags, "instance", generator)[:, :width]
        return Selection(order.masked_fill(~mask, -1), mask)


@dataclass(frozen=True)
class AllPatches:
    """All patches of each bag, as attention-based pooling takes them {cite}`ilse2018attention`."""

    def __call__(
        self,
        bags: Bags,
        encoder: Encoder,
        scorer: Scorer,
        *,
        training: bool,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """All patches."""
        return everything(bags)


@dataclass(frozen=True, kw_only=True)
class CrossPatches:
    """The `m` largest logits of a map that is rebuilt from a part of the patches.

    The logits of patches on a grid are an array; a chooser of `cpic.choose` reads some of its
    entries, without gradient, and rebuilds the rest. The other ways look at every patch.

    Args:
        m: Number of patches to choose.
        grid: Sizes of the grid of patches, in row-major order.
        budget: How many patches of a bag may be encoded: an int, or a share of all.
        by: The chooser, such as "cross-least-squares" or "coarse-to-fine", see `choose`. Arrays of
            at most 4096 entries are read whole by a cross.

    Raises:
        ValueError: If `m` is below 1.
    """

    m: int
    grid: Sequence[int]
    budget: float = 0.25
    by: str = "coarse-to-fine"

    def __post_init__(self) -> None:
        check_positive("CrossPatches", m=self.m)

    def __call__(
        self,
        bags: Bags,
        encoder: Encoder,
        scorer: Scorer,
        *,
        training: bool,
        generator: torch.Generator | None = None,
    ) -> Selection:
        """The chosen patches.

        Raises:
            ValueError: If a bag has another number of patches than the grid.
        """
        n = math.prod(self.grid)
        if bags.sizes.tolist() != [n] * len(bags):
            raise ValueError(
                f"CrossPatches needs bags of the {n} patches of its grid {tuple(self.grid)}, got "
                f"{bags.sizes.tolist()}; resize the images, or use Iterative."
            )
        if bags.largest <= self.m:
            return everything(bags)
        steps = torch.tensor([*self.grid[1:], 1], device="cpu").flip(0).cumprod(0).flip(0)

        known = torch.full((len(bags), n), torch.nan, dtype=torch.float64, device="cpu")

        def logits(at: Tensor) -> Tensor:
            places = (at.cpu() * steps).sum(-1)
            # A search comes back to the same entries.
            lacking = known.gather(1, places).isnan()
            if bool(lacking.any()):
                found = encode(bags, places, lacking, encoder, scorer)
                new = scorer.logits(found, places).mean((1, 2)).double().cpu()
                known.scatter_(1, places, new.where(lacking, known.gather(1, places)))
            return known.gather(1, places)

        options: dict[str, Any] = {"by": self.by, "budget": self.budget, "n_arrays": len(bags)}
        source = generator if training else torch.Generator().manual_seed(0)
        with torch.no_grad(), evaluating(encoder, scorer):
            picture = choose(logits, tuple(self.grid), generator=source, **options).dense()
        scores = picture.flatten(1).softmax(1)
        found = scores.topk(self.m, 1)
        mask = torch.ones_like(found.indices, dtype=torch.bool)
        return Selection(found.indices, mask, found.values, scores)


def _together(parts: Sequence[Selection]) -> Selection:
    """Selections of groups of bags as one, without what one of the groups lacks as it is small."""
    found: dict[str, Any] = {}
    for name in Selection._fields:
        values = [getattr(part, name) for part in parts]
        lines = [line for value in values if value is not None for line in value]
        fill = -1 if name == "indices" else 0
        whole = all(value is not None for value in values)
        found[name] = pad_sequence(lines, True, fill) if whole else None
    return Selection(**found)
