"""One DICOM file with one slice: its header, and its pixels in HU."""

import contextlib
import dataclasses
import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cpic import _trust
from cpic._errors import VolumeError
from cpic.data._faults import broken, reading
from cpic.data.dicom._tags import Tags, faults, said

if TYPE_CHECKING:
    from pydicom import FileDataset

AIR = -1000.0
_MOST_PIXELS = 2**26
# No slice is as large, and no tag that is read: a sparse file may declare anything.
_MOST_BYTES, _MOST_TAG_BYTES = 2**29, 2**20
# Maximum ratio of pixel bytes to bytes of a compressed file; beyond it a size is forged.
_MOST_RATIO = 1000
_REQUIRED = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel",
    "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip
_READ = (
    *_REQUIRED, "HighBit", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient",
    "InstanceNumber", "PixelSpacing", "SliceThickness", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "SeriesInstanceUID", "SOPClassUID", "GantryDetectorTilt",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Slice:
    """The checked header of a file; optional values are None."""

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
        """Number of the file: the last digits of its name."""
        digits = re.findall(r"\d+", self.path.stem)
        return int(digits[-1]) if digits else None


class _Bounded(io.BufferedReader):
    """A file that never allocates more memory than it has bytes, even for a forged length."""

    def __init__(self, path: Path, most: int) -> None:
        with reading(path):
            # Do not block on the writer of a named pipe.
            super().__init__(_trust.open_regular(path).detach())  # type: ignore[attr-defined]
        self._size, self._most = os.fstat(self.fileno()).st_size, most
        if self._size > _MOST_BYTES:
            raise broken(path, f"has {self._size:,} bytes, more than a slice can have")

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            # pydicom requests this only to inflate the whole file, to any size.
            raise ValueError("its data set is deflated, which is not supported")
        size = min(size, max(0, self._size - self.tell()))
        if size > self._most:
            raise ValueError(f"a tag of its header has {size:,} bytes")
        return super().read(size)


def read_header(path: Path) -> Slice:
    """Read and check the header of a slice, without its pixels.

    Raises:
        VolumeError: If the file is not a DICOM slice, lacks a tag, is too short for its pixels, or
            they are compressed and no decoder is installed.
    """
    with _parsing(path):
        return _checked(path, _parse(path, header_only=True))


def read_hu(part: Slice) -> np.ndarray:
    """Pixels of a slice in Hounsfield units, (rows, columns) float32, clipped at -1000 (air).

    Raises:
        VolumeError: If the pixels cannot be decoded or have another shape than declared.
    """
    from pydicom.pixels.utils import pixel_array

    with _parsing(part.path):
        dataset = _parse(part.path, header_only=False)
        if "PixelData" not in dataset:
            raise broken(part.path, "has a header but no pixels, it is truncated")
        same = _checked(part.path, dataset) == part
        raw = pixel_array(dataset)
    if not same or raw.shape != part.shape:
        reasons = "it has changed since the series was opened, or has a tag twice"
        fault = f"contradicts what its header said: {reasons}"
        raise broken(part.path, fault, "open the series again, or convert the file")
    slope, intercept = part.scale
    hu = raw.astype(np.float64) * slope + intercept
    if part.padding:
        hu[(raw >= part.padding[0]) & (raw <= part.padding[1])] = AIR
    # Scanners fill the corners with values below air, often -2000.
    hu = np.maximum(hu, AIR)
    if hu.max() > np.finfo(np.float32).max:
        scale = f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g}"
        fault = f"has {scale}, which gives values beyond float32"
        raise broken(part.path, fault, "correct these tags")
    return hu.astype(np.float32)


