"""Train one fold, from the first step or from the last checkpoint."""

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from cpic._files import replace_file
from cpic.options._kinds import Count, Positive, Whole, checked
from cpic.train.loop._batches import CohortData
from cpic.train.loop._checkpointing import Checkpointing, StopRunError
from cpic.train.loop._distributed import is_first, launched, rank_and_size
from cpic.train.loop._faults import Faults
from cpic.train.loop._task import Task
from cpic.train.results._results import FoldResult, plain, writing

log = logging.getLogger(__name__)


def fit_fold(
    module: Task,
    data: CohortData,
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
) -> FoldResult:
    """Train on one fold and validate after every epoch.

    Makes in `folder`: `latest.ckpt` and `best.ckpt`, each replaced by one rename; `metrics.csv`
    and `times.csv`, a row an epoch; `config.yaml`; and events for TensorBoard. A run that was
    killed at any step and is resumed ends with the same parameters, index sets, optimizer and
    `metrics.csv`, bit by bit, as one that was not. Ctrl-C, or SIGTERM, saves the state after the
    step that runs; a second one leaves at once.

    A failing step (numbers that are not finite, a matrix of low rank, a scan that cannot be read)
    is logged with its cause, counted in `metrics.csv`, and leaves no trace in the model.

    Args:
        module: `Regression`, `Quantiles` or `Classification`. Its model is cast to `precision`.
        data: Batches of the fold.
        folder: For all files; a folder with a run in it needs `resume`.
        num_epochs: Epochs in all.
        fold: Its number, for the result.
        resume: Go on from `latest.ckpt`, if there is one.
        ngpus: GPUs of this machine; 0 is the processor. Started by `torchrun`, or with more than
            one, every process takes its share of each batch.
        num_nodes: Machines.
        clip: Largest norm of a gradient; longer ones are scaled to it. None does not.
        patience: Stop after so many epochs without a better metric.
        max_minutes: Stop after this time, in the middle of an epoch too, with a validation.
        max_faults: Steps that may fail.
        save_every: Save inside an epoch as well, every so many steps.
        precision: Bits of the floating type, 32 or 64.
        progress: Show a bar with seconds, evaluations and voxels a sample.
        wandb: Log to Weights & Biases as well.
        seed: Of what torch draws by itself, such as noise and dropout.
        config: Settings of the run, saved in checkpoints and compared when it is resumed.

    Returns:
        Metrics, times, memory and paths.

    Raises:
        ValueError: If an option does not fit, the folder cannot be written or holds another run,
            or the checkpoint is of another configuration.
        RuntimeError: If more than `max_faults` steps fail.
        MemoryError: If there is not enough, with what to do about it.
        KeyboardInterrupt: After Ctrl-C or SIGTERM; says where the state is.

    Example:
        >>> result = fit_fold(Regression(model), data, folder="results/run/fold_0",
        ...                   num_epochs=100)  # doctest: +SKIP
        >>> result.metrics["rmse"] / result.metrics["mean_error"]  # doctest: +SKIP
    """
    checked(fit_fold, locals())
    if ngpus > (found := torch.cuda.device_count()):
        raise ValueError(
            f"fit_fold needs ngpus between 0 and the {found} GPUs of this machine, got {ngpus}; 0 "
            "trains on the processor."
        )
    folder = Path(folder)
    settings = {"precision": precision, "clip": clip, "seed": seed, "batch_size": data.batch_size}
    settings.update(task=type(module).__name__, samples=data.fingerprint)
    settings = plain({**settings, **(config or {})})
    saving = Checkpointing(
        folder, settings, patience=patience, max_minutes=max_minutes, save_every=save_every
    )
    _prepare(folder, settings, resume=resume)
    module.to(getattr(torch, f"float{precision}")).train()
    module.clip, module.faults = clip, Faults(max_faults)
    if resume:
        saving.load(module, data)
    if saving.run.epoch < num_epochs and not saving.ended:
        with _quiet(), torch.random.fork_rng(range(found)), _signals(saving):
            torch.manual_seed(seed + rank_and_size()[0])
            trainer = _trainer(saving, num_epochs, ngpus, num_nodes, progress, wandb)
            trainer.fit(module, datamodule=data)
    return saving.result(fold, module.mean_error(data.train, data.validation), module.monitor)


class _Ranks(DDPStrategy):
    """Ranks that share batches; the tasks sum the gradients, after all agreed on the step.

    The wrapper that sums them while they are computed would wait forever for a rank whose step
    failed.
    """

    def configure_ddp(self) -> None:
        """No wrapper."""


def _trainer(
    saving: Checkpointing, num_epochs: int, ngpus: int, num_nodes: int, progress: bool, wandb: bool
) -> pl.Trainer:
    on_gpu, size = ngpus > 0, launched(num_nodes)[1]
    here = os.environ.get("LOCAL_WORLD_SIZE", "1") if size > 1 else "1"
    n_devices = max(ngpus, int(here))
    several = max(n_devices, num_nodes, size) > 1
    ranks = _Ranks(process_group_backend="nccl" if on_gpu else "gloo") if several else "auto"
    # Not SLURM's: what a batch job says of its tasks is not who started this process.
    elastic = TorchElasticEnvironment.detect()
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=n_devices,
        num_nodes=num_nodes,
        plugins=[TorchElasticEnvironment() if elastic else LightningEnvironment()],
        strategy=ranks,
        max_epochs=num_epochs,
        callbacks=[saving, *([TQDMProgressBar()] if progress else [])],
        logger=_loggers(saving, wandb),
        enable_progress_bar=progress,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        # A resumed epoch is shorter than the next.
        reload_dataloaders_every_n_epochs=1,
        # What a model keeps from a validation may meet gradients later.
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


def _prepare(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Make the folder, or say why not."""
    old = [name for name in ("latest.ckpt", "best.ckpt") if (folder / name).exists()]
    if old and not resume:
        raise ValueError(
            f"{folder} holds a run already ({old[0]}); go on with it by resume=True, or choose "
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
    """Ctrl-C and SIGTERM stop after the step that runs; the second one at once."""

    def stop(number: int, frame: Any) -> None:
        saving.signals += 1
        if saving.signals > 1:
            raise StopRunError(saved=False)
        log.warning("stopping after this step; once more stops at once")

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except StopRunError as error:
        what = "the state is saved" if error.saved else "the last saved state"
        raise KeyboardInterrupt(
            f"stopped in epoch {saving.run.epoch} after {saving.run.step} steps; {what}: "
            f"{saving.latest}; go on with resume=True."
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says of other products and of devices; its warnings are heard."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning uses a name that torch is about to drop.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        logger.setLevel(before)
