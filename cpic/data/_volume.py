"""Read small cubes and single voxels of a volume that may be larger than memory.

A volume is any object that satisfies these clauses; `tests/data/test_conformance.py` checks them
for all implementations, against a dense twin.

1. `shape` (2 or 3 sizes, spatial), `channels` and `dtype` are known without reading a voxel.
2. `cubes(centers, size=s)` with int64 centers (n, D) and s odd gives (n, c, s, ..., s); the voxel
   at a center lies in the middle, voxels outside the shape are 0.
3. `voxels(coords)` with int64 coords (..., D) gives (...), or (..., c) for c > 1; 0 outside.
4. A center may lie outside the shape at any distance: its cube is 0 outside the shape.
5. The result for a position depends neither on its place in the call nor on its neighbors; equal
   positions are read once.
6. Only the requested voxels (or their chunks) are read; `ledger` counts them. `read()` reads all.
7. All positions are int64 and all products of sizes are Python integers, so 8192^3 is safe.
8. A volume can be pickled, for worker processes; the copy starts with the ledger's totals.
9. Nothing is written to the source of a volume.
10. A voxel that is NaN or infinite raises `VolumeError` when it is read, unless `nan=` gives its
    replacement. `read()` also raises it if the volume does not fit into memory.

Results are on the device of the stored tensor (files: the CPU); those of a formula on that of the
positions.

Shapes: `n` positions, `D` spatial axes, `c` channels, `s` size of a cube.
"""

import math
import os
from collections.abc import Hashable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic._renamed import renamed
from cpic.data._ledger import Ledger
from cpic.data._together import (
    by_voxels,
    check_centers,
    check_positions,
    each,
    is_finite,
    read_alike,
    read_distinct,
)
from cpic.data._windows import Windows


@runtime_checkable
class Volume(Protocol):
    """The interface of readers of scans, stores and formulas; clauses in the module docstring.

    Example:
        >>> import torch
        >>> from cpic.data import ArrayVolume
        >>> isinstance(ArrayVolume(torch.zeros(4, 4, 4)), Volume)
        True
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial sizes, two or three."""
        ...

    @property
    def channels(self) -> int:
        """Values at a position."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the results."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Counts of voxels requested and read so far."""
        ...

    def cubes(self, centers: Tensor, *, size: int) -> Tensor:
        """Cubes (n, c, size, ..., size) around int64 `centers` (n, D), zero padded."""
        ...

    def voxels(self, coords: Tensor) -> Tensor:
        """Values (...) or (..., c) at int64 `coords` (..., D), zero outside."""
        ...

    def read(self) -> Tensor:
        """All voxels, (*shape) or (*shape, c); only for volumes that fit in memory."""
        ...


