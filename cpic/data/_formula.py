"""Volumes that are a function of the position: any resolution, no memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cpic.data._ledger import Ledger
from cpic.data._volume import Reader
from cpic.data._windows import Windows, spread

# Positions evaluated at once, so that a large call needs little memory beyond its result.
_BLOCK = 2**21


class FormulaVolume(Reader):
    """A function of the coordinates as a volume (clauses in `cpic.data.Volume`).

    Args:
        function: Maps D int64 tensors that broadcast against each other, one per axis, all inside
            the shape, to values of their common shape (with a last axis of
            `channels` if that is above 1). Write it as for NumPy: `lambda x, y, z: x * y + z`.
            For worker processes it must be picklable.
        shape: Two or three sizes; nothing is allocated.
        channels: Values at a position.
        dtype: Dtype that the function returns.
        nan: Value that replaces NaN and infinity; with None, they raise an error.

    Example:
        >>> import torch
        >>> volume = FormulaVolume(lambda x, y, z: (x + y + z).double(), (8192, 8192, 8192))
        >>> volume.voxels(torch.tensor([[8191, 8191, 8191], [8192, 0, 0]]))
        tensor([24573.,     0.], dtype=torch.float64)
    """

    waits = False

    def __init__(
        self,
        function: Callable[..., Tensor],
        shape: tuple[int, ...],
        *,
        channels: int = 1,
        dtype: torch.dtype = torch.float64,
        nan: float | None = None,
    ) -> None:
        super().__init__(tuple(shape), channels, dtype, nan)
        self._function = function

    def _like(self) -> tuple:
        return (id(self._function),)

    def _evaluate(self, axes: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
        """Values (*shape, c) at positions that broadcast to `shape`."""
        values = self._function(*axes)
        shape = (*shape, self.channels) if self.channels > 1 else shape
        if not isinstance(values, Tensor) or values.dtype != self.dtype:
            raise TypeError(
                f"FormulaVolume needs a function that returns {self.dtype}, got "
                f"{getattr(values, 'dtype', type(values).__name__)}; pass dtype= or convert."
            )
        values = values.expand(shape) if values.ndim <= len(shape) else values.reshape(shape)
        return (values if self.channels > 1 else values[..., None]).detach()

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        # All have the same function, which is called with the windows of all.
        first, device = volumes[0], windows.device
        window = (windows.size,) * len(windows.shape)
        cubes = torch.empty(len(windows), first.channels, *window, dtype=first.dtype, device=device)
        axes = [torch.from_numpy(positions).to(device) for positions in spread(windows.axes)]
        block = max(1, _BLOCK // math.prod(window))
        for start in range(0, len(windows), block):
            part = slice(start, start + block)
            found = cubes[part]
            values = first._evaluate([at[part] for at in axes], (len(found), *window))
            found.copy_(values.movedim(-1, 1))
            if windows.sticks_out[part].any():
                outside = torch.from_numpy(~windows.inside(part, len(window))[:, None])
                found.masked_fill_(outside.to(device), 0)
        return cubes, [Ledger() for _ in volumes]

    def _read(self) -> Tensor:
        """All voxels, on the CPU."""
        n_axes = len(self.shape)
        lead, *others = [
            torch.arange(length, device="cpu").reshape(-1, *[1] * (n_axes - axis - 1))
            for axis, length in enumerate(self.shape)
        ]
        block = max(1, _BLOCK // math.prod(self.shape[1:]))
        parts = []
        for start in range(0, self.shape[0], block):
            part = lead[start : start + block]
            parts.append(self._evaluate([part, *others], (len(part), *self.shape[1:])))
        values = torch.cat(parts)
        return values if self.channels > 1 else values[..., 0]
