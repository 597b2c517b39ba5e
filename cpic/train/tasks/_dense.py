"""Networks over whole volumes with the interface of C-PIC."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpic.data import Volume
from cpic.nn.baselines import ResNet, histogram_features


class Dense(nn.Module):
    """A network over whole volumes; created by `dense`.

    Args:
        module: Maps volumes `(K, c, *shape)`, and tabular features if there are any.
        shape: Sizes of its input; volumes are cropped or zero-padded at their far ends.
    """

    def __init__(self, module: nn.Module, shape: Sequence[int]):
        super().__init__()
        self.module, self.shape = module, tuple(shape)

    def forward(
        self,
        volumes: Sequence[Volume],
        names: Sequence[str],
        *,
        rows: Tensor | None = None,
        tabular: Tensor | None = None,
    ) -> Tensor:
        """Predictions for B samples of K volumes; each volume is read and processed once."""
        like = next(self.module.parameters())
        whole = torch.stack([read_dense(volume, self.shape, like) for volume in volumes])
        if tabular is None:
            out = self.module(whole)
            return out if rows is None else out[rows]
        if isinstance(self.module, ResNet | HistogramLinear):
            features = self.module.body(whole)
            return self.module.head(features if rows is None else features[rows], tabular)
        return self.module(whole if rows is None else whole[rows], tabular)


class HistogramLinear(nn.Module):
    """A linear model of the gray-value histogram, a minimal baseline for any network.

    The shares are multiplied by the number of bins, so that they are about 1.

    Args:
        n_outputs: Outputs per sample.
        in_channels: Contrasts of the volumes.
        n_bins: Bins per contrast.
        n_tabular: Number of tabular features, which are appended.

    Example:
        >>> HistogramLinear(3, n_bins=8)(torch.rand(2, 1, 4, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        n_outputs: int = 1,
        *,
        in_channels: int = 1,
        n_bins: int = 32,
        n_tabular: int = 0,
    ):
        super().__init__()
        self.n_bins = n_bins
        self.linear = nn.Linear(in_channels * n_bins + n_tabular, n_outputs)

    def forward(self, volumes: Tensor, *tabular: Tensor) -> Tensor:
        """Outputs `(K, n_outputs)` for volumes `(K, c, ...)` and tabular features `(K, t)`."""
        return self.head(self.body(volumes), *tabular)

    def body(self, volumes: Tensor) -> Tensor:
        """Shares of the bins `(K, c * n_bins)`, times the number of bins."""
        return self.n_bins * histogram_features(volumes, n_bins=self.n_bins)

    def head(self, features: Tensor, *tabular: Tensor) -> Tensor:
        """Outputs for shares and tabular features."""
        return self.linear(torch.cat([features, *tabular], 1))


def dense(module: nn.Module, shape: Sequence[int]) -> Dense:
    """Wrap a network over whole volumes in the interface of C-PIC.

    The result is called as `model(volumes, names, rows=rows, tabular=tabular)`, like
    `cpic.nn.CPIC`; it reads the volumes and evaluates the network once per volume, however many
    samples it has.

    Args:
        module: Maps volumes `(K, c, *shape)`, and tabular features `(K, t)` if there are any:
            `cpic.nn.baselines.resnet34`, `DownsampleCNN`, `HistogramLinear`, or any other.
        shape: Sizes of its input; volumes are cropped or zero-padded at their far ends.

    Returns:
        A module with the parameters of `module`.

    Raises:
        ValueError: When called, if a volume has another number of axes.

    Example:
        >>> from cpic.data import ArrayVolume
        >>> model = dense(HistogramLinear(1), (4, 4, 4))
        >>> volume = ArrayVolume(torch.rand(4, 4, 4))
        >>> model([volume], ["a"], rows=torch.tensor([0, 0])).shape
        torch.Size([2, 1])
    """
    return Dense(module, shape)


def read_dense(volume: Volume, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Read a whole volume `(c, *shape)`, with the dtype and device of `like`."""
    if len(volume.shape) != len(shape):
        raise ValueError(
            f"a dense network for shape {shape} needs volumes with {len(shape)} axes, got "
            f"{tuple(volume.shape)}; prepare the cohort on this grid."
        )
    values = volume.read().to(like.device, like.dtype)
    values = values[None] if volume.channels == 1 else values.movedim(-1, 0)
    if values.shape[1:] == shape:
        return values
    values = values[(slice(None), *(slice(0, size) for size in shape))]
    missing = [size - have for size, have in zip(shape, values.shape[1:], strict=True)]
    return F.pad(values, [end for gap in reversed(missing) for end in (0, gap)])
