"""What the processes of a run agree on; in one process all of it is free."""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

# What torchrun, and Lightning where it starts processes itself, tell each of them.
_TOLD = {"LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def launched(num_nodes: int = 1) -> tuple[int, int]:
    """Which of how many processes this is, before they have met: what the launcher told it.

    Raises:
        ValueError: If that is half of it or nonsense, or nothing where there are more machines.
    """
    told = {name: os.environ[name] for name in ("RANK", *_TOLD) if os.environ.get(name)}
    found = " ".join(f"{name}={value}" for name, value in sorted(told.items())) or "none of it"
    if not all(_counts(value) for name, value in told.items() if name != "MASTER_ADDR"):
        raise ValueError(f"what a launcher sets is numbers, got {found}; start by torchrun.")
    rank, size = int(told.get("RANK", told.get("LOCAL_RANK", 0))), int(told.get("WORLD_SIZE", 1))
    several = max(size, num_nodes, rank + 1) > 1
    # Lightning takes the number back when a fold is over.
    needed = _TOLD - ({"WORLD_SIZE"} if os.environ.get("NODE_RANK") else set())
    if several and (not told.keys() >= needed or 1 < size <= rank):
        raise ValueError(
            f"a run in several processes needs what torchrun sets, got {found}; start by torchrun, "
            "or leave it to one process on one machine."
        )
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if not several and _counts(tasks) and int(tasks) > 1:
        # Only srun sets it: each task would be a run of its own, in one folder.
        raise ValueError(
            f"srun started {tasks} processes that do not know of each other; start one on each "
            "machine (srun --ntasks-per-node=1 torchrun ...), or leave srun out."
        )
    return rank, size


def is_first() -> bool:
    """Whether this is the process that speaks and writes."""
    return launched()[0] == 0


def _counts(text: str) -> bool:
    return text.isascii() and text.isdigit()


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
