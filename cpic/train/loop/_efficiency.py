"""The time of a training step and the peak memory, measured without changing the run."""

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from cpic._files import write_json
from cpic.train.results._results import peak_bytes


class Efficiency(pl.Callback):
    """Times the steps of one epoch, without its first and its last, and notes the peak memory.

    Writes `efficiency.json` after that epoch; training goes on.

    Args:
        folder: Folder of the file.
        epoch: Number of the epoch.
    """

    def __init__(self, folder: Path, epoch: int = 0):
        self.folder, self.epoch = folder, epoch
        self.times: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self._start = self._now(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop it."""
        if trainer.current_epoch == self.epoch:
            self.times.append(self._now(pl_module) - self._start)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the mean."""
        if trainer.current_epoch != self.epoch or not trainer.is_global_zero:
            return
        kept = self.times[1:-1]
        found = {
            "epoch": self.epoch,
            "steps": len(kept),
            "milliseconds": 1000 * sum(kept) / len(kept) if kept else None,
            "peak_gib": peak_bytes() / 2**30,
            "device": str(pl_module.device),
        }
        if pl_module.device.type == "cuda":
            found["allocator"] = torch.cuda.memory_summary(pl_module.device, abbreviated=True)
        write_json(self.folder / "efficiency.json", found)

    def _now(self, module: Any) -> float:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        return time.perf_counter()
