"""The course of lung fibrosis from computed tomography."""

from typing import TYPE_CHECKING

from cpic.options import Data, Model, Optimization, Run, command

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


@command("train C-PIC on OSIC: the course of a lung fibrosis", standardise="standardize")
def osic(
    data: Data = Data(resolution=(32, 512, 512), intensity="minmax"),
    model: Model = Model(),
    optimization: Optimization = Optimization(batch_size=20),
    run: Run = Run(),
) -> "list[FoldResult]":
    """Cross-validate C-PIC on the lung function of OSIC patients.

    The target is the FVC at a visit divided by the first one; three quantiles are predicted, with
    the pinball loss; the metric is the mean Laplace log likelihood of the FVC in ml over all visits
    of the fold, clipped as in the challenge {cite}`usvyatsov2021cherry`. All visits of a patient
    are in the same fold.

    Returns:
        One result per fold.

    Raises:
        ValueError: If an option, the cohort or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.osic(root="osic", rank=10, ngpus=1)  # doctest: +SKIP
    """
    from cpic.train.tasks._cross_validation import cross_validate

    name = "cpic" if model.use_encoder else "tt_mlp"
    return cross_validate("osic", name, data, model, optimization, run)
