"""Batches of pictures, altered at random in training."""

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cpic._errors import ImageError
from cpic.images import Images
from cpic.train.loop._fold_data import Batch, FoldData
from cpic.train.loop._splits import Table

View = Callable[[Tensor], Tensor]


def as_float(image: Tensor) -> Tensor:
    """Pixels of uint8 as float32 in [0, 1]."""
    return image.float() / 255


class ImageData(FoldData):
    """Batches of pictures: `images` `(B, c, h, w)`, `target` `(B,)`, `scale` of ones, `names`.

    Random alterations depend only on the seed, the epoch and the picture, so that a resumed run
    sees the same ones.

    Args:
        train: Pictures to train on.
        validation: Pictures to validate with.
        selection: Pictures that choose the best epoch; None leaves that to the validation.
        batch_size: Pictures per batch, over all processes.
        augment: Converts a picture `(c, h, w)` of uint8 to what the network gets in training; may
            draw from the global generator of torch, as the transforms of torchvision do.
        view: The same in validation; may return several views, `(v, c, h, w)`.
        seed: Seed of the order and of the alterations.
        num_workers: Processes that prefetch batches.
        drop_last: Drop the last, incomplete batch of a training epoch.

    Raises:
        ImageError: If there are fewer pictures than a batch has, or a part is empty.

    Example:
        >>> from cpic import images
        >>> parts = [images.load("small-digits", train=train) for train in (True, False)]
        >>> data = ImageData(*parts, batch_size=32)
        >>> next(iter(data.train_dataloader()))["images"].shape
        torch.Size([32, 1, 8, 8])
    """

    def __init__(
        self,
        train: Images,
        validation: Images,
        *,
        selection: Images | None = None,
        batch_size: int,
        augment: View = as_float,
        view: View = as_float,
        seed: int = 42,
        num_workers: int = 0,
        drop_last: bool = True,
    ):
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, drop_last=drop_last
        )
        self.augment, self.view = augment, view
        self.parts = {"train": train, "validation": validation}
        if selection is not None:
            self.parts["selection"] = selection
        if empty := [name for name, images in self.parts.items() if not len(images)]:
            raise ImageError(f"training needs pictures in each part, got none to {empty[0]}.")
        if len(train) < batch_size and drop_last:
            raise ImageError(
                f"a batch of {batch_size} needs as many training pictures, got {len(train)}; lower "
                "the batch size."
            )
        tables = {name: _table(name, images) for name, images in self.parts.items()}
        self.train, self.validation = tables["train"], tables["validation"]
        self.selection = tables.get("selection")

    def loader(self, table: Table, plan: list[list[int]], *, epoch: int | None) -> "ImageLoader":
        """Batches of a part by the indices of their pictures; epoch None is validation."""
        part = table.patients[0].partition(" ")[0]
        return ImageLoader(
            self.parts[part],
            table,
            plan,
            self.view if epoch is None else self.augment,
            None if epoch is None else self.seed * 1_000_003 + epoch,
            self.num_workers,
        )


@dataclasses.dataclass(eq=False)
class ImageLoader(Dataset):
    """Batches by the indices of their pictures; workers start with the first batch."""

    images: Images
    table: Table
    plan: list[list[int]]
    view: View
    seed: int | None
    num_workers: int

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        yield from DataLoader(
            self,
            batch_size=None,
            sampler=self.plan,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )

    def __getitem__(self, indices: list[int]) -> Batch:
        with torch.random.fork_rng(()):
            if self.seed is not None:
                # Views draw from the global generator; a picture is once in an epoch.
                torch.manual_seed((self.seed * 1_000_003 + indices[0]) % 2**63)
            seen = torch.stack([self.view(image) for image in self.images.read(indices)])
        return {
            "images": seen,
            "names": [self.table.patients[k] for k in indices],
            "target": self.table.target[indices],
            "scale": self.table.scale[indices],
        }


def _table(part: str, images: Images) -> Table:
    """Pictures as samples; each one counts as a patient."""
    target = images.labels.double()
    names = [f"{part} {k}" for k in range(len(images))]
    return Table(names, target, torch.ones_like(target), None)
