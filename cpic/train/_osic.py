"""The course of a lung fibrosis from computed tomography."""

from pathlib import Path
from typing import Any, Literal

from cpic.train._cohorts import Intensity
from cpic.train._results import FoldResult
from cpic.train._validate import cross_validate


def osic(
    *,
    root: str | Path | None = None,
    batch_size: int = 20,
    use_encoder: bool = True,
    results_folder: str | Path = "results",
    num_epochs: int = 100,
    experiment_name: str | None = None,
    use_extra_features: bool = False,
    pretrain: str | Path | None = None,
    only_fold: int | None = None,
    ndims: int = 16,
    ngpus: int = 0,
    rank: int = 10,
    num_workers: int = 1,
    num_nodes: int = 1,
    resume: bool = False,
    resolution: tuple[int, int, int] = (32, 512, 512),
    intensity: Intensity = "minmax",
    nan: float | None = None,
    encoder: Literal["fast", "paper"] = "fast",
    bias: float | None = None,
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
    options = dict(locals())
    return cross_validate("osic", "cpic" if use_encoder else "tt_mlp", options)
