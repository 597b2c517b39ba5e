"""Options by subject, with kinds, defaults and descriptions, all defined here only."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, Self

from cpic.options._kinds import (
    Axis,
    Count,
    Finite,
    Folds,
    Name,
    NotNegative,
    Positive,
    Share,
    Size,
    Text,
    Whole,
    Width,
    Workers,
    checked,
)

Task = Literal["brats", "osic"]
Intensity = Literal["none", "minmax", "zscore"]
# Names of the groups in flags, files and checkpoints.
GROUPS = ("data", "model", "optimization", "run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Options of one subject, all checked when the object is created.

    Raises:
        ValueError: If a value is invalid; the message has the name, the valid values, the given
            value and the description.
    """

    def __post_init__(self) -> None:
        for name, value in checked(type(self), vars(self)).items():
            object.__setattr__(self, name, value)

    def completed(self, **values: Any) -> Self:
        """These options, with the given values in place of null."""
        lacking = {name: one for name, one in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **lacking)

    def plain(self) -> dict[str, Any]:
        """Options by name as in files: lists for tuples, text for paths."""
        return json.loads(json.dumps(vars(self), default=str))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Group):
    """Scans, their preprocessing and the split into folds.

    Attributes:
        root: Folder of the published tree (BraTS 2020, OSIC), or its parent. Without it, a
            semi-synthetic cohort of this size is generated in the cache, and a message is logged.
        cache: Folder for generated and converted scans; the user's cache folder by default.
        patients: Use only the first so many patients; without root, the number to generate.
        resolution: Grid to resample scans to, padded to powers of two; for OSIC slices, rows and
            columns.
        intensity: "zscore" within the brain, "minmax" per scan, or "none", as published.
        nan: Value to replace NaN and infinite voxels with; null excludes patients who have any.
        flips: Axes along which training scans are mirrored, each with probability 1/2 per epoch.
            Give only axes whose mirror image has the same target; none, as published.
        use_extra_features: Pass further data of a patient to the head: age and extent of resection
            (OSIC: all eight features, not only the week).
        folds: Number of folds to split the patients into.
        only_fold: Train only this fold, counted from 0.
    """

    root: Text | Path | None = None
    cache: Text | Path | None = None
    patients: Count | None = None
    resolution: tuple[Size, Size, Size] | None = None
    intensity: Intensity | None = None
    nan: Finite | None = None
    flips: tuple[Axis, ...] = ()
    use_extra_features: bool = False
    folds: Folds = 5
    only_fold: Whole | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class MRData(Data):
    """Scans of several contrasts.

    Attributes:
        contrasts: One or more of t1, t1ce, t2 and flair; channels of the encoder.
    """

    contrasts: tuple[Text, ...] = ("t1",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Group):
    """Options that every model takes.

    Attributes:
        rank: Upper bound on the ranks of the trains, and number of features.
        chunk: Positions encoded at once; limits the memory.
        precision: Bits of the numbers of the network; trains always have 64. On a GPU, products
            of 32-bit numbers are made in TF32.
        layers: "svdp" or "sttp" makes the weights of all networks (encoder and head, or the whole
            baseline) from frames and spectra of at most `layers_rank`, see `cpic.nn.spectral`.
        layers_rank: Of these weights.
        more: Further options of the model, by name; see `cpic.nn.CPIC`, and for baselines
            `cpic.nn.baselines.resnet34`, `cpic.nn.baselines.DownsampleCNN` and
            `cpic.train.HistogramLinear`.
    """

    rank: Count = 10
    chunk: Count | None = None
    precision: Literal[32, 64] = 32
    layers: Literal["plain", "svdp", "sttp"] = "plain"
    layers_rank: Count = 64
    more: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Network):
    """C-PIC and its encoder.

    Attributes:
        use_encoder: False uses the voxels themselves, "TT+MLP".
        ndims: Features per neighborhood, a power of two as published.
        encoder: The published network, or a faster one with the same receptive field.
        scales: Strides of the cubes that the encoder sees around a voxel; 1 are neighboring
            voxels, as published, and 4 reaches four times as far.
        activation: Activation of the hidden layers of the encoder.
        last: Activation of its last layer.
        bias: Initial value of its last biases; see `cpic.nn.CubeEncoder`.
        positions: Where scans are read: "cross", the published search, or without a search one of
            the others; see `cpic.nn.Positions`.
        budget: Positions read in each scan; those of the cross follow from the rank.
        correction: Further positions that correct the features of the cross.
        residual: Weight in the loss of what the trains miss there, relative to the encoded scans.
        features: What the head gets, one or more of components (as published), learned, moments,
            maximum, attention and covariance; see `cpic.nn.CPIC`.
        norm: Normalization in the head: "batch", as published for BraTS; "layer", which hides
            amounts; or "none", as published for OSIC; by default that of the task.
    """

    use_encoder: bool = True
    ndims: Width = 16
    encoder: Literal["fast", "paper"] = "fast"
    scales: tuple[Count, ...] = (1,)
    activation: Literal["relu", "gelu"] = "relu"
    last: Literal["sigmoid", "relu", "linear"] = "sigmoid"
    bias: Finite | None = None
    positions: Literal[
        "cross", "grid", "jittered", "low-discrepancy", "random", "grid+peaks", "attended"
    ] = "cross"
    budget: Count = 1000
    correction: Whole = 0
    residual: NotNegative = 0.0
    features: tuple[
        Literal["components", "learned", "moments", "maximum", "attention", "covariance"], ...
    ] = ("components",)
    norm: Literal["batch", "layer", "none"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training(Group):
    """How the weights are optimized.

    Attributes:
        batch_size: Samples per step (scans, visits of OSIC, or images), over all processes; with
            components at least `rank` scans.
        num_epochs: Number of passes over the training data.
        optimizer: "radam", as published for C-PIC, "adamw", "adam", or "sgd" with momentum 0.9.
        lr: Learning rate; with "onecycle" the largest one.
        weight_decay: Of all optimizers but "radam".
        schedule: "cosine" and "linear" decrease the learning rate to 0 over all epochs; "onecycle"
            first raises it over three tenths of them.
        clip: Upper bound on the norm of the gradient; null for none.
        selection: Share of the training patients, or images, who choose the best epoch, and with it
            when `patience` ends; they are not trained on. 0 trains on all and lets those that are
            reported choose, as published; `best_<metric>` is then optimistic.
        patience: Epochs without improvement after which training ends.
    """

    batch_size: Count | None = None
    num_epochs: Count = 100
    optimizer: Literal["radam", "adamw", "adam", "sgd"] = "radam"
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    schedule: Literal["constant", "cosine", "onecycle", "linear"] = "constant"
    clip: Positive | None = 1.0
    selection: Share = 0.15
    patience: Count | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimization(Training):
    """How the weights of C-PIC are optimized.

    Attributes:
        standardize: Let the model predict targets in standard deviations from the mean of the
            training fold; false, as published.
        pretrain: Checkpoint from which the weights are initialized.
    """

    standardize: bool = False
    pretrain: Text | Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Group):
    """Where a run computes, what it writes and when it stops.

    Attributes:
        results_folder: Folder for all experiments.
        experiment_name: Folder for this run; task and model by default.
        resume: Continue from the latest checkpoint of each fold.
        seed: Seed of all random choices.
        ngpus: GPUs per machine; 0 is the CPU, which is also used if there is no GPU.
        num_nodes: Number of machines.
        num_workers: Processes that read batches.
        max_minutes: Time limit of a fold; `resume` continues from there.
        max_faults: Number of failed steps that are tolerated; one more stops training.
        save_every: Steps between checkpoints within an epoch; none by default.
        progress: Show a progress bar.
        wandb: Also log to Weights & Biases.
    """

    results_folder: Text | Path = "results"
    experiment_name: Name | None = None
    resume: bool = False
    seed: Whole = 42
    ngpus: Whole = 0
    num_nodes: Count = 1
    num_workers: Workers = 1
    max_minutes: Positive | None = None
    max_faults: Whole = 3
    save_every: Count | None = None
    progress: bool = False
    wandb: bool = False
