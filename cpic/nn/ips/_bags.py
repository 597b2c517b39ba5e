"""Bags of patches: tensors with a mask, or objects that read patches on request.

Shapes: `B` bags of a batch, `N` patches of the largest, `k` patches of a chunk, `*` axes of one
patch: `(c, h, w)` pixels, `(c, d, h, w)` cubes, `(F,)` features.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Bag(Protocol):
    """A set of patches that are read on demand, such as those of a file."""

    def __len__(self) -> int:
        """Number of patches."""
        ...

    def read(self, indices: Tensor, /) -> Tensor:
        """Patches `(k, *)` at int64 indices `(k,)` on the CPU, each from 0 to below the length."""
        ...


Patches = Tensor | Sequence[Tensor | Bag]


class Bags:
    """A batch of bags, of which any patches can be read; made by `as_bags`.

    Args:
        parts: A tensor `(B, N, *)`, or one tensor or `Bag` for each bag.
        order: int64 `(B, N)` on the CPU: the indices of the patches of a bag, then anything.
        sizes: int64 `(B,)` on the CPU: number of patches of each bag.
        width: Largest index, plus 1.
    """

    def __init__(self, parts: Patches, order: Tensor, sizes: Tensor, width: int):
        self.parts, self.order, self.sizes, self.width = parts, order, sizes, width

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def largest(self) -> int:
        """Number of patches of the largest bag."""
        return int(self.sizes.max())

    @property
    def device(self) -> torch.device:
        """Where the patches lie; those of files are read into the memory of the CPU."""
        first = self.parts if isinstance(self.parts, Tensor) else self.parts[0]
        return first.device if isinstance(first, Tensor) else torch.device("cpu")

    def group(self, start: int, stop: int) -> "Bags":
        """Some of the bags."""
        return Bags(
            self.parts[start:stop], self.order[start:stop], self.sizes[start:stop], self.width
        )

    def valid(self, start: int, stop: int) -> Tensor:
        """Which of the columns from start to stop stand for a patch, bool `(B, stop - start)`."""
        return torch.arange(start, stop, device="cpu") < self.sizes[:, None]

    def read(self, indices: Tensor, valid: Tensor) -> Tensor:
        """Patches `(n, *)` at the n valid ones of the indices, both `(B, k)` on the CPU.

        Raises:
            ValueError: If patches of two bags have different shapes.
        """
        if isinstance(self.parts, Tensor):
            rows, columns = valid.nonzero(as_tuple=True)
            chosen = indices[rows, columns]
            return self.parts[rows.to(self.parts.device), chosen.to(self.parts.device)]
        found = [
            part[chosen.to(part.device)] if isinstance(part, Tensor) else part.read(chosen)
            for part, line, ok in zip(self.parts, indices, valid, strict=True)
            if len(chosen := line[ok])
        ]
        if len(shapes := {tuple(part.shape[1:]) for part in found}) > 1:
            raise ValueError(
                f"the bags of a batch need patches of one shape, got {sorted(shapes, key=str)}; "
                "cut or extract them alike."
            )
        return found[0] if len(found) == 1 else torch.cat(found)


def as_bags(patches: "Patches | Bags", mask: Tensor | None = None) -> Bags:
    """One interface to tensors and to files of patches.

    Args:
        patches: A tensor `(B, N, *)`, or a sequence of tensors `(N_b, *)` and of `Bag` objects.
        mask: bool `(B, N)`, False where a tensor is padded; only for one tensor.

    Returns:
        The bags.

    Raises:
        ValueError: If there is no bag, a bag is empty, or the mask does not fit.

    Example:
        >>> bags = as_bags([torch.zeros(3, 2), torch.zeros(5, 2)])
        >>> bags.sizes.tolist(), bags.valid(2, 4).tolist()
        ([3, 5], [[True, False], [True, True]])
    """
    if isinstance(patches, Bags):
        if mask is not None:
            raise ValueError("bags have their mask already; give it where they are made.")
        return patches
    if isinstance(patches, Tensor):
        if patches.ndim < 3:
            raise ValueError(
                f"bags need a tensor (B, N, ...) of patches, got {tuple(patches.shape)}; add the "
                "axis of the batch with `[None]`."
            )
        n_bags, width = patches.shape[:2]
        order, sizes = _ordered(mask, n_bags, width)
    else:
        if mask is not None:
            raise ValueError(
                "a mask belongs to one tensor (B, N, ...); a list has a bag for each image, of any "
                "size, so leave the mask out."
            )
        patches = list(patches)
        sizes = torch.tensor([len(bag) for bag in patches], dtype=torch.int64, device="cpu")
        n_bags, width = len(patches), int(sizes.max()) if len(patches) else 0
        order = torch.arange(width, device="cpu").expand(n_bags, -1)
    if not n_bags or not bool((sizes > 0).all()):
        empty = [k for k, size in enumerate(sizes.tolist()) if size == 0]
        what = f"none in bag {empty[0]}" if empty else "no bag"
        raise ValueError(
            f"a batch of bags needs at least one patch in each bag, got {what}; leave out images "
            "without patches."
        )
    return Bags(patches, order, sizes, width)


def _ordered(mask: Tensor | None, n_bags: int, width: int) -> tuple[Tensor, Tensor]:
    """Indices of the patches that are there, first, and their number."""
    if mask is None:
        sizes = torch.full((n_bags,), width, dtype=torch.int64, device="cpu")
        return torch.arange(width, device="cpu").expand(n_bags, -1), sizes
    if mask.shape != (n_bags, width) or mask.dtype != torch.bool:
        raise ValueError(
            f"a mask of these bags needs to be bool {(n_bags, width)}, got {mask.dtype} "
            f"{tuple(mask.shape)}; it is True where there is a patch."
        )
    mask = mask.cpu()
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True), mask.sum(1)


def shuffled(bags: Bags, how: str | None, generator: torch.Generator | None) -> Tensor:
    """The order in which the patches of bags are visited, `(B, N)` as `bags.order`.

    Args:
        bags: The bags.
        how: None; "batch", one permutation for all bags; or "instance", one for each.
        generator: Of the CPU.
    """
    if how is None:
        return bags.order
    n_rows = len(bags) if how == "instance" else 1
    keys = torch.rand(n_rows, bags.order.shape[1], generator=generator, device="cpu")
    keys = keys.expand(len(bags), -1)
    # What is no patch stays behind.
    keys = keys.masked_fill(~bags.valid(0, keys.shape[1]), torch.inf)
    return bags.order.gather(1, keys.argsort(dim=1, stable=True))
