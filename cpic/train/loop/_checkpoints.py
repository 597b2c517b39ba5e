"""Checkpoint files: written atomically, and read only after validation.

A checkpoint is a dictionary of tensors, lists, numbers and strings, so that reading one executes
no code. It is put in place by a rename: a run that is killed leaves the previous one intact.

`torch.save` writes a zip file of stored records with a CRC-32 each, which `torch.load` does not
verify: a flipped bit would load as a different weight. These checksums are verified here. A
checksum of our own would detect nothing more, and files of other programs and older versions
have only these.
"""

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from cpic._files import replace_file
from cpic._trust import DoubtError, open_regular
from cpic.train.loop._faults import one_line

_FORMAT = 1
# Raised by torch for files that it did not write.
UNFIT = (
    *(OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, MemoryError),
)
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, UnpicklingError)


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint saved by `fit_fold`.

    Nothing in the file is executed, and each record is verified against its checksum.

    Args:
        path: A `latest.ckpt` or `best.ckpt`.

    Returns:
        A dictionary with the weights of the model under `"model"`, for its `load_state_dict`, the
        settings of the run under `"config"`, one dictionary per epoch under `"history"`, and the
        remaining state that is needed to resume the run.

    Raises:
        ValueError: If the file is missing, damaged or not a checkpoint, or a part of it is invalid.

    Example:
        >>> saved = read_checkpoint("results/run/fold_0/best.ckpt")  # doctest: +SKIP
        >>> model.load_state_dict(saved["model"])  # doctest: +SKIP
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            _check_records(file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no checkpoint {path}; train first, or check the path."
        ) from error
    except (*_DAMAGED, *UNFIT) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({one_line(error)}); train again or copy it "
            "again."
        ) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(
            f"{path} is not a checkpoint of cpic.train of format {_FORMAT}; train again, or use "
            "the version of cpic that made it."
        )
    _check_parts(state, path)
    return state


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the file completely or not at all."""
    full = {"format": _FORMAT, **state}
    replace_file(path, lambda file: torch.save(full, file))


def check_there(state: Mapping[str, Any], names: tuple[str, ...], path: Path) -> None:
    """Raise unless a checkpoint has these parts.

    Raises:
        ValueError: If a part is missing; the message has the file and the missing parts.
    """
    if lacking := [name for name in names if name not in state]:
        raise _other(path, f"needs {', '.join(lacking)}, there is none")


def _check_records(file: BinaryIO) -> None:
    """Verify the checksum of every record of a zip file, and rewind the file."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if len({record.filename for record in records}) < len(records):
            raise DoubtError("it has two records of the same name")
        # A compressed record could expand a thousandfold.
        packed = [one.filename for one in records if one.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise DoubtError(f"its record {packed[0][:80]} is compressed")
        if damaged := archive.testzip():
            raise DoubtError(f"its record {damaged[:80]} does not match its CRC-32")
    file.seek(0)


def _check_parts(state: Mapping[str, Any], path: Path) -> None:
    """Raise unless every part that is present is valid."""
    for name, (what, holds) in _PARTS.items():
        if name in state and not holds(state[name]):
            value = state[name]
            shown = (
                repr(value)[:40] if isinstance(value, int | float | str) else type(value).__name__
            )
            raise _other(path, f"needs {what} as its {name}, got {shown}")
    epoch = state.get("epoch")
    if epoch is None:
        return
    tables = [state[name] for name in ("history", "times") if name in state]
    if any(len(rows) != epoch for rows in tables):
        raise _other(path, f"of {epoch} epochs needs one row per epoch in history and times")
    if state.get("best_epoch", -1) >= epoch:
        raise _other(path, f"of {epoch} epochs has no best epoch of number {state['best_epoch']}")


def _other(path: Path, reason: str) -> ValueError:
    return ValueError(f"a checkpoint {reason}; train again, or use another than {path}.")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**53


def _are_named(value: Any, holds: Callable[[Any], bool] = lambda _: True) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and holds(one) for key, one in value.items()
    )


def _is_plain(value: Any) -> bool:
    """Whether a value consists of JSON types."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return _are_named(value)


def _are_rows(value: Any) -> bool:
    """Whether a value is a list of rows of one table, numbered by epoch."""
    return isinstance(value, list) and all(
        _are_named(row, _is_number)
        and row.keys() == value[0].keys()
        and type(row.get("epoch")) is int
        and row["epoch"] == k
        for k, row in enumerate(value)
    )


def _are_generators(value: Any) -> bool:
    """Whether a value has the generator states of at least one process."""
    states = value.get("processes") if isinstance(value, dict) else None
    return isinstance(states, list) and bool(states) and all(map(_is_generator, states))


def _is_generator(value: Any) -> bool:
    cuda, own = (isinstance(value, dict) and value.get(name) for name in ("cuda", "own"))
    if not isinstance(cuda, list | tuple) or not isinstance(own, dict):
        return False
    return all(isinstance(one, Tensor) for one in (value.get("torch"), *cuda, *own.values()))


_COUNT = ("a number from 0", _is_count)
_SECONDS = ("a number of seconds", lambda value: _is_number(value) and 0 <= value < math.inf)
_ROWS = ("one row per epoch", _are_rows)
# Description of each part for messages, and the test for it.
_PARTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "config": ("settings by name", _is_plain),
    "model": ("weights by name", _are_named),
    "optimizer": ("a state by name", _are_named),
    "random": ("the generators of each process", _are_generators),
    "sums": ("numbers by name", lambda value: _are_named(value, _is_number)),
    "history": _ROWS,
    "times": _ROWS,
    "stopped": ("a word", lambda value: isinstance(value, str)),
    "best_epoch": ("a number from -1", lambda value: _is_count(value, -1)),
    **dict.fromkeys(("epoch", "position", "step", "stale", "faults"), _COUNT),
    **dict.fromkeys(("seconds", "spent", "step_seconds"), _SECONDS),
}
# The parts needed to resume.
RESUMED = tuple(_PARTS)
