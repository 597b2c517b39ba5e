"""Lists and annotations of published data sets: text, MATLAB files and XML, checked."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpic._errors import ImageError
from cpic._trust import DAMAGED, DoubtError, read_regular
from cpic.data._faults import reading

_LARGEST = 2**28


def read_lines(path: Path) -> list[str]:
    with reading(path, ImageError):
        text = read_regular(path, _LARGEST).decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ImageError(f"{path} is empty; unpack the archive again.")
    return lines


def read_table(path: Path) -> dict[str, str]:
    """Lines of a number and a text."""
    rows = [line.partition(" ") for line in read_lines(path)]
    if not all(key.isdigit() and text.strip() for key, _, text in rows):
        raise ImageError(f"{path} needs lines `number text`; it is of another data set.")
    return {key: text.strip() for key, _, text in rows}


def whole(root: Path, text: str) -> int:
    if not text.isdigit():
        raise ImageError(f"{root} needs numbers of classes, got {text!r}.")
    return int(text)


def read_matlab(path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """Variables of a MATLAB file."""
    from scipy.io import loadmat

    with reading(path, ImageError):
        content = read_regular(path, _LARGEST)
    with form_of(path):
        found = loadmat(io.BytesIO(content))
    if lacking := [field for field in fields if field not in found]:
        raise ImageError(
            f"{path} lacks {', '.join(lacking)}, it has "
            f"{', '.join(name for name in found if name[:2] != '__')}; it is of another data set."
        )
    return found


class form_of:
    """Turn errors about the form of annotations into one that names the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Raise `ImageError` for errors of the form."""
        if isinstance(error, (*DAMAGED, NotImplementedError)) and not isinstance(error, ImageError):
            raise ImageError(
                f"{self.path} has another form than expected ({type(error).__name__}: {error}); "
                "it is damaged, or of another data set."
            ) from error


def read_boxes(path: Path) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of all dogs of an annotation."""
    import xml.etree.ElementTree as tree

    with reading(path, ImageError):
        text = read_regular(path, 2**20)
    if b"<!ENTITY" in text or b"<!DOCTYPE" in text:
        raise ImageError(f"{path} declares entities, which an annotation has none of.")
    with form_of(path):
        try:
            found = tree.fromstring(text)
        except tree.ParseError as error:
            raise DoubtError(f"{error}") from error
        sides = ("xmin", "ymin", "xmax", "ymax")
        boxes = [
            tuple(int(float(box.findtext(side) or "")) for side in sides)
            for box in found.iter("bndbox")
        ]
    if not boxes:
        raise ImageError(f"{path} has no box; it is of another data set.")
    return boxes  # type: ignore[return-value]
