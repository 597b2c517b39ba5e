"""A run of BYOL on patches of many slides, continued after its last epoch."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from cpic._errors import ImageError
from cpic.images import PatchSource
from cpic.train.loop._checkpoints import read_checkpoint, write_checkpoint
from cpic.train.loop._distributed import rank_and_size
from cpic.train.loop._globals import quiet
from cpic.train.loop._resuming import check_same
from cpic.train.pretrain._byol import BYOL
from cpic.train.results._results import write_rows


class _Order(Sampler):
    """Indices of the patches of each batch, in an order that depends on seed and epoch only."""

    def __init__(self, total: int, n: int, batch_size: int, seed: int) -> None:
        self.total, self.n, self.batch_size, self.seed = total, n, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        # With fewer patches than an epoch asks for, all of them come once before any comes again.
        n_rounds = -(-self.n // self.total)
        rounds = [torch.randperm(self.total, generator=generator) for _ in range(n_rounds)]
        order = torch.cat(rounds)[: len(self) * self.batch_size].reshape(len(self), -1)
        rank, size = rank_and_size()
        share = self.batch_size // size
        yield from order[:, rank * share : (rank + 1) * share]


class _Patches(Dataset):
    """Patches of all slides, read a batch at a time."""

    def __init__(self, sources: Sequence[PatchSource]) -> None:
        self.sources = sources
        self.starts = torch.tensor([0, *(len(source) for source in sources)]).cumsum(0)

    def __getitem__(self, batch: Tensor) -> Tensor:
        owner = torch.searchsorted(self.starts, batch, right=True) - 1
        parts = [
            self.sources[k].read(batch[owner == k] - self.starts[k])[:, :3]
            for k in owner.unique().tolist()
        ]
        return torch.cat(parts)


class _Saving(pl.Callback):
    """Saves the state after every epoch; Lightning's own files would hold more than tensors."""

    def __init__(self, path: Path, config: dict[str, Any], steps: int) -> None:
        self.path, self.config, self.steps = path, config, steps
        self.state = read_checkpoint(path) if path.exists() else None
        if self.state is not None:
            check_same(self.state["config"], config, path)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.state["history"]) if self.state else 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        current: Any = trainer.fit_loop.epoch_progress.current
        current.ready = current.started = current.processed = current.completed = self.epoch
        if self.state is not None:
            pl_module.load_state_dict(self.state["model"])
            trainer.optimizers[0].load_state_dict(self.state["optimizer"])
            pl_module.step, pl_module.history = self.state["step"], [*self.state["history"]]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        row = {"epoch": trainer.current_epoch, "step": pl_module.step}
        row["loss"] = float(pl_module.total) / self.steps
        if not math.isfinite(row["loss"]):
            raise RuntimeError(
                f"the loss of epoch {row['epoch']} is {row['loss']}; lower the rate. The state of "
                f"the epoch before is in {self.path}."
            )
        pl_module.total = torch.zeros(())
        pl_module.history.append(row)
        state = {
            "config": self.config,
            "model": pl_module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "step": pl_module.step,
            "history": pl_module.history,
        }
        if trainer.is_global_zero:
            write_checkpoint(self.path, state)
            write_rows(self.path.with_name("metrics.csv"), pl_module.history)


def pretrain(
    sources: Sequence[PatchSource],
    encoder: nn.Module,
    width: int,
    *,
    folder: str | os.PathLike,
    num_epochs: int = 1000,
    batch_size: int = 64,
    num_examples: int | None = None,
    warmup_epochs: int = 10,
    ngpus: int = 0,
    workers: int = 0,
    seed: int = 0,
    **options: Any,
) -> BYOL:
    """Learn an encoder of patches without labels; a killed run continues after its last epoch.

    Writes `latest.ckpt` and `metrics.csv` after every epoch. The result of a run that was killed
    and continued is that of an uninterrupted one.

    Args:
        sources: Patches of all slides, with at least three channels.
        encoder: Maps (n, 3, h, w) to features (n, `width`); trained in place.
        width: Values per patch.
        folder: Folder of the run; continued if it holds one with the same settings.
        num_epochs: Total number of epochs.
        batch_size: Patches per step, over all processes.
        num_examples: Patches per epoch; None is all.
        warmup_epochs: Epochs of the linear rise of the rate.
        ngpus: GPUs of this machine; 0 is the CPU. Statistics of batch normalization are shared.
        workers: Processes that read patches.
        seed: Seed of order and views; that of the weights is the caller's.
        **options: Further options of `BYOL`.

    Returns:
        The model; its `encoder` is what is used afterwards, and `history` has a row per epoch.

    Raises:
        ImageError: If there are too few patches for a batch.
        RuntimeError: If the loss is not finite.
        ValueError: If the folder holds a run with other settings.

    References: {cite}`grill2020bootstrap`.

    Example:
        >>> model = pretrain(sources, resnet, 2048, folder="results/byol")  # doctest: +SKIP
    """
    total = sum(map(len, sources))
    n = num_examples or total
    if n < batch_size or not total or batch_size < 2:
        raise ImageError(f"pretrain needs at least one batch of {batch_size} patches, got {n}.")
    order, folder = _Order(total, n, batch_size, seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps = len(order)
    model = BYOL(
        encoder,
        width,
        n_steps=num_epochs * steps,
        warmup=min(warmup_epochs * steps, num_epochs * steps - 1),
        batch_size=batch_size,
        seed=seed,
        **options,
    )
    config = {"num_epochs": num_epochs, "batch_size": batch_size, "num_examples": n, "seed": seed}
    config |= {"warmup_epochs": warmup_epochs, "patches": total, "width": width}
    saving = _Saving(folder / "latest.ckpt", {**config, **options}, steps)
    with quiet():
        trainer = pl.Trainer(
            accelerator="gpu" if ngpus else "cpu",
            devices=max(1, ngpus),
            sync_batchnorm=ngpus > 1,
            precision="16-mixed" if ngpus else "32-true",
            max_epochs=num_epochs,
            callbacks=[saving],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
        loader = DataLoader(_Patches(sources), sampler=order, batch_size=None, num_workers=workers)
        if saving.epoch < num_epochs:
            trainer.fit(model, loader)
        else:
            model.load_state_dict(saving.state["model"])  # type: ignore[index]
            model.history = [*saving.state["history"]]  # type: ignore[index]
    return model
