"""A DICOM series, one file a slice, as a volume in Hounsfield units."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._series import SeriesReport, report
from cpic.data._slice import Slice, read_header, read_hu
from cpic.data._volume import Reader
from cpic.data._windows import windows

# Decoded slices held at once; a call that touches more of them works in rounds.
_HELD_BYTES = 2**28
# Positions closer than this share of the mean distance, or this many mm, are one place: tags hold
# rounded decimals.
_SAME_SHARE, _SAME_MM = 0.05, 0.01


class Series(NamedTuple):
    """A series in memory: `values` (slices, H, W) in HU, `spacing` in mm, and the `report`."""

    values: Tensor
    spacing: tuple[float, float, float]
    report: SeriesReport


class DicomVolume(Reader):
    """A folder of DICOM slices (clauses in `cpic.data.Volume`), shape (slices, rows, columns).

    Values are Hounsfield units, `RescaleSlope * stored + RescaleIntercept`, float32. What lies
    below air (-1000 HU; scanners fill the corners outside their circle with, for example, -2000)
    and what `PixelPaddingValue` marks becomes -1000. (The code published for the fibrosis challenge
    instead sets stored values up to -1000 to 0 before the scale: water, where the intercept is 0.)

    Slices are ordered by ImagePositionPatient projected on the normal of ImageOrientationPatient,
    from the feet up (for other than axial slices: along the positive axis nearest to the normal).
    Where positions are missing the order is that of falling InstanceNumber, and without distinct
    ones of falling number in the file name, since the first slice of a scan is most often the top
    one; positions that some files have must agree with that order and decide on its direction. A
    file that repeats a slice exactly is left out and reported; gaps are reported.

    Opening reads all headers; a call decodes the slices it touches. Convert a series that is read
    often.

    Args:
        folder: its `.dcm` files are the slices; other files are ignored.
        order: "position" as above; "file" forces the number in the file name, as published
            for the fibrosis challenge.
        nan: accepted as by the other readers; Hounsfield units are never NaN.

    Attributes:
        report: how the slices were put in order; its notes are those of the volume.

    Raises:
        VolumeError: if the folder has no slices; one of them cannot be read (no DICOM, truncated,
            a tag is missing, no decoder); sizes or orientations differ; two different slices lie
            in one place; or nothing tells the order.

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
        found = [read_header(path) for path in slice_files(self.path)]
        _check_alike(self.path, found)
        self._slices, self.spacing, self.report = _in_order(self.path, found, order)
        self.notes = self.report.notes
        super().__init__((len(self._slices), *found[0].shape), 1, torch.float32, nan)

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        (z, z_in), (y, y_in), (x, x_in) = windows(corners.cpu(), size, self.shape)
        cubes = torch.zeros(len(z), size, size, size, dtype=self.dtype)
        per = max(1, _HELD_BYTES // (4 * self.shape[1] * self.shape[2]))
        touched = z[z_in].unique()
        for batch in touched.split(per) if len(touched) else ():
            slot = torch.searchsorted(batch, z).clamp(max=len(batch) - 1)
            hit = (batch[slot] == z) & z_in
            at = hit.any(1).nonzero()[:, 0]
            values = self._decoded(batch.tolist())[
                slot[at, :, None, None], y[at, None, :, None], x[at, None, None, :]
            ]
            inside = hit[at, :, None, None] & y_in[at, None, :, None] & x_in[at, None, None, :]
            cubes[at] = torch.where(inside, values, cubes[at])
        return cubes[:, None]

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        return self._cubes(coords, 1, n_distinct).reshape(len(coords), 1)

    def _decoded(self, places: list[int]) -> Tensor:
        """Slices (n, H, W) at these places."""
        parts = [self._slices[place] for place in places]
        first = read_hu(parts[0])
        held = torch.empty(len(parts), *first.shape, dtype=self.dtype)
        for k, part in enumerate(parts):
            held[k] = torch.from_numpy(read_hu(part) if k else first)
        self.ledger.add(bytes=sum(p.path.stat().st_size for p in parts), chunks=len(parts))
        return held

    def _read(self) -> Tensor:
        return self._decoded(list(range(self.shape[0])))


def read_series(folder: str | os.PathLike, *, order: str = "position") -> Series:
    """Read a folder of DICOM slices into memory, in order and in Hounsfield units.

    Args:
        folder: as in `DicomVolume`, which says how slices are ordered and what is refused.
        order: as in `DicomVolume`.

    Returns:
        values (slices, rows, columns) float32, at least -1000; the spacing of these axes in mm,
        NaN where no tag tells; and the report.

    Raises:
        VolumeError: as `DicomVolume`, and if pixels cannot be decoded.

    Example:
        >>> values, spacing, report = read_series("train/ID00007")  # doctest: +SKIP
    """
    volume = DicomVolume(folder, order=order)
    return Series(volume.read(), volume.spacing, volume.report)


def slice_files(folder: Path) -> list[Path]:
    """The files of a folder that are read as slices; raises VolumeError if there are none."""
    if not folder.is_dir():
        raise VolumeError(f"there is no folder {folder}; check the path.")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise VolumeError(f"{folder} cannot be read ({error.strerror or error}).") from error
    named = [p for p in entries if p.suffix.lower() == ".dcm" and p.name[0] != "."]
    for path in named:
        if not path.exists():
            raise VolumeError(f"{path} is a link to nothing, a slice is lost; copy the file again.")
    files = [path for path in named if path.is_file()]
    if not files:
        raise VolumeError(f"{folder} holds no .dcm files; give the folder of one series.")
    return files


def _check_alike(folder: Path, found: list[Slice]) -> None:
    first = found[0]
    for part in found:
        if part.shape != first.shape:
            raise VolumeError(
                f"{folder} holds slices of different sizes, {first.path.name} has {first.shape} "
                f"and {part.path.name} {part.shape}; keep the files of one series."
            )
    turned = [(part, part.orientation) for part in found if part.orientation]
    for part, orientation in turned:
        row, column = np.array(orientation).reshape(2, 3)
        if abs(row @ row - 1) + abs(column @ column - 1) + abs(row @ column) > 0.01:
            raise VolumeError(
                f"{part.path} needs two perpendicular unit vectors in ImageOrientationPatient, got "
                f"{orientation}; correct the tag."
            )
        if np.abs(np.subtract(orientation, turned[0][1])).max() > 0.01:
            raise VolumeError(
                f"{folder} holds slices of two orientations, {turned[0][0].path.name} and "
                f"{part.path.name} differ; keep the files of one series."
            )


def _in_order(
    folder: Path, found: list[Slice], order: str
) -> tuple[list[Slice], tuple[float, float, float], SeriesReport]:
    known = _heights(found)
    ways: dict[str, Callable[[Slice], float | None]] = {
        "position": lambda part: known.get(part.path),
        "instance": lambda part: None if part.instance is None else -part.instance,
        "file": lambda part: None if part.number is None else -part.number,
    }
    for name, key in ways.items() if order == "position" else [("file", ways["file"])]:
        if any(key(part) is None for part in found):
            continue
        same = _same_place(list(known.values())) if name == "position" else 0.0
        kept, dropped, clash = _distinct(found, key, same)
        if clash and name == "position":
            raise VolumeError(
                f"{folder} holds two different slices in one place, {clash[0]} and {clash[1]}",
                option="pass order='file'",
                instead="keep one of the two series",
            )
        if not clash:
            break
    else:
        raise VolumeError(
            f"nothing tells the order of the slices in {folder}: positions, instance numbers and "
            "numbers in the file names are missing or not distinct; number the files."
        )
    if name != "position" and order == "position":
        kept = _agreeing(folder, kept, known)
    return kept, *report(found, kept, known, name, dropped)


def _same_place(heights: list[float]) -> float:
    """Distance in mm below which two slices lie in one place."""
    mean = (max(heights) - min(heights)) / max(1, len(heights) - 1)
    return min(_SAME_MM, _SAME_SHARE * mean)


def _heights(found: list[Slice]) -> dict[Path, float]:
    """Place along the normal, mm, of each slice with a position."""
    orientation = next((p.orientation for p in found if p.orientation), (1, 0, 0, 0, 1, 0))
    normal = np.cross(orientation[:3], orientation[3:])
    normal = normal * np.sign(normal[np.abs(normal).argmax()])
    return {p.path: float(normal @ np.array(p.position)) for p in found if p.position}


def _distinct(
    found: list[Slice], key: Callable[[Slice], float | None], same: float
) -> tuple[list[Slice], dict[str, str], tuple[str, str] | None]:
    """Slices by rising key without exact repetitions, these, and two that clash."""
    kept: list[Slice] = []
    dropped: dict[str, str] = {}
    for part in sorted(found, key=lambda part: (key(part), part.path.name)):
        before = kept[-1] if kept else None
        if before is None or key(part) - key(before) > same:  # type: ignore[operator]
            kept.append(part)
        elif np.array_equal(read_hu(before), read_hu(part)):
            dropped[part.path.name] = before.path.name
        else:
            return kept, dropped, (before.path.name, part.path.name)
    return kept, dropped, None


def _agreeing(folder: Path, kept: list[Slice], known: dict[Path, float]) -> list[Slice]:
    """The same slices, turned around if the positions that some of them have fall."""
    heights = [known[part.path] for part in kept if part.path in known]
    rising = [after > before for before, after in itertools.pairwise(heights)]
    if any(rising) and not all(rising):
        raise VolumeError(
            f"{folder} lacks ImagePositionPatient in {len(kept) - len(heights)} of {len(kept)} "
            "files, and the numbers of the slices contradict the positions of the others; export "
            "the series again, or pass order='file'."
        )
    return kept[::-1] if len(rising) and not any(rising) else kept
