r"""Gather the trains of all processes, with gradients.

Every process has some of the samples; the components are those of all. So each process gathers all
trains, and then computes the same basis. In the backward pass the gradients of all processes with
respect to one sample are summed on its process: the gradient of the sum of all losses.

Shapes: `K` trains of this process, cores `(K, l, size, r)`; `P` processes.
References: {cite}`usvyatsov2021cherry`.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from cpic.tt import TensorTrain
from cpic.tt._arith import padded


def gather(trains: TensorTrain, *, group: Any = None) -> TensorTrain:
    """The trains of all processes, in the order of the processes; differentiable in the local ones.

    A collective: all processes of the group must call it, and all or none run the backward
    pass, with gradients enabled in all or none. With a loss of the local samples in each process
    the gradients are those of the sum of the losses; with the same loss of all samples in each
    they are P times its gradient, which is compensated by averaging over processes, as in
    `DistributedDataParallel`.

    Processes may have different numbers of trains, including none, and different ranks, which are
    padded with zeros.

    Args:
        trains: The trains of this process.
        group: A process group, by default all processes.

    Returns:
        All trains, on the device of the local ones; `trains` itself if `torch.distributed` is not
        initialized.

    Raises:
        TypeError: If the dtypes differ between processes.
        ValueError: If the sizes differ between processes; raised in all processes.

    Example:
        >>> train = TensorTrain([torch.ones(3, 1, 4, 1)])
        >>> gather(train) is train  # one process
        True
    """
    if not (dist.is_available() and dist.is_initialized()):
        return trains
    counts, ranks = _agreed(trains, group)
    most = max(counts)
    shapes = [(most, a, n, b) for a, n, b in zip(ranks, trains.sizes, ranks[1:], strict=False)]
    filled = [padded(core, shape) for core, shape in zip(trains.cores, shapes, strict=True)]
    everything = _Gather.apply(torch.cat([core.flatten() for core in filled]), group)
    parts = everything.split([core.numel() for core in filled], 1)
    cores = []
    for part, shape in zip(parts, shapes, strict=True):
        whole = part.reshape(len(counts), *shape)
        cores.append(torch.cat([whole[p, :count] for p, count in enumerate(counts)]))
    return TensorTrain(cores)


def _agreed(trains: TensorTrain, group: Any) -> tuple[list[int], list[int]]:
    """Numbers of trains of all processes, and their common ranks; raises in all or none."""
    found: list[Any] = [None] * dist.get_world_size(group)
    mine = (trains.sizes, str(trains.dtype), trains.n_trains, trains.ranks)
    dist.all_gather_object(found, mine, group=group)
    sizes, dtypes, counts, ranks = map(list, zip(*found, strict=True))
    if len(set(sizes)) > 1:
        raise ValueError(
            f"gather needs trains of the same sizes in all processes, got {sizes}; resample the "
            "volumes to one grid first."
        )
    if len(set(dtypes)) > 1:
        raise TypeError(
            f"gather needs trains of one dtype in all processes, got {dtypes}; cast them with "
            "`trains.to(dtype)`."
        )
    return counts, [max(bond) for bond in zip(*ranks, strict=True)]


class _Gather(torch.autograd.Function):
    """Vectors of all processes as rows; the backward pass sums the gradients of the local one."""

    @staticmethod
    def forward(own: Tensor, group: Any) -> Tensor:
        rows = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
        dist.all_gather(rows, own.contiguous(), group=group)
        return torch.stack(rows)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.group = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[dist.get_rank(ctx.group)], None
