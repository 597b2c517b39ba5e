"""Several volumes of one shape as the channels of one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._volume import Reader, Volume


class StackedVolume(Reader):
    """Volumes of one shape as channels, each read by position (clauses in `cpic.data.Volume`).

    The ledger counts a position once, and the bytes and chunks of all parts.

    Args:
        parts: volumes of one shape; their channels follow each other.
        nan: value that replaces NaN and infinity; None refuses such voxels when they are read.

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

    def _from_parts(self, read: Callable[[Volume], Tensor], axis: int) -> Tensor:
        with self.ledger.passing_on([part.ledger for part in self.parts]):
            answers = [read(part) for part in self.parts]
        return torch.cat([answer.to(self.dtype) for answer in answers], axis)

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        centres = corners + size // 2
        return self._from_parts(lambda part: part.cubes(centres, size=size), 1)

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        n = len(coords)
        return self._from_parts(lambda part: part.voxels(coords).reshape(n, part.channels), 1)

    def _read(self) -> Tensor:
        shape = self.shape
        whole = self._from_parts(lambda part: part.read().reshape(*shape, part.channels), -1)
        return whole if self.channels > 1 else whole[..., 0]
