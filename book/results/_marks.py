"""Which voxels the cubes of a model touch, for the scripts of this folder."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import max_pool3d


class Marks:
    """Put before a class of volumes: marks the centers of the cubes that are read."""

    def __init__(self, array: Tensor, **options: int):
        super().__init__(array, **options)
        self.mark = torch.zeros(self.shape)

    def cubes(self, centers: Tensor, *, size: int) -> Tensor:
        self.mark[tuple(centers.T)] = 1
        return super().cubes(centers, size=size)


def share_marked(volumes: Sequence[Marks], size: int) -> float:
    """Share of the voxels in the cubes around the marks."""
    marks = torch.stack([volume.mark for volume in volumes])[:, None]
    return float(max_pool3d(marks, size, 1, size // 2).mean())