class Reader:
    """The common part of all implementations: checks, duplicates, padding, the ledger, NaN."""

    # Whether a read may wait for a disk or a server; then parallel reads are faster.
    waits = True
    # Sentences about anomalies of the source that did not prevent reading.
    notes: tuple[str, ...] = ()

    def __init__(
        self, shape: tuple[int, ...], channels: int, dtype: torch.dtype, nan: float | None = None
    ):
        if len(shape) not in (2, 3) or min(shape, default=0) < 1:
            raise VolumeError(
                f"a volume needs two or three spatial sizes of at least 1, got {tuple(shape)}; "
                "use channels for several values per position."
            )
        if channels < 1:
            raise VolumeError(f"a volume needs at least one channel, got channels={channels}.")
        if nan is not None and not math.isfinite(nan):
            raise VolumeError(f"nan= needs a finite number to replace NaN with, got {nan}.")
        self.shape = tuple(int(size) for size in shape)
        self.channels = int(channels)
        self.dtype = dtype
        self.ledger = Ledger()
        self.nan = nan

    @renamed(centres="centers")
    def cubes(self, centers: Tensor, *, size: int) -> Tensor:
        """Read the cubes around `centers`, each distinct one once.

        Args:
            centers: (n, D), int64; may lie outside the shape, where the cube is 0.
            size: Edge of a cube in voxels, odd, so that the center is a voxel.

        Returns:
            (n, c, size, ..., size), `dtype`; no gradient reaches a file or `centers`.

        Raises:
            VolumeError: If `size` is even, `centers` has another shape or dtype, or a voxel is NaN
                or infinite.
        """
        check_centers("cubes", centers, self.shape, size)
        return self._alone(centers, size)

    def voxels(self, coords: Tensor) -> Tensor:
        """Read single voxels.

        Args:
            coords: (..., D), int64; positions outside the shape give 0.

        Returns:
            (...) for one channel, else (..., c), `dtype`.

        Raises:
            VolumeError: If `coords` has another last axis or dtype, or a voxel is NaN or infinite.
        """
        check_positions("voxels", coords, self.shape)
        values = self._alone(coords.reshape(-1, len(self.shape)), 1)
        lead = tuple(coords.shape[:-1])
        return values.reshape(lead if self.channels == 1 else (*lead, self.channels))

    def read(self) -> Tensor:
        """Read all voxels, (*shape) or (*shape, c).

        Raises:
            VolumeError: If they do not fit into memory, or one is NaN or infinite.
        """
        n_voxels = math.prod(self.shape)
        n_bytes = n_voxels * self.channels * self.dtype.itemsize
        try:
            if n_bytes > memory_bytes():
                raise MemoryError
            values = self._read()
        except (MemoryError, RuntimeError) as error:
            # torch has no specific error for insufficient CPU memory.
            if isinstance(error, RuntimeError) and "allocate" not in str(error):
                raise
            raise VolumeError(
                f"{self._called} is too large to be read completely, it needs {n_bytes:,} bytes of "
                "memory; read parts of it with cubes or voxels."
            ) from error
        self.ledger.add(asked=n_voxels, voxels=n_voxels)
        return self._without_nan(values)

    def _alone(self, centers: Tensor, size: int) -> Tensor:
        owner = np.zeros(len(centers), np.int64)
        return read_distinct([self], owner, centers, size, read_alike)

    def _kind(self) -> Hashable:
        """Volumes of one kind are read in one call of `_gather`; None: by their `cubes`."""
        if type(self).cubes is not Reader.cubes or "cubes" in vars(self):
            return None
        return (type(self)._gather.__func__, self.dtype, *self._like())

    def _like(self) -> tuple[Hashable, ...]:
        """Further attributes that volumes read together must share."""
        return ()

    def _cached(self) -> dict[tuple[Any, Hashable], int]:
        """Bytes of all chunks by the cache that they are held in, if any, and their source."""
        return {}

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        """Windows (n, c, s, ..., s) of volumes of one kind, 0 outside.

        Also the bytes and chunks read of each volume, which are counted in the ledgers. A
        reader implements this method or `_cubes`.
        """
        corners, spent = (
            torch.from_numpy(windows.corners).to(windows.device),
            [Ledger() for _ in volumes],
        )

        def read(k: int) -> Tensor:
            with spent[k].passing_on([volumes[k].ledger]):
                part, n_distinct = corners[windows.parts[k]], int(windows.n_distinct[k])
                if windows.strides is None:
                    return volumes[k]._cubes(part, windows.size, n_distinct)
                own = windows.of([k])[0]
                return by_voxels(own, lambda at: volumes[k]._cubes(at, 1, n_distinct))

        return torch.cat(each(read, volumes, windows.asked)), spent

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        """Cubes (n, c, size, ..., size) at their distinct lowest `corners` (n, D)."""
        raise NotImplementedError

    def _read(self) -> Tensor:
        """All voxels, (*shape) or (*shape, c)."""
        raise NotImplementedError

    @property
    def _called(self) -> str:
        """Name of the source for messages."""
        return str(getattr(self, "path", None) or repr(self))

    def _without_nan(self, values: Tensor) -> Tensor:
        if is_finite(values):
            return values
        good = values.isfinite()
        if self.nan is None:
            n_nan = int(values.isnan().sum())
            counts = {"NaN": n_nan, "infinite": int((~good).sum()) - n_nan}
            said = " and ".join(f"{n} {kind}" for kind, n in counts.items() if n)
            raise VolumeError(
                f"{self._called} has {said} voxels among the {values.numel()} read",
                option="pass nan=0.0 (in a command: --nan 0.0) to replace them",
                instead="replace them in the file",
            )
        return values.masked_fill(~good, self.nan)

    def __repr__(self) -> str:
        sizes = "x".join(map(str, self.shape))
        channels = f", {self.channels} channels" if self.channels > 1 else ""
        return f"{type(self).__name__}({sizes}{channels}, {str(self.dtype).removeprefix('torch.')})"


class Reopened:
    """Pickled by the arguments it was opened with: workers read the file, not a copy of it."""

    _given: dict[str, Any]
    ledger: Ledger

    def __getstate__(self) -> dict:
        return {"given": self._given, "ledger": self.ledger}

    def __setstate__(self, state: dict) -> None:
        type(self).__init__(self, **state["given"])
        self.ledger = state["ledger"]


def memory_bytes() -> int:
    """Memory of this machine in bytes; if unknown, more than any machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**62
