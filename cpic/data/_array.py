"""Volumes held as an array, in memory or mapped from a file (`cpic.data._mapped`)."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._volume import Reader
from cpic.data._windows import grid

# What torch cannot index is read as the next wider type it can.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "longdouble": np.float64, "float128": np.float64}


class ArrayVolume(Reader):
    """A tensor, NumPy array or memory map as a volume (clauses in `cpic.data.Volume`).

    The values are not copied; a memory map is gathered from without being read whole.

    Args:
        array: (*shape) or, with `channels` above 1, (*shape, channels); two or three sizes.
        channels: length of the last axis when it holds channels.
        nan: value that replaces NaN and infinity; None refuses such voxels when they are read.

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
        self._array = values if channels > 1 else values[..., None]

    @property
    def _values(self) -> Tensor | np.ndarray:
        """Stored values, (*shape, channels)."""
        return self._array

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
        positions, inside = grid(corners, size, self.shape)
        values = self._gather(self._values, positions)
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

    def _read(self) -> Tensor:
        """A tensor in memory is returned as it is."""
        self._count(math.prod(self.shape))
        values = self._values
        if not isinstance(values, Tensor):
            values = self._decode(_as_tensor(np.array(values)))
        return values if self.channels > 1 else values[..., 0]


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
