"""Batches of pictures, altered at random in training."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from cpic.images import Images
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._parts import PartsData, Planned
from cpic.train.loop._splits import Table

View = Callable[[Tensor], Tensor]


def as_float(image: Tensor) -> Tensor:
    """Pixels of uint8 as float32 in [0, 1]."""
    return image.float() / 255


class ImageData(PartsData):
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
        self.set_parts(
            {"train": train, "validation": validation, "selection": selection},
            _table,
            what="pictures",
        )

    def loader(self, table: Table, plan: list[list[int]], *, epoch: int | None) -> "ImageLoader":
        """Batches of a part by the indices of their pictures; epoch None is validation."""
        return ImageLoader(
            table=table,
            plan=plan,
            seed=self.seed_of(epoch),
            num_workers=self.num_workers,
            images=self.part_of(table),
            view=self.view if epoch is None else self.augment,
        )


@dataclasses.dataclass(eq=False, kw_only=True)
class ImageLoader(Planned):
    """Batches by the indices of their pictures."""

    images: Images
    view: View

    def __getitem__(self, indices: list[int]) -> Batch:
        with torch.random.fork_rng(()):
            if self.seed is not None:
                # Views draw from the global generator; a picture is once in an epoch.
                torch.manual_seed(self.seed_at(indices[0]))
            seen = torch.stack([self.view(image) for image in self.images.read(indices)])
        return {
            "images": seen,
            **self.rows(indices),
        }


def _table(part: str, images: Images) -> Table:
    """Pictures as samples; each one counts as a patient."""
    target = images.labels.double()
    names = [f"{part} {k}" for k in range(len(images))]
    return Table(names, target, torch.ones_like(target), None)
