"""What C-PIC is compared with, on the same folds."""

from pathlib import Path
from typing import Any, Literal

from cpic.train._cohorts import Intensity
from cpic.train._results import FoldResult
from cpic.train._validate import cross_validate

_RESOLUTIONS = {"brats": (256, 256, 256), "osic": (32, 512, 512)}
_INTENSITIES: dict[str, Intensity] = {"brats": "zscore", "osic": "minmax"}
# Two volumes of 256^3 are what the published residual network was trained with.
_BATCHES = {"tt_mlp": 20, "resnet34": 2, "downsample": 4, "histogram": 20}


def baseline(
    name: Literal["resnet34", "tt_mlp", "downsample", "histogram"] = "resnet34",
    *,
    task: Literal["brats", "osic"] = "brats",
    root: str | Path | None = None,
    batch_size: int | None = None,
    results_folder: str | Path = "results",
    num_epochs: int = 100,
    experiment_name: str | None = None,
    use_extra_features: bool = False,
    pretrain: str | Path | None = None,
    only_fold: int | None = None,
    ngpus: int = 0,
    rank: int = 10,
    num_workers: int = 1,
    num_nodes: int = 1,
    resume: bool = False,
    resolution: tuple[int, int, int] | None = None,
    contrasts: tuple[str, ...] = ("t1",),
    intensity: Intensity | None = None,
    nan: float | None = None,
    more: dict[str, Any] | None = None,
    chunk: int | None = None,
    precision: Literal[32, 64] = 32,
    lr: float = 1e-3,
    schedule: Literal["constant", "cosine"] = "constant",
    standardise: bool = False,
    flips: tuple[int, ...] = (),
    clip: float | None = 1.0,
    patience: int | None = None,
    folds: int = 5,
    patients: int | None = None,
    cache: str | Path | None = None,
    seed: int = 42,
    max_faults: int = 3,
    max_minutes: float | None = None,
    save_every: int | None = None,
    progress: bool = False,
    wandb: bool = False,
) -> list[FoldResult]:
    """Cross-validate a model that C-PIC is compared with, on the folds of `brats` or `osic`.

    "resnet34" is the 3-D residual network, "downsample" a plain convolutional one, "histogram" a
    linear model on how often grey values occur, "tt_mlp" C-PIC without encoder. All but the last
    read every voxel. `batch_size`, `resolution` and `intensity` are those of the task and model if
    they are not given; `rank` is used by "tt_mlp" only; `more` are options of
    `cpic.nn.baselines.resnet34`, `cpic.nn.baselines.DownsampleCNN`,
    `cpic.train.HistogramLinear` or `cpic.nn.CPIC`. All others mean what they do in
    `cpic.train.brats`.

    Returns:
        One result a fold.

    Raises:
        ValueError: If an option, the cohort or a folder does not fit; before any training.

    Example:
        >>> from cpic import train
        >>> train.baseline("resnet34", task="brats", ngpus=1)  # doctest: +SKIP
    """
    options = dict(locals())
    if name not in _BATCHES or task not in _RESOLUTIONS:
        raise ValueError(
            f"baseline needs a name out of {', '.join(_BATCHES)} and a task out of "
            f"{', '.join(_RESOLUTIONS)}, got {name!r} and {task!r}."
        )
    options["batch_size"] = _BATCHES[name] if batch_size is None else batch_size
    options["resolution"] = _RESOLUTIONS[task] if resolution is None else resolution
    if intensity is None:
        # Bins of grey values need a range.
        options["intensity"] = "minmax" if name == "histogram" else _INTENSITIES[task]
    if task == "osic":
        del options["contrasts"]
    return cross_validate(task, name, options)
