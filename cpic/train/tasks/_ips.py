"""Classify images by few of their patches."""

from typing import TYPE_CHECKING, Literal

from cpic.options import Patches, PatchRun, PatchTraining, Selector, command

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


@command("train on few patches of large images")
def ips(  # noqa: D417
    dataset: Literal["mnist", "digits", "traffic", "camelyon"] = "mnist",
    *,
    data: Patches = Patches(),
    model: Selector = Selector(),
    optimization: PatchTraining = PatchTraining(batch_size=16, optimizer="adamw"),
    run: PatchRun = PatchRun(),
) -> "list[FoldResult]":
    """Train a classifier of images by few of their patches {cite}`bergner2023iterative`.

    "mnist" is megapixel MNIST with four tasks, made in the cache unless it is in `root`; "digits"
    are single digits of MNIST, enlarged to the canvas, as in the published notebook; "traffic" are
    the Swedish traffic signs, and "camelyon" are features of slides, both in `root`.

    Published configuration files are read as they are (`--config mnist_config.yml`). What they do
    not say, such as batch norm and the published order of selection, is in the presets `ips/...`.

    Args:
        dataset: The images and their tasks.

    Returns:
        One result; its metrics have `NAME_accuracy` (`NAME_auc`) and `NAME_chance` by task, the
        latter of the best constant answer, and `accuracy` and `chance`, their means.

    Raises:
        ValueError: If an option, the images or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.ips("mnist", root="data/megapixel_mnist", m=100)  # doctest: +SKIP
    """
    from cpic.train.tasks._ips_run import train_on_bags

    return train_on_bags(dataset, data, model, optimization, run)
