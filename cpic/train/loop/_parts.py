"""What a checkpoint is made of, and whether a file holds that, unchanged.

`torch.save` writes a zip file of stored records with a CRC-32 each, which `torch.load` does not
compare: a flipped bit in the weights would load as another weight. These sums are the digest of
what was saved; another one beside them would find no fault that they miss, and files of other
programs and older versions have them too.
"""

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from cpic._trust import DoubtError

_BLOCK = 2**20
_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError)


def check_records(file: BinaryIO) -> None:
    """Compare every record of a zip file with its sum, and leave the file at its beginning.

    Raises:
        DoubtError: If it is no zip file as `torch.save` writes it, or a record is another one.
        OSError: If it cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if len({record.filename for record in records}) < len(records):
                raise DoubtError("it has two records of one name")
            for record in records:
                # A packed one could become a thousand times as large.
                if record.compress_type != zipfile.ZIP_STORED:
                    raise DoubtError(f"its record {record.filename[:80]} is packed")
                with archive.open(record) as stream:
                    while stream.read(_BLOCK):
                        pass
    except DoubtError:
        raise
    except (*_FAULTS, LookupError, OverflowError) as error:
        raise DoubtError(str(error) or type(error).__name__) from error
    file.seek(0)


def check_kinds(state: Mapping[str, Any], path: Path) -> None:
    """Raise unless every part that is there holds what such a part holds.

    Raises:
        ValueError: Naming the file and the part.
    """
    for name, (what, holds) in _KINDS.items():
        if name in state and not holds(state[name]):
            raise _other(path, f"needs {what} as its {name}, got {_shown(state[name])}")
    epoch = state.get("epoch")
    if epoch is None:
        return
    tables = [state[name] for name in ("history", "times") if name in state]
    counted = all([row["epoch"] for row in rows] == list(range(len(rows))) for rows in tables)
    if not counted or any(len(rows) != epoch for rows in tables):
        raise _other(path, f"of {epoch} epochs needs a row of each in history and times")
    if state.get("best_epoch", -1) >= epoch:
        raise _other(path, f"of {epoch} epochs has no best one of number {state['best_epoch']}")


def check_there(state: Mapping[str, Any], names: tuple[str, ...], path: Path) -> None:
    """Raise unless a checkpoint has these parts.

    Raises:
        ValueError: Naming the file and what it lacks.
    """
    if lacking := [name for name in names if name not in state]:
        raise _other(path, f"needs {', '.join(lacking)}, there is none")


def _other(path: Path, reason: str) -> ValueError:
    return ValueError(f"a checkpoint {reason}; train again, or use another than {path}.")


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, int | float | str) else type(value).__name__


def _is_count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**53


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def _is_time(value: Any) -> bool:
    return _is_number(value) and 0 <= value < math.inf


def _is_plain(value: Any) -> bool:
    """Settings, as `plain` leaves them."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _are_sums(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _are_weights(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _are_rows(value: Any) -> bool:
    """Rows of one table, counted by their epoch."""
    return (
        isinstance(value, list)
        and all(_are_sums(row) and _is_count(row.get("epoch")) for row in value)
        and all(row.keys() == value[0].keys() for row in value)
    )


def _are_generators(value: Any) -> bool:
    """States of at least one process."""
    states = value.get("processes") if isinstance(value, dict) else None
    return isinstance(states, list) and bool(states) and all(map(_is_generator, states))


def _is_generator(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("own"), dict):
        return False
    cuda = value.get("cuda")
    if not isinstance(cuda, list | tuple):
        return False
    return all(isinstance(s, Tensor) for s in (value.get("torch"), *cuda, *value["own"].values()))


_COUNT = ("a number from 0", _is_count)
_SECONDS = ("a number of seconds", _is_time)
_ROWS = ("one row an epoch", _are_rows)
# What each part is called in a message, and whether a value is such a part.
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "config": ("settings by name", _is_plain),
    "model": ("weights by name", _are_weights),
    "optimizer": ("a state by name", _are_weights),
    "random": ("the generators of each process", _are_generators),
    "sums": ("numbers by name", _are_sums),
    "history": _ROWS,
    "times": _ROWS,
    "stopped": ("a word", lambda value: isinstance(value, str)),
    "best_epoch": ("a number from -1", lambda value: _is_count(value, -1)),
    **dict.fromkeys(("epoch", "position", "step", "stale", "faults"), _COUNT),
    **dict.fromkeys(("seconds", "spent", "step_seconds"), _SECONDS),
}
# What it takes to go on.
RESUMED = tuple(_KINDS)
