"""The phantom chest as Hounsfield units, slice by slice."""

import numpy as np

from cpic.cohorts.synthetic import _fields, _tree
from cpic.cohorts.synthetic._chest import (
    _CUT,
    Chest,
    _bent,
    _oval,
    _score,
    finest,
    lung_depth,
)

Masks = tuple[np.ndarray, np.ndarray, np.ndarray]


def _paint(hu: np.ndarray, share: np.ndarray, value: np.ndarray | float) -> None:
    """Replace a fraction of each voxel."""
    hu += share * (value - hu)


def _edge(depth: np.ndarray, pixel: float) -> np.ndarray:
    """Fraction of a voxel that is inside, from the signed depth of its center."""
    return np.clip(depth / pixel + 0.5, 0, 1)


def _bone(hu: np.ndarray, depth: np.ndarray, pixel: float, *, marrow: float, shell: float) -> None:
    """A bone: a dense shell around marrow."""
    _paint(hu, _edge(depth, pixel), 420.0)
    _paint(hu, _edge(depth - shell, pixel), marrow)


def _body(chest: Chest, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
    """Skin, fat, muscle, bones and the organs below the diaphragm; no lungs yet."""
    shoulders = 1 / (1 + np.exp(-(z - 100) / 9))
    body = _oval(x, y - 8, (159 + 20 * shoulders, 127 - 6 * shoulders), 2.5)
    depth = (1 - body) * 129
    hu = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -1000, np.float32)
    _paint(hu, _edge(depth, pixel), 20.0)
    _paint(hu, _edge(depth - 2, pixel), -105.0)
    # Fat is thicker in front and at the sides than over the spine.
    _paint(hu, _edge(depth - chest.fat * (1 - 0.25 * y / 100), pixel), 50.0)
    chest_wall = _oval(x, y - 4, (141.0, 105.0), 2.4)
    outside = (chest_wall - 1) * 105
    _paint(hu, _edge(-outside - 2, pixel), -75.0)
    # Abdomen: liver on the right, the remaining part less dense.
    below = _edge(-85 - 0.006 * ((np.abs(x) - 62) ** 2 + y**2) - z, 4.0)
    _paint(hu, below * _edge(-outside - 3, pixel), np.where(x < 25, 62.0, 35.0))
    # Ribs descend towards the front; they are arcs of a shell around the lungs.
    across = (z - 0.42 * y) % 24.0 - 12.0
    rib = (1 - np.sqrt(((outside - 4) / 5.0) ** 2 + (across / 6.5) ** 2)) * 5.0
    front = (np.abs(x) < 34) & (y < 0)
    _bone(hu, np.where(front | (z > 125), -9.0, rib), pixel, marrow=190.0, shell=1.6)
    sternum = (1 - _oval(x, y + 99, (20.0, 6.5), 3.0)) * 6.5
    _bone(hu, np.minimum(sternum, z + 75), pixel, marrow=140.0, shell=1.4)
    vertebra = np.minimum(19 - np.hypot(x, (y - 76) * 1.12), 12.5 - np.abs(z % 27 - 13.5))
    _paint(hu, _edge(18 - np.hypot(x, y - 76), pixel), 80.0)
    _bone(hu, vertebra, pixel, marrow=190.0, shell=1.8)
    arch = np.minimum(14 - np.hypot(x, y - 101), 9.5 - np.abs(z % 27 - 15))
    _bone(hu, arch, pixel, marrow=200.0, shell=1.5)
    spinous = np.minimum((1 - _oval(x, y - 115, (3.6, 9.0))) * 3.8, 7.5 - np.abs(z % 27 - 10))
    _bone(hu, spinous, pixel, marrow=200.0, shell=1.2)
    _paint(hu, _edge(8.5 - np.hypot(x, y - 101), pixel), 25.0)
    # Shoulder blades, two thin oblique plates.
    blade = np.abs((y - 84) + 0.75 * (np.abs(x) - 92))
    plate = np.minimum(3.4 - blade, 34 - np.abs(np.abs(x) - 100))
    _bone(hu, np.minimum(plate, z - 20) - 1, pixel, marrow=250.0, shell=1.5)
    return hu


def _mediastinum(hu: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray, pixel: float) -> None:
    """Heart, aorta and its arch, vena cava, in their fat."""
    heart = np.sqrt(((x - 20) / 52) ** 2 + ((y + 30) / 45) ** 2 + ((z + 62) / 56) ** 2)
    _paint(hu, _edge((1 - heart) * 48, pixel), 42.0)
    _paint(hu, _edge(11.5 - np.hypot(x - 24, y - 52), pixel) * (z < 62), 44.0)
    bow = np.hypot(np.hypot(y - 20, z - 55) - 33, x - 14 - 0.2 * (y - 20))
    _paint(hu, _edge(12.0 - bow, pixel) * (z > 50), 44.0)
    _paint(hu, _edge(15 - np.hypot(x + 4, y + 13 + 0.2 * z), pixel) * (z < 62) * (z > -30), 44.0)
    _paint(hu, _edge(9 - np.hypot(x + 28, y + 6), pixel) * (z < 95) * (z > -40), 40.0)
    stem = _edge(12 - np.hypot(y - 3, z - 16), pixel)
    _paint(hu, stem * (np.abs(x) < 42), 44.0)


def paint(
    chest: Chest, grid: list[np.ndarray], waves_at: slice, rng: np.random.Generator
) -> tuple[np.ndarray, Masks]:
    """Render a few slices of the scan.

    Args:
        chest: The patient.
        grid: Positions of all voxels along z, y, x.
        waves_at: Indices of the slices.
        rng: Generator of the noise.

    Returns:
        (n, H, W) float32 in Hounsfield units, and three masks of that shape: lung, fibrosis in
        it, walls in the fibrosis.
    """
    axes = [grid[0][waves_at], *grid[1:]]
    pixel = float(grid[1][1] - grid[1][0])
    z, y, x = _bent(chest, axes)
    hu = _body(chest, z, y, x, pixel)
    _mediastinum(hu, z, y, x, pixel)
    hu += 9 * _fields.ripple(chest.waves[3], axes, (14.0, 14.0, 14.0))
    depth = lung_depth(z, y, x)
    lung = depth > 0
    patches, grainy = (
        _fields.ripple(chest.waves[k], axes, (length * up, length, length))
        for k, length, up in (
            (0, 32.0, 1.4),
            (1, finest(pixel) * 2**chest.grain, 2.5),
        )
    )
    scarred = lung & (_score(chest, z, depth, patches) > chest.fibrosis)
    walls = scarred & (grainy > -_CUT)
    # Healthy lung: denser at the back, due to gravity.
    air = -865 + 0.28 * y + 16 * _fields.ripple(chest.waves[2], axes, (18.0, 18.0, 18.0))
    share = _tree.draw_tubes(chest.vessels, axes, pixel)
    air += share * (35 - air)
    # Both kinds of fibrotic structure have the same mean density.
    sharp = np.clip((grainy + _CUT) * finest(pixel) * 2**chest.grain / (6.3 * pixel) + 0.5, 0, 1)
    air = np.where(scarred, -885 + 620 * sharp + 0.4 * (air + 865), air)
    _paint(hu, _edge(depth, pixel), air)
    _paint(hu, _tree.draw_tubes(chest.airways, axes, pixel, extra=1.3), 0.0)
    _paint(hu, _tree.draw_tubes(chest.airways, axes, pixel), -985.0)
    hu += np.float32(chest.noise) * rng.standard_normal(hu.shape, np.float32)
    return hu, (lung, scarred, walls)
