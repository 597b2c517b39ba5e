"""A patient's chest: a CT phantom in Hounsfield units, with fibrosis in the lungs."""

import dataclasses

import numpy as np

from cpic.cohorts.synthetic import _fields, _tree

# Millimeters; axes run along the table from the feet up (z), to the back (y), to the left (x).
HEIGHT = 290.0
_APEX, _FLOOR = 130.0, -130.0
# The quantile of the standard normal at 0.55, the wall fraction of fibrotic tissue.
_CUT = 0.1257


@dataclasses.dataclass(frozen=True)
class Chest:
    """Random parameters of a patient: the same chest at every resolution."""

    width: float  # of the field of view, mm
    build: np.ndarray  # scale of the body along z, y, x
    fat: float  # below the skin, mm
    bend: np.ndarray  # coefficients of the smooth displacement
    vessels: _tree.Tubes
    airways: _tree.Tubes
    fibrosis: float  # level of the score above which lung is fibrotic
    level: float  # height of the fibrosis in the lung, 0 at the base and 1 at the apex
    grain: float  # log of the wavelength of its structure, -1 to 1
    waves: np.ndarray  # (4, count, 4): patches, structure, parenchyma, soft tissue
    noise: float


def _oval(x: np.ndarray, y: np.ndarray, half: tuple, power: float = 2.0) -> np.ndarray:
    """1 on an ellipse around the origin, less inside."""
    return ((np.abs(x) / half[0]) ** power + (np.abs(y) / half[1]) ** power) ** (1 / power)


