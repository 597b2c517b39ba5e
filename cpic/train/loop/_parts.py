"""What batches of pictures and of bags share: parts by name, and loaders of planned batches."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cpic._errors import ImageError
from cpic.train.loop._fold_data import Batch, FoldData
from cpic.train.loop._splits import Table


class PartsData(FoldData):
    """Base class of batches whose parts are sets of samples; names of samples begin with theirs."""

    def set_parts(self, parts: dict[str, Any], table: Callable[..., Table], *, what: str) -> None:
        """Set parts and their tables.

        Args:
            parts: By the names train, validation and selection; the last may be None.
            table: Makes a table of the name of a part and its samples.
            what: What the samples are, for errors.

        Raises:
            ImageError: If a part is empty, or there are fewer samples than a batch has.
        """
        self.parts = {name: one for name, one in parts.items() if one is not None}
        if empty := [name for name, one in self.parts.items() if not len(one)]:
            raise ImageError(f"training needs {what} in each part, got none to {empty[0]}.")
        n = len(self.parts["train"])
        if n < self.batch_size and self.drop_last:
            raise ImageError(
                f"a batch of {self.batch_size} needs as many training {what}, got {n}; lower the "
                "batch size."
            )
        tables = {name: table(name, one) for name, one in self.parts.items()}
        self.train, self.validation = tables["train"], tables["validation"]
        self.selection = tables.get("selection")

    def part_of(self, table: Table) -> Any:
        """The samples of a table."""
        return self.parts[table.patients[0].partition(" ")[0]]

    def seed_of(self, epoch: int | None) -> int | None:
        """The seed of the alterations of an epoch; None in validation."""
        return None if epoch is None else self.seed * 1_000_003 + epoch


@dataclasses.dataclass(eq=False, kw_only=True)
class Planned(Dataset):
    """Batches by the indices of their samples; workers start with the first batch."""

    table: Table
    plan: list[list[int]]
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

    def rows(self, indices: list[int]) -> Batch:
        """What the table says of samples."""
        return {
            "names": [self.table.patients[k] for k in indices],
            "target": self.table.target[indices],
            "scale": self.table.scale[indices],
        }

    def seed_at(self, k: int) -> int:
        """The seed of the alterations of a sample, or of the batch that begins with it."""
        return ((self.seed or 0) * 1_000_003 + k) % 2**63
