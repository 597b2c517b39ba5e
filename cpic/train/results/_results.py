"""Results of a fold, and the files that hold them."""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cpic._files import replace_file, write_json

Row = dict[str, float]


@dataclasses.dataclass(frozen=True)
class FoldResult:
    """The result of one fold.

    Attributes:
        fold: Index of the fold.
        metrics: Metrics of the last epoch on the validation fold; `best_<metric>`, also on the
            validation fold, of the epoch `best_epoch`, which the patients of `selection` chose;
            and `mean_error`, the error of the best constant of the patients trained on, as a
            baseline for `error`.
        epochs: Number of finished epochs.
        seconds: Time of training and validation, earlier parts of a resumed run included.
        step_seconds: Mean time of a training step.
        peak_bytes: Peak memory of this process: GPU memory if a GPU is used.
        latest: Checkpoint of the last epoch.
        best: Checkpoint of the best epoch.
        stopped: Why training ended: "epochs", "patience" or "minutes".
        selection: Training patients who chose the best epoch and were not trained on; if there are
            none, the validation fold chose it, and `best_<metric>` is optimistic.
    """

    fold: int
    metrics: dict[str, float]
    epochs: int
    seconds: float
    step_seconds: float
    peak_bytes: int
    latest: Path
    best: Path
    stopped: str = "epochs"
    selection: tuple[str, ...] = ()


def write_summary(
    folder: str | os.PathLike, results: Sequence[FoldResult], facts: dict[str, Any]
) -> Path:
    """Write `folder/summary.json`: every fold, means over the folds, and their provenance.

    Versions, machine and, if the code is in a Git repository, its commit are added. The file is
    written atomically.

    Args:
        folder: Folder of the run.
        results: Results of the folds so far.
        facts: Further content, such as the settings; anything that JSON can hold.

    Returns:
        The path of the file.

    Raises:
        ValueError: If it cannot be written.
    """
    path = Path(folder) / "summary.json"
    names = [name for name in (results[0].metrics if results else {}) if name != "best_epoch"]
    folds = [dataclasses.asdict(result) for result in results]
    for fold in folds:
        fold.update({key: os.path.relpath(fold[key], path.parent) for key in ("latest", "best")})
    mean = {
        name: statistics.fmean(result.metrics.get(name, math.nan) for result in results)
        for name in names
    }
    with writing(path):
        write_json(path, plain({**facts, "folds": folds, "mean": mean, "provenance": provenance()}))
    return path


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write a CSV file with one line per row, completely or not at all.

    Args:
        path: Path of the file.
        rows: Values by column; missing values stay empty.
        columns: Names in order; those of the first row by default.
    """
    text = io.StringIO()
    names = list(columns or (rows[0] if rows else ["epoch"]))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, lambda file: file.write(text.getvalue().encode()))


def plain(value: Any) -> Any:
    """Settings as JSON types: lists for tuples, strings for paths and types."""
    return json.loads(json.dumps(value, default=str))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write in this block into one clear error."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror or error}); choose another results folder, "
            "or make room."
        ) from error


def peak_bytes() -> int:
    """Peak memory so far in bytes: of the GPU if it was used, else resident memory."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def provenance() -> dict[str, Any]:
    """Versions, commit and machine."""
    import cpic

    return {
        "cpic": cpic.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
