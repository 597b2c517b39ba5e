"""Airways and vessels: trees that fill a lung, drawn as tapering tubes."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tubes:
    """Straight segments of n tubes, in mm: both ends (n, 3) and both radii (n,)."""

    start: np.ndarray
    end: np.ndarray
    first: np.ndarray
    last: np.ndarray

    def __add__(self, other: "Tubes") -> "Tubes":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Tubes(*(np.concatenate(pair) for pair in pairs))

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Tubes":
        """The same tubes with their ends moved."""
        return dataclasses.replace(self, start=move(self.start), end=move(self.end))


def path(points: list[tuple[float, float, float]], radii: list[float]) -> Tubes:
    """One tube through given points."""
    p, r = np.array(points, float), np.array(radii, float)
    return Tubes(p[:-1], p[1:], r[:-1], r[1:])


def grow_tree(
    root: np.ndarray, targets: np.ndarray, *, radius: float, tip: float, depth: int
) -> Tubes:
    """Grow a tree from `root` into a cloud of targets.

    At every fork the remaining targets are split in two through their mean, and a branch goes part
    of the way to the mean of each half; the radius shrinks with the cube root of the number of
    targets served, as flow does.

    Args:
        root: (3,) where the tree enters.
        targets: (n, 3) inside the organ.
        radius: At the root, mm.
        tip: Radius of the thinnest branch.
        depth: Maximum number of forks.
    """
    rows: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    total = len(targets)

    def width(served: int) -> float:
        return max(tip, radius * (served / total) ** 0.4)

    def branch(start: np.ndarray, cloud: np.ndarray, before: float, level: int) -> None:
        middle = cloud.mean(0)
        end = start + (0.45 if len(cloud) > 1 else 1.0) * (middle - start)
        after = width(len(cloud))
        rows.append((start, end, min(before, 1.15 * after), after))
        if len(cloud) < 2 or level == 0:
            return
        # Split along the direction of largest extent.
        spread = cloud - middle
        normal = np.linalg.eigh(spread.T @ spread)[1][:, -1]
        ahead = spread @ normal > 0
        for half in (cloud[ahead], cloud[~ahead]):
            if len(half):
                branch(end, half, after, level - 1)

    branch(root, targets, radius, depth)
    columns = list(zip(*rows, strict=True))
    return Tubes(*(np.array(column, float) for column in columns))


def draw_tubes(
    tubes: Tubes, axes: list[np.ndarray], pixel: float, *, extra: float = 0.0
) -> np.ndarray:
    """Fraction of each voxel inside a tube, (*grid) float32 between 0 and 1.

    Args:
        tubes: The tubes to draw.
        axes: Increasing positions of the voxel centers, mm, three vectors.
        pixel: Size over which an edge fades.
        extra: Added to every radius, for the outside of a wall.
    """
    share = np.zeros([len(axis) for axis in axes], np.float32)
    first, last = tubes.first + extra, tubes.last + extra
    reach = (np.maximum(first, last) + pixel)[:, None]
    low = np.minimum(tubes.start, tubes.end) - reach
    high = np.maximum(tubes.start, tubes.end) + reach
    # First and past-the-last voxel of each tube's box.
    edges = [(a.searchsorted(low[:, k]), a.searchsorted(high[:, k])) for k, a in enumerate(axes)]
    seen = np.all([after > before for before, after in edges], axis=0)
    # A tube much thinner than a pixel is not visible.
    for n in np.flatnonzero(seen & (6 * np.maximum(first, last) > pixel)):
        box = tuple(slice(before[n], after[n]) for before, after in edges)
        along = tubes.end[n] - tubes.start[n]
        lines = [axis[part] - s for axis, part, s in zip(axes, box, tubes.start[n], strict=True)]
        steps = list(zip(np.meshgrid(*lines, indexing="ij", sparse=True), along, strict=True))
        place = sum(step * d for step, d in steps) / max(float(along @ along), 1e-9)
        place = np.minimum(np.maximum(place, 0), 1)
        gap = np.sqrt(sum((step - place * d) ** 2 for step, d in steps))
        radius = first[n] + (last[n] - first[n]) * place
        inside = np.minimum(np.maximum((radius - gap) / pixel + 0.5, 0), 1)
        inside *= np.minimum(1, (2 * radius / pixel) ** 2)
        np.maximum(share[box], inside, out=share[box], casting="same_kind")
    return share
