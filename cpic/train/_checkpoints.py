"""Checkpoints."""

import os
from typing import Any


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """What a run saved, with `"config"` and the weights of the model under `"model"`."""
    raise NotImplementedError
