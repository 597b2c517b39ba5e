"""What the processes of a run agree on; in one process all of it is free."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def place() -> tuple[int, int]:
    """Which of how many processes this is."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def summed(values: Iterable[float], device: torch.device | str = "cpu") -> list[float]:
    """Sums over all processes of a few numbers."""
    numbers = torch.tensor(list(values), dtype=torch.float64, device=device)
    if place()[1] > 1:
        dist.all_reduce(numbers)
    return numbers.tolist()


def anywhere(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether the flag is set in any process."""
    return summed([float(flag)], device)[0] > 0


def everyones(value: Any) -> list[Any]:
    """A small picklable value of every process, in their order."""
    size = place()[1]
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sums over all processes."""
    if place()[1] == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for dtype in sorted({g.dtype for g in gradients}, key=str):
        alike = [g for g in gradients if g.dtype == dtype]
        flat = torch.cat([g.flatten() for g in alike])
        dist.all_reduce(flat)
        parts = flat.split([g.numel() for g in alike])
        for gradient, part in zip(alike, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def copy_from_first(module: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first one."""
    if place()[1] == 1:
        return
    with torch.no_grad():
        tensor: Tensor
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, 0)
