"""Volumes mapped from a file: read by position, without keeping all files open."""

import math
import operator
import os
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from cpic import _trust
from cpic._errors import VolumeError
from cpic.data._array import ArrayVolume
from cpic.data._faults import broken, reading
from cpic.data._volume import Reopened

# Each map keeps a file open, and a process may open a few hundred; the last used ones stay open.
_MOST_MAPS = 64
_maps: "weakref.WeakKeyDictionary[MappedVolume, np.ndarray]" = weakref.WeakKeyDictionary()


class FilePart(NamedTuple):
    """The values of a file whose header, if any, ends at `offset`; `stamp` detects changes."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    order: str
    stamp: tuple[int, int]

    @classmethod
    def of(
        cls,
        path: Path,
        shape: tuple[int, ...] | None,
        dtype: object,
        *,
        offset: int = 0,
        order: str = "C",
    ) -> "FilePart":
        """Check that the file contains the values.

        Raises:
            VolumeError: If it does not, or the description is incomplete.
        """
        if shape is None or dtype is None:
            got = f"got shape={shape} and dtype={dtype}"
            raise VolumeError(f"{path} is raw and needs both shape and dtype, {got}.")
        if order not in ("C", "F"):
            raise VolumeError(f"{path} needs order 'C' or 'F', got {order!r}.")
        try:
            sizes, offset = tuple(map(operator.index, shape)), operator.index(offset)
        except TypeError:
            sizes = ()
        if min(sizes, default=0) < 1 or offset < 0:
            raise VolumeError(
                f"{path} needs a tuple of sizes, whole numbers of at least 1, and an offset of at "
                f"least 0, got shape={shape!r} and offset={offset!r}."
            )
        try:
            kind = np.dtype(dtype)  # type: ignore[call-overload]
        except TypeError as error:
            raise VolumeError(
                f'{path} needs a NumPy dtype, such as "uint8" or ">i2", got {dtype!r}.'
            ) from error
        needed = offset + math.prod(sizes) * kind.itemsize
        stamp = _stamp(path)
        if stamp[0] < needed:
            announced = f"shape {sizes} of {kind} needs {needed:,} bytes"
            raise broken(path, f"is truncated: {announced}, the file has {stamp[0]:,}")
        return cls(path, sizes, kind, offset, order, stamp)

    def map(self) -> np.memmap:
        """Map the values.

        Raises:
            VolumeError: If the file has changed, or the address space does not suffice.
        """
        if _stamp(self.path) != self.stamp:
            raise VolumeError(f"{self.path} has changed since it was opened; open it again.")
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)  # type: ignore[call-overload]
        except (OSError, ValueError, OverflowError) as error:
            fault = f"cannot be mapped ({error}): it has {self.stamp[0]:,} bytes"
            advice = "check its size, or allow the process more memory (ulimit -v)"
            raise broken(self.path, fault, advice) from error


def _stamp(path: Path) -> tuple[int, int]:
    with reading(path):
        return _trust.check_regular(path), path.stat().st_mtime_ns


class MappedVolume(Reopened, ArrayVolume):
    """A part of a file as a volume; the file is mapped when it is read from."""

    waits = True
    path: Path

    def __init__(self, part: FilePart, *, channels: int = 1, nan: float | None = None) -> None:
        self._part = part
        super().__init__(self._view(part.map()), channels=channels, nan=nan)
        del self._array

    def _view(self, mapped: np.ndarray) -> np.ndarray:
        """The part of the mapped values that is the volume."""
        return mapped

    @property
    def _values(self) -> Tensor | np.ndarray:
        mapped = _maps.pop(self, None)
        _maps[self] = mapped = self._part.map() if mapped is None else mapped
        if len(_maps) > _MOST_MAPS:
            oldest = _maps.keyrefs()[0]()
            if oldest is not None:
                _maps.pop(oldest, None)
        values = self._view(mapped)
        return values if self.channels > 1 else values[..., None]


class MemmapVolume(MappedVolume):
    """A `.npy` file, or a raw file of given shape and dtype, mapped and not read completely.

    Args:
        path: The file.
        shape: Sizes of a raw file, channels last.
        dtype: NumPy dtype of a raw file, such as "uint8" or ">i2".
        offset: Number of bytes before the first value of a raw file.
        order: Order of a raw file: "C" (last axis fastest) or "F".
        channels: As in `ArrayVolume`.
        nan: As in `ArrayVolume`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        offset: int = 0,
        order: str = "C",
        channels: int = 1,
        nan: float | None = None,
    ) -> None:
        self.path = Path(path)
        self._given = {"path": path, "shape": shape, "dtype": dtype, "offset": offset}
        self._given |= {"order": order, "channels": channels, "nan": nan}
        if shape is None and dtype is None and self.path.suffix.lower() != ".raw":
            part = _described(self.path)
        else:
            part = FilePart.of(self.path, shape, dtype, offset=offset, order=order)
        super().__init__(part, channels=channels, nan=nan)


def _described(path: Path) -> FilePart:
    """The values of a `.npy` file according to its header."""
    _stamp(path)
    try:
        # Not numpy.load, which treats unknown files as pickled objects.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError, OverflowError) as error:
        advice = "write it with numpy.save, or pass shape and dtype for a raw file"
        raise broken(path, f"cannot be mapped as .npy ({error})", advice) from error
    order = "C" if mapped.flags.c_contiguous else "F"
    return FilePart.of(path, mapped.shape, mapped.dtype, offset=mapped.offset, order=order)
