"""Write a large volume completely as one sharded Zarr array; no download.

    python data_scripts/make_large_store.py OUT.zarr --side 2048 --workers 2

The volume consists of terraces, uint8, which compress to a small part of their size; it is written
shard by shard. A killed run can be continued, and several processes, on any machines that see the
folder, can write one store: run the same command in each.
"""

import time

import torch
from jsonargparse import auto_cli
from torch import Tensor

from cpic._errors import CacheError, VolumeError
from cpic.data import FormulaVolume
from cpic.data.stores import OnDemandVolume


def terraces(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Steps with the periods 256, 384 and 640, from 0 to 255, uint8."""
    return (((x % 256) // 16).byte() * 6 + ((y % 384) // 24).byte() * 6) + (
        (z % 640) // 40
    ).byte() * 5


def main(out: str, side: int = 2048, workers: int = 2, chunk: int = 64, shard: int = 256) -> None:
    """Write `side`^3 voxels.

    Args:
        out: folder of the store, new or from a run to continue.
        side: voxels along each axis.
        workers: number of threads.
        chunk: voxels along each axis of a chunk, the unit of reading.
        shard: voxels along each axis of a file; a multiple of `chunk`.
    """
    torch.set_num_threads(1)
    source = FormulaVolume(terraces, (side,) * 3, dtype=torch.uint8)
    start = time.monotonic()
    try:
        chunks, shards = (min(chunk, side),) * 3, (shard,) * 3
        volume = OnDemandVolume(source, out, chunks=chunks, shards=shards)
        volume.fill(workers=workers, progress=True)
    except (VolumeError, CacheError) as error:
        raise SystemExit(str(error)) from error
    seconds, written = time.monotonic() - start, volume.written()
    print(f"{written.of_bytes:,} voxels in {written.bytes:,} bytes at {out}, {seconds:.1f} s")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)
