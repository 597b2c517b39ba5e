"""Train one fold."""

import os
from typing import Any

import lightning.pytorch as pl

from cpic.train._batches import CohortData
from cpic.train._results import FoldResult


def fit_fold(
    module: pl.LightningModule,
    data: CohortData,
    *,
    folder: str | os.PathLike,
    num_epochs: int,
    fold: int = 0,
    resume: bool = False,
    ngpus: int = 0,
    num_nodes: int = 1,
    clip: float | None = 1.0,
    patience: int | None = None,
    max_minutes: float | None = None,
    max_faults: int = 3,
    save_every: int | None = None,
    precision: int = 32,
    progress: bool = False,
    wandb: bool = False,
    seed: int = 42,
    config: dict[str, Any] | None = None,
) -> FoldResult:
    """Train and validate on one fold."""
    raise NotImplementedError
