"""The report about a series of slices in order: spacing, gaps, oddities."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from cpic.data.dicom._slice import Slice

# A distance larger than the usual one by this factor is a gap; by this fraction, it is uneven.
_GAP, _UNEVEN = 1.5, 0.1
# Number of gaps that are listed.
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class SeriesReport:
    """Findings from ordering a series.

    Attributes:
        order: Criterion: "position", "instance" (InstanceNumber) or "file" (number in the name).
        files: Names of the slices, in the order of the volume.
        dropped: Names of exact duplicates, each with the file that it duplicates.
        gaps: Pairs of neighboring files with a larger distance than the others, and the distance in
            mm.
        notes: Sentences about oddities that do not prevent reading: gaps, uneven distances, slices
            that are shifted sideways (a tilted gantry), several series, missing tags.
    """

    order: str
    files: tuple[str, ...]
    dropped: dict[str, str]
    gaps: tuple[tuple[str, str, float], ...]
    notes: tuple[str, ...]


def report(
    found: list[Slice],
    kept: list[Slice],
    known: dict[Path, float],
    order: str,
    dropped: dict[str, str],
) -> tuple[tuple[float, float, float], SeriesReport]:
    """Spacing in mm of a series in order, NaN if no tag has it, and the report.

    Args:
        found: All slices.
        kept: Those of the volume, in order.
        known: Positions of slices along their normal, mm.
        order: Criterion for the order.
        dropped: Names of duplicates, each with that of its original.
    """
    names = tuple(part.path.name for part in kept)
    steps = np.abs(np.diff([known.get(part.path, np.nan) for part in kept]))
    usual = float(np.median(steps)) if np.isfinite(steps).all() and len(steps) else None
    gaps = tuple(
        (names[k], names[k + 1], float(step))
        for k, step in enumerate(steps)
        if usual and step > _GAP * usual
    )
    row, column = kept[0].pixel or (np.nan, np.nan)
    spacing = (usual or kept[0].thickness or np.nan, row, column)
    notes = [*_tag_notes(found), *_shift_notes(kept)]
    if usual:
        notes += _step_notes(steps, usual, gaps)
    elif order == "instance":
        notes += _number_notes(kept)
    return spacing, SeriesReport(order, names, dropped, gaps, tuple(notes))


def _tag_notes(found: list[Slice]) -> list[str]:
    lost = sum(part.position is None for part in found)
    turned = sum(part.orientation is None for part in found)
    series = len({part.series for part in found})
    sizes = {part.pixel for part in found}
    tilt = max((abs(part.tilt) for part in found), default=0)
    said = {
        f"{lost} of {len(found)} files have no ImagePositionPatient": lost > 0,
        f"{turned} of {len(found)} files have no ImageOrientationPatient": turned > 0,
        f"the files belong to {series} series": series > 1,
        "PixelSpacing is missing or differs between slices": None in sizes or len(sizes) > 1,
        f"GantryDetectorTilt is {tilt:g} degrees, which is not corrected": tilt > 0.5,
    }
    return [sentence for sentence, holds in said.items() if holds]


def _step_notes(
    steps: np.ndarray, usual: float, gaps: tuple[tuple[str, str, float], ...]
) -> list[str]:
    notes = [
        f"slices are missing between {before} and {after}, which are {step:.4g} mm apart where "
        f"{usual:.4g} mm are usual"
        for before, after, step in gaps[:_NAMED]
    ]
    if len(gaps) > _NAMED:
        notes.append(f"slices are missing in {len(gaps) - _NAMED} more places")
    others = steps[steps <= _GAP * usual]
    if np.ptp(others) > _UNEVEN * usual:
        notes.append(f"slices are {others.min():.4g} to {others.max():.4g} mm apart: uneven")
    return notes


def _shift_notes(kept: list[Slice]) -> list[str]:
    """Whether slices are shifted sideways, by more than a pixel in total."""
    placed = [np.array(part.position) for part in kept if part.position]
    orientation = next((part.orientation for part in kept if part.orientation), None)
    if len(placed) < 2 or orientation is None:
        return []
    axes = np.array(orientation).reshape(2, 3)
    sideways = np.abs((np.array(placed) - placed[0]) @ axes.T).max()
    if sideways <= (max(kept[0].pixel) if kept[0].pixel else 1.0):
        return []
    return [
        f"slices are shifted sideways by up to {sideways:.4g} mm (a tilted gantry does that): the "
        "volume is sheared, which is not corrected"
    ]


def _number_notes(kept: list[Slice]) -> list[str]:
    """Jumps in the numbers of slices without positions."""
    pairs = itertools.pairwise(kept)
    steps = [abs((after.instance or 0) - (before.instance or 0)) for before, after in pairs]
    usual = float(np.median(steps)) if steps else 0
    return [
        f"slices may be missing between {kept[k].path.name} and {kept[k + 1].path.name}, whose "
        f"InstanceNumbers are {step} apart"
        for k, step in enumerate(steps)
        if step > _GAP * usual
    ][:_NAMED]
