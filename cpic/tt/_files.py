"""Write files of plain arrays, all or nothing, and read them without executing anything."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cpic._files import replace_file


def save_arrays(path: str | os.PathLike, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as one compressed npz file, which replaces another when it is complete."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    replace_file(Path(path), lambda file: np.savez_compressed(file, **arrays))  # pyright: ignore[reportArgumentType]


def load_arrays(path: str | os.PathLike) -> dict[str, Tensor]:
    """What `save_arrays` wrote, on the CPU; a `ValueError` for anything else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no plain arrays") from error
