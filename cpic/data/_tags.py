"""Values of DICOM tags: numbers that are numbers, and errors that name the tag."""

import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpic._errors import VolumeError

if TYPE_CHECKING:
    from pydicom import FileDataset

# What pydicom and the decoders raise on bytes that are not what they announce, and its own errors.
_FAULTS = (
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    MemoryError,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
    Warning,
)


def faults() -> tuple[type[Exception], ...]:
    """What pydicom may raise on bytes that are not what they announce."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (*_FAULTS, BytesLengthException, InvalidDicomError)


class Tags:
    """The tags of one file by their names.

    What is no number, a number with a decimal comma as well, raises `VolumeError` with file and
    tag.
    """

    def __init__(self, path: Path, dataset: "FileDataset") -> None:
        self.path, self._dataset = path, dataset

    def get(self, tag: str) -> Any:
        """The value, None if the tag is missing or empty."""
        try:
            value = self._dataset.get(tag)
            # Text becomes numbers when it is looked at.
            return None if value is None or value == "" else value
        except VolumeError:
            raise
        except faults() as error:
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise VolumeError(
                f"{self.path} has a {tag} that cannot be read ({reason}); correct the tag or "
                "export the series again."
            ) from error

    def require(self, tags: tuple[str, ...]) -> None:
        """Refuse a file that lacks one of these."""
        missing = [tag for tag in tags if self.get(tag) is None]
        if missing:
            raise VolumeError(
                f"{self.path} lacks the DICOM tags {', '.join(missing)}, without which its values "
                "are not known; export the series again."
            )

    def whole(self, tag: str, default: int | None = None) -> Any:
        """One whole number; `default` if the tag is missing."""
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
        needed = f"{n} finite number{'s'[: n > 1]}" + f" above {above:g}" * math.isfinite(above)
        try:
            values = tuple(float(part) for part in parts)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(tag, needed, value) from None
        if not values:
            return None
        if len(values) != n or not all(math.isfinite(v) and v > above for v in values):
            raise self._wrong(tag, needed, value)
        return values

    def _wrong(self, tag: str, needed: str, value: Any) -> VolumeError:
        return VolumeError(
            f"{self.path} needs {needed} in {tag}, got {' '.join(str(value).split())[:60]}; "
            "correct the tag or export the series again."
        )
