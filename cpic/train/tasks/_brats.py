"""Survival after a glioma from magnetic resonance scans."""

from typing import TYPE_CHECKING

from cpic.options import Model, MRData, Optimization, Run, command

if TYPE_CHECKING:
    from cpic.train.results._results import FoldResult


@command("train C-PIC on BraTS: survival from MRI", standardise="standardize")
def brats(
    data: MRData = MRData(resolution=(256, 256, 256), intensity="zscore"),
    model: Model = Model(),
    optimization: Optimization = Optimization(batch_size=21),
    run: Run = Run(),
) -> "list[FoldResult]":
    """Cross-validate C-PIC on the survival of BraTS 2020 patients.

    The target is days / 1825, the loss its squared error, the metric the root mean square error
    over the whole fold, in days {cite}`usvyatsov2021cherry`. In `results_folder/experiment_name`
    each fold gets a folder with its checkpoints, logs and configuration; `summary.json` has the
    metrics next to those of a constant prediction ("constant") and, for a generated cohort, of the
    best possible prediction.

    Returns:
        One result per fold.

    Raises:
        ValueError: If an option, the cohort or a folder is invalid; raised before any training.

    Example:
        >>> from cpic import train
        >>> train.brats(root="BraTS2020", ndims=16, rank=10, ngpus=1)  # doctest: +SKIP
    """
    from cpic.train.tasks._cross_validation import cross_validate

    name = "cpic" if model.use_encoder else "tt_mlp"
    return cross_validate("brats", name, data, model, optimization, run)
