"""Batches of bags of patches, read in advance or when a model requests them."""

import dataclasses
from typing import Any, Protocol

import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.nn.ips import Bag, Target
from cpic.train.loop._fold_data import Batch
from cpic.train.loop._parts import PartsData, Planned
from cpic.train.loop._splits import Table


class LabeledBags(Protocol):
    """Images as bags of patches, with the labels of several tasks.

    Attributes:
        targets: The tasks.
        labels: By task, `(n,)`, or `(n, n_classes)` if several may be right.
    """

    targets: tuple[Target, ...]
    labels: dict[str, Tensor]

    def __len__(self) -> int:
        """Number of images."""
        ...

    def bag(self, k: int, generator: torch.Generator | None) -> Bag | Tensor:
        """The patches of an image, altered at random if there is a generator."""
        ...

    def view(self, k: int) -> Tensor | None:
        """A small view of the image, for models that look at one."""
        ...


class BagData(PartsData):
    """Batches of images: `bags`, `views` `(B, c, h, w)` or None, `target` `(B, K)`, `names`.

    The columns of `target` are the labels of all tasks, see `columns`.

    Args:
        train: Images to train on.
        validation: Images to validate with.
        selection: Images that choose the best epoch; None leaves that to the validation.
        batch_size: Images per batch, over all processes.
        eager: Read all patches of a batch in advance, by the workers. Otherwise they are read when
            a model requests them, and only those.
        stack: With `eager`, make one tensor of bags of one size, which goes to the device as a
            whole. Otherwise a model moves patches when it encodes them.
        seed: Seed of the order and of the alterations.
        num_workers: Processes that read in advance.
        drop_last: Drop the last, incomplete batch of a training epoch.

    Raises:
        ImageError: If there are fewer images than a batch has, a part is empty, or a label is not
            valid.

    Example:
        >>> class Slides:
        ...     targets = (Target("tumor", kind="sigmoid"),)
        ...     labels = {"tumor": torch.tensor([0, 1])}
        ...     features = [torch.zeros(5, 8), torch.ones(9, 8)]
        ...     def __len__(self):
        ...         return 2
        ...     def bag(self, k, generator):
        ...         return self.features[k]
        ...     def view(self, k):
        ...         return None
        >>> data = BagData(Slides(), Slides(), batch_size=2)
        >>> batch = next(iter(data.loader(data.train, [[1, 0]], epoch=0)))
        >>> [len(bag) for bag in batch["bags"]], batch["target"].tolist()
        ([9, 5], [[1.0], [0.0]])
    """

    def __init__(
        self,
        train: LabeledBags,
        validation: LabeledBags,
        *,
        selection: LabeledBags | None = None,
        batch_size: int,
        eager: bool = False,
        stack: bool = True,
        seed: int = 42,
        num_workers: int = 0,
        drop_last: bool = True,
    ):
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, drop_last=drop_last
        )
        self.eager, self.stack = eager, stack
        self.set_parts(
            {"train": train, "validation": validation, "selection": selection},
            _table,
            what="images",
        )

    def loader(self, table: Table, plan: list[list[int]], *, epoch: int | None) -> "BagLoader":
        """Batches of a part by the indices of their images; epoch None is validation."""
        return BagLoader(
            table=table,
            plan=plan,
            seed=self.seed_of(epoch),
            num_workers=self.num_workers if self.eager else 0,
            bags=self.part_of(table),
            eager=self.eager,
            stack=self.stack,
        )


@dataclasses.dataclass(eq=False, kw_only=True)
class BagLoader(Planned):
    """Batches by the indices of their images."""

    bags: LabeledBags
    eager: bool
    stack: bool

    def __getitem__(self, indices: list[int]) -> Batch:
        bags: Any = [self.bags.bag(k, self._source(k)) for k in indices]
        if self.eager:
            bags = [
                bag if isinstance(bag, Tensor) else bag.read(torch.arange(len(bag))) for bag in bags
            ]
            if self.stack and len({tuple(bag.shape) for bag in bags}) == 1:
                bags = torch.stack(bags)
        views = [self.bags.view(k) for k in indices]
        return {
            "bags": bags,
            "views": None if views[0] is None else torch.stack(views),  # type: ignore[arg-type]
            **self.rows(indices),
        }

    def _source(self, k: int) -> torch.Generator | None:
        """What an image is altered by, which does not depend on its batch."""
        if self.seed is None:
            return None
        return torch.Generator().manual_seed(self.seed_at(k))


def columns(targets: tuple[Target, ...], table: Tensor) -> dict[str, Tensor]:
    """Labels by task of rows `(n, K)` of `target`: int64 `(n,)`, or `(n, n_classes)`."""
    found, start = {}, 0
    for target in targets:
        width = target.n_classes if target.kind == "multilabel" else 1
        part = table[:, start : start + width].long()
        found[target.name] = part if target.kind == "multilabel" else part[:, 0]
        start += width
    return found


def _table(part: str, bags: LabeledBags) -> Table:
    """Images as samples; each one counts as a patient."""
    lines = []
    for target in bags.targets:
        labels = bags.labels[target.name]
        try:
            target.check(labels)
        except ValueError as error:
            raise ImageError(f"{part}: {error}") from error
        lines.append(labels.double().view(len(labels), -1))
    rows = torch.cat(lines, 1)
    names = [f"{part} {k}" for k in range(len(rows))]
    return Table(names, rows, torch.ones(len(rows), dtype=torch.float64), None)
