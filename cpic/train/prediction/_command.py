"""The command that predicts; its dependencies are loaded when it runs."""

from pathlib import Path

from cpic.options import command
from cpic.options._kinds import Count, Finite, Text


@command("predict from a checkpoint for a folder of scans", starts="n_warm_starts")
def predict(
    checkpoint: Text | Path,
    scans: Text | Path,
    *,
    out: Text | Path,
    table: Text | Path | None = None,
    weeks: tuple[Finite, ...] = (),
    n_warm_starts: Count | None = None,
    nan: Finite | None = None,
    cache: Text | Path | None = None,
) -> Path:
    """Predict for every scan in a folder, and write a table.

    Scans are preprocessed as in training; the checkpoint has the settings. Originals are only read;
    converted scans go to the cache. A scan that cannot be read gets a row with the reason. The log
    lists the number of patients, unused files, and missing data of patients.

    Args:
        checkpoint: Checkpoint of a fold, `best.ckpt` or `latest.ckpt`.
        scans: Folder with the tree of BraTS or OSIC, with .nii or .nii.gz files, or with folders of
            .dcm files, at any depth. The name of a file has its contrast: `_t1` as in BraTS 2020,
            `-t1n` as in BraTS 2023, or `_T1w` as in BIDS; see `Returns` for names of patients.
        out: CSV file to write: `patient`, then `days`, or `weeks` with the three quantiles `low`,
            `median` and `high` and their `unit`, then `reason`, empty if the prediction succeeded.
        table: CSV file of patient data, with the columns of `survival_info.csv` (days are not
            needed) or `train.csv`; by default those found in the tree. It is read as in training.
        weeks: Weeks since the scan to predict the lung function at, instead of those in the table.
        n_warm_starts: Number of training scans whose index sets start each search, as in
            `cpic.nn.Search`; larger is slower and misses less. As in training by default.
        nan: Value to replace NaN and infinite voxels with. As in training by default; if it was not
            set there, scans with such voxels are rejected.
        cache: Folder for converted scans; the user's cache folder by default.

    Returns:
        `out`. A patient is named as in the table; a patient in no table, by the folders that lead
        to the scan, without those common to all scans.

    Raises:
        ValueError: If the checkpoint, the folder or the table cannot be used, or `out` cannot be
            written.

    Example:
        >>> from cpic import train
        >>> train.predict("best.ckpt", "scans", out="days.csv")  # doctest: +SKIP
    """
    from cpic.train.prediction._predict import write_predictions

    return write_predictions(
        checkpoint,
        scans,
        out=out,
        table=table,
        weeks=weeks,
        n_warm_starts=n_warm_starts,
        nan=nan,
        cache=cache,
    )
