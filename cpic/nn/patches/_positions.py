r"""Select the positions at which a decoder is trained.

Shapes: `K` volumes of a batch, `V` of a cohort, `n` positions, `D` axes, `C` classes.
References: {cite}`usvyatsov2021cherry`.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from cpic.nn._checks import check_positive
from cpic.nn._readable import Shaped
from cpic.nn.patches._model import Sampled
from cpic.tt._points import random_points

_HOST = torch.device("cpu")  # of what is counted, whatever the default device


class Watched:
    """A volume that records the positions of the cubes that are read."""

    def __init__(self, volume: Sampled):
        self.volume, self.shape, self.channels = volume, tuple(volume.shape), volume.channels
        self.centers: list[Tensor] = []

    def cubes(self, centers: Tensor, *, size: int) -> Tensor:
        """The shape of the volume."""
        self.centers.append(centers)
        return self.volume.cubes(centers, size=size)

    def read_at(self) -> Tensor:
        """Distinct positions within the shape, `(m, D)`, sorted."""
        none = torch.zeros(0, len(self.shape), dtype=torch.int64, device=_HOST)
        centers = torch.cat(self.centers or [none])
        inside = ((centers >= 0) & (centers < centers.new_tensor(self.shape))).all(1)
        return centers[inside].unique(dim=0)


def read_and_random(watched: Sequence[Watched], *, most: int, generator: torch.Generator) -> Tensor:
    """Positions that were read, and at least as many uniform ones, `(K, n, D)`.

    If more than `most` were read, a random subset of these is used. If fewer were read of one
    volume than of another, uniform ones are added.
    """
    read = [_some(volume.read_at(), most, generator) for volume in watched]
    most = max(1, *(len(positions) for positions in read))
    shape = watched[0].shape
    positions = random_points(shape, 2 * most, n_trains=len(read), generator=generator)
    for row, found in zip(positions, read, strict=True):
        row[: len(found)] = found
    return positions


def class_of(values: Tensor, *, labels: Sequence[int] = (0, 1, 2, 4)) -> Tensor:
    """Map labels to classes, the index of each label in `labels`.

    Args:
        values: Labels, of any shape and type.
        labels: All labels, in ascending order; those of BraTS by default
            {cite}`menze2015multimodal`.

    Returns:
        Classes, int64, of the shape of `values`.

    Raises:
        ValueError: If a value is not among the labels.

    Example:
        >>> class_of(torch.tensor([0, 4, 2]))
        tensor([0, 3, 2])
    """
    known = torch.tensor(_checked(labels), device=values.device)
    whole = values.long()
    classes = torch.searchsorted(known, whole).clamp_max(len(known) - 1)
    wrong = (known[classes] != whole) | (whole != values)
    if wrong.any():
        raise ValueError(
            f"class_of needs values that are one of the labels {tuple(labels)}, got "
            f"{values[wrong][0].item()} among others; pass the labels of the files."
        )
    return classes


class Labels(Shaped, Protocol):
    """The parts of a label volume that are needed here."""

    def read(self) -> Tensor:
        """All labels, `(*shape)`."""
        ...


class BalancedPositions:
    """Positions of labeled volumes, the same number of each class.

    A tumor is a few percent of the voxels, and a network trained on uniform positions learns to
    predict "none". Each label volume is read once, as a whole; up to `most` random positions of
    each class are kept.

    Args:
        volumes: V label volumes, of one shape and with one channel each.
        labels: As in `class_of`.
        most: Positions to keep per class and volume.
        generator: Generator of the positions.

    Attributes:
        counts: Voxels of each class in each volume, int64 `(V, C)`.

    Raises:
        ValueError: If shapes differ or a label is unknown.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> generator = torch.Generator().manual_seed(0)
        >>> seg = torch.zeros(8, 8, 8, dtype=torch.uint8)
        >>> seg[2:4, 3, 3] = 4
        >>> positions = BalancedPositions([ArrayVolume(seg)], generator=generator)
        >>> where, classes = positions.draw(torch.tensor([0]), 6, generator=generator)
        >>> where.shape, classes
        (torch.Size([1, 6, 3]), tensor([[0, 3, 0, 3, 0, 3]]))
    """

    def __init__(
        self,
        volumes: Sequence[Labels],
        *,
        labels: Sequence[int] = (0, 1, 2, 4),
        most: int = 2**16,
        generator: torch.Generator,
    ):
        check_positive("BalancedPositions", most=most)
        kinds = {(tuple(volume.shape), volume.channels) for volume in volumes}
        if len(kinds) != 1 or next(iter(kinds))[1] != 1:
            raise ValueError(
                "BalancedPositions needs one or more volumes of one shape with a single channel, "
                f"got {sorted(kinds) or 'none'}."
            )
        self.shape, self.labels = next(iter(kinds))[0], _checked(labels)
        kept, counts = [], []
        for volume in volumes:
            classes = class_of(volume.read().flatten(), labels=self.labels)
            for k in range(len(self.labels)):
                places = (classes == k).nonzero()[:, 0]
                counts.append(len(places))
                kept.append(_some(places.cpu(), most, generator))
        self.counts = torch.tensor(counts, device=_HOST).view(len(volumes), -1)
        n_kept = [len(places) for places in kept]
        self._kept = torch.tensor(n_kept, device=_HOST).view_as(self.counts)
        self._places = torch.cat(kept)
        self._first = self._kept.flatten().cumsum(0).view_as(self._kept) - self._kept

    def draw(self, rows: Tensor, n: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random positions of some volumes, alternately of each of their classes.

        A class that does not occur in a volume is skipped there.

        Args:
            rows: Indices of the volumes, int64 `(K,)`.
            n: Positions per volume.
            generator: Generator of the positions, drawn with replacement.

        Returns:
            Int64 positions `(K, n, D)` and their classes `(K, n)`, on the CPU.
        """
        rows = rows.cpu()
        kept = self._kept[rows]
        # Classes that occur come first, and alternate.
        present = (kept == 0).long().argsort(dim=1, stable=True)
        turn = torch.arange(n, device=_HOST) % (kept > 0).sum(1, keepdim=True)
        classes = present.gather(1, turn)
        options = {"generator": generator, "device": generator.device, "dtype": torch.float64}
        share = torch.rand(classes.shape, **options).cpu()
        place = (share * kept.gather(1, classes)).long() + self._first[rows].gather(1, classes)
        return _coords(self._places[place], self.shape), classes


def _some(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """All rows, or a random subset if there are more than `most`."""
    if len(rows) <= most:
        return rows
    order = torch.randperm(len(rows), generator=generator, device=generator.device)
    return rows[order[:most].to(rows.device)]


def _checked(labels: Sequence[int]) -> tuple[int, ...]:
    found = tuple(labels)
    if len(found) < 2 or list(found) != sorted(set(found)):
        raise ValueError(f"class_of needs two or more labels in rising order, got {found}.")
    return found


def _coords(places: Tensor, shape: Sequence[int]) -> Tensor:
    """Positions `(..., D)` of flat indices `(...)` into an array."""
    return torch.stack(torch.unravel_index(places, tuple(shape)), -1)
