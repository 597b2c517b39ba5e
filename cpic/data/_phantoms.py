"""Synthetic volumes with known structure: sums of Gaussians, a spike."""

import functools
import math

import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._formula import FormulaVolume


class _Separable:
    """Sum over g of the product over the axes of table[axis][position, g]."""

    def __init__(self, tables: list[Tensor]) -> None:
        self.tables = tables

    def __call__(self, *axes: Tensor) -> Tensor:
        factors = [
            table.to(positions.device)[positions]
            for table, positions in zip(self.tables, axes, strict=True)
        ]
        *first, last = factors
        product = functools.reduce(torch.mul, first)
        if product.shape == last.shape:
            return (product * last).sum(-1)
        # Positions on a grid: the sum is a matrix product, without an array of size n x grid.
        return torch.einsum("...g,...g->...", product, last)


class _Rotated:
    """Sum over g of height[g] exp(-|precision[g] (x - center[g])|^2 / 2)."""

    def __init__(self, shape: tuple[int, ...], heights: Tensor, centers: Tensor, roots: Tensor):
        self.shape, self.heights, self.centers, self.roots = shape, heights, centers, roots

    def __call__(self, *axes: Tensor) -> Tensor:
        points = torch.stack(torch.broadcast_tensors(*axes), -1)
        unit = (points.float() + 0.5) / torch.tensor(self.shape, device=points.device)
        # (x - c)^T P (x - c) expanded, so that all Gaussians share one small matrix product.
        roots, centers = self.roots.to(points.device), self.centers.to(points.device)
        shifted = unit.double() @ roots.flatten(0, 1).mT
        shifted = shifted.unflatten(-1, roots.shape[:2]) - torch.einsum(
            "gij,gj->gi", roots, centers
        )
        return (-0.5 * shifted.square().sum(-1)).exp() @ self.heights.to(points.device)


def gaussians(
    shape: tuple[int, ...], *, n: int = 8, rotated: bool = False, seed: int = 0
) -> FormulaVolume:
    """A sum of `n` Gaussians on the unit cube, the same bumps at every resolution.

    If axis-aligned, it is a sum of n products, so its TT rank is exactly n (n no larger than the
    sizes) and its error under quantics falls fast with the rank; if rotated, no low rank is exact.
    Voxel i of an axis of length N lies at (i + 1/2) / N.

    Args:
        shape: Two or three sizes, such as (256, 256, 256) or (8192, 8192, 8192).
        n: Number of Gaussians.
        rotated: Rotate each by a random rotation.
        seed: Seed of centers, widths, heights and rotations.

    Returns:
        float64 volume with values between 0 and about 2.

    Example:
        >>> gaussians((64, 64, 64), seed=1)
        FormulaVolume(64x64x64, float64)
    """
    if n < 1:
        raise VolumeError(f"gaussians needs n of at least 1, got {n}.")
    generator = torch.Generator().manual_seed(seed)
    draw = functools.partial(torch.rand, generator=generator, dtype=torch.float64, device="cpu")
    centers = 0.2 + 0.6 * draw(len(shape), n)
    widths = 0.05 + 0.07 * draw(len(shape), n)
    heights = 0.5 + 0.5 * draw(n)
    if rotated:
        turns = torch.linalg.qr(draw(n, len(shape), len(shape)) - 0.5)[0]
        roots = turns / widths.mT[:, :, None]
        return FormulaVolume(_Rotated(tuple(shape), heights, centers.mT.contiguous(), roots), shape)
    tables = []
    for axis, length in enumerate(shape):
        points = (torch.arange(length, dtype=torch.float64, device="cpu") + 0.5) / length
        tables.append((-0.5 * ((points[:, None] - centers[axis]) / widths[axis]).square()).exp())
    tables[0] = tables[0] * heights
    return FormulaVolume(_Separable(tables), shape)


def exact_rank(
    sizes: tuple[int, ...], rank: int, *, generator: torch.Generator, n_trains: int = 1
) -> list[Tensor]:
    """Cores of random tensors whose TT ranks are known exactly.

    Every rank is `rank`, or the maximum for the sizes if that is less. Entries have mean 0 and
    variance 1 over the draws.

    Args:
        sizes: Sizes of the sites, any number of them.
        rank: At least 1.
        generator: Generator of the cores.
        n_trains: Number of tensors K.

    Returns:
        A core (K, l, size, r) per site, float64, l = 1 at the first and r = 1 at the last.

    Example:
        >>> cores = exact_rank((4, 5, 6), 3, generator=torch.Generator().manual_seed(0))
        >>> [tuple(core.shape) for core in cores]
        [(1, 1, 4, 3), (1, 3, 5, 3), (1, 3, 6, 1)]
    """
    if rank < 1 or not sizes or min(sizes) < 1:
        raise VolumeError(f"exact_rank needs sizes and rank of at least 1, got {sizes} and {rank}.")
    n_sites = len(sizes)
    ranks = [
        min(rank, math.prod(sizes[:site]), math.prod(sizes[site:])) for site in range(n_sites + 1)
    ]
    options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    return [
        torch.randn(n_trains, ranks[k], sizes[k], ranks[k + 1], **options) / ranks[k] ** 0.5
        for k in range(n_sites)
    ]


def spike(
    shape: tuple[int, ...], *, at: tuple[int, ...] | None = None, share: float = 0.18
) -> FormulaVolume:
    """A smooth bump of rank 1 plus a spike at one voxel: rank 2, hard to find.

    Args:
        shape: Two or three sizes.
        at: Position of the spike; by default at 7/10 of each axis.
        share: Norm of the spike divided by the norm of the whole, below 1: the relative error of an
            approximation that misses it.

    Returns:
        float64 volume.

    Example:
        >>> spike((64, 64, 64)).voxels(torch.tensor([[44, 44, 44], [43, 44, 44]])) > 10
        tensor([ True, False])
    """
    at = at or tuple(int(0.7 * length) for length in shape)
    if len(at) != len(shape) or any(not 0 <= a < n for a, n in zip(at, shape, strict=True)):
        raise VolumeError(f"spike needs at inside the shape {tuple(shape)}, got {at}.")
    if not 0 < share < 1:
        raise VolumeError(f"spike needs a share between 0 and 1, got {share}.")
    tables = []
    for position, length in zip(at, shape, strict=True):
        place = torch.arange(length, device="cpu")
        bump = (-0.5 * (((place.double() + 0.5) / length - 0.5) / 0.25).square()).exp()
        tables.append(torch.stack([bump, place == position], 1))
    bumps = math.prod(table[:, 0].norm().item() for table in tables)
    below = math.prod(table[p, 0].item() for p, table in zip(at, tables, strict=True))
    # |bump + h e|^2 = |bump|^2 + 2 h below + h^2, and h = share times that norm.
    keep = 1 - share**2
    linear = share**2 * below / keep
    height = linear + (linear**2 + share**2 * bumps**2 / keep) ** 0.5
    tables[0] = tables[0] * tables[0].new_tensor([1.0, height])
    return FormulaVolume(_Separable(tables), shape)
