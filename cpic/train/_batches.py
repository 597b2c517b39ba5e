"""Batches of a fold."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from torch import Tensor

if TYPE_CHECKING:
    from pandas import DataFrame


class CohortData(pl.LightningDataModule):
    """Batches of one fold of a cohort."""

    def __init__(
        self,
        prepared: Any,
        samples: "DataFrame",
        *,
        fold: tuple[Sequence[str], Sequence[str]],
        batch_size: int,
        tabular: "Callable[[DataFrame], Tensor] | None" = None,
        scale: str | float = 1.0,
        min_patients: int = 1,
        seed: int = 42,
        num_workers: int = 0,
        drop_last: bool = True,
        read: bool = False,
    ):
        super().__init__()
        raise NotImplementedError
