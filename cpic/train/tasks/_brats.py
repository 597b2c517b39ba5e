"""Survival after a glioma from magnetic resonance scans."""

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


def brats(
    *,
    root: Text | Path | None = None,
    batch_size: Count = 21,
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
    resolution: tuple[Size, Size, Size] = (256, 256, 256),
    contrasts: tuple[Text, ...] = ("t1",),
    intensity: Intensity = "zscore",
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
        nan: Value that replaces NaN and infinite voxels; null leaves a patient who has some out.
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
    options = checked(brats, locals())
    return cross_validate("brats", "cpic" if use_encoder else "tt_mlp", options)
