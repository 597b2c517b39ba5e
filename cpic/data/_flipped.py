"""A volume mirrored, without being read."""

from collections.abc import Sequence

from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._volume import Reader, Volume


class FlippedVolume(Reader):
    """Another volume, mirrored along some axes (clauses in `cpic.data.Volume`).

    Mirroring moves the positions that are asked for, so the volume may be larger than memory. The
    ledger counts what is read through this view; that of the volume goes on as well.

    Args:
        volume: what is seen in the mirror.
        axes: spatial axes to reverse, each once; none leaves the volume as it is.

    Raises:
        VolumeError: if there is no such axis, or one is named twice.

    Example:
        >>> import torch
        >>> from cpic.data import ArrayVolume, FlippedVolume
        >>> volume = ArrayVolume(torch.arange(8.0).reshape(2, 2, 2))
        >>> FlippedVolume(volume, axes=[0]).voxels(torch.tensor([[0, 0, 0]]))
        tensor([4.])
    """

    def __init__(self, volume: Volume, *, axes: Sequence[int]) -> None:
        super().__init__(volume.shape, volume.channels, volume.dtype)
        n_axes = len(self.shape)
        if len(set(axes)) != len(axes) or not set(axes) <= set(range(n_axes)):
            raise VolumeError(
                f"FlippedVolume needs different axes from 0 to {n_axes - 1}, got {tuple(axes)}."
            )
        self.volume, self.axes = volume, tuple(axes)
        self.waits = getattr(volume, "waits", True)

    def _cubes(self, corners: Tensor, size: int, n_distinct: int) -> Tensor:
        with self.ledger.passing_on([self.volume.ledger]):
            cubes = self.volume.cubes(self._mirrored(corners + size // 2), size=size)
        return cubes.flip([axis + 2 for axis in self.axes])

    def _voxels(self, coords: Tensor, n_distinct: int) -> Tensor:
        with self.ledger.passing_on([self.volume.ledger]):
            values = self.volume.voxels(self._mirrored(coords))
        return values.reshape(len(coords), self.channels)

    def _mirrored(self, positions: Tensor) -> Tensor:
        sizes = enumerate(self.shape)
        pairs = [(-1, size - 1) if axis in self.axes else (1, 0) for axis, size in sizes]
        sign, last = positions.new_tensor(pairs).unbind(1)
        return sign * positions + last

    def _read(self) -> Tensor:
        with self.ledger.passing_on([self.volume.ledger]):
            return self.volume.read().flip(self.axes)
