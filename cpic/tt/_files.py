"""Write files of plain arrays atomically, and read them without executing anything."""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from cpic._files import replace_file

_Made = TypeVar("_Made")


def save_arrays(path: str | os.PathLike, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as one compressed npz file, which replaces an existing one when complete."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    replace_file(Path(path), lambda file: np.savez_compressed(file, **arrays))  # pyright: ignore[reportArgumentType]


def load_arrays(
    path: str | os.PathLike, owner: str, make: Callable[[dict[str, Tensor]], _Made]
) -> _Made:
    """Apply `make` to the arrays that `save_arrays` wrote; a `ValueError` for other files."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return make({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    except (KeyError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{owner}.load needs a file written by {owner}.save, got {path}."
        ) from error
