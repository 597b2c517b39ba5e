"""What a fold gave."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class FoldResult:
    """What became of one fold."""

    fold: int
    metrics: dict[str, float]
    epochs: int
    seconds: float
    step_seconds: float
    peak_bytes: int
    latest: Path
    best: Path


def write_summary(
    folder: str | os.PathLike, results: Sequence[FoldResult], facts: dict[str, Any]
) -> Path:
    """Write `folder/summary.json`, all of it or nothing."""
    raise NotImplementedError
