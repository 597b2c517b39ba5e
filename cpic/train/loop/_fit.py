"""Train one fold, from the first step or from the last checkpoint."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from cpic._files import replace_file
from cpic.options._kinds import Count, Positive, Whole, checked
from cpic.train.loop._checkpointing import Checkpointing, StopRunError
from cpic.train.loop._distributed import is_first, launched, rank_and_size
from cpic.train.loop._faults import Faults
from cpic.train.loop._fold_data import FoldData
from cpic.train.loop._globals import matmul_precision, quiet
from cpic.train.loop._task import Task
from cpic.train.results._results import FoldResult, plain, writing

log = logging.getLogger(__name__)


def fit_fold(
    module: Task,
    data: FoldData,
    *,
    folder: str | os.PathLike,
    num_epochs: Count,
    fold: Whole = 0,
    resume: bool = False,
    ngpus: Whole = 0,
    num_nodes: Count = 1,
    clip: Positive | None = 1.0,
    patience: Count | None = None,
    max_minutes: Positive | None = None,
    max_faults: Whole = 3,
    save_every: Count | None = None,
    precision: Literal[32, 64] = 32,
    progress: bool = False,
    wandb: bool = False,
    seed: Whole = 42,
    config: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FoldResult:
    """Train on one fold and validate after every epoch.

    The best epoch is chosen by the patients of `data.selection`, who are training patients that the
    model is not trained on; without them it is chosen by the fold on which it is reported.

    Creates in `folder`: `latest.ckpt` and `best.ckpt`, each replaced atomically; `metrics.csv` and
    `times.csv`, one row per epoch; `config.yaml`; and TensorBoard events. A run that was killed at
    any step and resumed ends with the same parameters, index sets, optimizer state and
    `metrics.csv`, bit for bit, as an uninterrupted one. Ctrl-C or SIGTERM saves the state after the
    current step; a second signal stops at once.

    A failed step (non-finite numbers, a rank-deficient matrix, an unreadable scan) is logged with
    its cause, counted in `metrics.csv`, and does not change the model.

    Args:
        module: `Regression`, `Quantiles` or `Classification`, or another task. Its
            model is cast to `precision`.
        data: Batches of the fold: a `CohortData`, or for images an `ImageData`.
        folder: Folder for all files; if it holds a run already, set `resume`.
        num_epochs: Total number of epochs.
        fold: Index of the fold, for the result.
        resume: Continue from `latest.ckpt`, if there is one.
        ngpus: GPUs of this machine; 0 is the CPU. With `torchrun`, or with more than one GPU, every
            process takes its share of each batch.
        num_nodes: Number of machines.
        clip: Upper bound on the norm of the gradient, which is scaled down to it; None for no
            bound.
        patience: Stop after this number of epochs without a better metric.
        max_minutes: Time limit; training also stops within an epoch, and validates.
        max_faults: Number of failed steps that are tolerated.
        save_every: Also save within an epoch, after every so many steps.
        precision: Bits of the floating type, 32 or 64. On a GPU, products of 32-bit numbers are
            made in TF32, with a relative rounding of 5e-4.
        progress: Show a progress bar with seconds, evaluations and voxels per sample.
        wandb: Also log to Weights & Biases.
        seed: Seed of the global generator of torch, for noise and dropout.
        config: Settings of the run, saved in checkpoints and compared on resuming.
        callbacks: Further callbacks of Lightning, which change nothing that is saved.

    Returns:
        Metrics, times, memory and paths.

    Raises:
        ValueError: If an option is invalid, the folder cannot be written or holds another run, or
            the checkpoint has another configuration.
        RuntimeError: If more than `max_faults` steps fail.
        MemoryError: If there is not enough memory; the message has a remedy.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; the message has the checkpoint.

    Example:
        >>> result = fit_fold(Regression(model), data, folder="results/run/fold_0",
        ...                   num_epochs=100)  # doctest: +SKIP
        >>> result.metrics["rmse"] / result.metrics["mean_error"]  # doctest: +SKIP
    """
    checked(fit_fold, locals())
    if ngpus > (found := torch.cuda.device_count()):
        raise ValueError(
            f"fit_fold needs ngpus between 0 and the {found} GPUs of this machine, got {ngpus}; 0 "
            "trains on the CPU."
        )
    folder = Path(folder)
    settings = {"precision": precision, "clip": clip, "seed": seed, "batch_size": data.batch_size}
    settings.update(task=type(module).__name__, samples=data.fingerprint)
    settings = plain({**settings, **(config or {})})
    saving = Checkpointing(
        folder, settings, patience=patience, max_minutes=max_minutes, save_every=save_every
    )
    prepare_folder(folder, settings, resume=resume)
    module.to(getattr(torch, f"float{precision}")).train()
    module.clip, module.faults = clip, Faults(max_faults)
    if resume:
        saving.load(module, data)
    if saving.run.epoch < num_epochs and not saving.ended:
        with (
            quiet(),
            matmul_precision(precision, on_gpu=ngpus > 0),
            torch.random.fork_rng(range(found)),
            _signals(saving),
        ):
            torch.manual_seed(seed + rank_and_size()[0])
            trainer = _trainer(saving, callbacks, num_epochs, ngpus, num_nodes, progress, wandb)
            trainer.fit(module, datamodule=data)
    mean_error = module.mean_error(data.train, data.validation)
    chosen_by = data.selection.patients if data.selection else ()
    return saving.result(fold, mean_error, module.monitor, tuple(dict.fromkeys(chosen_by)))


class _Ranks(DDPStrategy):
    """Ranks that share batches; the tasks sum the gradients once all agree on the step.

    A wrapper that sums them during the backward pass would wait forever for a rank whose step
    failed.
    """

    def configure_ddp(self) -> None:
        """No wrapper."""


def _trainer(
    saving: Checkpointing,
    callbacks: Sequence[Callback],
    num_epochs: int,
    ngpus: int,
    num_nodes: int,
    progress: bool,
    wandb: bool,
) -> pl.Trainer:
    on_gpu, size = ngpus > 0, launched(num_nodes)[1]
    here = os.environ.get("LOCAL_WORLD_SIZE", "1") if size > 1 else "1"
    n_devices = max(ngpus, int(here))
    several = max(n_devices, num_nodes, size) > 1
    ranks = _Ranks(process_group_backend="nccl" if on_gpu else "gloo") if several else "auto"
    # Not SLURM's: the variables of a batch job do not tell what started this process.
    elastic = TorchElasticEnvironment.detect()
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=n_devices,
        num_nodes=num_nodes,
        plugins=[TorchElasticEnvironment() if elastic else LightningEnvironment()],
        strategy=ranks,
        max_epochs=num_epochs,
        callbacks=[saving, *callbacks, *([TQDMProgressBar()] if progress else [])],
        logger=_loggers(saving, wandb),
        enable_progress_bar=progress,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        # A resumed epoch is shorter than the next one.
        reload_dataloaders_every_n_epochs=1,
        # State that a model keeps from validation may enter gradients later.
        inference_mode=False,
        default_root_dir=saving.folder,
    )


def _loggers(saving: Checkpointing, wandb: bool) -> list[Logger]:
    board = TensorBoardLogger(
        saving.folder,
        name="",
        version="tensorboard",
        default_hp_metric=False,
        purge_step=saving.run.step + 1 if saving.run.step else None,
    )
    if not wandb:
        return [board]
    from lightning.pytorch.loggers import WandbLogger

    folder = saving.folder
    other = WandbLogger(project="cpic", save_dir=folder, name=folder.name, config=saving.config)
    return [board, other]


def prepare_folder(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Create the folder with its `config.yaml`, or raise with the reason."""
    old = [name for name in ("latest.ckpt", "best.ckpt") if (folder / name).exists()]
    if old and not resume:
        raise ValueError(
            f"{folder} holds a run already ({old[0]}); continue it by resume=True, or choose "
            "another folder."
        )
    if not is_first():
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.part"):
            left.unlink(missing_ok=True)
        if not old:
            text = yaml.safe_dump(settings, sort_keys=False)
            replace_file(folder / "config.yaml", lambda file: file.write(text.encode()))


@contextlib.contextmanager
def _signals(saving: Checkpointing) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop after the current step; a second one stops at once."""

    def stop(number: int, frame: Any) -> None:
        saving.signals += 1
        if saving.signals > 1:
            raise StopRunError(saved=False)
        log.warning("stopping after this step; a second signal stops at once")

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except StopRunError as error:
        what = "the state is saved" if error.saved else "the last saved state"
        raise KeyboardInterrupt(
            f"stopped in epoch {saving.run.epoch} after {saving.run.step} steps; {what}: "
            f"{saving.latest}; continue with resume=True."
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
