"""Options by subject: what each may be, its default and what it means are said here only."""

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
    Positive,
    Size,
    Text,
    Whole,
    Width,
    Workers,
    checked,
)

Task = Literal["brats", "osic"]
Intensity = Literal["none", "minmax", "zscore"]
# The names of the groups in flags, files and checkpoints.
GROUPS = ("data", "model", "optimization", "run")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Options of one subject, all checked when the object is made.

    Raises:
        ValueError: If one does not fit, with its name, what it may be, what it is and what it
            means.
    """

    def __post_init__(self) -> None:
        for name, value in checked(type(self), vars(self)).items():
            object.__setattr__(self, name, value)

    def completed(self, **values: Any) -> Self:
        """These options with values for those that are null."""
        lacking = {name: one for name, one in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **lacking)

    def plain(self) -> dict[str, Any]:
        """Options by name as files have them: lists for tuples, text for paths."""
        return json.loads(json.dumps(vars(self), default=str))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data(Group):
    """Scans, how they are treated, and who is in which fold.

    Attributes:
        root: Folder of the published tree (BraTS 2020, OSIC), or the one above it. Without it a
            semi-synthetic cohort of this size is generated in the cache, and the log says so.
        cache: Folder of generated and converted scans; the user's cache folder by default.
        patients: The first so many patients only; without root, how many to generate.
        resolution: Grid that scans are brought to, filled up to powers of two; of OSIC slices, rows
            and columns.
        intensity: "zscore" within the brain, "minmax" a scan, or "none", as published.
        nan: Value that replaces NaN and infinite voxels; null leaves a patient who has some out.
        flips: Axes along which training scans are mirrored, each or not, by the toss of a coin each
            epoch. Only those whose mirror image has the same target; none, as published.
        use_extra_features: Tell the head what else is known of a patient: age and extent of
            resection (OSIC: all eight features, not the week alone).
        folds: Folds the patients are split into.
        only_fold: Train this fold only, counted from 0.
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
        contrasts: Of t1, t1ce, t2 and flair; channels of the encoder.
    """

    contrasts: tuple[Text, ...] = ("t1",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(Group):
    """What every model takes.

    Attributes:
        rank: Bound on the ranks of the trains, and number of features.
        chunk: Positions encoded at once; bounds the memory.
        precision: Bits of the network's numbers; trains always have 64.
        more: More options of the model, by name; see `cpic.nn.CPIC`, and for baselines
            `cpic.nn.baselines.resnet34`, `cpic.nn.baselines.DownsampleCNN` and
            `cpic.train.HistogramLinear`.
    """

    rank: Count = 10
    chunk: Count | None = None
    precision: Literal[32, 64] = 32
    more: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model(Network):
    """C-PIC and its encoder.

    Attributes:
        use_encoder: False takes the voxels themselves, "TT+MLP".
        ndims: Numbers a neighborhood is encoded to, a power of two as published.
        encoder: The published network, or a faster one with as wide a view.
        bias: What the last biases of the encoder begin with; see `cpic.nn.CubeEncoder`.
    """

    use_encoder: bool = True
    ndims: Width = 16
    encoder: Literal["fast", "paper"] = "fast"
    bias: Finite | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimization(Group):
    """How the weights are found.

    Attributes:
        batch_size: Scans (OSIC: visits) a step, of all processes together; at least `rank`.
        num_epochs: How often each scan is seen.
        lr: Learning rate of RAdam.
        schedule: "cosine" lets it fall to 0 over all epochs.
        standardise: Let the model say how many spreads of the training fold a target is from its
            mean; false is as published.
        clip: Bound on the norm of the gradient; null for none.
        patience: Epochs without improvement after which a fold is over.
        pretrain: Checkpoint whose weights the model begins with.
    """

    batch_size: Count | None = None
    num_epochs: Count = 100
    lr: Positive = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    standardise: bool = False
    clip: Positive | None = 1.0
    patience: Count | None = None
    pretrain: Text | Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Group):
    """Where a run computes, what it writes, and when it stops.

    Attributes:
        results_folder: Folder of all experiments.
        experiment_name: Folder of this run; by default task and model.
        resume: Go on from the latest checkpoint of each fold.
        seed: Of everything drawn.
        ngpus: GPUs a machine; 0 is the CPU, which is also used where there is no GPU.
        num_nodes: Machines.
        num_workers: Processes that read batches.
        max_minutes: Time a fold may take; what is left is done by `resume`.
        max_faults: Failing steps after which training stops.
        save_every: Steps from one checkpoint to the next within an epoch; none by default.
        progress: Show a bar.
        wandb: Log to Weights & Biases too.
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
