"""Volumes stored as an array, in memory or mapped from a file (`cpic.data._mapped`)."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._ledger import Ledger
from cpic.data._together import each
from cpic.data._volume import Reader
from cpic.data._windows import Windows, spread

# Types that torch cannot index are converted to the next wider one that it can.
_WIDER = {"uint16": np.int32, "uint32": np.int64, "longdouble": np.float64, "float128": np.float64}


class ArrayVolume(Reader):
    """A tensor, NumPy array or memory map as a volume (clauses in `cpic.data.Volume`).

    The values are not copied; a memory map is read only at the requested positions.

    Args:
        array: Values (*shape) or, with `channels` above 1, (*shape, channels); two or three sizes.
        channels: Length of the last axis if it contains channels.
        nan: Value that replaces NaN and infinity; with None, reading such voxels raises an error.

    Raises:
        VolumeError: If the shape or the dtype is not valid for a volume.

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
                f"{tuple(array.shape)}; move that axis to the end."
            )
        values = array if isinstance(array, Tensor | np.memmap) else _as_tensor(array)
        dtype = values.dtype if isinstance(values, Tensor) else torch_dtype(values.dtype)
        if dtype.is_complex:
            raise VolumeError(f"ArrayVolume needs real values, got {dtype}; pass the modulus.")
        super().__init__(
            tuple(array.shape[:-1] if channels > 1 else array.shape), channels, dtype, nan
        )
        self._array = values if channels > 1 else values[..., None]
        self._seen: np.ndarray | None = None
        self._item = values.itemsize
        self._device = values.device if isinstance(values, Tensor) else torch.device("cpu")

    @property
    def _values(self) -> Tensor | np.ndarray:
        """Stored values, (*shape, channels)."""
        return self._array

    def _like(self) -> tuple:
        return (self._device,)

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        # All windows are moved inside, where they are one strided view of an array; those that
        # extended outside are then assembled from the values of the moved ones.
        if windows.strides is not None:
            return cls._dilated(volumes, windows)
        widths = tuple(min(windows.size, length) for length in windows.shape)
        low = windows.corners.clip(0, np.array(windows.shape) - widths)

        def take(k: int) -> Any:
            return volumes[k]._windows(low[windows.parts[k]], widths)

        parts = each(take, volumes, windows.asked)
        spent = [
            volume._count(n) for volume, n in zip(volumes, windows.n_distinct.tolist(), strict=True)
        ]
        if isinstance(parts[0], Tensor):
            values = torch.cat(parts) if len(parts) > 1 else parts[0]
            return _padded(values, windows, low, widths), spent
        values = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return _as_tensor(_padded(values, windows, low, widths)), spent

    @classmethod
    def _dilated(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        """Windows with strides, voxel by voxel."""
        first, edges = volumes[0], [windows.size] * len(windows.shape)
        out = torch.empty(
            *(len(windows), first.channels, *edges), dtype=first.dtype, device=first._device
        )

        def take(k: int) -> None:
            volumes[k]._fill(windows.of([k])[0], out[windows.parts[k]])

        each(take, volumes, windows.asked)
        spent = zip(volumes, windows.n_distinct.tolist(), strict=True)
        return out, [volume._count(n) for volume, n in spent]

    def _fill(self, windows: Windows, out: Tensor) -> None:
        """Write windows (n, c, s, ..., s) with strides of this volume into `out`."""
        stored, axes = self._stored(), windows.axes
        if isinstance(stored, Tensor):
            index = [torch.from_numpy(at).to(stored.device) for at in spread(axes)]
            out.copy_(stored[tuple(index)].movedim(-1, 1))
        else:
            index = tuple(spread(axes))
            for channel in range(self.channels):
                found = self._decode(_native(np.asarray(stored[(*index, channel)])))
                out[:, channel] = _as_tensor(found)
        for axis, length in enumerate(self.shape):
            at = windows.corners[:, axis, None] + windows.steps
            rows, places = np.nonzero((at < 0) | (at >= length))
            lines = [slice(None)] * (1 + axis)
            where = [torch.from_numpy(of).to(out.device) for of in (rows, places)]
            out[(where[0], *lines, where[1])] = 0

    def _windows(self, low: np.ndarray, widths: tuple[int, ...]) -> Tensor | np.ndarray:
        """Windows (n, c, *widths) inside the shape, of the same type as the stored array."""
        stored, axes = self._stored(), tuple(range(len(widths)))
        if isinstance(stored, Tensor):
            for axis, width in enumerate(widths):
                stored = stored.unfold(axis, width, 1)
            return stored[tuple(torch.from_numpy(low.T.copy()).to(stored.device))]
        # NumPy copies a window by runs, torch voxel by voxel: half the time on the CPU.
        view = np.lib.stride_tricks.sliding_window_view(stored, widths, axes)
        return self._decode(_native(np.asarray(view[tuple(low.T)])))

    def _stored(self) -> Tensor | np.ndarray:
        """Stored values, for reading only; a NumPy array if device and dtype allow."""
        values = self._values
        if not isinstance(values, Tensor):
            return values
        if not values.is_cpu or values.dtype == torch.bfloat16:
            return values.detach()
        seen = self._seen
        # A tensor that is sent to another process may move to shared memory.
        if seen is None or seen.__array_interface__["data"][0] != values.data_ptr():
            self._seen = seen = values.detach().numpy()
        return seen

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_seen": None}

    def _decode(self, values: np.ndarray) -> np.ndarray:
        """Convert stored to returned values; overridden for files with a scale."""
        return values

    def _count(self, n_voxels: int) -> Ledger:
        spent = Ledger(bytes=n_voxels * self._item * self.channels)
        self.ledger.add(bytes=spent.bytes)
        return spent

    def _read(self) -> Tensor:
        """A tensor in memory is returned as it is."""
        self._count(math.prod(self.shape))
        values = self._values
        if not isinstance(values, Tensor):
            values = _as_tensor(self._decode(_native(np.array(values))))
        return values if self.channels > 1 else values[..., 0]


def torch_dtype(kind: np.dtype) -> torch.dtype:
    """The torch dtype of values stored in a NumPy dtype."""
    return _as_tensor(np.zeros(1, kind)).dtype


def _padded(values: Any, windows: Windows, low: np.ndarray, widths: tuple[int, ...]) -> Any:
    """Windows (n, c, s, ..., s), 0 outside, from the values of those moved inside, at `low`."""
    is_tensor = isinstance(values, Tensor)
    if min(widths) < windows.size:
        shape, kept = (*values.shape[:2], *[windows.size] * len(widths)), values
        values = kept.new_zeros(shape) if is_tensor else np.zeros(shape, kept.dtype)
        values[(..., *map(slice, widths))] = kept
    if windows.sticks_out.any():
        move: Any = _moved_at_once if is_tensor else _moved
        move(values, windows, low)
    return values


def _moved(values: np.ndarray, windows: Windows, low: np.ndarray) -> None:
    """Shift the contents of windows that extend outside, one axis and distance at a time."""
    size, shift = windows.size, windows.corners - low
    for axis in range(shift.shape[1]):
        for step in np.unique(shift[:, axis]).tolist():
            if step == 0:
                continue
            rows = np.flatnonzero(shift[:, axis] == step)
            lines = [slice(None)] * (2 + axis)
            kept = max(0, size - abs(step))
            before, after = slice(0, kept), slice(size - kept, size)
            there, here = (after, before) if step > 0 else (before, after)
            moved = np.zeros((len(rows), *values.shape[1:]), values.dtype)
            moved[(*lines, here)] = values[(rows, *lines[1:], there)]
            values[rows] = moved


def _moved_at_once(values: Tensor, windows: Windows, low: np.ndarray) -> None:
    """`_moved` in few operations, for a GPU."""
    rows = np.flatnonzero(windows.sticks_out)
    shift, n_axes = (windows.corners - low)[rows], low.shape[1]
    at = [shift[:, axis, None] + np.arange(windows.size) for axis in range(n_axes)]
    at = [positions.clip(0, windows.size - 1) for positions in at]
    index = [rows.reshape(-1, *[1] * n_axes), *spread(at)]
    inside = windows.inside(rows, n_axes)[..., None]
    *index, inside = (torch.from_numpy(a).to(values.device) for a in (*index, inside))
    # Advanced indices around a slice move its axis to the end: the channels come last.
    found = values[(index[0], slice(None), *index[1:])]
    values[index[0].reshape(-1)] = torch.where(inside, found, 0).movedim(-1, 1)


def _native(array: np.ndarray) -> np.ndarray:
    """The values in the type of the torch tensor."""
    kind = array.dtype.newbyteorder("=")
    if kind.kind not in "biufc" or kind.name == "uint64":
        raise VolumeError(
            f"a volume needs a dtype that torch supports, got {array.dtype}; convert the array, "
            "for example to float32."
        )
    return array.astype(_WIDER.get(kind.name, kind), copy=False)


def _as_tensor(array: np.ndarray) -> Tensor:
    array = _native(array)
    if min(array.strides, default=0) < 0:
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # Read-only memory is safe here: no volume writes to its values.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
