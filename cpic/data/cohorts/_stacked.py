"""Several volumes of one shape as the channels of one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._volume import Reader, Volume


class StackedVolume(Reader):
    """Volumes of one shape as channels, each read by position (clauses in `cpic.data.Volume`).

    The ledger counts a position once, and the bytes and chunks of all parts.

    Args:
        parts: volumes of one shape; their channels follow each other.
        nan: value that replaces NaN; None refuses NaN voxels when they are read.

    Raises:
        VolumeError: if there is no part, or the shapes differ.

    Example:
        >>> import torch
        >>> from cpic.data import ArrayVolume
        >>> parts = [ArrayVolume(torch.zeros(4, 4, 4)), ArrayVolume(torch.ones(4, 4, 4))]
        >>> StackedVolume(parts).voxels(torch.tensor([[1, 1, 1]]))
        tensor([[0., 1.]])
    """

    def __init__(self, parts: Sequence[Volume], *, nan: float | None = None) -> None:
        shapes = sorted({part.shape for part in parts})
        if len(shapes) != 1:
            raise VolumeError(
                f"StackedVolume needs volumes of one shape, got {shapes or 'none'}; resample them "
                "to a common grid first."
            )
        dtype = parts[0].dtype
        for part in parts[1:]:
            dtype = torch.promote_types(dtype, part.dtype)
        super().__init__(shapes[0], sum(part.channels for part in parts), dtype, nan)
        self.parts = tuple(parts)

    def _gathered(self, answers: list[Tensor], before: list[tuple[int, int]], axis: int) -> Tensor:
        for part, (n_bytes, n_chunks) in zip(self.parts, before, strict=True):
            self.ledger.add(bytes=part.ledger.bytes - n_bytes, chunks=part.ledger.chunks - n_chunks)
        return torch.cat([answer.to(self.dtype) for answer in answers], axis)

    def _totals(self) -> list[tuple[int, int]]:
        return [(part.ledger.bytes, part.ledger.chunks) for part in self.parts]

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        before, centres = self._totals(), corners + size // 2
        cubes = [part.cubes(centres, size=size) for part in self.parts]
        return self._gathered(cubes, before, 1)

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        before = self._totals()
        values = [part.voxels(coords).reshape(len(coords), part.channels) for part in self.parts]
        return self._gathered(values, before, 1)

    def read(self) -> Tensor:
        """All voxels, (*shape) or (*shape, c); only for what fits in memory."""
        before, asked = self._totals(), [part.ledger.asked for part in self.parts]
        values = [part.read().reshape(*self.shape, part.channels) for part in self.parts]
        n_voxels = self.parts[0].ledger.asked - asked[0]
        self.ledger.add(asked=n_voxels, voxels=n_voxels)
        whole = self._without_nan(self._gathered(values, before, -1))
        return whole if self.channels > 1 else whole[..., 0]