def _parse(path: Path, *, header_only: bool) -> "FileDataset":
    from pydicom import dcmread

    tags: list[str] | None = list(_READ) if header_only else None
    with _Bounded(path, _MOST_TAG_BYTES if header_only else _MOST_BYTES) as file:
        return dcmread(file, stop_before_pixels=header_only, specific_tags=tags)


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Turn errors of pydicom into one about the file; no warnings, as all is checked here."""
    from pydicom.errors import InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # From Pillow, about an image of more than 89 million pixels: a forged size.
            warnings.filterwarnings("error", message="Image size")
            yield
    except VolumeError:
        raise
    except faults() as error:
        reason = said(error)
        if isinstance(error, InvalidDicomError):
            reason = "it is not a DICOM file, DICM is missing at byte 128"
        raise broken(path, f"cannot be read as a DICOM slice ({reason})") from error


def _checked(path: Path, dataset: "FileDataset") -> Slice:
    tags = Tags(path, dataset)
    # First: several frames have their scale elsewhere, so other missing tags tell little.
    _check_one_image(tags)
    tags.require(_REQUIRED)
    rows, columns = tags.whole("Rows"), tags.whole("Columns")
    _check_pixels(tags, dataset, rows, columns)
    slope = tags.number("RescaleSlope")
    if slope == 0:
        raise broken(path, "has RescaleSlope 0, so all its values are equal", "export it again")
    return Slice(
        path=path,
        shape=(rows, columns),
        scale=(slope, tags.number("RescaleIntercept")),
        position=tags.numbers("ImagePositionPatient", 3),
        orientation=tags.numbers("ImageOrientationPatient", 6),
        instance=tags.whole("InstanceNumber"),
        pixel=tags.numbers("PixelSpacing", 2, above=0),
        # Some machines write 0 for an unknown distance, or the direction of the table.
        thickness=abs(tags.number("SliceThickness")) or None,
        padding=_padding(tags),
        series=str(tags.get("SeriesInstanceUID") or ""),
        tilt=tags.number("GantryDetectorTilt"),
    )


def _check_one_image(tags: Tags) -> None:
    frames, samples = tags.whole("NumberOfFrames", 1), tags.whole("SamplesPerPixel", 1)
    kind = str(getattr(tags.get("SOPClassUID"), "name", ""))
    fault = f"needs one gray image, got {frames} frames of {samples} samples"
    if frames > 1 or "Enhanced" in kind:
        fault += " in one file (an enhanced or multi-frame DICOM file)"
        advice = "export or convert the series to one file a slice, or to NIfTI"
        raise broken(tags.path, fault, advice)
    if frames != 1 or samples != 1:
        raise broken(tags.path, fault, "export the series as one file a slice")


def _check_pixels(tags: Tags, dataset: "FileDataset", rows: int, columns: int) -> None:
    """Check that the pixels can be decoded, as far as the header tells."""
    path, pixels = tags.path, f"declares {rows} x {columns} pixels"
    bits, stored = tags.whole("BitsAllocated"), tags.whole("BitsStored")
    high = tags.whole("HighBit", stored - 1)
    if bits not in (8, 16, 32) or not 1 <= stored <= bits or high != stored - 1:
        got = f"got BitsAllocated {bits}, BitsStored {stored}, HighBit {high}"
        fault = f"needs pixels of 8, 16 or 32 bits with the unused ones on top, {got}"
        raise broken(path, fault, "convert it")
    if not 1 <= rows * columns <= _MOST_PIXELS:
        raise broken(path, f"{pixels}, a slice needs 1 to {_MOST_PIXELS:,}")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        fault = "lacks the DICOM tag TransferSyntaxUID, which tells how its pixels are stored"
        raise broken(path, fault, "export the series again")
    if not _has_decoder(syntax):
        fault = f"stores its pixels as {syntax.name}, and no decoder of that is installed"
        advice = "install pylibjpeg with its plugins, or decompress the series first"
        raise broken(path, fault, advice)
    n_bytes, there = rows * columns * bits // 8, path.stat().st_size
    if not syntax.is_compressed and there < n_bytes:
        fault = f"is truncated: its pixels need {n_bytes:,} bytes, the file has {there:,}"
        raise broken(path, fault)
    if there * _MOST_RATIO < n_bytes:
        raise broken(path, f"{pixels} in {there:,} bytes, more than any compression can hold")


def _has_decoder(syntax: str) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _padding(tags: Tags) -> tuple[int, int] | None:
    """Lowest and highest stored value that marks padding."""
    value = tags.whole("PixelPaddingValue")
    if value is None:
        return None
    limit = tags.whole("PixelPaddingRangeLimit", value)
    return min(value, limit), max(value, limit)
