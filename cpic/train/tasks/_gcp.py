"""Classes of pictures by the covariance of their features."""

from pathlib import Path
from typing import TYPE_CHECKING

from cpic.options import Descent, Pictures, Pooling, Run, command
from cpic.options._kinds import Text

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


@command(
    "train on pictures with global covariance pooling",
    epochs="num_epochs",
    workers="num_workers",
    wd="weight_decay",
    gpu="ngpus",
    modeldir="results_folder",
    freezed_layer="freeze",
    store_model_everyepoch="keep_epochs",
)
def gcp(  # noqa: D417
    evaluate: Text | Path | None = None,
    *,
    keep_epochs: bool = False,
    data: Pictures = Pictures(),
    model: Pooling = Pooling(),
    optimization: Descent = Descent(
        batch_size=32, num_epochs=30, optimizer="sgd", lr=0.05, weight_decay=1e-4, clip=5.0
    ),
    run: Run = Run(),
) -> "list[FoldResult]":
    """Train a network whose last maps are pooled to the root of their covariance.

    The published recipes are the presets gcp/... {cite}`song2021approximate,song2022eigenvalues`.
    The command takes the published flags, with dashes or underscores: the folder of the data comes
    first, and those without counterpart (start_epoch, print_freq, world_size, dist_url,
    dist_backend, num_classes) are ignored with a warning that says why.

    The best epoch is chosen by a part of the training pictures, not by the test pictures, unless
    `selection` is 0, as published. Beside the metrics of every epoch, among them the norm of the
    gradient before clipping and the condition of the covariances, `summary.json` has the accuracy
    of the best epoch over the crops of `views`, and TensorBoard the sizes of gradients along the
    network and histograms of eigenvalues. `cpic.show.training_curves` draws the metrics by epoch,
    `cpic.show.gradient_flow` the gradients of a network.

    Args:
        evaluate: Checkpoint to evaluate, without training.
        keep_epochs: Keep the state after every epoch, as `epoch_0.ckpt` and so on
            (store_model_everyepoch).

    Returns:
        One result.

    Raises:
        ValueError: If an option, the data or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.gcp(benchmark="cub", root="CUB_200_2011", arch="resnet50")  # doctest: +SKIP
    """
    from cpic.train.tasks._gcp_run import train_gcp

    return train_gcp(data, model, optimization, run, evaluate=evaluate, keep_epochs=keep_epochs)
