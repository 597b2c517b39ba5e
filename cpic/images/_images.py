"""Labeled pictures of one size, in memory or in files."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from cpic._errors import ImageError


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Labeled pictures of one size, which a subclass reads.

    Attributes:
        labels: Index of the class of each picture, `(n,)` int64.
        classes: Names of the classes.
        shape: Channels, rows and columns.
        source: Where the pictures come from, with their license.
    """

    labels: Tensor
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    source: str

    def __post_init__(self) -> None:
        n, labels = len(self.classes), self.labels
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise ImageError(
                f"labels need shape (n,) and int64, got {labels.dtype} {tuple(labels.shape)}."
            )
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < n):
            raise ImageError(
                f"labels need to be from 0 to {n - 1} for {n} classes, got "
                f"{int(labels.min())} to {int(labels.max())}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Pixels `(k, c, h, w)` of these pictures, uint8."""
        raise NotImplementedError

    def subset(self, indices: Sequence[int] | Tensor) -> "Images":
        """These pictures only, in this order."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class PixelImages(Images):
    """Pictures in memory.

    Attributes:
        pixels: `(n, c, h, w)` uint8.
    """

    pixels: Tensor

    @classmethod
    def make(
        cls, pixels: Tensor, labels: Tensor, *, classes: Sequence[str], source: str = "given"
    ) -> "PixelImages":
        """Check pixels `(n, c, h, w)` and labels `(n,)`, and put them together.

        Raises:
            ImageError: If they are not of this form.

        Example:
            >>> import torch
            >>> pixels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
            >>> len(PixelImages.make(pixels, torch.tensor([0, 1]), classes=("a", "b")))
            2
        """
        if pixels.ndim != 4 or pixels.dtype != torch.uint8 or len(pixels) != len(labels):
            raise ImageError(
                f"pictures need pixels ({len(labels)}, c, h, w) of uint8, one for each label, got "
                f"{pixels.dtype} {tuple(pixels.shape)}."
            )
        _, c, h, w = pixels.shape
        return cls(labels.long(), tuple(classes), (c, h, w), source, pixels)

    def read(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Pixels `(k, c, h, w)` of these pictures, uint8."""
        return self.pixels[torch.as_tensor(indices, dtype=torch.long)]

    def subset(self, indices: Sequence[int] | Tensor) -> "PixelImages":
        """These pictures only, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return dataclasses.replace(self, labels=self.labels[chosen], pixels=self.pixels[chosen])


def split(
    images: Images, share: float, *, generator: torch.Generator
) -> tuple[Images, Images | None]:
    """Set a share of each class aside, drawn at random.

    Args:
        images: Pictures.
        share: Part of each class, rounded; 0 sets nothing aside.
        generator: Random number generator.

    Returns:
        The rest, in its order, and the pictures set aside, None if there are none.

    Example:
        >>> import torch
        >>> pixels = torch.zeros(8, 1, 2, 2, dtype=torch.uint8)
        >>> images = PixelImages.make(pixels, torch.arange(8) % 2, classes=("a", "b"))
        >>> rest, aside = split(images, 0.25, generator=torch.Generator().manual_seed(0))
        >>> len(rest), aside.labels.tolist()
        (6, [0, 1])
    """
    order = torch.randperm(len(images), generator=generator)
    # Sorted by class, at random within it.
    order = order[images.labels[order].argsort(stable=True)]
    counts = images.labels.bincount(minlength=len(images.classes))
    within = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    aside = within < (share * counts).round().repeat_interleave(counts)
    kept, chosen = order[~aside].sort().values, order[aside].sort().values
    return images.subset(kept), images.subset(chosen) if len(chosen) else None
