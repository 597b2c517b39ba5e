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
_BATCHES = {"tt_mlp": 20, "resnet34": 2, "downsample": 4}
Name = Literal["resnet34", "tt_mlp", "downsample", "histogram", "mean", "blocks", "random_voxels"]


@command("train a network or a linear rival of C-PIC on the same folds", standardise="standardize")
def baseline(  # noqa: D417
    name: Name = "resnet34",
    *,
    task: Task = "brats",
    data: MRData = MRData(),
    model: Network = Network(),
    optimization: Optimization = Optimization(),
    run: Run = Run(),
) -> "list[FoldResult]":
    """Cross-validate a baseline of C-PIC, on the folds of `brats` or `osic`.

    "resnet34" is the 3-D residual network, "downsample" a plain network of strided convolutions
    (`--preset strided` trains it well), "histogram" a linear model of the gray-value histogram,
    "tt_mlp" C-PIC without encoder. `rank` is used by the last only. C-PIC at cubes chosen without a
    search is `cpic brats --positions grid` or `random`.

    Three models have no epochs: "mean" predicts the mean of the training fold, for "osic" its
    quantiles; "blocks" is a ridge regression on block means (`--more.n_blocks 8` along each axis),
    "random_voxels" one on the histogram of voxels drawn once (`--more.n_voxels 2000`), and only
    these are read. Their penalty is chosen by cross-validation within the training fold, patient by
    patient. For "osic" they also get the week, and its products with the features.

    `batch_size`, `resolution` and `intensity` default to those of the task and model.

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
    if name in ("histogram", "random_voxels"):
        # Bins of gray values need a range.
        defaults = {**defaults, "intensity": "minmax"}
    data = data.completed(**defaults)
    optimization = optimization.completed(batch_size=_BATCHES.get(name, 20))
    return cross_validate(task, name, data, model, optimization, run)
