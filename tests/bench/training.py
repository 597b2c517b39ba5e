"""One training step of C-PIC on volumes out of core, and the same of a ResNet-34.

What is timed is a step as in training: half-sweep with selection from the sets of the last visit,
forward, backward, clipping, an update by RAdam. The volumes are read from disk in every step.
"""

import math
import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from cpic import data
from cpic.data import brain_like
from cpic.data.resample import resample
from cpic.data.stores import ChunkCache
from cpic.nn import CPIC, CubeEncoder, Reading, Search, TwoHeadRegressor
from cpic.nn.baselines import resnet34
from tests.bench.harness import ROOT
from tests.bench.timing import processor_clock

Variant = Literal["fast", "paper"]
HEADS = 20


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained on what.

    `source`: "stores", distinct heads in Zarr stores written once; "memory", the same read whole;
    or "formula", one phantom head a sample, at any resolution. `cache`: bytes of decoded chunks
    that all stores together hold. `select`: visits between selections of the index sets.
    `contrasts`: heads that are the channels of one volume. `edge`: of the chunks of a store.
    `foreach`: whether the optimizer updates all parameters at once, its default on a GPU.
    """

    shape: tuple[int, ...]
    n_dims: int = 16
    rank: int = 10
    batch: int = 20
    variant: Variant = "fast"
    chunk: int | None = None
    source: Literal["stores", "memory", "formula"] = "stores"
    cache: int | None = 2**29
    select: int = 1
    contrasts: int = 1
    edge: int = 32
    foreach: bool | None = None
    device: str = "cpu"


class Training:
    """A model with its optimizer and one batch, warmed up."""

    def __init__(self, setting: Setting, *, seed: int = 0, warm: int = 2):
        self.setting = setting
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.encoder = CubeEncoder(
            setting.n_dims, in_channels=setting.contrasts, variant=setting.variant
        )
        self.model = CPIC(
            self.encoder,
            TwoHeadRegressor(setting.rank),
            shape=setting.shape,
            contrasts=setting.contrasts,
            search=Search(rank=setting.rank, select=setting.select),
            reading=Reading(chunk=setting.chunk),
            generator=generator,
        ).to(setting.device)
        parameters = self.model.parameters()
        self.optimizer = torch.optim.RAdam(parameters, lr=1e-3, foreach=setting.foreach)
        self.volumes = volumes(setting)
        self.names = [f"patient {k}" for k in range(setting.batch)]
        self.target = torch.rand(setting.batch, generator=generator).to(setting.device)
        for _ in range(warm):
            self.step()

    def step(self) -> float:
        """One step; returns the loss."""
        loss = self.gradient()
        self.optimizer.step()
        return loss

    def gradient(self) -> float:
        """A step without the update."""
        self.model.train()
        self.optimizer.zero_grad()
        predicted = self.model(self.volumes, self.names)[:, 1]
        loss = (predicted - self.target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        return float(loss.detach())

    @torch.no_grad()
    def predict(self, n: int) -> Tensor:
        """Predictions of the first n volumes, whose sets are sought without any memory of them."""
        self.model.eval()
        return self.model(self.volumes[:n], [f"unknown {k}" for k in range(n)])


def volumes(setting: Setting) -> Sequence[data.Volume]:
    """As many volumes as the batch has samples, none of them in memory; `HEADS` are distinct."""
    if setting.source == "formula":
        return [brain_like(setting.shape, seed=k) for k in range(setting.batch)]
    cache = None if setting.cache is None else ChunkCache(setting.cache)

    def head(k: int) -> data.Volume:
        volume = data.ZarrVolume(stored(setting.shape, k % HEADS, setting.edge), cache=cache)
        return data.ArrayVolume(volume.read()) if setting.source == "memory" else volume

    if setting.contrasts == 1:
        return [head(k) for k in range(setting.batch)]
    parts = range(setting.contrasts)
    return [data.StackedVolume([head(k + c) for c in parts]) for k in range(setting.batch)]


def store_all(shape: Sequence[int], n: int) -> None:
    """Write n stores that `stored` then finds, on all cores."""
    missing = [seed for seed in range(n) if not _path(shape, seed, 32).exists()]
    if missing:
        # A process with a GPU cannot be forked.
        workers = min(len(missing), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(partial(stored, tuple(shape)), missing))


def _path(shape: Sequence[int], seed: int, edge: int) -> Path:
    size = "x".join(map(str, shape)) + f"-{edge}" * (edge != 32)
    return ROOT / "_build" / f"bench-heads-{size}" / f"{seed}.zarr"


def stored(shape: Sequence[int], seed: int, edge: int = 32) -> Path:
    """A head as a store of such chunks, made once: the template cut by `seed`, with texture."""
    path = _path(shape, seed, edge)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        chunks = tuple(min(edge, n) for n in shape)
        folder = Path(tempfile.mkdtemp(".part", ".", path.parent))
        try:
            data.save_zarr(head(shape, seed), folder / "head.zarr", chunks=chunks)
            (folder / "head.zarr").rename(path)
        finally:
            shutil.rmtree(folder)
    return path


def head(shape: Sequence[int], seed: int) -> Tensor:
    """The template with margins cut at random, stretched to `shape`, times smooth noise."""
    generator = torch.Generator().manual_seed(seed)
    whole = data.mni152("t1").read()
    cut = torch.randint(0, 12, (2, 3), generator=generator).tolist()
    box = tuple(slice(a, n - b) for a, b, n in zip(*cut, whole.shape, strict=True))
    half = torch.randn([math.ceil(n / 2) for n in shape], generator=generator)
    texture = resample(half, tuple(shape), order=1)
    return resample(whole[box], tuple(shape), order=1) * (1 + 0.1 * texture)


def one_step(training: Training, steps: int = 3) -> dict[str, float]:
    """Medians over steps, by sample: processor seconds, positions encoded, entries asked for."""
    batch, found = training.setting.batch, []
    for _ in range(steps):
        training.model.reset_counts()
        clock = processor_clock()
        training.step()
        counts = training.model.counts
        found.append((clock(), counts.encoded, counts.asked))
    middle = [statistics.median(part) / batch for part in zip(*found, strict=True)]
    return dict(zip(("seconds", "positions", "entries"), middle, strict=True))


class Dense:
    """The ResNet-34 on whole volumes, which are in memory, where the network is."""

    def __init__(self, shape: Sequence[int], *volumes: data.Volume, device: str = "cpu"):
        self.model = resnet34().to(device)
        whole = torch.stack([volume.read() for volume in volumes]).float()
        self.values = whole.view(-1, 1, *shape).to(device)

    def step(self) -> None:
        """Forward and backward of the batch."""
        self.model.train()
        self.model(self.values).square().sum().backward()

    @torch.no_grad()
    def predict(self) -> Tensor:
        """A forward pass."""
        self.model.eval()
        return self.model(self.values)
