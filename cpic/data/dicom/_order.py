"""The order of the slices of a series: by position, instance number, or file name."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cpic._errors import VolumeError
from cpic.data._faults import broken, reading
from cpic.data.dicom._report import SeriesReport, report
from cpic.data.dicom._slice import Slice, read_header, read_hu

# Positions closer than this fraction of the mean distance, or this many mm, coincide: tags hold
# rounded decimals.
_SAME_SHARE, _SAME_MM = 0.05, 0.01
_ONE_SERIES = "keep the files of one series"

_Key = Callable[[Slice], float | None]


def slice_files(folder: Path) -> list[Path]:
    """The files of a folder to be read as slices; raises VolumeError if there are none."""
    if not folder.is_dir():
        raise VolumeError(f"there is no folder {folder}; check the path.")
    with reading(folder):
        entries = sorted(folder.iterdir())
    named = [p for p in entries if p.suffix.lower() == ".dcm" and p.name[0] != "."]
    for path in named:
        if not path.exists():
            raise broken(path, "is a link to nothing, a slice is lost", "copy the file again")
    files = [path for path in named if path.is_file()]
    if not files:
        raise broken(folder, "holds no .dcm files", "give the folder of one series")
    return files


def read_order(
    folder: Path, order: str
) -> tuple[list[Slice], tuple[float, float, float], SeriesReport]:
    """The slices of a folder in order, their spacing in mm, and a report.

    Args:
        folder: Folder of the files.
        order: "position", or "file" to use only the numbers in the names.

    Raises:
        VolumeError: As in `DicomVolume`.
    """
    found = [read_header(path) for path in slice_files(folder)]
    _check_alike(folder, found)
    known = _heights(found)
    ways: dict[str, _Key] = {
        "position": lambda part: known.get(part.path),
        "instance": lambda part: None if part.instance is None else -part.instance,
        "file": lambda part: None if part.number is None else -part.number,
    }
    for name, key in ways.items():
        if order not in ("position", name) or any(key(part) is None for part in found):
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


def _check_alike(folder: Path, found: list[Slice]) -> None:
    first = found[0]
    turned = next((part for part in found if part.orientation), first)
    for part in found:
        if part.shape != first.shape:
            sizes = f"{first.path.name} has {first.shape} and {part.path.name} {part.shape}"
            raise broken(folder, f"holds slices of different sizes, {sizes}", _ONE_SERIES)
        if not part.orientation or not turned.orientation:
            continue
        axes = np.array(part.orientation).reshape(2, 3)
        if np.abs(axes @ axes.T - np.eye(2)).max() > 0.01:
            fault = (
                "needs two perpendicular unit vectors in ImageOrientationPatient, got "
                f"{part.orientation}"
            )
            raise broken(part.path, fault, "correct the tag")
        if np.abs(np.subtract(part.orientation, turned.orientation)).max() > 0.01:
            names = f"{turned.path.name} and {part.path.name} differ"
            raise broken(folder, f"holds slices of two orientations, {names}", _ONE_SERIES)


def _same_place(heights: list[float]) -> float:
    """Distance in mm below which two slices coincide."""
    mean = (max(heights) - min(heights)) / max(1, len(heights) - 1)
    return min(_SAME_MM, _SAME_SHARE * mean)


def _heights(found: list[Slice]) -> dict[Path, float]:
    """Position along the normal, mm, of each slice that has one."""
    orientation = next((p.orientation for p in found if p.orientation), (1, 0, 0, 0, 1, 0))
    normal = np.cross(orientation[:3], orientation[3:])
    normal = normal * np.sign(normal[np.abs(normal).argmax()])
    return {p.path: float(normal @ np.array(p.position)) for p in found if p.position}


def _distinct(
    found: list[Slice], key: _Key, same: float
) -> tuple[list[Slice], dict[str, str], tuple[str, str] | None]:
    """Slices by ascending key without exact duplicates, the duplicates, and two that clash."""
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
    """The same slices, reversed if the positions that some of them have are descending."""
    heights = [known[part.path] for part in kept if part.path in known]
    rising = [after > before for before, after in itertools.pairwise(heights)]
    if any(rising) and not all(rising):
        lost = f"lacks ImagePositionPatient in {len(kept) - len(heights)} of {len(kept)} files"
        fault = f"{lost}, and the numbers of the slices contradict the positions of the others"
        raise broken(folder, fault, "export the series again, or pass order='file'")
    return kept[::-1] if len(rising) and not any(rising) else kept
