"""The folder of a download: existing files, their metadata, and free space."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from _ask import FetchError

from cpic._trust import DoubtError, check_kind, parse_json, read_regular


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raise FetchError if `folder` does not have room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise FetchError(
            f"{what} needs {size_text(n_bytes)}, {folder} has {size_text(free)} free; free space "
            "there or choose another folder."
        )


def size_text(n_bytes: int) -> str:
    """For example 4.2 GiB."""
    value, unit = float(n_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def check_place(file: Path) -> None:
    """Raise FetchError if its path exists but is not a file."""
    try:
        check_kind(file.stat().st_mode)
    except FileNotFoundError:
        return
    except DoubtError as error:
        raise FetchError(f"{file} {error}; remove it, or choose another folder.") from None


def fingerprint(url: str) -> str:
    """A fingerprint of an address that reveals nothing of it, since it may have a secret."""
    return hashlib.sha256(url.encode()).hexdigest()


def recall(note: Path, url: str) -> dict[str, Any]:
    """The metadata of the part; empty if it belongs to another download."""
    try:
        known = parse_json(read_regular(note))
        kinds = {"url": str, "mark": str, "total": int | None}
        fit = all(isinstance(known[key], kind) for key, kind in kinds.items())
        return known if fit and known["url"] == fingerprint(url) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
