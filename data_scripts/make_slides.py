"""Synthetic slides with the folders of CAMELYON16, from a photograph of real tissue; no download.

    python data_scripts/make_slides.py OUT --n_train 6 --n_test 4 --edge 2048 --seed 0

Regions of stained tissue (the immunohistochemistry of scikit-image, with its two stains replaced by
hematoxylin and eosin) lie on glass; tumors are polygons in which nuclei are darker, with their
outlines in the format of ASAP. Every slide is a tiled pyramid of JPEG, 0.25 micrometers per pixel.
An existing slide is kept, so a run that was killed can be continued.
"""

import functools
import math
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from jsonargparse import auto_cli

from cpic._errors import ImageError
from cpic._files import replace_file, write_text
from cpic.images.slides import Annotation

GLASS, TILE, SMALLEST = 244, 256, 512


@functools.cache
def tissue() -> tuple[np.ndarray, np.ndarray]:
    """Normal tissue and tumor (512, 512, 3), uint8, made of one photograph."""
    from skimage import color, data

    stains = color.rgb2hed(data.immunohistochemistry())
    stains = np.stack([stains[..., 0], stains[..., 2] + 0.02, 0 * stains[..., 0]], -1)
    pair = (color.hed2rgb(stains * (strength, 1, 1)) for strength in (1.0, 1.8))
    normal, tumor = ((255 * pixels).round().astype(np.uint8) for pixels in pair)
    return normal, tumor


def stained(edge: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both kinds of tissue (edge, edge, 3), from mirrored copies, which have no seams."""
    small = np.rot90(np.stack(tissue()), rng.integers(4), (1, 2))
    n = -(-edge // (2 * small.shape[1])) + 1
    block = np.concatenate([small, small[:, ::-1]], 1)
    block = np.tile(np.concatenate([block, block[:, :, ::-1]], 2), (1, n, n, 1))
    top, left = rng.integers(0, block.shape[1] - edge, 2)
    normal, tumor = block[:, top : top + edge, left : left + edge]
    return normal, tumor


def blob(edge: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random region (edge, edge), bool, with this share of the pixels."""
    from scipy import ndimage

    coarse = ndimage.zoom(rng.standard_normal((8, 8)), 4, order=3)
    ramp = np.linspace(-1.5, 1.5, len(coarse))
    coarse -= 0.8 * (ramp[:, None] ** 2 + ramp**2)
    smooth = ndimage.zoom(coarse.astype(np.float32), math.ceil(edge / len(coarse)), order=1)
    return smooth[:edge, :edge] > np.quantile(coarse, 1 - share)


def outline(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A polygon (k, 2) around a random pixel of a region, in pixels, as (row, column)."""
    rows, columns = np.nonzero(mask[::16, ::16])
    k = rng.integers(len(rows))
    angles = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    radius = len(mask) * rng.uniform(0.04, 0.12) * rng.uniform(0.7, 1.3, 16)
    center = 16 * np.array([rows[k], columns[k]]) + 8
    polygon = center + radius[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)
    return polygon.clip(0, len(mask)).round(1)


def write_slide(path: Path, pixels: np.ndarray) -> None:
    """Write a pyramid whose levels are halved down to about 512 pixels."""
    import tifffile

    def write(file) -> None:
        level, reduced = pixels, 0
        with tifffile.TiffWriter(file, bigtiff=True) as tiff:
            while True:
                tiff.write(
                    level,
                    tile=(TILE, TILE),
                    photometric="rgb",
                    compression="jpeg",
                    compressionargs={"level": 90},
                    subfiletype=reduced,
                    resolution=(40000 / 2**reduced, 40000 / 2**reduced),
                    resolutionunit="CENTIMETER",
                    metadata=None,
                )
                if min(level.shape[:2]) < 2 * SMALLEST:
                    return
                even = level[: len(level) // 2 * 2, : level.shape[1] // 2 * 2].astype(np.uint16)
                quads = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
                level, reduced = ((quads + 2) // 4).astype(np.uint8), 1

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)


def asap(polygons: list[np.ndarray]) -> str:
    """Outlines as the annotation tool ASAP writes them."""
    parts = []
    for number, polygon in enumerate(polygons):
        points = "".join(
            f'<Coordinate Order="{k}" X="{x}" Y="{y}" />' for k, (y, x) in enumerate(polygon)
        )
        name = quoteattr(f"Annotation {number}")
        parts.append(
            f'<Annotation Name={name} Type="Polygon" PartOfGroup="Tumor" Color="#F4FA58">'
            f"<Coordinates>{points}</Coordinates></Annotation>"
        )
    inside = "".join(parts)
    root = f"<ASAP_Annotations><Annotations>{inside}</Annotations></ASAP_Annotations>"
    return f'<?xml version="1.0"?>\n{root}\n'


def make(path: Path, lesions: Path | None, *, edge: int, seed: tuple[int, ...]) -> None:
    """Write a slide, and its outlines if it has tumors."""
    if path.exists():
        return
    rng = np.random.default_rng(seed)
    normal, tumor = stained(edge, rng)
    region = blob(edge, rng.uniform(0.15, 0.4), rng)
    glass = GLASS + rng.integers(-3, 4, (edge, edge, 1))
    pixels = np.where(region[..., None], normal, glass.astype(np.uint8))
    if lesions is not None:
        polygons = [outline(region, rng) for _ in range(rng.integers(1, 4))]
        inside = Annotation(tuple(polygons)).mask((0, 0), size=(edge, edge))
        pixels[inside] = tumor[inside]
        lesions.mkdir(parents=True, exist_ok=True)
        write_text(lesions / f"{path.stem}.xml", asap(polygons))
    write_slide(path, pixels)


def main(out: str, n_train: int = 6, n_test: int = 4, edge: int = 2048, seed: int = 0) -> None:
    """Write synthetic slides; every second one has tumors.

    Args:
        out: folder to write to.
        n_train: slides for training.
        n_test: slides for testing.
        edge: pixels of a slide along each axis, from 512; all of it is in memory.
        seed: seed of all random choices.
    """
    if edge < SMALLEST or min(n_train, n_test) < 0:
        raise SystemExit(f"make_slides needs an edge of at least {SMALLEST}, got {edge}.")
    root = Path(out)
    try:
        for k in range(n_train):
            kind, folder = (
                ("tumor", root / "training/lesion_annotations") if k % 2 else ("normal", None)
            )
            path = root / "training" / kind / f"{kind}_{k // 2 + 1:03d}.tif"
            make(path, folder, edge=edge, seed=(seed, 0, k))
        for k in range(n_test):
            lesions = root / "testing/lesion_annotations" if k % 2 else None
            path = root / "testing/images" / f"test_{k + 1:03d}.tif"
            make(path, lesions, edge=edge, seed=(seed, 1, k))
    except (OSError, ImageError) as error:
        raise SystemExit(str(error)) from error
    print(f"{n_train} slides for training and {n_test} for testing in {root}")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
