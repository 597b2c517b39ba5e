"""Volumes that are a formula of the position: any resolution, no memory."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cpic.data._volume import Reader
from cpic.data._windows import grid

# Positions evaluated at once, so that a large call needs little beyond its answer.
_BLOCK = 2**21


class FormulaVolume(Reader):
    """A function of the coordinates as a volume (clauses in `cpic.data.Volume`).

    Args:
        function: gets D int64 tensors that broadcast against each other, one an axis, all inside
            the shape, and returns the values at their common shape (with a last axis of
            `channels` if that is above 1). Write it as for NumPy: `lambda x, y, z: x * y + z`.
            To be sent to worker processes it must pickle.
        shape: two or three sizes; nothing is allocated.
        channels: values at a position.
        dtype: that the function returns.
        nan: value that replaces NaN and infinity; None refuses them.

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

    def _evaluate(self, axes: list[Tensor], inside: Tensor) -> Tensor:
        """Values (..., c) at broadcasting positions, zero where not inside."""
        values = self._function(*axes)
        shape = (*inside.shape, self.channels) if self.channels > 1 else tuple(inside.shape)
        if not isinstance(values, Tensor) or values.dtype != self.dtype:
            raise TypeError(
                f"FormulaVolume needs a function that returns {self.dtype}, got "
                f"{getattr(values, 'dtype', type(values).__name__)}; pass dtype= or convert."
            )
        values = values.expand(shape) if values.ndim <= len(shape) else values.reshape(shape)
        values = values if self.channels > 1 else values[..., None]
        return values if inside.all() else values.masked_fill(~inside[..., None], 0)

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        n_axes = len(self.shape)
        cubes = torch.empty(
            len(corners), self.channels, *[size] * n_axes, dtype=self.dtype, device=corners.device
        )
        block = max(1, _BLOCK // size**n_axes)
        for start in range(0, len(corners), block):
            values = self._evaluate(*grid(corners[start : start + block], size, self.shape))
            cubes[start : start + block] = values.detach().movedim(-1, 1)
        return cubes

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        clamped = coords.clamp(min=0).minimum(coords.new_tensor(self.shape) - 1)
        values = torch.empty(len(coords), self.channels, dtype=self.dtype, device=coords.device)
        for start in range(0, len(coords), _BLOCK):
            part = slice(start, start + _BLOCK)
            same = (clamped[part] == coords[part]).all(1)
            values[part] = self._evaluate(list(clamped[part].unbind(1)), same).detach()
        return values

    def _read(self) -> Tensor:
        """On the CPU."""
        n_axes = len(self.shape)
        lead, *others = [
            torch.arange(length).reshape(-1, *[1] * (n_axes - axis - 1))
            for axis, length in enumerate(self.shape)
        ]
        block = max(1, _BLOCK // math.prod(self.shape[1:]))
        parts = []
        for start in range(0, self.shape[0], block):
            part = lead[start : start + block]
            inside = torch.ones((), dtype=torch.bool).expand(len(part), *self.shape[1:])
            parts.append(self._evaluate([part, *others], inside).detach())
        values = torch.cat(parts)
        return values if self.channels > 1 else values[..., 0]
