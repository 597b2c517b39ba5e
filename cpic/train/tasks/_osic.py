"""The course of a lung fibrosis from computed tomography."""

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
    Width,
    Workers,
    checked,
)
from cpic.train.results._results import FoldResult
from cpic.train.tasks._cross_validation import cross_validate
from cpic.train.tasks._source import Intensity


def osic(
    *,
    root: Text | Path | None = None,
    batch_size: Count = 20,
    use_encoder: bool = True,
    results_folder: Text | Path = "results",
    num_epochs: Count = 100,
    experiment_name: Name | None = None,
    use_extra_features: bool = False,
    pretrain: Text | Path | None = None,
    only_fold: Whole | None = None,
    ndims: Width = 16,
    ngpus: Whole = 0,
    rank: Count = 10,
    num_workers: Workers = 1,
    num_nodes: Count = 1,
    resume: bool = False,
    resolution: tuple[Size, Size, Size] = (32, 512, 512),
    intensity: Intensity = "minmax",
    nan: Finite | None = None,
    encoder: Literal["fast", "paper"] = "fast",
    bias: Finite | None = None,
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
    """Cross-validate C-PIC on the lung function of the patients of OSIC.

    The target is the FVC at a visit as a share of the first one; three quantiles are predicted,
    with the pinball loss; the metric is the mean Laplace log likelihood of the FVC in ml over all
    visits of the fold, clipped as in the challenge {cite}`usvyatsov2021cherry`. Patients are in
    one fold with all their visits.

    The options mean what they do in `cpic.train.brats`; `root` is the folder of the OSIC challenge
    or the one above it, and a resolution is slices, rows and columns.

    Returns:
        One result a fold.

    Raises:
        ValueError: If an option, the cohort or a folder does not fit; before any training.

    Example:
        >>> from cpic import train
        >>> train.osic(root="osic", rank=10, ngpus=1)  # doctest: +SKIP
    """
    options = checked(osic, locals())
    return cross_validate("osic", "cpic" if use_encoder else "tt_mlp", options)
