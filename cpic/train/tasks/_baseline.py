"""What C-PIC is compared with, on the same folds."""

from pathlib import Path
from typing import Any, Literal

from cpic.options._kinds import (
    Axis,
    Count,
    Finite,
    Folds,
    Name,
    Positive,
    Size,
    Text,
    Whole,
    Workers,
    checked,
)
from cpic.train.results._results import FoldResult
from cpic.train.tasks._cross_validation import cross_validate
from cpic.train.tasks._source import Intensity

_RESOLUTIONS = {"brats": (256, 256, 256), "osic": (32, 512, 512)}
_INTENSITIES: dict[str, Intensity] = {"brats": "zscore", "osic": "minmax"}
# Two volumes of 256^3 are what the published residual network was trained with.
_BATCHES = {"tt_mlp": 20, "resnet34": 2, "downsample": 4, "histogram": 20}


def baseline(
    name: Literal["resnet34", "tt_mlp", "downsample", "histogram"] = "resnet34",
    *,
    task: Literal["brats", "osic"] = "brats",
    root: Text | Path | None = None,
    batch_size: Count | None = None,
    results_folder: Text | Path = "results",
    num_epochs: Count = 100,
    experiment_name: Name | None = None,
    use_extra_features: bool = False,
    pretrain: Text | Path | None = None,
    only_fold: Whole | None = None,
    ngpus: Whole = 0,
    rank: Count = 10,
    num_workers: Workers = 1,
    num_nodes: Count = 1,
    resume: bool = False,
    resolution: tuple[Size, Size, Size] | None = None,
    contrasts: tuple[Text, ...] = ("t1",),
    intensity: Intensity | None = None,
    nan: Finite | None = None,
    more: dict[str, Any] | None = None,
    chunk: Count | None = None,
    precision: Literal[32, 64] = 32,
    lr: Positive = 1e-3,
    schedule: Literal["constant", "cosine"] = "constant",
    standardise: bool = False,
    flips: tuple[Axis, ...] = (),
    clip: Positive | None = 1.0,
    patience: Count | None = None,
    folds: Folds = 5,
    patients: Count | None = None,
    cache: Text | Path | None = None,
    seed: Whole = 42,
    max_faults: Whole = 3,
    max_minutes: Positive | None = None,
    save_every: Count | None = None,
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
    options = checked(baseline, locals())
    if batch_size is None:
        options["batch_size"] = _BATCHES[name]
    if resolution is None:
        options["resolution"] = _RESOLUTIONS[task]
    if intensity is None:
        # Bins of grey values need a range.
        options["intensity"] = "minmax" if name == "histogram" else _INTENSITIES[task]
    if task == "osic":
        del options["contrasts"]
    return cross_validate(task, name, options)
