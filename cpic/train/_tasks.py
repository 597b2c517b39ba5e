"""Losses and metrics of a task."""

from collections.abc import Sequence

import lightning.pytorch as pl
from torch import nn


class Regression(pl.LightningModule):
    """Mean squared error; RMSE over the fold in the unit of the scale."""

    def __init__(self, model: nn.Module, *, lr: float = 1e-3, output: int | None = None):
        super().__init__()
        raise NotImplementedError


class Quantiles(pl.LightningModule):
    """Pinball loss; mean Laplace log-likelihood over the fold."""

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float = 1e-3,
        quantiles: Sequence[float] = (0.2, 0.5, 0.8),
    ):
        super().__init__()
        raise NotImplementedError


class Classification(pl.LightningModule):
    """Cross-entropy; accuracy over the fold."""

    def __init__(self, model: nn.Module, *, lr: float = 1e-3):
        super().__init__()
        raise NotImplementedError
