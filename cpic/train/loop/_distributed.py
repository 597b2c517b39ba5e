"""Communication between the ranks of a run; free of cost in a single process."""

import os
from collections.abc import Iterable
from itertools import chain

import torch
import torch.distributed as dist
from torch import nn

# Set by torchrun, and by Lightning where it starts processes itself.
_TOLD = {"LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def launched(num_nodes: int = 1) -> tuple[int, int]:
    """Rank and world size as set by the launcher, before the ranks are connected.

    Raises:
        ValueError: If the variables are incomplete or invalid, or missing on several machines.
    """
    told = {name: os.environ[name] for name in ("RANK", *_TOLD) if os.environ.get(name)}
    found = " ".join(f"{name}={value}" for name, value in sorted(told.items())) or "none of it"
    if not all(_is_count(value) for name, value in told.items() if name != "MASTER_ADDR"):
        raise ValueError(f"what a launcher sets is numbers, got {found}; start by torchrun.")
    rank, size = int(told.get("RANK", told.get("LOCAL_RANK", 0))), int(told.get("WORLD_SIZE", 1))
    several = max(size, num_nodes, rank + 1) > 1
    # Lightning unsets the number when a fold is done.
    needed = _TOLD - ({"WORLD_SIZE"} if os.environ.get("NODE_RANK") else set())
    if several and (not told.keys() >= needed or 1 < size <= rank):
        raise ValueError(
            f"a run in several processes needs what torchrun sets, got {found}; start by torchrun, "
            "or leave it to one process on one machine."
        )
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if not several and _is_count(tasks) and int(tasks) > 1:
        # Only srun sets it: each task would be a separate run, in the same folder.
        raise ValueError(
            f"srun started {tasks} processes that do not know of each other; start one on each "
            "machine (srun --ntasks-per-node=1 torchrun ...), or leave srun out."
        )
    return rank, size


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return launched()[0] == 0


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit()


def rank_and_size() -> tuple[int, int]:
    """Rank and world size of this process, once the ranks are connected."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def summed(values: Iterable[float], device: torch.device | str = "cpu") -> list[float]:
    """Sum a few numbers over all ranks."""
    numbers = torch.tensor(list(values), dtype=torch.float64, device=device)
    if rank_and_size()[1] > 1:
        dist.all_reduce(numbers)
    return numbers.tolist()


def anywhere(*flags: bool, device: torch.device | str = "cpu") -> list[bool]:
    """Whether each flag is set on any rank."""
    return [number > 0 for number in summed(flags, device)]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sums over all ranks."""
    if rank_and_size()[1] == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    # One collective a type, since each waits for all ranks.
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.flatten() for gradient in alike])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in alike])
        for gradient, part in zip(alike, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def copy_from_first(module: nn.Module) -> None:
    """Copy the parameters and buffers of the first rank to all ranks."""
    if rank_and_size()[1] == 1:
        return
    for tensor in chain(module.parameters(), module.buffers()):
        dist.broadcast(tensor, 0)
