"""Atomic writes: a killed run, or a full disk, leaves the previous file intact."""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def replace_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under a temporary name and rename it; safe with concurrent writers.

    Raises:
        OSError: If it cannot be written; the previous file remains intact.
    """
    part = path.with_name(f".{path.name[:200]}-{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except RuntimeError as error:
        # torch.save reports a full disk in this way.
        raise OSError(errno.EIO, "writing failed, as on a full disk", str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file, and create its folder if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    replace_file(path, lambda file: file.write(text.encode("utf-8")))
