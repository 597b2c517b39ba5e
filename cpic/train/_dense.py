"""Networks over whole volumes behind the interface of C-PIC."""

from collections.abc import Sequence

from torch import Tensor, nn


class HistogramLinear(nn.Module):
    """A linear model on histograms."""

    def __init__(self, n_outputs: int = 1, *, in_channels: int = 1, n_bins: int = 32):
        super().__init__()
        raise NotImplementedError

    def forward(self, volumes: Tensor, *tabular: Tensor) -> Tensor:
        """Outputs."""
        raise NotImplementedError


def dense(module: nn.Module, shape: Sequence[int]) -> nn.Module:
    """Wrap a network `module(volumes (K, c, *shape), *tabular)`: the interface of C-PIC."""
    raise NotImplementedError
