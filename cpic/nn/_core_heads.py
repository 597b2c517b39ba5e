r"""Networks that read or write the cores of trains directly.

The cores of a train are not unique: G_k A and A^{-1} G_{k+1} give the same tensor. `CoreHead`
therefore reads them through inner products with learned trains, which depend only on the tensor.

Shapes: `K` trains, `o` outputs, `l`, `r` ranks of a site of size `n`.
References: {cite}`usvyatsov2021cherry`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpic.nn._checks import check_positive
from cpic.nn.baselines._downsample import DownsampleCNN
from cpic.tt import TensorTrain, cap_ranks


class CoreHead(nn.Module):
    r"""A linear layer on whole tensors: y_o = <W_o, T> + b_o, with all W_o and T as trains.

    A classifier or regressor without projection: its directions are learned, instead of those of
    largest variance over the samples. Costs O(d n r^3) and never forms a whole tensor.
    Differentiable in the cores of the trains and in the learned ones.

    Args:
        sizes: Sizes of the sites of the trains.
        n_outputs: Number of classes, or of values to predict.
        rank: Rank of the learned trains.
        precision: Dtype of the parameters; the sums have that of the trains.

    Raises:
        ValueError: If a size is below 1, and, when called, if the trains have other sizes.

    Example:
        >>> from cpic.tt import tt_svd
        >>> head = CoreHead((4, 4, 4), 3, rank=2)
        >>> head(tt_svd(torch.rand(5, 4, 4, 4))).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        n_outputs: int,
        *,
        rank: int = 10,
        precision: torch.dtype = torch.float32,
    ):
        super().__init__()
        check_positive("CoreHead", n_outputs=n_outputs, rank=rank)
        self.sizes = tuple(sizes)
        ranks = cap_ranks(self.sizes, rank)
        # Tensors W of expected norm 1 initially: the outputs are as large as typical entries.
        self.cores = nn.ParameterList(
            nn.Parameter(
                torch.randn(n_outputs, left, n, right, dtype=precision) / (n * left) ** 0.5
            )
            for left, n, right in zip(ranks[:-1], self.sizes, ranks[1:], strict=True)
        )
        self.bias = nn.Parameter(torch.zeros(n_outputs, dtype=precision))

    def forward(self, trains: TensorTrain) -> Tensor:
        """Outputs `(K, n_outputs)` for K trains, in their dtype."""
        if trains.sizes != self.sizes:
            raise ValueError(
                f"CoreHead needs trains with sizes {self.sizes}, got {trains.sizes}; make a head "
                "for the sizes of the bottleneck."
            )
        outputs = len(self.bias)
        running = trains.cores[0].new_ones(trains.n_trains, outputs, 1, 1)
        for core, learned in zip(trains.cores, self.cores, strict=True):
            half = torch.einsum("kolm,klnr->komnr", running, core)
            running = torch.einsum("komnr,omns->kors", half, learned.to(core.dtype))
        return running.flatten(1) + self.bias.to(running.dtype)


class CorePredictor(nn.Module):
    """A convolutional network that predicts all cores of a train from a volume.

    It replaces cross-approximation and reads every voxel, so it shows the value of selecting
    entries. Differentiable in the volumes and the parameters.

    Args:
        sizes: Sizes of the sites of the trains.
        rank: Rank of the trains.
        in_channels: Contrasts of the volumes.
        n_axes: 3 for volumes, 2 for images.
        widths: Channels of the layers, as in `DownsampleCNN`.

    Raises:
        ValueError: If a size is below 1, and, when called, if the volumes have another shape.

    Example:
        >>> CorePredictor((4, 4, 4), 2)(torch.rand(3, 1, 16, 16, 16)).ranks
        (1, 2, 2, 1)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        rank: int = 10,
        *,
        in_channels: int = 1,
        n_axes: int = 3,
        widths: Sequence[int] = (8, 16, 32, 64),
    ):
        super().__init__()
        check_positive("CorePredictor", rank=rank)
        ranks = cap_ranks(tuple(sizes), rank)
        self._shapes = list(zip(ranks[:-1], sizes, ranks[1:], strict=True))
        total = sum(math.prod(shape) for shape in self._shapes)
        self.layers = DownsampleCNN(
            total, in_channels=in_channels, n_axes=n_axes, widths=widths, hidden=widths[-1]
        )
        # Without it all cores would start near zero, and their product would vanish.
        self.start = nn.Parameter(torch.randn(total))

    def forward(self, volumes: Tensor) -> TensorTrain:
        """Trains for volumes `(K, c, *shape)`."""
        flat = self.layers(volumes) + self.start
        parts = flat.split([math.prod(shape) for shape in self._shapes], 1)
        pairs = zip(parts, self._shapes, strict=True)
        return TensorTrain([part.unflatten(1, shape) / shape[0] ** 0.5 for part, shape in pairs])
