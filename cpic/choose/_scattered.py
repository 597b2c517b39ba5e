"""Arrays rebuilt from values at positions that form no grid, by SciPy.

Shapes: `K` arrays, `m` positions, `D` axes, `n` points requested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cpic.choose._picture import check_room
from cpic.linalg._inputs import check_choice
from cpic.tt._entries import check_indices
from cpic.tt._points import all_points

Rule = Literal["auto", "linear", "nearest"]
_FLAT = 3  # with more axes the simplices of a triangulation are too many


@dataclass(frozen=True, eq=False)
class Scattered:
    """The nearest value, or linear interpolation in a Delaunay triangulation.

    Without gradient.

    Args:
        shape: Of the arrays.
        positions: int64 `(K, m, D)`.
        values: `(K, m)`.
        rule: `"nearest"`, `"linear"`, or `"auto"`: linear in two and three axes where there are
            enough positions. Beyond the outermost positions the nearest value counts.
    """

    shape: tuple[int, ...]
    positions: Tensor
    values: Tensor
    rule: Rule = "auto"

    def __post_init__(self):
        check_choice("scattered values", "rule", self.rule, ("auto", "linear", "nearest"), "see it")

    @cached_property
    def _linear(self) -> bool:
        enough = 1 < len(self.shape) <= _FLAT and self.values.shape[1] > 10 * len(self.shape)
        return self.rule == "linear" or (self.rule == "auto" and enough)

    @cached_property
    def _at(self) -> Callable[[np.ndarray], np.ndarray]:
        """Values at the points `(K, n, D)`."""
        from scipy.interpolate import LinearNDInterpolator
        from scipy.spatial import KDTree

        places, values = self.positions.cpu().double().numpy(), self.values.detach().cpu().numpy()
        # The number of the array is one more coordinate, too far apart to be crossed.
        apart = 2.0 * sum(self.shape) * np.arange(len(places))[:, None, None]
        lift = [np.broadcast_to(apart, (*places.shape[:2], 1)), places]
        tree = KDTree(np.concatenate(lift, 2).reshape(-1, places.shape[2] + 1))

        def nearest(points: np.ndarray) -> np.ndarray:
            lift = [np.broadcast_to(apart, (*points.shape[:2], 1)), points]
            return values.reshape(-1)[tree.query(np.concatenate(lift, 2))[1]]

        if not self._linear:
            return nearest
        # SciPy triangulates one set of points at a time.
        meshes = [LinearNDInterpolator(x, y) for x, y in zip(places, values, strict=True)]

        def linear(points: np.ndarray) -> np.ndarray:
            found = np.stack([mesh(x) for mesh, x in zip(meshes, points, strict=True)])
            return (
                np.where(np.isnan(found), nearest(points), found)
                if np.isnan(found).any()
                else found
            )

        return linear

    def entries(self, indices: Tensor) -> Tensor:
        check_indices(indices, len(self.values), self.shape)
        found = self._at(indices.cpu().double().numpy())
        return torch.from_numpy(np.ascontiguousarray(found)).to(self.values)

    def dense(self) -> Tensor:
        check_room(len(self.values), self.shape)
        points = all_points(self.shape, device=self.values.device)
        return self.entries(points.expand(len(self.values), -1, -1)).unflatten(1, self.shape)

    def mean(self) -> Tensor:
        return self.dense().flatten(1).mean(1)
