"""A DICOM series, one file per slice, as a volume in Hounsfield units."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data.chunked._reader import ChunkedReader
from cpic.data.dicom._order import read_order
from cpic.data.dicom._report import SeriesReport
from cpic.data.dicom._slice import read_hu


class Series(NamedTuple):
    """A series in memory: `values` (slices, H, W) in HU, `spacing` in mm, and the `report`."""

    values: Tensor
    spacing: tuple[float, float, float]
    report: SeriesReport


class DicomVolume(ChunkedReader):
    """A folder of DICOM slices (see `cpic.data.Volume`), shape (slices, rows, columns).

    Values are Hounsfield units, `RescaleSlope * stored + RescaleIntercept`, float32. Values below
    air (-1000 HU; scanners fill the corners outside their circle with, for example, -2000) and
    padding according to `PixelPaddingValue` become -1000. (The code published for the fibrosis
    challenge instead sets stored values up to -1000 to 0 before scaling: water, if the intercept is
    0.)

    Slices are ordered by ImagePositionPatient projected on the normal of ImageOrientationPatient,
    from the feet up (for other than axial slices: along the positive axis nearest to the normal).
    If positions are missing, the order is by descending InstanceNumber, or, if these are not
    distinct, by descending number in the file name, since the first slice of a scan is usually the
    top one; if some files have positions, these must agree with that order and determine its
    direction. A file that duplicates a slice exactly is skipped and reported; gaps are reported.

    Opening reads all headers; a call decodes the slices it touches. Convert a series that is read
    often.

    Args:
        folder: Folder whose `.dcm` files are the slices; other files are ignored.
        order: "position" as above; "file" forces the number in the file name, as published for the
            fibrosis challenge.
        nan: Accepted as in the other readers; Hounsfield units are never NaN.

    Attributes:
        report: How the slices were ordered; its notes are those of the volume.

    Raises:
        VolumeError: If the folder has no slices; one of them cannot be read (not DICOM, truncated,
            a tag is missing, no decoder); sizes or orientations differ; two different slices
            coincide; or the order cannot be determined.

    Example:
        >>> DicomVolume("train/ID00007637202177411956430")  # doctest: +SKIP
        DicomVolume(30x512x512, float32)
    """

    def __init__(
        self, folder: str | os.PathLike, *, order: str = "position", nan: float | None = None
    ) -> None:
        if order not in ("position", "file"):
            raise VolumeError(f"DicomVolume needs order 'position' or 'file', got {order!r}.")
        self.path = Path(folder)
        self._slices, self.spacing, self.report = read_order(self.path, order)
        self.notes = self.report.notes
        super().__init__((len(self._slices), *self._slices[0].shape), 1, torch.float32, nan)
        self._set_chunks((1, *self.shape[1:]), np.dtype(np.float32), None, str(self.path))

    def _load(self, positions: np.ndarray, out: list[np.ndarray]) -> None:
        for place, chunk in zip(positions[:, 0].tolist(), out, strict=True):
            part = self._slices[place]
            chunk[0, ..., 0] = read_hu(part)
            self.ledger.add(bytes=part.path.stat().st_size)


def read_series(folder: str | os.PathLike, *, order: str = "position") -> Series:
    """Read a folder of DICOM slices into memory, in order and in Hounsfield units.

    Args:
        folder: As in `DicomVolume`, which defines the order of slices and the errors.
        order: As in `DicomVolume`.

    Returns:
        values (slices, rows, columns) float32, at least -1000; the spacing of these axes in mm, NaN
        if no tag has it; and the report.

    Raises:
        VolumeError: As in `DicomVolume`, and if pixels cannot be decoded.

    Example:
        >>> values, spacing, report = read_series("train/ID00007")  # doctest: +SKIP
    """
    volume = DicomVolume(folder, order=order)
    return Series(volume.read(), volume.spacing, volume.report)
