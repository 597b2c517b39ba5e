"""Several volumes of one shape as the channels of one."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic.data._ledger import Ledger
from cpic.data._together import read_parts
from cpic.data._volume import Reader, Volume
from cpic.data._windows import Windows


class StackedVolume(Reader):
    """Volumes of one shape as channels, each read by position (clauses in `cpic.data.Volume`).

    The ledger counts a position once, and the bytes and chunks of all parts.

    Args:
        parts: Volumes of one shape; their channels are concatenated.
        nan: Value that replaces NaN and infinity; with None, reading such voxels raises an error.

    Raises:
        VolumeError: If there is no part, or the shapes differ.

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

    def _like(self) -> tuple:
        return tuple((part.channels, part.dtype) for part in self.parts)

    def _cached(self) -> dict:
        parts = [getattr(part, "_cached", dict)() for part in self.parts]
        return {key: n_bytes for part in parts for key, n_bytes in part.items()}

    @classmethod
    def _gather(cls, volumes: Sequence[Any], windows: Windows) -> tuple[Tensor, list[Ledger]]:
        # Parts of the same kind, of all volumes, are read together.
        first, spent, found = volumes[0], [Ledger() for _ in volumes], []
        for _, run in itertools.groupby(enumerate(first._like()), lambda like: like[1]):
            numbers = [number for number, _ in run]
            parts = [volume.parts[number] for number in numbers for volume in volumes]
            values, costs = read_parts(volumes, parts, windows.tiled(len(numbers)))
            values = values.unflatten(0, (len(numbers), len(windows))).transpose(0, 1)
            found.append(values.flatten(1, 2).to(first.dtype))
            spent = [before + cost for before, cost in zip(spent, costs, strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found, 1), spent

    def _read(self) -> Tensor:
        with self.ledger.passing_on([part.ledger for part in self.parts]):
            parts = [part.read().reshape(*self.shape, part.channels) for part in self.parts]
        whole = torch.cat([part.to(self.dtype) for part in parts], -1)
        return whole if self.channels > 1 else whole[..., 0]
