"""Parts of a store that grows: the array without chunks, and chunks out of the source."""

import hashlib
import math
import os
import secrets
import shutil
from pathlib import Path

import numpy as np
import torch

from cpic._errors import CacheError, VolumeError
from cpic._trust import open_regular
from cpic.data._format import parsed
from cpic.data._save import stored_dtype
from cpic.data._volume import Volume
from cpic.data._zarr import MARK


def boxes(source: Volume, positions: np.ndarray, chunks: tuple[int, ...]) -> np.ndarray:
    """Values (n, *chunks, c) of the chunks at `positions` (n, D), 0 beyond the shape."""
    corners = torch.from_numpy(positions) * torch.tensor(chunks)
    size = max(chunks) | 1
    if size ** len(chunks) <= 2 * math.prod(chunks):
        cubes = source.cubes(corners + size // 2, size=size).movedim(1, -1)
        return cubes[(slice(None), *(slice(0, edge) for edge in chunks))].cpu().numpy()
    # Flat or long chunks: their smallest cube would hold much else.
    grid = torch.stack(torch.meshgrid(*map(torch.arange, chunks), indexing="ij"), -1)
    steps = corners.reshape(len(corners), *[1] * len(chunks), len(chunks)) + grid
    values = source.voxels(steps).cpu().numpy()
    return values if source.channels > 1 else values[..., None]


def created(path: Path, source: Volume, key: dict, level: int) -> None:
    """Make the array without chunks; who comes second finds that of the first."""
    import zarr
    from zarr.codecs import ZstdCodec

    dtype = stored_dtype(source)
    if not isinstance(level, int) or level > 22:
        raise VolumeError(f"a store needs a level of Zstandard of at most 22, got {level!r}.")
    tail = (source.channels,) if source.channels > 1 else ()
    part = path.parent / f".{path.name}-{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        zarr.create_array(
            part,
            shape=(*source.shape, *tail),
            chunks=(*key["chunks"], *tail),
            shards=(*key["shards"], *tail),
            dtype=dtype,
            compressors=ZstdCodec(level=level),
            attributes={MARK: key},
        )
        part.rename(path)
    except OSError as error:
        if not (path / "zarr.json").exists():
            raise CacheError(
                f"the store {path} cannot be made ({error.strerror or error}): free or permit "
                "space there, or choose another folder."
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def index_of(file: Path, n_chunks: int) -> np.ndarray:
    """First byte and length of the chunks in the file of a shard, (n, 2)."""
    length = 16 * n_chunks + 4
    try:
        with open_regular(file) as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - length))
            return parsed(opened.read(length), n_chunks)
    except ValueError as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> VolumeError:
    return VolumeError(f"{file} is damaged ({error}); delete it, and its chunks are made again.")


def probe(source: Volume) -> str:
    """Digest of voxels at a quarter, half and three quarters of each axis."""
    at = torch.cartesian_prod(*[torch.tensor([1, 2, 3]) * n // 4 for n in source.shape])
    return hashlib.sha256(source.voxels(at).double().cpu().numpy().tobytes()).hexdigest()


def done(found: dict) -> dict:
    return {"complete": True} if found.get("complete") else {}
