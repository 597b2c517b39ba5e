"""One DICOM file that holds one slice: what its header says, and its pixels in HU."""

import contextlib
import dataclasses
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpic import _trust
from cpic._errors import VolumeError
from cpic.data._tags import Tags, faults

if TYPE_CHECKING:
    from pydicom import FileDataset

AIR = -1000.0
_MOST_PIXELS = 2**26
# No slice is as large, and no tag that is looked at: a file with holes may announce anything.
_MOST_BYTES, _MOST_TAG_BYTES = 2**29, 2**20
# Bytes of pixels a byte of a compressed file may stand for; beyond it a size is forged.
_MOST_RATIO = 1000
_REQUIRED = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
)
_READ = (
    *_REQUIRED,
    "HighBit",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "InstanceNumber",
    "PixelSpacing",
    "SliceThickness",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SeriesInstanceUID",
    "SOPClassUID",
    "GantryDetectorTilt",
)


@dataclasses.dataclass(frozen=True)
class Slice:
    """The header of a file, checked; what may be missing is None."""

    path: Path
    shape: tuple[int, int]
    scale: tuple[float, float]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    instance: int | None
    pixel: tuple[float, ...] | None
    thickness: float | None
    padding: tuple[int, int] | None
    series: str
    tilt: float

    @property
    def number(self) -> int | None:
        """Of the file: the last digits of its name."""
        digits = re.findall(r"\d+", self.path.stem)
        return int(digits[-1]) if digits else None


class _Bounded(io.BufferedReader):
    """A file that never sets aside more memory than it has bytes, whatever a forged length asks."""

    def __init__(self, path: Path, most: int) -> None:
        try:
            # Not to wait for the writer of a named pipe.
            super().__init__(_trust.open_regular(path).detach())  # type: ignore[attr-defined]
        except _trust.DoubtError as error:
            raise VolumeError(f"{path} {error}.") from error
        self._size, self._most = path.stat().st_size, most
        if self._size > _MOST_BYTES:
            raise VolumeError(
                f"{path} has {self._size:,} bytes, more than a slice can have; copy or convert it "
                "again."
            )

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            # pydicom asks so for one thing only: to inflate all of it, to whatever size it grows.
            raise ValueError("its data set is deflated, which is not supported")
        size = min(size, max(0, self._size - self.tell()))
        if size > self._most:
            raise ValueError(f"a tag of its header has {size:,} bytes")
        return super().read(size)


def read_header(path: Path) -> Slice:
    """Read and check what a file says about its slice, without its pixels.

    Raises:
        VolumeError: if the file is no DICOM slice, lacks a tag, is too short for its pixels, or
            they are compressed and no decoder is installed.
    """
    try:
        with _quiet():
            return _checked(path, _parse(path, header_only=True))
    except VolumeError:
        raise
    except faults() as error:
        raise _unreadable(path, error) from error


def read_hu(part: Slice) -> np.ndarray:
    """Pixels of a slice in Hounsfield units, (rows, columns) float32, air and below as -1000.

    Raises:
        VolumeError: if the pixels cannot be decoded or have another shape than announced.
    """
    from pydicom.pixels.utils import pixel_array

    try:
        with _quiet():
            dataset = _parse(part.path, header_only=False)
            if "PixelData" not in dataset:
                raise VolumeError(
                    f"{part.path} has a header but no pixels; it is truncated, copy it again."
                )
            same = _checked(part.path, dataset) == part
            raw = pixel_array(dataset)
    except VolumeError:
        raise
    except faults() as error:
        raise _unreadable(part.path, error) from error
    if not same or raw.shape != part.shape:
        raise VolumeError(
            f"{part.path} contradicts what its header said: it has changed since the series was "
            "opened, or has a tag twice; open the series again, or convert the file."
        )
    slope, intercept = part.scale
    hu = raw.astype(np.float64) * slope + intercept
    if part.padding:
        hu[(raw >= part.padding[0]) & (raw <= part.padding[1])] = AIR
    # Scanners fill the corners with any value below air, often -2000.
    hu = np.maximum(hu, AIR)
    if hu.max() > np.finfo(np.float32).max:
        raise VolumeError(
            f"{part.path} has RescaleSlope {slope:g} and RescaleIntercept {intercept:g}, which "
            "gives values beyond float32; correct these tags."
        )
    return hu.astype(np.float32)


def _parse(path: Path, *, header_only: bool) -> "FileDataset":
    from pydicom import dcmread

    tags: list[str] | None = list(_READ) if header_only else None
    with _Bounded(path, _MOST_TAG_BYTES if header_only else _MOST_BYTES) as file:
        return dcmread(file, stop_before_pixels=header_only, specific_tags=tags)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of pydicom about odd values: what matters is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Of Pillow, about an image of more than 89 million pixels: a forged size.
        warnings.filterwarnings("error", message="Image size")
        yield


