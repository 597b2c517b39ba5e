"""Volumes held as an array, in memory or mapped from a file."""

import math
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._volume import Reader, spread, windows

# What torch cannot index is read as the next wider type it can.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "longdouble": np.float64, "float128": np.float64}


class ArrayVolume(Reader):
    """A tensor, NumPy array or memory map as a volume (clauses in `cpic.data.Volume`).

    The values are not copied; a memory map is gathered from without being read whole.

    Args:
        array: (*shape) or, with `channels` above 1, (*shape, channels); two or three sizes.
        channels: length of the last axis when it holds channels.
        nan: value that replaces NaN; None refuses NaN voxels when they are read.

    Raises:
        VolumeError: if the shape or the type of the values cannot be a volume.

    Example:
        >>> import torch
        >>> volume = ArrayVolume(torch.arange(27.0).reshape(3, 3, 3))
        >>> volume.cubes(torch.tensor([[0, 0, 0]]), size=3)[0, 0, 1, 1]
        tensor([0., 0., 1.])
        >>> volume.ledger
        Ledger(27 asked, 8 voxels, 32 bytes, 0 chunks)
    """

    waits = False

    def __init__(
        self, array: Tensor | np.ndarray, *, channels: int = 1, nan: float | None = None
    ) -> None:
        if not isinstance(array, Tensor | np.ndarray):
            raise VolumeError(
                f"ArrayVolume needs a tensor or a NumPy array, got {type(array).__name__}; open "
                "files with open_volume."
            )
        if channels > 1 and (array.ndim == 0 or array.shape[-1] != channels):
            raise VolumeError(
                f"ArrayVolume with channels={channels} needs them in the last axis, got shape "
                f"{tuple(array.shape)}; move the axis there."
            )
        values = array if isinstance(array, Tensor | np.memmap) else _as_tensor(array)
        dtype = values.dtype if isinstance(values, Tensor) else torch_dtype(values.dtype)
        if dtype.is_complex:
            raise VolumeError(f"ArrayVolume needs real values, got {dtype}; pass the modulus.")
        super().__init__(
            tuple(array.shape[:-1] if channels > 1 else array.shape), channels, dtype, nan
        )
        self._values = values if channels > 1 else values[..., None]

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        self._count(n_distinct)
        corners = corners.to(self._device)
        n_axes = len(self.shape)
        if size > min(self.shape):
            return self._masked(corners, size)
        # Windows inside the shape are one strided view; only those that stick out need a mask.
        top = corners.new_tensor(self.shape) - size
        inside = corners.clamp(min=0).minimum(top)
        stored = self._values
        if isinstance(stored, Tensor) and not stored.is_cuda and stored.dtype != torch.bfloat16:
            # NumPy copies a window as runs, torch voxel by voxel: half the time on the CPU.
            stored = stored.detach().numpy()
        if isinstance(stored, Tensor):
            view = stored.detach()
            for axis in range(n_axes):
                view = view.unfold(axis, size, 1)
        else:
            view = np.lib.stride_tricks.sliding_window_view(
                stored, (size,) * n_axes, tuple(range(n_axes))
            )
        cubes = self._gather(view, list(inside.unbind(1)))
        border = (inside != corners).any(1)
        if border.any():
            cubes[border] = self._masked(corners[border], size)
        return cubes

    def _masked(self, corners: Tensor, size: int) -> Tensor:
        axes = windows(corners, size, self.shape)
        values = self._gather(self._values, spread([positions for positions, _ in axes]))
        inside = torch.ones((), dtype=torch.bool, device=self._device)
        for valid in spread([valid for _, valid in axes]):
            inside = inside & valid
        return values.masked_fill(~inside[..., None], 0).movedim(-1, 1)

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        self._count(n_distinct)
        coords = coords.to(self._device)
        clamped = coords.clamp(min=0).minimum(coords.new_tensor(self.shape) - 1)
        values = self._gather(self._values, list(clamped.unbind(1)))
        return values.masked_fill((clamped != coords).any(1, keepdim=True), 0)

    def _gather(self, values: Tensor | np.ndarray, index: list[Tensor]) -> Tensor:
        if isinstance(values, Tensor):
            return values.detach()[tuple(index)]
        taken = np.asarray(values[tuple(positions.numpy() for positions in index)])
        return self._decode(_as_tensor(taken))

    def _decode(self, values: Tensor) -> Tensor:
        """From stored to returned values; a file with a scale overrides this."""
        return values

    def _count(self, n_voxels: int) -> None:
        item = self._values.itemsize * self.channels
        self.ledger.add(bytes=n_voxels * item)

    @property
    def _device(self) -> torch.device:
        return self._values.device if isinstance(self._values, Tensor) else torch.device("cpu")

    def read(self) -> Tensor:
        """All voxels, (*shape) or (*shape, c); a tensor in memory is returned as it is."""
        self._count(math.prod(self.shape))
        self.ledger.add(asked=math.prod(self.shape), voxels=math.prod(self.shape))
        values = self._values
        if not isinstance(values, Tensor):
            values = self._decode(_as_tensor(np.array(values)))
        return self._without_nan(values if self.channels > 1 else values[..., 0])


