"""Numeric values of DICOM tags, and errors that name the tag."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic._errors import VolumeError
from cpic._trust import DAMAGED
from cpic.data._faults import broken

if TYPE_CHECKING:
    from pydicom import FileDataset

_ADVICE = "correct the tag or export the series again"


def faults() -> tuple[type[Exception], ...]:
    """Exceptions that pydicom may raise for corrupt bytes, its own included."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*DAMAGED, OSError, Warning, BytesLengthException, InvalidDicomError)


def said(error: BaseException) -> str:
    """The error of a library, in one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__


class Tags:
    """The tags of one file by their names.

    A value that is not a number, such as one with a decimal comma, raises `VolumeError` with file
    and tag.
    """

    def __init__(self, path: Path, dataset: "FileDataset") -> None:
        self.path, self._dataset = path, dataset

    def get(self, tag: str) -> Any:
        """The value, None if the tag is missing or empty."""
        try:
            value = self._dataset.get(tag)
            # Text is converted to numbers on access.
            return None if value is None or value == "" else value
        except faults() as error:
            fault = f"has a {tag} that cannot be read ({said(error)})"
            raise broken(self.path, fault, _ADVICE) from error

    def require(self, tags: tuple[str, ...]) -> None:
        """Reject a file that lacks one of these tags."""
        missing = ", ".join(tag for tag in tags if self.get(tag) is None)
        if missing:
            fault = f"lacks the DICOM tags {missing}, without which its values are not known"
            raise broken(self.path, fault, "export the series again")

    def whole(self, tag: str, default: int | None = None) -> Any:
        """One integer; `default` if the tag is missing."""
        value = self.get(tag)
        if value is None:
            return default
        try:
            if int(value) == float(value):
                return int(value)
        except (TypeError, ValueError, OverflowError):
            pass
        raise self._wrong(tag, "1 whole number", value)

    def numbers(self, tag: str, n: int, *, above: float = -math.inf) -> tuple[float, ...] | None:
        """The n finite numbers of a tag, all above a bound; None if it is missing."""
        value = self.get(tag)
        if value is None:
            return None
        parts = [value] if isinstance(value, str | int | float) else value
        try:
            values = tuple(float(part) for part in parts)
        except (TypeError, ValueError, OverflowError):
            values = (math.nan,)
        if not values:
            return None
        if len(values) != n or not all(math.isfinite(v) and v > above for v in values):
            needed = f"{n} finite number{'s'[: n > 1]}" + f" above {above:g}" * math.isfinite(above)
            raise self._wrong(tag, needed, value)
        return values

    def number(self, tag: str) -> float:
        """One finite number, 0 if the tag is missing."""
        return (self.numbers(tag, 1) or (0.0,))[0]

    def _wrong(self, tag: str, needed: str, value: Any) -> VolumeError:
        got = " ".join(str(value).split())[:60]
        return broken(self.path, f"needs {needed} in {tag}, got {got}", _ADVICE)