def _unreadable(path: Path, error: BaseException) -> VolumeError:
    from pydicom.errors import InvalidDicomError

    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if isinstance(error, InvalidDicomError):
        reason = "it is no DICOM file, the mark DICM is missing at byte 128"
    return VolumeError(
        f"{path} cannot be read as a DICOM slice ({reason}); copy or convert it again."
    )


def _checked(path: Path, dataset: "FileDataset") -> Slice:
    tags = Tags(path, dataset)
    # First: several frames keep their scale elsewhere, so what else is missing says little.
    _check_one_image(tags)
    tags.require(_REQUIRED)
    rows, columns = tags.whole("Rows"), tags.whole("Columns")
    bits = _check_pixels(tags)
    if not 1 <= rows * columns <= _MOST_PIXELS:
        raise VolumeError(
            f"{path} announces {rows} x {columns} pixels, a slice needs 1 to {_MOST_PIXELS:,}; "
            "copy the file again."
        )
    _check_syntax(path, dataset, rows * columns * bits // 8)
    (slope,), (intercept,) = (
        tags.numbers(tag, 1) or (0.0,) for tag in ("RescaleSlope", "RescaleIntercept")
    )
    if slope == 0:
        raise VolumeError(f"{path} has RescaleSlope 0, so all its values are equal; export again.")
    # Some machines write a thickness of 0 for one that they do not know.
    thickness = tags.numbers("SliceThickness", 1, above=-1e-9) or (0.0,)
    return Slice(
        path=path,
        shape=(rows, columns),
        scale=(slope, intercept),
        position=tags.numbers("ImagePositionPatient", 3),
        orientation=tags.numbers("ImageOrientationPatient", 6),
        instance=tags.whole("InstanceNumber"),
        pixel=tags.numbers("PixelSpacing", 2, above=0),
        thickness=thickness[0] or None,
        padding=_padding(tags),
        series=str(tags.get("SeriesInstanceUID") or ""),
        tilt=(tags.numbers("GantryDetectorTilt", 1) or (0.0,))[0],
    )


def _check_one_image(tags: Tags) -> None:
    frames, samples = tags.whole("NumberOfFrames", 1), tags.whole("SamplesPerPixel", 1)
    kind = tags.get("SOPClassUID")
    if frames > 1 or "Enhanced" in str(getattr(kind, "name", "")):
        raise VolumeError(
            f"{tags.path} needs one grey image, got {frames} frames of {samples} samples in one "
            "file (an enhanced or multi-frame DICOM file); export or convert the series to one "
            "file a slice, or to NIfTI."
        )
    if frames != 1 or samples != 1:
        raise VolumeError(
            f"{tags.path} needs one grey image, got {frames} frames of {samples} samples; export "
            "the series as one file a slice."
        )


def _check_pixels(tags: Tags) -> int:
    """Bits of a pixel."""
    bits, stored = tags.whole("BitsAllocated"), tags.whole("BitsStored")
    high = tags.whole("HighBit", stored - 1)
    if bits not in (8, 16, 32) or not 1 <= stored <= bits or high != stored - 1:
        raise VolumeError(
            f"{tags.path} needs pixels of 8, 16 or 32 bits with the unused ones on top, got "
            f"BitsAllocated {bits}, BitsStored {stored}, HighBit {high}; convert it."
        )
    return bits


def _check_syntax(path: Path, dataset: "FileDataset", n_bytes: int) -> None:
    """That the pixels can be decoded, as far as the header tells."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        raise VolumeError(
            f"{path} lacks the DICOM tag TransferSyntaxUID, which tells how its pixels are "
            "stored; export the series again."
        )
    try:
        ready = get_decoder(syntax).is_available
    except NotImplementedError:
        ready = False
    if not ready:
        raise VolumeError(
            f"{path} stores its pixels as {syntax.name}, and no decoder of that is installed; "
            "install pylibjpeg with its plugins, or decompress the series first."
        )
    there = path.stat().st_size
    if not syntax.is_compressed and there < n_bytes:
        raise VolumeError(
            f"{path} is truncated: its pixels need {n_bytes:,} bytes, the file has {there:,}; "
            "copy or download it again."
        )
    if there * _MOST_RATIO < n_bytes:
        raise VolumeError(
            f"{path} announces {dataset.Rows} x {dataset.Columns} pixels in {there:,} bytes, more "
            "than any compression can hold; copy or download it again."
        )


def _padding(tags: Tags) -> tuple[int, int] | None:
    """Lowest and highest stored value that stands for no tissue at all."""
    value = tags.whole("PixelPaddingValue")
    if value is None:
        return None
    limit = tags.whole("PixelPaddingRangeLimit", value)
    return min(value, limit), max(value, limit)
