"""A generator and a discriminator of images, with spectral layers."""

from typing import TYPE_CHECKING

from cpic.options import AdversarialRun, AdversarialSteps, Adversaries, PictureSet, command

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


@command("train a SNGAN with spectral layers on images")
def gan(
    data: PictureSet = PictureSet(),
    model: Adversaries = Adversaries(),
    optimization: AdversarialSteps = AdversarialSteps(),
    run: AdversarialRun = AdversarialRun(seed=2020),
) -> "list[FoldResult]":
    """Train a generator against a discriminator whose layers have bounded, visible spectra.

    In each step the generator is updated once, then the discriminator several times, each with its
    current weights {cite}`miyato2018spectral,obukhov2021spectral`. In
    `results_folder/experiment_name` there are checkpoints, metrics of each evaluation, sheets of
    images, spectra of all layers and the best generator in ONNX; `summary.json` has the distance
    between generated and real images, next to that of the untrained generator.

    Layer options are those of `cpic.nn.spectral.parametrize`, such as `init`, `noise`, `seed`,
    `gain`, `biases` and `batch_norms`; with "sr" they are `every`, the updates between two
    compensations, and `normalize`, `truncation` and `eps`. Published settings files are valid as
    well.

    Returns:
        A list with one result.

    Raises:
        ValueError: If an option, the data set or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.gan(d_layers="sttp", d_width=32, num_steps=1000)  # doctest: +SKIP
    """
    from cpic.train.tasks._adversarial import train_adversaries

    return train_adversaries(data, model, optimization, run)
