"""Heads with a ball in their white matter, for the scripts of this folder."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from cpic import data


def painted(count: int, *, seed: int, pool: int = 6, bright: float = 0.4) -> tuple[Tensor, Tensor]:
    """One head with a ball, brighter by `bright`, painted anywhere into its white matter, often.

    Returns:
        Volumes `(count, *shape)` of voxels of `pool` mm, and the radii of the balls in voxels.
    """
    head, white = (avg_pool3d(data.mni152(k).read()[None, None], pool)[0, 0] for k in ("t1", "wm"))
    generator = torch.Generator().manual_seed(seed)
    axes = [torch.arange(n, dtype=torch.float32) for n in head.shape]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    allowed = (white > 0.5).nonzero()
    center = allowed[torch.randint(len(allowed), (count,), generator=generator)].float()
    radius = 2 + 3.5 * torch.rand(count, generator=generator)
    ball = (place - center[:, None, None, None]).norm(dim=-1) < radius[:, None, None, None]
    gain = 1 + 0.1 * torch.randn(count, 1, 1, 1, generator=generator)
    noise = 0.03 * torch.randn(count, *head.shape, generator=generator)
    return (head + (bright * ball + noise) * (head > 0.1)) * gain, radius
