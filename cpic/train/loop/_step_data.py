"""Batches of pictures counted in steps: an epoch is what lies between two evaluations."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.images import Images
from cpic.train.loop._distributed import rank_and_size
from cpic.train.loop._image_data import ImageData, ImageLoader


class StepData(ImageData):
    """Batches from a stream of passes over the pictures, each in an order of its own.

    The order depends only on the seed, and the place in it only on the number of the step: a
    checkpoint stores neither. Batches may cross the end of a pass. Pixels stay uint8; what is done
    with them is up to the task, for all pictures of a batch at once.

    Args:
        train: Pictures to train on.
        validation: Pictures to validate with.
        num_steps: Steps in all.
        steps_per_epoch: Steps between evaluations; the last epoch may be shorter.
        **options: As of `ImageData`.

    Raises:
        ImageError: If a part is empty.
    """

    def __init__(
        self,
        train: Images,
        validation: Images,
        *,
        num_steps: int,
        steps_per_epoch: int,
        **options: Any,
    ):
        super().__init__(
            train, validation, augment=_unchanged, view=_unchanged, drop_last=False, **options
        )
        self.num_steps, self.steps_per_epoch = num_steps, min(steps_per_epoch, num_steps)

    @property
    def num_epochs(self) -> int:
        """Evaluations in all."""
        return -(-self.num_steps // self.steps_per_epoch)

    @property
    def n_batches(self) -> int:
        """Steps of the current epoch."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return min(self.steps_per_epoch, self.num_steps - epoch * self.steps_per_epoch)

    def train_dataloader(self) -> ImageLoader:
        """Batches of the current epoch, without those that a resumed run has already processed."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        skip = self.start[1] if epoch == self.start[0] else 0
        plan: Any = _Stream(
            n=len(self.train.target),
            size=self.batch_size,
            seed=self.seed,
            first=epoch * self.steps_per_epoch + skip,
            steps=self.n_batches - skip,
        )
        return self.loader(self.train, plan, epoch=None)


class _Stream(Sequence):
    """Indices of the pictures of each step; none is stored but the current passes."""

    def __init__(self, *, n: int, size: int, seed: int, first: int, steps: int):
        self.n, self.size, self.seed, self.first, self.steps = n, size, seed, first, steps
        self.part = rank_and_size()

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, k: Any) -> list[int]:
        if not 0 <= k < self.steps:
            raise IndexError(k)
        begin = (self.first + k) * self.size
        passes = range(begin // self.n, (begin + self.size - 1) // self.n + 1)
        order = torch.cat([_order(self.n, self.seed, one) for one in passes])
        start = begin - passes[0] * self.n
        rank, n_ranks = self.part
        return order[start : start + self.size][rank::n_ranks].tolist()


@functools.lru_cache(maxsize=4)
def _order(n: int, seed: int, number: int) -> Tensor:
    """The order of one pass over the pictures."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)
    return torch.randperm(n, generator=generator)


def _unchanged(pixels: Tensor) -> Tensor:
    return pixels
