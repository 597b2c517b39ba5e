"""Survival after a glioma from magnetic resonance scans."""

from pathlib import Path
from typing import Any, Literal

from cpic.train._cohorts import Intensity
from cpic.train._results import FoldResult
from cpic.train._validate import cross_validate


def brats(
    *,
    root: str | Path | None = None,
    batch_size: int = 21,
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
    resolution: tuple[int, int, int] = (256, 256, 256),
    contrasts: tuple[str, ...] = ("t1",),
    intensity: Intensity = "zscore",
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
    """Cross-validate C-PIC on the survival of the patients of BraTS 2020.

    The target is days / 1825, the loss its squared error, the metric the root mean square error
    over the whole fold, in days {cite}`usvyatsov2021cherry`. In `results_folder/experiment_name`
    each fold gets a folder with its checkpoints, logs and configuration; `summary.json` has the
    metrics beside those of a constant prediction ("constant") and, for a generated cohort, the
    best possible one.

    Args:
        root: Folder of BraTS 2020, or the one above it. Without it a semi-synthetic cohort of this
            size is generated in the cache, and the log says so.
        batch_size: Scans (OSIC: visits) a step, of all processes together; at least `rank`.
        use_encoder: False takes the voxels themselves, "TT+MLP".
        results_folder: Folder of all experiments.
        num_epochs: How often each scan is seen.
        experiment_name: Folder of this run; by default task and model.
        use_extra_features: Tell the head what else is known of a patient: age and extent of
            resection (OSIC: all eight features, not the week alone).
        pretrain: Checkpoint whose weights the model begins with.
        only_fold: Train this fold only, counted from 0.
        ndims: Numbers a neighbourhood is encoded to, a power of two as published.
        ngpus: GPUs a machine; 0 is the CPU, which is also used where there is no GPU.
        rank: Bound on the ranks of the trains, and number of features.
        num_workers: Processes that read batches.
        num_nodes: Machines.
        resume: Go on from the latest checkpoint of each fold.
        resolution: Grid that scans are brought to, filled up to powers of two.
        contrasts: Of t1, t1ce, t2 and flair; channels of the encoder.
        intensity: "zscore" within the brain, "minmax" a scan, or "none", as published.
        nan: Value that replaces NaN voxels; null leaves a patient who has some out.
        encoder: The published network, or a faster one with as wide a view.
        bias: What the last biases of the encoder begin with; see `cpic.nn.CubeEncoder`.
        more: More options of the model, by name; see `cpic.nn.CPIC`.
        chunk: Positions encoded at once; bounds the memory.
        precision: Bits of the network's numbers; trains always have 64.
        lr: Learning rate of RAdam.
        schedule: "cosine" lets it fall to 0 over all epochs.
        standardise: Let the model say how many spreads of the training fold a target is from its
            mean; false is as published.
        flips: Axes along which training scans are mirrored, each or not, by the toss of a coin each
            epoch. Only those whose mirror image has the same target; none, as published.
        clip: Bound on the norm of the gradient; null for none.
        patience: Epochs without improvement after which a fold is over.
        folds: Folds the patients are split into.
        patients: The first so many patients only; without root, how many to generate.
        cache: Folder of generated and converted scans; the user's cache folder by default.
        seed: Of everything drawn.
        max_faults: Failing steps after which training stops.
        max_minutes: Time a fold may take; what is left is done by `resume`.
        save_every: Steps from one checkpoint to the next within an epoch; none by default.
        progress: Show a bar.
        wandb: Log to Weights & Biases too.

    Returns:
        One result a fold.

    Raises:
        ValueError: If an option, the cohort or a folder does not fit; before any training.

    Example:
        >>> from cpic import train
        >>> train.brats(root="BraTS2020", ndims=16, rank=10, ngpus=1)  # doctest: +SKIP
    """
    # Every option is also what the checkpoints say of the run.
    options = dict(locals())
    return cross_validate("brats", "cpic" if use_encoder else "tt_mlp", options)
