"""Bootstrap your own latent: two networks that predict each other's view of a patch."""

import copy
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from cpic._errors import ImageError
from cpic.images import PatchSource
from cpic.train.loop._checkpoints import read_checkpoint, write_checkpoint
from cpic.train.loop._distributed import rank_and_size
from cpic.train.loop._globals import quiet
from cpic.train.loop._resuming import check_same
from cpic.train.pretrain._lars import LARS
from cpic.train.pretrain._views import random_views
from cpic.train.results._results import write_rows


class BYOL(pl.LightningModule):
    r"""An encoder with a projector and a predictor, and a target that follows it slowly.

    The loss of a batch is the mean of {math}`2 - 2 \cos(q(z_1), z_2')` over both directions. The
    rate rises linearly from a thousandth and falls by a cosine back to it at the last step; the
    momentum of the target is {math}`1 - (1 - m)(\cos(\pi s / S) + 1) / 2` at step {math}`s` of
    {math}`S`.

    Args:
        encoder: Maps (n, 3, h, w) to features (n, F).
        width: F.
        size: Edge of a view.
        hidden: Width inside projector and predictor.
        projection: Width of a projection.
        lr: Peak rate for a batch of 256; it is proportional to the batch.
        weight_decay: As for `LARS`.
        momentum: {math}`m`.
        n_steps: {math}`S`, over all epochs.
        warmup: Steps of the linear rise.
        batch_size: Patches per step, over all processes.
        seed: Seed of the views, which depend on it, the step and the process only.

    References: {cite}`grill2020bootstrap`.

    Example:
        >>> encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        >>> model = BYOL(encoder, 4, size=8, hidden=8, projection=4, n_steps=10)
        >>> model.loss(torch.rand(4, 3, 9, 9), step=0).ndim
        0
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        *,
        size: int = 224,
        hidden: int = 4096,
        projection: int = 256,
        lr: float = 0.2,
        weight_decay: float = 1.5e-6,
        momentum: float = 0.99,
        n_steps: int,
        warmup: int = 0,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < n_steps:
            raise ValueError(f"BYOL needs 0 <= warmup < n_steps, got {warmup} and {n_steps}.")
        self.automatic_optimization = False
        self.online = nn.Sequential(encoder, _perceptron(width, hidden, projection))
        self.predictor = _perceptron(projection, hidden, projection)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.size, self.base, self.seed = size, momentum, seed
        self.peak, self.weight_decay = lr * batch_size / 256, weight_decay
        self.n_steps, self.warmup, self.step = n_steps, warmup, 0
        self.total, self.history = torch.zeros(()), []

    @property
    def encoder(self) -> nn.Module:
        """The encoder that is learned."""
        return self.online[0]

    def rate(self, step: int) -> float:
        """The learning rate of a step.

        Args:
            step: From 0.
        """
        low = 1e-3 * self.peak
        if step < self.warmup:
            return low + (self.peak - low) * step / self.warmup
        done = (step - self.warmup) / max(1, self.n_steps - self.warmup)
        return low + (self.peak - low) * (1 + math.cos(math.pi * done)) / 2

    def follow(self, step: int) -> float:
        """The momentum of the target after a step.

        Args:
            step: From 0.
        """
        return 1 - (1 - self.base) * (math.cos(math.pi * step / self.n_steps) + 1) / 2

    def loss(self, patches: Tensor, *, step: int) -> Tensor:
        """The loss of a batch.

        Args:
            patches: (n, 3, h, w), see `random_views`.
            step: Number of the step, which with the seed and the process determines the views.

        Returns:
            A number; differentiable with respect to encoder, projector and predictor.
        """
        seed = (self.seed * 1_000_003 + step) * 1_009 + rank_and_size()[0]
        generator = torch.Generator().manual_seed(seed % 2**63)
        first = random_views(patches, size=self.size, generator=generator)
        second = random_views(patches, size=self.size, blur=0.1, solarize=0.2, generator=generator)
        # One pass each: statistics of batch normalization are those of a view.
        predicted = torch.cat([self.predictor(self.online(x)) for x in (first, second)])
        with torch.no_grad():
            projected = torch.cat([self.target(x) for x in (second, first)])
        return 2 - 2 * F.cosine_similarity(predicted, projected).mean()

    def configure_optimizers(self) -> LARS:
        """LARS over encoder, projector and predictor."""
        learned = [*self.online.parameters(), *self.predictor.parameters()]
        return LARS(learned, lr=self.peak, weight_decay=self.weight_decay)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """One step of the optimizer, and of the target.

        Args:
            batch: Patches.
            batch_idx: Not used.
        """
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        loss = self.loss(batch, step=self.step)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        keep = self.follow(self.step)
        with torch.no_grad():
            for one, other in zip(self.target.parameters(), self.online.parameters(), strict=True):
                one.lerp_(other, 1 - keep)
        self.step += 1
        self.total = self.total.to(loss.device) + loss.detach()


def _perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out)
    )


class _Batches(IterableDataset):
    """Batches of patches of many slides, in an order that depends on seed and epoch only."""

    def __init__(self, sources: Sequence[PatchSource], n: int, batch_size: int, seed: int) -> None:
        self.sources, self.n, self.batch_size, self.seed = sources, n, batch_size, seed
        self.starts = torch.tensor([0, *(len(source) for source in sources)]).cumsum(0)
        self.epoch = 0

    def __len__(self) -> int:
        return self.n // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        total, (rank, size) = int(self.starts[-1]), rank_and_size()
        # With fewer patches than an epoch asks for, all of them come once before any comes again.
        rounds = [torch.randperm(total, generator=generator) for _ in range(-(-self.n // total))]
        order = torch.cat(rounds)[: len(self) * self.batch_size].reshape(len(self), -1)
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        share = self.batch_size // size
        for batch in order[first::step, rank * share : (rank + 1) * share]:
            owner = torch.searchsorted(self.starts, batch, right=True) - 1
            parts = [
                self.sources[k].read(batch[owner == k] - self.starts[k])[:, :3]
                for k in owner.unique().tolist()
            ]
            yield torch.cat(parts)


class _Saving(pl.Callback):
    """Saves the state after every epoch; Lightning's own files would hold more than tensors."""

    def __init__(self, path: Path, config: dict[str, Any], batches: _Batches) -> None:
        self.path, self.config, self.batches = path, config, batches
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

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.batches.epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        row = {"epoch": trainer.current_epoch, "step": pl_module.step}
        row["loss"] = float(pl_module.total) / len(self.batches)
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
    n = num_examples or sum(map(len, sources))
    if n < batch_size or not sources or batch_size < 2:
        raise ImageError(f"pretrain needs at least one batch of {batch_size} patches, got {n}.")
    batches, folder = _Batches(sources, n, batch_size, seed), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    steps = len(batches)
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
    config |= {"warmup_epochs": warmup_epochs, "patches": len(batches.starts), "width": width}
    saving = _Saving(folder / "latest.ckpt", {**config, **options}, batches)
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
        loader = DataLoader(batches, batch_size=None, num_workers=workers)
        if saving.epoch < num_epochs:
            trainer.fit(model, loader)
        else:
            model.load_state_dict(saving.state["model"])  # type: ignore[index]
            model.history = [*saving.state["history"]]  # type: ignore[index]
    return model
