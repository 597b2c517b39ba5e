"""Parts of a store that grows: the array without chunks, and chunks from the source."""

import hashlib
import math
from pathlib import Path

import numpy as np
import torch

from cpic._errors import VolumeError
from cpic.data._folder import writing
from cpic.data._volume import Volume
from cpic.data.chunked._save import creating
from cpic.data.chunked._zarr import MARK


def boxes(source: Volume, positions: np.ndarray, chunks: tuple[int, ...]) -> np.ndarray:
    """Values (n, *chunks, c) of the chunks at `positions` (n, D), 0 beyond the shape."""
    corners = torch.from_numpy(positions) * torch.tensor(chunks)
    size = max(chunks) | 1
    if size ** len(chunks) <= 2 * math.prod(chunks):
        cubes = source.cubes(corners + size // 2, size=size).movedim(1, -1)
        return cubes[(slice(None), *(slice(0, edge) for edge in chunks))].cpu().numpy()
    # Flat or long chunks: their smallest enclosing cube would be much larger.
    grid = torch.stack(torch.meshgrid(*map(torch.arange, chunks), indexing="ij"), -1)
    steps = corners.reshape(len(corners), *[1] * len(chunks), len(chunks)) + grid
    values = source.voxels(steps).cpu().numpy()
    return values if source.channels > 1 else values[..., None]


def created(path: Path, source: Volume, key: dict, level: int) -> None:
    """Create the array without chunks; a concurrent process uses that of the first."""
    from zarr.codecs import ZstdCodec

    if not isinstance(level, int) or level > 22:
        raise VolumeError(f"a store needs a level of Zstandard of at most 22, got {level!r}.")
    options = {"compressors": ZstdCodec(level=level), "attributes": {MARK: key}}
    try:
        with creating(path, source, key["chunks"], key["shards"], **options):
            pass
    except OSError:
        if not (path / "zarr.json").exists():
            with writing(path, "store", ""):
                raise


def probe(source: Volume) -> str:
    """Digest of voxels at a quarter, half and three quarters of each axis."""
    at = torch.cartesian_prod(*[torch.tensor([1, 2, 3]) * n // 4 for n in source.shape])
    return hashlib.sha256(source.voxels(at).double().cpu().numpy().tobytes()).hexdigest()
