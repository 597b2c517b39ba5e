"""What a run needs before it starts: its folder, and the GPUs it was promised."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

_log = logging.getLogger(__name__)


def check_folder(folder: Path, names: Sequence[str], *, resume: bool) -> None:
    """Raise before training if the folder holds another run or cannot be written.

    Args:
        folder: Folder of all folds.
        names: Folders of the folds that are trained.
        resume: Whether a run there is continued.
    """
    there = [name for name in names if (folder / name / "latest.ckpt").exists()]
    if there and not resume:
        raise ValueError(
            f"{folder} holds a run already ({there[0]}); continue it by resume, or choose "
            "another experiment_name."
        )
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"the results folder {folder} cannot be written ({error.strerror or error}); choose "
            "another results_folder."
        ) from error


def check_wandb(wandb: bool) -> None:
    """Raise before training if a log is requested that cannot be written.

    Raises:
        ImportError: If wandb is not installed.
    """
    if wandb and importlib.util.find_spec("wandb") is None:
        raise ImportError("wandb=true needs wandb; run `pip install wandb`, or leave it out.")


def usable(ngpus: int) -> int:
    """The requested number of GPUs, or 0 if the machine has none."""
    found = torch.cuda.device_count()
    if ngpus and not found:
        _log.warning("%d GPU requested, this machine has none: the run uses the CPU.", ngpus)
        return 0
    if ngpus > found:
        raise ValueError(f"ngpus is {ngpus}, this machine has {found}; ask for at most these.")
    return ngpus
