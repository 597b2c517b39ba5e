"""A patient's brain: the deformed MNI152 template, with a lesion grown in white matter."""

import dataclasses
import functools

import numpy as np

from cpic.cohorts.synthetic import _fields
from cpic.data._samples import mni152

# Size of a BraTS scan in millimeters, and directions of its voxel axes: left, back, up.
EXTENT = (240.0, 240.0, 155.0)
CONTRASTS = ("flair", "t1", "t1ce", "t2")
NECROSIS, EDEMA, ENHANCING = 1, 2, 4
# Brightness of fluid, gray and white matter, necrosis, edema and enhancing rim.
_BRIGHTNESS = {
    "t1": (0.22, 0.62, 0.88, 0.36, 0.62, 0.58),
    "t1ce": (0.22, 0.62, 0.85, 0.36, 0.60, 1.45),
    "t2": (1.30, 0.78, 0.52, 1.15, 1.05, 0.88),
    "flair": (0.18, 0.72, 0.54, 0.52, 1.25, 0.98),
}
_GRID_OF_TEMPLATE = (-1.0, -1.0, 1.0)  # template axes run right, forward, up


@dataclasses.dataclass(frozen=True)
class Head:
    """Random parameters of a patient: the same head at every resolution."""

    turn: np.ndarray  # (3, 3), rotation and scale from scan to template, both in mm
    bend: np.ndarray  # coefficients of the smooth displacement
    bias: np.ndarray  # coefficients of the bias fields, one per contrast
    mottle: np.ndarray  # coefficients of the variation of contrast uptake
    gains: np.ndarray  # of the receiver, one per contrast
    noise: float
    center: np.ndarray  # of the lesion, mm in the scan
    radius: float
    reach: float  # of the edema, mm
    filling: float  # enhancing fraction of the tumor
    grain: float  # log of the wavelength of the enhancing structure, -1 to 1
    waves: np.ndarray  # (3, count, 4): outline, structure, edema


@functools.cache
def _mask() -> tuple[np.ndarray, np.ndarray]:
    """Inside of the template's skull, and the center of its bounding box."""
    from scipy import ndimage

    tissue = mni152("gm").read().numpy() + mni152("wm").read().numpy()
    brain = ndimage.binary_fill_holes(ndimage.gaussian_filter(tissue, 2.5) > 0.3)
    brain = np.asarray(brain)
    edges = [np.flatnonzero(brain.any(others))[[0, -1]] for others in ((1, 2), (0, 2), (0, 1))]
    return brain, np.mean(edges, axis=1)


