"""Models that C-PIC is compared with, on the same folds."""

from typing import TYPE_CHECKING, Any, Literal

from cpic.options import MRData, Network, Optimization, Run, command
from cpic.options._groups import Task

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult

_DATA: dict[str, dict[str, Any]] = {
    "brats": {"resolution": (256, 256, 256), "intensity": "zscore"},
    "osic": {"resolution": (32, 512, 512), "intensity": "minmax"},
}
# The published residual network was trained with two volumes of 256^3.
_BATCHES = {"tt_mlp": 20, "resnet34": 2, "downsample": 4, "histogram": 20}


@command(
    "train resnet34, tt_mlp, downsample or histogram on the same folds", standardise="standardize"
)
def baseline(  # noqa: D417
    name: Literal["resnet34", "tt_mlp", "downsample", "histogram"] = "resnet34",
    *,
    task: Task = "brats",
    data: MRData = MRData(),
    model: Network = Network(),
    optimization: Optimization = Optimization(),
    run: Run = Run(),
) -> "list[FoldResult]":
    """Cross-validate a baseline of C-PIC, on the folds of `brats` or `osic`.

    "resnet34" is the 3-D residual network, "downsample" a plain convolutional network, "histogram"
    a linear model of the gray-value histogram, "tt_mlp" C-PIC without encoder. All but the last
    read every voxel. `batch_size`, `resolution` and `intensity` default to those of the task and
    model; `rank` is used by "tt_mlp" only.

    Args:
        name: Model to train.
        task: Cohort and prediction target.

    Returns:
        One result per fold.

    Raises:
        ValueError: If an option, the cohort or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.baseline("resnet34", task="brats", ngpus=1)  # doctest: +SKIP
    """
    from cpic.train.tasks._cross_validation import cross_validate

    defaults = _DATA[task]
    if name == "histogram":
        # Bins of gray values need a range.
        defaults = {**defaults, "intensity": "minmax"}
    data = data.completed(**defaults)
    optimization = optimization.completed(batch_size=_BATCHES[name])
    return cross_validate(task, name, data, model, optimization, run)
