"""Rows of the stores: cubes of a volume of 8192^3 out of a sharded store that grows.

Times are seconds of the wall clock, as threads and waiting for a server are the subject; the store
lies in the page cache. Positions are drawn at random, the worst case, or are those that one
half-sweep at rank 10 asks for. `decode share` is the part of the time that decoding the chunks
alone takes in one thread.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cpic import data, tt
from cpic.data.stores import OnDemandVolume
from tests.bench.harness import ROOT, Case

SIZE = 7
LATENCY = 0.02

SERVER = """
import asyncio, sys
from aiohttp import web
async def answer(request):
    await asyncio.sleep(float(sys.argv[2]))
    path = sys.argv[1] + request.path
    import os
    return web.FileResponse(path) if os.path.isfile(path) else web.Response(status=404)
async def main():
    app = web.Application()
    app.router.add_get("/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=256)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


class Hills:
    """Waves with the periods of a few thousand voxels, uint8."""

    def __call__(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        waves = (x / 900.0).sin() + (y / 1100.0).cos() + ((z + x) / 1700.0).sin()
        return (waves * 40 + 128).byte()


def store(side: int) -> Path:
    return ROOT / "_build" / f"bench-grown-{side}.zarr"


def grown(side: int) -> OnDemandVolume:
    source = data.FormulaVolume(Hills(), (side,) * 3, dtype=torch.uint8)
    return OnDemandVolume(source, store(side))


@cache
def centers(side: int, drawn: str, seed: int) -> Tensor:
    """Distinct positions (n, 3), whose chunks are on the disk afterwards."""
    generator = torch.Generator().manual_seed(seed)
    if drawn == "random":
        at = torch.randint(0, side, (600, 3), generator=generator)
    else:
        grid, asked = tt.Quantics((side,) * 3, channels=8), []
        sets = tt.IndexSets.random(grid.sizes, 10, generator=generator)

        def entries(indices: Tensor) -> Tensor:
            asked.append(grid.coords(indices[0])[:, :3])
            return torch.cos(indices.double().sum(-1))

        tt.interpolate(entries, sets)
        at = torch.cat(asked).unique(dim=0)
    grown(side).cubes(at, size=15)
    return at


def ours(side: int, drawn: str, seed: int, *, check: bool = True) -> dict[str, float]:
    """All cubes in one call."""
    at, volume = centers(side, drawn, seed), grown(side)
    start = time.perf_counter()
    cubes = volume.cubes(at, size=SIZE)
    seconds = time.perf_counter() - start
    if not check:
        return {"seconds": seconds}
    assert torch.equal(cubes, volume._source.cubes(at, size=SIZE))
    return {
        "seconds": seconds,
        "ms a cube": 1e3 * seconds / len(at),
        "decode share": decoding(volume, at) / seconds,
        "chunks a cube": volume.ledger.chunks / len(at),
        "bytes read / bytes of all": volume.touched().bytes,
    }


def decoding(volume: OnDemandVolume, at: Tensor) -> float:
    """Seconds that one thread takes to decode the chunks of the positions."""
    layout = volume._layout
    assert layout is not None
    corners = at[:, None] + torch.cartesian_prod(*[torch.tensor([-1, 1]) * (SIZE // 2)] * 3)
    corners = corners.flatten(0, 1).clamp(min=0).minimum(torch.tensor(volume.shape) - 1)
    chunks = (corners // torch.tensor(volume.chunks)).unique(dim=0).numpy()
    raw, out = layout.read(volume._reads, chunks), np.empty(layout.chunk, np.uint8)
    start = time.perf_counter()
    for chunk in raw:
        layout.decode(chunk, out)
    return time.perf_counter() - start


def naive(side: int, drawn: str, seed: int, *, check: bool = True) -> dict[str, float]:
    """A slice of Zarr's array for each cube, as a loop over positions reads it."""
    import zarr

    at, array = centers(side, drawn, seed), zarr.open_array(store(side), mode="r")
    cubes = np.zeros((len(at), 1, SIZE, SIZE, SIZE), np.uint8)
    start = time.perf_counter()
    for cube, low in zip(cubes, (at - SIZE // 2).tolist(), strict=True):
        inside = [slice(max(0, k), min(k + SIZE, side)) for k in low]
        to = tuple(slice(i.start - k, i.stop - k) for i, k in zip(inside, low, strict=True))
        cube[0][to] = array[tuple(inside)]
    seconds = time.perf_counter() - start
    if check:
        assert np.array_equal(cubes, grown(side).cubes(at, size=SIZE).numpy())
    return {"seconds": seconds, "ms a cube": 1e3 * seconds / len(at)}


def twice(side: int, which: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """The first or second read of the same positions, chunks held."""
    at, volume = centers(side, "half-sweep", seed), grown(side)
    volume = OnDemandVolume(volume._source, store(side), cache=2**28)
    seconds = []
    for _ in range(which):
        volume.ledger.reset()
        start = time.perf_counter()
        volume.cubes(at, size=SIZE)
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[-1], "chunks decoded": volume.ledger.chunks}


@contextmanager
def served(side: int, latency: float) -> Iterator[str]:
    """The address of the store behind a server of its own process."""
    command = [sys.executable, "-c", SERVER, str(store(side).parent), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/{store(side).name}"
        finally:
            server.kill()


class Growing(data.ZarrVolume):
    """Opens a store that is still growing: all that is read here is there."""

    _grows = True


def step(volume: data.ZarrVolume, at: Tensor, *, encode: bool) -> float:
    """Seconds of reading the cubes and, if wanted, of the encoder with its gradient."""
    from cpic.nn import CubeEncoder

    encoder = CubeEncoder(8)
    volume.cubes(at[:2], size=SIZE)  # a connection
    start = time.perf_counter()
    cubes = volume.cubes(at, size=encoder.receptive_field if encode else SIZE)
    if encode:
        encoder(cubes.float()).square().sum().backward()
    return time.perf_counter() - start


def remote(
    side: int, seed: int, *, encode: bool, latency: float = LATENCY, check: bool = True
) -> dict[str, float]:
    """Over HTTP, with the latency added to each answer."""
    at = centers(side, "half-sweep", seed)
    with served(side, latency) as address:
        return {"seconds": step(Growing(address), at, encode=encode)}


def local(side: int, seed: int, *, encode: bool, check: bool = True) -> dict[str, float]:
    """The same store as files."""
    at = centers(side, "half-sweep", seed)
    return {"seconds": step(Growing(store(side)), at, encode=encode)}


def store_cases(side: int = 8192) -> dict[str, Case]:
    """Every case by its name."""
    title, loop = f"cubes of {side}^3", "a slice for each cube"
    cases = [
        Case(
            name=f"{title}, positions {drawn}",
            ours=partial(ours, side, drawn),
            peers={loop: partial(naive, side, drawn)},
            goals={},
            shares={("seconds", loop): 0.1},
            repeats=3,
            peak="none",
        )
        for drawn in ("random", "half-sweep")
    ]
    rows: list[tuple[str, Callable, dict[str, Callable], float]] = [
        ("read again", partial(twice, side, 2), {"first read": partial(twice, side, 1)}, 0.5)
    ]
    for name, encode in (("read", False), ("read and encoded", True)):
        far, near = (partial(run, side, encode=encode) for run in (remote, local))
        # What waiting costs, and what a server costs that shares our cores.
        others = {"0 ms away": partial(far, latency=0.0), "local files": near}
        rows.append((f"{name} over HTTP, 20 ms away", far, others, 2.0))
    cases += [
        Case(
            name=f"{title}, {name}",
            ours=run,
            peers=peers,
            goals={},
            shares={("seconds", peer): bound for peer in peers},
            repeats=3,
            peak="none",
        )
        for name, run, peers, bound in rows
    ]
    return {case.name: case for case in cases}
