"""Smooth random fields on regular grids; draws are independent of the grid."""

import numpy as np


def child(seed: int, *key: int) -> np.random.Generator:
    """Generator of one patient: it depends only on the seed and the key."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def centered(length: int, extent: float) -> np.ndarray:
    """Positions of voxel centers in mm from the center of the field of view."""
    return ((np.arange(length) + 0.5) / length - 0.5) * extent


def graded(value: float, half: float) -> float:
    """The value divided by `half`, clipped to the range from -1 to 1."""
    return float(np.clip(value / half, -1, 1))


def meetings(one: np.ndarray, other: np.ndarray, axis: int) -> int:
    """Number of adjacent pairs of voxels, one in each mask, along an axis."""
    one, other = np.moveaxis(one, axis, 0), np.moveaxis(other, axis, 0)
    return int(np.count_nonzero(one[:-1] & other[1:]) + np.count_nonzero(other[:-1] & one[1:]))


def mean_place(counts: np.ndarray, inside: np.ndarray) -> float:
    """Mean position of the counts along an axis, relative to the extent of `inside` (-1 to 1)."""
    ends = np.flatnonzero(inside)
    middle, half = (ends[0] + ends[-1]) / 2, (ends[-1] - ends[0] + 1) / 2
    places = np.arange(len(counts)) - middle
    return float((places * counts).sum() / max(counts.sum(), 1) / half)


def draw_smooth(rng: np.random.Generator, fields: int, *, waves: int = 5) -> np.ndarray:
    """Coefficients (fields, waves, waves, waves) of cosines, larger for low frequencies."""
    squares = np.square(np.arange(waves))
    total = squares[:, None, None] + squares[:, None] + squares
    weights = np.where(total > 0, 1 / (1 + total / 2), 0)
    # Unit standard deviation on average: a cosine has a mean square of 1/2.
    halves = np.where(np.arange(waves) > 0, 0.5, 1)
    power = np.square(weights) * halves[:, None, None] * halves[:, None] * halves
    return rng.standard_normal((fields, *weights.shape)) * weights / np.sqrt(power.sum())


def units(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Voxel centers along each axis, with the field of view from 0 to 1."""
    return [(np.arange(n) + 0.5) / n for n in shape]


def smooth(coefficients: np.ndarray, axes: list[np.ndarray]) -> np.ndarray:
    """The fields of `draw_smooth` on the grid of `axes`, positions in 0 to 1: (fields, *grid)."""
    waves = np.arange(coefficients.shape[-1])
    x, y, z = (np.cos(np.pi * waves * axis[:, None]).astype(np.float32) for axis in axes)
    rows = np.einsum("fabc,xa->fxbc", coefficients.astype(np.float32), x)
    planes = np.einsum("fxbc,yb->fxyc", rows, y)
    return planes @ z.T


def draw_waves(rng: np.random.Generator, count: int = 64) -> np.ndarray:
    """Wave vectors and phases (count, 4) of plane waves, isotropic, with wavelengths around 1."""
    vectors = rng.standard_normal((count, 3))
    # A single wavelength would look like a labyrinth.
    vectors *= rng.lognormal(0, 0.3, (count, 1)) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.concatenate([vectors, rng.uniform(0, 2 * np.pi, (count, 1))], 1)


def ripple(
    waves: np.ndarray, axes: list[np.ndarray], lengths: tuple[float, float, float]
) -> np.ndarray:
    """A field of unit variance with the given wavelength along each axis, on the grid of `axes`.

    Args:
        waves: (count, 4) of `draw_waves`.
        axes: Three position vectors, in the unit of `lengths`.
        lengths: Wavelength along each axis.

    Returns:
        (len(axes[0]), len(axes[1]), len(axes[2])), float32. The wave is a product over the axes,
        so the whole field is one matrix product.
    """
    phases = [2 * np.pi * np.outer(a, waves[:, k]) / lengths[k] for k, a in enumerate(axes)]
    plane = (phases[0] + waves[:, 3])[:, None] + phases[1]
    # Contiguous real matrices: strided views would bypass the fast product.
    scale = np.sqrt(2 / len(waves))
    both = np.concatenate([scale * np.cos(plane), -scale * np.sin(plane)], -1)
    last = np.concatenate([np.cos(phases[2]), np.sin(phases[2])], 1)
    return both.astype(np.float32) @ last.T.astype(np.float32)
