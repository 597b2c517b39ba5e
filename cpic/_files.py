"""Files that appear whole: a run that is killed, or a full disk, leaves what was there before."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def replace_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under another name and rename it, whoever else writes it at the same time.

    Raises:
        OSError: If it cannot be written; what was there before is whole.
    """
    part = path.with_name(f".{path.name[:200]}-{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except RuntimeError as error:
        # torch.save reports a full disk so.
        raise OSError(f"cannot write {path} ({error}); is the disk full?") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """A value as JSON in a file, whose folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1) + "\n"
    replace_file(path, lambda file: file.write(text.encode()))