class MemmapVolume(ArrayVolume):
    """A `.npy` file, or a raw file of stated shape and type, mapped and never read whole.

    Args:
        path: the file.
        shape: for a raw file: its sizes, channels last.
        dtype: for a raw file: NumPy type, such as "uint8" or ">i2".
        offset: for a raw file: bytes before the first value.
        order: for a raw file: "C" (last axis fastest) or "F".
        channels: as in `ArrayVolume`.
        nan: as in `ArrayVolume`.
    """

    waits = True

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
        path = Path(path)
        if shape is None and dtype is None:
            try:
                mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise VolumeError(
                    f"{path} cannot be mapped as .npy ({error}); write it with numpy.save, or "
                    "give shape and dtype for a raw file."
                ) from error
        else:
            mapped = map_raw(path, shape, dtype, offset=offset, order=order)
        super().__init__(mapped, channels=channels, nan=nan)
        # Workers map the file again: pickling the map itself would copy the whole volume.
        self._opened = {"shape": shape, "dtype": dtype, "offset": offset, "order": order}
        self._opened |= {"channels": channels, "nan": nan}
        self.path = path

    def __getstate__(self) -> dict:
        return {"path": self.path, "opened": self._opened, "ledger": self.ledger}

    def __setstate__(self, state: dict) -> None:
        MemmapVolume.__init__(self, state["path"], **state["opened"])
        self.ledger = state["ledger"]


def map_raw(
    path: Path, shape: tuple[int, ...] | None, dtype: object, *, offset: int, order: str
) -> np.memmap:
    """Map the values of a file whose header, if any, ends at `offset`."""
    if shape is None or dtype is None:
        raise VolumeError(
            f"{path} is raw and needs both shape and dtype, got shape={shape} and dtype={dtype}."
        )
    if order not in ("C", "F"):
        raise VolumeError(f"{path} needs order 'C' or 'F', got {order!r}.")
    kind = np.dtype(dtype)  # type: ignore[arg-type]
    needed = offset + math.prod(shape) * kind.itemsize
    there = path.stat().st_size
    if there < needed:
        raise VolumeError(
            f"{path} is truncated: shape {tuple(shape)} of {kind} needs {needed:,} bytes, the file "
            f"has {there:,}; copy or download it again."
        )
    return np.memmap(path, kind, "r", offset, tuple(shape), order)  # type: ignore[call-overload]


def torch_dtype(kind: np.dtype) -> torch.dtype:
    """The torch type that values of a NumPy type are read as."""
    return _as_tensor(np.zeros(1, kind)).dtype


def _as_tensor(array: np.ndarray) -> Tensor:
    kind = array.dtype.newbyteorder("=")
    if kind.kind not in "biufc" or kind.name == "uint64":
        raise VolumeError(
            f"a volume needs numbers that torch can hold, got {array.dtype}; convert the array, "
            "for example to float32."
        )
    array = array.astype(_WIDER.get(kind.name, kind), copy=False)
    if min(array.strides, default=0) < 0:
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # Read-only memory is safe here: no volume writes to its values.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
