"""What a fold gave, and the files that say so."""

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
    """What became of one fold.

    Attributes:
        fold: Its number.
        metrics: Those of the last epoch on the validation fold; with `best_epoch` and
            `best_<metric>`, chosen on that same fold and so too good; and `mean_error`, the error
            of the best constant of the training fold, to compare `error` with.
        epochs: Epochs that were finished.
        seconds: Of training and validation, earlier pieces of a resumed run included.
        step_seconds: Mean of the training steps.
        peak_bytes: Most memory this process has used: of the GPU if there is one.
        latest: Checkpoint of the end.
        best: Checkpoint of the best epoch.
        stopped: Why there were no more epochs: "epochs", "patience" or "minutes".
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


def write_summary(
    folder: str | os.PathLike, results: Sequence[FoldResult], facts: dict[str, Any]
) -> Path:
    """Write `folder/summary.json`: every fold, means over the folds, and where they come from.

    Versions, machine and, if the code is in a Git repository, its commit are added. The file
    appears by one rename.

    Args:
        folder: Of the run.
        results: Of the folds so far.
        facts: What else is to be known, such as the settings; anything that JSON holds.

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
    """A CSV of a line a row, all of it or what was there before.

    Args:
        path: Of the file.
        rows: Values by column; what a row lacks is empty.
        columns: Names in their order; those of the first row by default.
    """
    text = io.StringIO()
    names = list(columns or (rows[0] if rows else ["epoch"]))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, lambda file: file.write(text.getvalue().encode()))


def plain(value: Any) -> Any:
    """Settings as JSON has them: lists for tuples, strings for paths and types."""
    return json.loads(json.dumps(value, default=str))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever cannot be written in this block becomes one clear error."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({error.strerror or error}); choose another results folder, "
            "or make room."
        ) from error


def peak_bytes() -> int:
    """Most memory used so far: of the GPU if it was used, else resident memory of the process."""
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