@functools.cache
def _template(steps: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Brain mask, T1, gray and white matter (4, ...), block averages; center of the brain."""
    brain, middle = _mask()
    t1, gray, white = (mni152(name).read().numpy() for name in ("t1", "gm", "wm"))
    maps = np.stack([brain.astype(np.float32), t1, gray, white])
    for axis, step in enumerate(steps, start=1):
        n = maps.shape[axis] // step
        blocks = np.moveaxis(maps, axis, -1)[..., : n * step]
        maps = np.moveaxis(blocks.reshape(*blocks.shape[:-1], n, step).mean(-1), -1, axis)
    return np.ascontiguousarray(maps), (middle + 0.5) / steps - 0.5


@functools.cache
def _deep_white() -> np.ndarray:
    """Candidate centers (n, 3) of a lesion in the scan, mm: well inside white matter."""
    from scipy import ndimage

    maps, middle = _template((2, 2, 2))
    white = np.asarray(ndimage.minimum_filter(maps[3], 5))
    inside = (white > 0.7) & (np.asarray(ndimage.gaussian_filter(maps[0], 6)) > 0.97)
    places = 2 * (np.argwhere(inside) - middle) * _GRID_OF_TEMPLATE
    return places[(np.abs(places[:, 0]) > 18) & (places[:, 2] > -25)]


def draw_head(rng: np.random.Generator) -> Head:
    """Draw the parameters of a patient; they do not depend on the grid."""
    angles = rng.normal(0, 0.035, 3)
    cos, sin = np.cos(angles), np.sin(angles)
    turn = np.eye(3)
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[a, a], one[b, b], one[a, b], one[b, a] = cos[axis], cos[axis], -sin[axis], sin[axis]
        turn = turn @ one
    scale = 1.09 * np.exp(rng.normal(0, 0.025, 3))
    places = _deep_white()
    center = places[rng.integers(len(places))] * rng.choice([-1.0, 1.0]) ** np.array([1, 0, 0])
    grain = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1)
    return Head(
        turn=turn * scale,
        bend=_fields.draw_smooth(rng, 3) * np.array([4.0, 4.5, 3.5])[:, None, None, None],
        bias=_fields.draw_smooth(rng, 4, waves=3) * 0.08,
        mottle=_fields.draw_smooth(rng, 1, waves=12) * 0.3,
        gains=rng.uniform(450, 600, 4),
        noise=rng.uniform(0.015, 0.03),
        center=np.linalg.solve(turn * scale, center),
        radius=rng.uniform(19, 27),
        reach=rng.uniform(8, 20),
        filling=rng.uniform(0.46, 0.52),
        grain=grain,
        waves=np.stack([_fields.draw_waves(rng) for _ in range(3)]),
    )


def spacing(shape: tuple[int, ...]) -> tuple[float, ...]:
    """Voxel size along each axis, mm."""
    return tuple(extent / n for extent, n in zip(EXTENT, shape, strict=True))


def finest(shape: tuple[int, ...]) -> float:
    """Mean wavelength of the enhancing structure, mm: a few voxels on coarse grids, too."""
    return max(9.0, 4.2 * max(spacing(shape)))


def tumor_radius(radius: float, shape: tuple[int, ...]) -> float:
    """Tumor radius on a grid, mm: larger on coarse grids, so that the structure fits."""
    return max(radius, 0.7 * radius + 2.2 * max(spacing(shape)))


def warp(head: Head, shape: tuple[int, ...]) -> np.ndarray:
    """Position in the template, mm, of each voxel of the scan, (3, *shape)."""
    axes = [_fields.centered(n, e) for n, e in zip(shape, EXTENT, strict=True)]
    places = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)
    points = _fields.smooth(head.bend, _fields.units(shape))
    away = [p - c for p, c in zip(places, head.center.astype(np.float32), strict=True)]
    squares = away[0] ** 2 + away[1] ** 2 + away[2] ** 2
    # A growing mass pushes its surroundings outwards; the map is one-to-one below 1.
    pull = 0.4 * np.exp(squares * np.float32(-0.5 / (1.1 * head.radius) ** 2))
    moved = [p - pull * a for p, a in zip(places, away, strict=True)]
    for row in range(3):
        for column in range(3):
            points[row] += np.float32(head.turn[row, column]) * moved[column]
    return points


def tissue(head: Head, shape: tuple[int, ...]) -> np.ndarray:
    """Brain mask, T1, gray and white matter on the grid of the scan, (4, *shape)."""
    from scipy import ndimage

    sizes = spacing(shape)
    x, y, z = (max(1, round(size)) for size in sizes)
    maps, middle = _template((x, y, z))
    points = warp(head, shape)
    for axis, step in enumerate((x, y, z)):
        points[axis] *= np.float32(_GRID_OF_TEMPLATE[axis] / step)
        points[axis] += np.float32(middle[axis])
    return np.stack([ndimage.map_coordinates(m, points, order=1) for m in maps])


def grow(head: Head, maps: np.ndarray) -> np.ndarray:
    """Labels of the lesion (*shape) uint8: 1 necrosis, 2 edema, 4 enhancing."""
    from scipy import ndimage

    shape = maps.shape[1:]
    radius = tumor_radius(head.radius, shape)
    labels = np.zeros(shape, np.uint8)
    axes = [_fields.centered(n, e) - c for n, e, c in zip(shape, EXTENT, head.center, strict=True)]
    box = tuple(
        slice(*np.searchsorted(axis, [-1.4 * radius - head.reach, 1.4 * radius + head.reach]))
        for axis in axes
    )
    x, y, z = (axis[part].astype(np.float32) for axis, part in zip(axes, box, strict=True))
    outline, structure, fingers = (
        _fields.ripple(waves, [x, y, z], (length, length, length))
        for waves, length in zip(
            head.waves, (1.6 * radius, finest(shape) * 2**head.grain, 22.0), strict=True
        )
    )
    distance = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
    distance -= radius * (1 + 0.17 * outline + 0.04 * fingers)
    brain, white = maps[0][box] > 0.6, maps[3][box]
    tumor = (distance < 0) & brain
    # A shell on the outside for every grain, extended inwards by a random structure that thins out
    # towards a necrotic center; the enhancing fraction is the same for every grain.
    depth = -distance / radius
    score = structure + 1.5 * np.exp(-((depth / 0.1) ** 2)) - 2.2 * np.clip(depth, 0, 1)
    edge = np.quantile(score[tumor], 1 - head.filling)
    part = np.where(tumor, np.where(score > edge, ENHANCING, NECROSIS), 0).astype(np.uint8)
    # Edema spreads along white matter: the same distance is longer through gray matter.
    spread = distance - head.reach * (1.1 * white - 0.25 + 0.25 * fingers)
    swollen = np.zeros(brain.shape, np.int32)
    ndimage.label((spread < 0) & brain, output=swollen)
    keep = np.unique(swollen[tumor])
    part[np.isin(swollen, keep[keep > 0]) & ~tumor] = EDEMA
    labels[box] = part
    return labels


def contrasts(
    head: Head, maps: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The four scans (*shape), int16, 0 outside the brain and at least 1 inside."""
    from scipy import ndimage

    brain, t1, gray, white = maps
    fluid = np.clip(brain - gray - white, 0, 1)
    total = np.maximum(fluid + gray + white, 0.05)
    # Details of the template besides its tissue maps: vessels, nuclei, fibers.
    detail = t1 - (0.22 * fluid + 0.62 * gray + 0.88 * white) / total
    lesion = ndimage.gaussian_filter((labels > 0).astype(np.float32), 0.6)
    parts = {
        label: ndimage.gaussian_filter((labels == label).astype(np.float32), 0.6)
        for label in (NECROSIS, EDEMA, ENHANCING)
    }
    units = _fields.units(labels.shape)
    parts[ENHANCING] *= 1 + np.clip(_fields.smooth(head.mottle, units)[0], -0.3, 0.4)
    fields = _fields.smooth(head.bias, units)
    inside = brain > 0.5
    scans = {}
    for k, name in enumerate(CONTRASTS):
        b = _BRIGHTNESS[name]
        value = (b[0] * fluid + b[1] * gray + b[2] * white) / total
        value += (1.0 if name.startswith("t1") else -0.35) * detail
        value *= 1 - lesion
        for label, brightness in zip((NECROSIS, EDEMA, ENHANCING), b[3:], strict=True):
            value += brightness * parts[label]
        value *= 1 + fields[k]
        value += np.float32(head.noise) * rng.standard_normal(value.shape, np.float32)
        value *= np.float32(head.gains[k])
        scans[name] = np.where(inside, np.clip(np.rint(value), 1, 32767), 0).astype(np.int16)
    return scans
