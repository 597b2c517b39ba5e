"""Mirrored views of volumes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._ledger import Ledger
from cpic.data._together import read_parts
from cpic.data._volume import Reader, Volume
from cpic.data._windows import Windows, spread


class FlippedVolume(Reader):
    """Another volume, mirrored along some axes (clauses in `cpic.data.Volume`).

    Mirroring changes the requested positions, so the volume may be larger than memory. The
    ledger counts reads through this view; that of the volume counts them as well.

    Args:
        volume: The volume to mirror.
        axes: Spatial axes to reverse, each once; without any, the volume is unchanged.

    Raises:
        VolumeError: If there is no such axis, or one is given twice.

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

    def _cached(self) -> dict:
        return getattr(self.volume, "_cached", dict)()

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        reverse = np.zeros((len(volumes), len(windows.shape)), bool)
        for k, volume in enumerate(volumes):
            reverse[k, list(volume.axes)] = True
        inner = [volume.volume for volume in volumes]
        values, spent = read_parts(volumes, inner, windows.mirrored(reverse))
        # A window is counted from its other end along a reversed axis.
        steps = np.arange(windows.size)
        places = np.where(reverse[..., None], steps[::-1], steps)[windows.owner]
        index = [
            torch.from_numpy(at).to(values.device) for at in spread(list(places.swapaxes(0, 1)))
        ]
        row = torch.arange(len(windows), device=values.device)
        row = row.reshape(-1, *[1] * len(windows.shape))
        return values[(row, slice(None), *index)].movedim(-1, 1), spent

    def _read(self) -> Tensor:
        with self.ledger.passing_on([self.volume.ledger]):
            return self.volume.read().flip(self.axes)