def lung_depth(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Approximate distance to the nearest surface of a lung in mm, positive inside."""
    left = x > 0
    up = np.clip((z + 20) / (_APEX + 20), 0, 0.9999)
    taper = np.sqrt(1 - up**2.2)
    side = np.where(left, 1, -1)
    oval = _oval(x - side * (70 - 12 * up), y - 8 + 10 * up, (60 * taper + 1, 92 * taper + 1), 2.4)
    depth = (1 - oval) * (60 * taper + 1)
    chest = _oval(x, y - 4, (136.0, 100.0), 2.4)
    depth = np.minimum(depth, (1 - chest) * 95)
    # The diaphragm bulges into the lung, higher on the right, where the liver is.
    top = np.where(left, -92, -80)
    dome = top - ((x - side * 62) ** 2 + (y + 5) ** 2) / 130
    depth = np.minimum(depth, 0.85 * (z - dome))
    heart = np.sqrt(((x - 22) / 58) ** 2 + ((y + 32) / 50) ** 2 + ((z + 62) / 62) ** 2)
    depth = np.minimum(depth, (heart - 1) * 50)
    # Great vessels above the heart, and the spine behind.
    stem = _oval(x - 4, y + 12, (30.0, 48.0))
    depth = np.minimum(depth, (stem - 1) * 34)
    spine = np.hypot(x, y - 74) - 27
    return np.minimum(depth, np.minimum(spine, np.hypot(x - 26, y - 52) - 15))


def _score(chest: Chest, z: np.ndarray, depth: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """A score that is highest where fibrosis starts: below the pleura, at its level, in patches."""
    height = (z - _FLOOR) / (_APEX - _FLOOR)
    near = np.exp(-np.maximum(depth, 0) / 11)
    return near * np.exp(-(((height - chest.level) / 0.3) ** 2)) + 0.09 * patches


def finest(pixel: float) -> float:
    """Mean wavelength of the fibrotic structure, mm: a few voxels on coarse grids, too."""
    return max(5.5, 4.2 * pixel)


def grid_of(chest: Chest, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Positions of the voxel centers along z, y and x, mm."""
    return [
        _fields.centered(n, e)
        for n, e in zip(shape, (HEIGHT, chest.width, chest.width), strict=True)
    ]


def draw_chest(rng: np.random.Generator) -> Chest:
    """Draw the parameters of a patient; they do not depend on the grid."""
    build = np.exp(rng.normal(0, 0.03, 3))
    bend = _fields.draw_smooth(rng, 3) * np.array([5.0, 3.0, 3.0])[:, None, None, None]
    cloud = rng.uniform((_FLOOR, -100, -140), (_APEX, 110, 140), (9000, 3))
    depth = lung_depth(*cloud.T)
    vessels = _tree.path([(0, 0, 0), (0, 0, 0.1)], [0.1, 0.1])
    airways = _tree.path(
        [(150, 8, 0), (90, 12, 0), (42, 18, 0), (10, 16, -40)], [8.5, 8.5, 8.0, 6.0]
    ) + _tree.path([(42, 18, 0), (8, 20, 42)], [7.0, 5.5])
    for side, root in ((-1, (10.0, 16.0, -40.0)), (1, (8.0, 20.0, 42.0))):
        inside = cloud[(depth > 4) & (np.sign(cloud[:, 2]) == side)]
        entry = np.array(root)
        airways = airways + _tree.grow_tree(entry, inside[:60], radius=4.6, tip=0.6, depth=4)
        # Arteries follow the airways, veins enter lower.
        for shift, radius in ((np.array([0, -11, 0]), 8.0), (np.array([-18, 2, -4 * side]), 7.0)):
            part, inside = inside[60:360], inside[300:]
            tree = _tree.grow_tree(entry + shift, part, radius=radius, tip=0.7, depth=10)
            vessels = vessels + tree
    level = rng.choice([0.14, 0.78]) + rng.uniform(-0.06, 0.06)
    chest = Chest(
        width=rng.uniform(355, 395),
        build=build,
        fat=rng.uniform(8, 20),
        bend=bend,
        vessels=vessels,
        airways=airways,
        fibrosis=0.0,
        level=level,
        grain=rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1),
        waves=np.stack([_fields.draw_waves(rng) for _ in range(4)]),
        noise=rng.uniform(15, 30),
    )
    # The threshold above which a drawn fraction of the lungs is fibrotic, on a coarse grid.
    grid = grid_of(chest, (40, 44, 44))
    z, y, x = _bent(chest, grid)
    depth = lung_depth(z, y, x)
    patches = _fields.ripple(chest.waves[0], grid, (45.0, 32.0, 32.0))
    score = _score(chest, z, depth, patches)[depth > 0]
    extent = rng.uniform(0.12, 0.26)
    chest = dataclasses.replace(chest, fibrosis=float(np.quantile(score, 1 - extent)))
    tubes = {
        name: getattr(chest, name).moved(lambda points: _unbent(chest, points))
        for name in ("vessels", "airways")
    }
    return dataclasses.replace(chest, **tubes)


def _bent(chest: Chest, axes: list[np.ndarray]) -> list[np.ndarray]:
    """Positions of the voxels of a grid in the standard chest, three arrays (*grid)."""
    extents = (HEIGHT, chest.width, chest.width)
    units = [axis / e + 0.5 for axis, e in zip(axes, extents, strict=True)]
    moves = _fields.smooth(chest.bend, units)
    places = np.meshgrid(*axes, indexing="ij", sparse=True)
    parts = zip(places, chest.build, moves, strict=True)
    return [(place * scale + move).astype(np.float32) for place, scale, move in parts]


def _unbent(chest: Chest, points: np.ndarray) -> np.ndarray:
    """Positions of points of the standard chest in the scan, to first order."""
    waves = np.arange(chest.bend.shape[-1])
    extents = np.array([HEIGHT, chest.width, chest.width])
    places = points / chest.build
    for _ in range(2):
        units = places / extents + 0.5
        c, b, a = (np.cos(np.pi * waves * units[:, k, None]) for k in range(3))
        moves = np.einsum("fabc,na,nb,nc->nf", chest.bend, c, b, a)
        places = (points - moves) / chest.build
    return places
