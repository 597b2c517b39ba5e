"""Read windows of many volumes in one call, as if they were one volume with an additional axis."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._ledger import Ledger
from cpic.data._windows import Windows, distinct

_T = TypeVar("_T")
# Volumes read at once.
_READERS = 8
# The largest volumes that are read have so many voxels along an axis.
_FARTHEST = 2**16


def read_cubes(
    volumes: Sequence[Any],
    owner: Tensor,
    centers: Tensor,
    *,
    size: int,
    strides: Sequence[int] = (1,),
) -> Tensor:
    """Read cubes of several volumes of one shape together, each distinct one once.

    The results and the ledgers are those of `volume.cubes` for each volume, but all positions are
    processed together, so that a call has as few small operations for 200 volumes as for 2.
    Volumes that may wait for a disk or a server are read by threads. For other classes of volumes,
    `cubes` is called with their distinct positions.

    Args:
        volumes: K volumes of one shape and number of channels, as in `cpic.data.Volume`.
        owner: The volume of each cube, int64 (n,).
        centers: Positions, int64 (n, D); may lie outside the shape, where the cube is 0.
        size: Edge of a cube in voxels, odd.
        strides: Distances between neighboring voxels of a cube. With a stride of t a cube reaches
            t times as far and has every t-th voxel, not a mean: detail finer than t is aliased.
            With several, there is a cube of each stride around a center; voxels that they share
            are read and counted once.

    Returns:
        (n, c, size, ..., size), of the common dtype of all volumes; no gradient. With S strides the
        channels are S c, those of the first stride first.

    Raises:
        VolumeError: If shapes or channels differ, positions are not int64 or have the wrong shape,
            a stride is not an integer from 1 to 65536 or stands twice, or a voxel is NaN or
            infinite (and its volume has no `nan=`).

    Example:
        >>> from cpic.data import ArrayVolume
        >>> volumes = [ArrayVolume(torch.full((4, 4, 4), k)) for k in (1, 2)]
        >>> centers = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 1, 1]])
        >>> read_cubes(volumes, torch.tensor([1, 0, 1]), centers, size=3).sum((1, 2, 3, 4))
        tensor([16, 27, 54])
    """
    kinds = {(tuple(volume.shape), volume.channels) for volume in volumes}
    if len(kinds) != 1:
        raise VolumeError(
            "read_cubes needs one or more volumes of one shape and number of channels, got "
            f"{sorted(kinds) or 'none'}; resample them, or read each kind separately."
        )
    ((shape, _),) = kinds
    check_centers("read_cubes", centers, shape, size)
    if not isinstance(owner, Tensor) or owner.dtype != torch.int64 or owner.ndim != 1:
        raise VolumeError(
            "read_cubes needs owner as an int64 tensor with the volume of each cube, got "
            f"{getattr(owner, 'dtype', type(owner).__name__)}."
        )
    whose = on_host(owner)
    if len(whose) != len(centers) or ((whose < 0) | (whose >= len(volumes))).any():
        raise VolumeError(
            f"read_cubes needs an owner from 0 to {len(volumes) - 1} for each of "
            f"{len(centers)} centers, got {len(whose)} from {whose.min(initial=0)} to "
            f"{whose.max(initial=0)}."
        )
    check_strides("read_cubes", strides)
    return read_distinct(volumes, whose, centers, size, read_windows, strides)


def read_distinct(
    volumes: Sequence[Any],
    owner: np.ndarray,
    centers: Tensor,
    size: int,
    read: Callable,
    strides: Sequence[int] = (1,),
) -> Tensor:
    """Cubes around any centers, by `read` of distinct windows."""
    shape, n_scales = tuple(volumes[0].shape), len(strides)
    windows, inverse = distinct(
        owner, on_host(centers), len(volumes), size, shape, centers.device, strides
    )
    values, _ = read(volumes, windows, n_scales * np.bincount(owner, minlength=len(volumes)))
    if inverse is not None:
        values = values[torch.from_numpy(inverse).to(values.device)]
    return values if n_scales == 1 else values.unflatten(0, (-1, n_scales)).flatten(1, 2)


def read_windows(
    volumes: Sequence[Any], windows: Windows, asked: np.ndarray | None = None
) -> tuple[Tensor, list[Ledger]]:
    """Windows (n, c, s, ..., s) of any volumes, and the bytes and chunks read of each volume.

    The ledgers count both; `asked` (K,) are the requested windows, if more than these.
    """
    asked = windows.counts if asked is None else asked
    groups: dict[Hashable, list[int]] = {}
    for k, volume in enumerate(volumes):
        groups.setdefault(volume._kind() if hasattr(volume, "_kind") else None, []).append(k)
    if len(groups) == 1:
        return (_ask if None in groups else read_alike)(volumes, windows, asked)
    spent = [Ledger()] * len(volumes)
    found, rows = [], []
    for kind, members in groups.items():
        part, at = windows.of(members)
        read = _ask if kind is None else read_alike
        values, costs = read([volumes[k] for k in members], part, asked[members])
        found.append(values)
        rows.append(at)
        for k, cost in zip(members, costs, strict=True):
            spent[k] = cost
    order = torch.from_numpy(np.argsort(np.concatenate(rows)))
    values = torch.cat(found)
    return values[order.to(values.device)], spent


def read_parts(
    views: Sequence[Any], parts: Sequence[Any], windows: Windows
) -> tuple[Tensor, list[Ledger]]:
    """As `read_windows` of `parts`, one or more per view in the same order as the views.

    The bytes and chunks are those of each view, and are counted in its ledger as well.
    """
    values, costs = read_windows(parts, windows)
    spent = [sum(costs[k :: len(views)], Ledger()) for k in range(len(views))]
    for view, cost in zip(views, spent, strict=True):
        view.ledger.add(bytes=cost.bytes, chunks=cost.chunks)
    return values, spent


def read_alike(
    volumes: Sequence[Any], windows: Windows, asked: np.ndarray
) -> tuple[Tensor, list[Ledger]]:
    """As `read_windows`, for volumes of one kind."""
    values, spent = volumes[0]._gather(volumes, windows)
    n_voxels = windows.size ** len(windows.shape)
    for volume, n, n_distinct in zip(
        volumes, asked.tolist(), windows.n_distinct.tolist(), strict=True
    ):
        volume.ledger.add(asked=n * n_voxels, voxels=n_distinct)
    if not is_finite(values):
        parts = zip(volumes, windows.parts, strict=True)
        values = torch.cat([volume._without_nan(values[part]) for volume, part in parts])
    return values, spent


def _ask(
    volumes: Sequence[Any], windows: Windows, asked: np.ndarray
) -> tuple[Tensor, list[Ledger]]:
    """Read by the `cubes` of the volumes, which check and count the requests."""
    centers = torch.from_numpy(windows.corners + windows.size // 2).to(windows.device)
    spent = [Ledger() for _ in volumes]

    def ask(k: int) -> Tensor:
        counted = [volumes[k].ledger] if hasattr(volumes[k], "ledger") else []
        with spent[k].passing_on(counted):
            if windows.strides is not None:
                return by_voxels(windows.of([k])[0], lambda at: volumes[k].cubes(at, size=1))
            return volumes[k].cubes(centers[windows.parts[k]], size=windows.size)

    return torch.cat(each(ask, volumes, windows.asked)), spent


def by_voxels(windows: Windows, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Windows (n, c, s, ..., s) of one volume, from cubes (m, c, 1, ..., 1) of their voxels."""
    keys, inside = windows.keys(), windows.inside(slice(None), len(windows.shape))
    found, inverse = np.unique(keys[inside], return_inverse=True)
    at = np.stack(np.unravel_index(found, windows.shape), -1)
    voxels = read(torch.from_numpy(at).to(windows.device)).flatten(1)
    values = voxels.new_zeros(*keys.shape, voxels.shape[1])
    where = torch.from_numpy(inside).to(values.device)
    values[where] = voxels[torch.from_numpy(inverse.reshape(-1)).to(values.device)]
    return values.movedim(-1, 1)


