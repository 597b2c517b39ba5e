"""A classifier of images, with spectral layers."""

from typing import TYPE_CHECKING

from cpic.options import Classes, ClassifierSteps, PictureRun, Scaled, command

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


@command("train a classifier with spectral layers on images")
def imgcls(
    data: Scaled = Scaled(),
    model: Classes = Classes(),
    optimization: ClassifierSteps = ClassifierSteps(batch_size=128),
    run: PictureRun = PictureRun(seed=2020),
) -> "list[FoldResult]":
    """Train a residual network whose layers have few, visible singular values.

    The loss is cross-entropy plus the penalty on the spectra {cite}`obukhov2021spectral`. In
    `results_folder/experiment_name` there are checkpoints, metrics of each evaluation and spectra
    of all layers; `summary.json` has the accuracy, next to that of the most frequent class
    ("chance"), and the compression.

    Layer options are those of `cpic.nn.spectral.parametrize`, such as `init`, `noise`, `seed`,
    `gain`, `biases` and `batch_norms`. Published settings files are valid as well.

    Returns:
        A list with one result.

    Raises:
        ValueError: If an option, the data set or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.imgcls(layers="sttp", rank=16, depth=10, widen=1)  # doctest: +SKIP
    """
    from cpic.train.tasks._classifier import train_classifier

    return train_classifier(data, model, optimization, run)
