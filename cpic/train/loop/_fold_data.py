"""Batches of one fold, in an order that depends only on the seed and the number of the epoch.

So a run can resume in the middle of an epoch, and needs no further state for it.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from cpic.train.loop._distributed import rank_and_size
from cpic.train.loop._plan import cut, plan_epoch, share_of
from cpic.train.loop._splits import Table

Batch = dict[str, Any]


class FoldData(pl.LightningDataModule):
    """Base class of the batches of a fold: what is trained on, validated with, and chosen by.

    A subclass sets the tables and defines `loader`.

    Attributes:
        train: Samples to train on.
        validation: Samples to validate with.
        selection: Samples that choose the best epoch; None leaves that to the validation.
        batch_size: Samples per batch, over all processes.
        min_patients: Distinct patients, or images, per training batch.
        seed: Seed of the order.
        num_workers: Processes that prefetch batches.
        drop_last: Whether the last, incomplete batch of a training epoch is dropped.
        start: Epoch and batch at which a resumed run starts.
    """

    train: Table
    validation: Table
    selection: Table | None = None

    def __init__(
        self,
        *,
        batch_size: int,
        min_patients: int = 1,
        seed: int = 42,
        num_workers: int = 0,
        drop_last: bool = True,
    ):
        super().__init__()
        self.batch_size, self.min_patients, self.seed = batch_size, min_patients, seed
        self.num_workers, self.drop_last = num_workers, drop_last
        # A few patients who choose the epoch may leave a process without any.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.start: tuple[int, int] = (0, 0)

    def loader(self, table: Table, plan: list[list[int]], *, epoch: int | None) -> Iterable[Batch]:
        """Batches of a table by the indices of their samples; epoch None is validation."""
        raise NotImplementedError

    @property
    def altered(self) -> str:
        """How training samples are altered, for the fingerprint."""
        return ""

    @property
    def tables(self) -> list[Table]:
        """Samples to train on, to validate with, and, if there are any, to choose the epoch by."""
        return [self.train, self.validation, *([self.selection] if self.selection else [])]

    @property
    def n_batches(self) -> int:
        """Number of batches in a training epoch."""
        n = len(self.train.target)
        return n // self.batch_size if self.drop_last else math.ceil(n / self.batch_size)

    @property
    def fingerprint(self) -> str:
        """A hash of the samples of the fold and their targets, for checkpoints."""
        digest = hashlib.sha256()
        for table in self.tables:
            digest.update("\n".join(table.patients).encode())
            digest.update(table.target.numpy().tobytes())
        digest.update(self.altered.encode())
        return digest.hexdigest()[:16]

    def train_dataloader(self) -> Iterable[Batch]:
        """Batches of the current epoch, without those that a resumed run has already processed."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        plan = plan_epoch(
            self.train.patients,
            batch_size=self.batch_size,
            min_patients=self.min_patients,
            drop_last=self.drop_last,
            seed=self.seed,
            epoch=epoch,
        )
        skip = self.start[1] if epoch == self.start[0] else 0
        patients = self.train.patients
        shares = [share_of(indices, patients, *rank_and_size()) for indices in plan[skip:]]
        return self.loader(self.train, shares, epoch=epoch)

    def val_dataloader(self) -> Iterable[Batch] | list[Iterable[Batch]]:
        """Batches of the validation fold, in order, each sample once; then of a selection."""
        rank, n_ranks = rank_and_size()
        size = max(1, self.batch_size // n_ranks)
        loaders = []
        for table in self.tables[1:]:
            everyone = range(len(table.target))
            share = share_of(everyone, table.patients, rank, n_ranks, may_be_empty=True)
            loaders.append(self.loader(table, cut(share, size, drop_last=False), epoch=None))
        return loaders if self.selection else loaders[0]

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move the tensors; leave everything else, such as volumes, where it is."""
        return {
            key: value.to(device) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