def each(read: Callable[[int], _T], volumes: Sequence[Any], asked: Sequence[int]) -> list[_T]:
    """The results of `read` for the requested volumes.

    Computed in threads if all volumes differ and may wait for a disk or a server.
    """
    waiting = {id(volumes[k]) for k in asked if getattr(volumes[k], "waits", True)}
    if len(waiting) == len(asked) > 1:
        with ThreadPoolExecutor(min(_READERS, len(asked))) as pool:
            return list(pool.map(read, asked))
    return [read(k) for k in asked]


def on_host(values: Tensor) -> np.ndarray:
    """The values on the CPU; waits for the device if they are on one."""
    return (values if values.is_cpu else values.cpu()).numpy()


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; on the CPU in one pass."""
    if not values.dtype.is_floating_point:
        return True
    if values.is_cpu and values.dtype != torch.bfloat16:
        return bool(np.isfinite(values.numpy()).all())
    return bool(values.isfinite().all())


def check_centers(who: str, centers: Tensor, shape: tuple[int, ...], size: int) -> None:
    """Raise unless `centers` are int64 (n, D), and `size` is odd."""
    check_positions(who, centers, shape)
    if centers.ndim != 2:
        raise VolumeError(
            f"{who} needs centers of shape (n, {len(shape)}), got {tuple(centers.shape)}; "
            "flatten the leading axes first."
        )
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise VolumeError(
            f"{who} needs an odd size of at least 1, got {size!r}; an even cube has no voxel "
            f"in its middle, use size {size + 1 if isinstance(size, int) else 'n'}."
        )


def check_strides(who: str, strides: Sequence[int], name: str = "strides") -> None:
    """Raise unless these are one or more different integers in range."""
    given = tuple(strides) if isinstance(strides, Sequence) else ()
    whole = all(isinstance(t, int) and not isinstance(t, bool) for t in given)
    fits = whole and all(1 <= t <= _FARTHEST for t in given)
    if not given or not fits or len(set(given)) < len(given):
        raise VolumeError(
            f"{who} needs {name} as one or more different integers from 1 to {_FARTHEST}, got "
            f"{strides!r}; 1 is a cube of neighboring voxels."
        )


def check_positions(who: str, positions: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless `positions` are int64 (..., D)."""
    if not isinstance(positions, Tensor):
        raise VolumeError(
            f"{who} needs positions as an int64 tensor, got {type(positions).__name__}; "
            "convert with torch.as_tensor."
        )
    if positions.dtype != torch.int64:
        raise VolumeError(
            f"{who} needs int64 positions, got {positions.dtype}; round, then call .long()."
        )
    if positions.ndim == 0 or positions.shape[-1] != len(shape):
        raise VolumeError(
            f"{who} needs positions with {len(shape)} coordinates in the last axis for a "
            f"volume of shape {shape}, got {tuple(positions.shape)}."
        )
