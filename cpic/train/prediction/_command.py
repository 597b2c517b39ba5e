"""The command that predicts; what it needs is loaded when it runs."""

from pathlib import Path

from cpic.options import command
from cpic.options._kinds import Count, Finite, Text


@command("predictions of a checkpoint for a folder of scans", starts="n_warm_starts")
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
    """Predict from every scan in a folder, and write a table.

    Scans are treated as those of the training: what was done is in the checkpoint. Originals are
    only read; converted scans go to the cache. A scan that cannot be read gets a row that says why.
    The log has the number of patients, files that no patient needs, and what is not known of whom.

    Args:
        checkpoint: File of a fold, `best.ckpt` or `latest.ckpt`.
        scans: Folder with the tree of BraTS or OSIC, of .nii or .nii.gz files, or of folders of
            .dcm files, at any depth. The contrast of a file is in its name: `_t1` as in BraTS 2020,
            `-t1n` as in BraTS 2023, or `_T1w` as in BIDS; see `Returns` for names of patients.
        out: CSV file to write: `patient`, then `days`, or `weeks` with the three quantiles `low`,
            `median` and `high` and their `unit`, then `reason`, empty where all went well.
        table: CSV file of what is known besides the scan, with the columns of `survival_info.csv`
            (days are not needed) or `train.csv`; those in the tree by default. It is read as in the
            training.
        weeks: Weeks since the scan to predict the lung function at, in place of those in the table.
        n_warm_starts: Scans of the training from whose sets each search begins, as in
            `cpic.nn.Search`; with more of them it is slower and misses less. As in the training by
            default.
        nan: Value that replaces NaN and infinite voxels. As in the training by default, where a
            patient who has some is left out unless it was given.
        cache: Folder of converted scans; the user's cache folder by default.

    Returns:
        `out`. A patient is called as in the table; who is in none, by the folders on the way to
        the scan, less what is the same for all.

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
