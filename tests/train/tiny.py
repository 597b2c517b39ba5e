"""A cohort in memory, and a model that trains on it in milliseconds a step."""

import pandas as pd
import torch
from torch import nn

from cpic.data import ArrayVolume
from cpic.nn import CPIC, CubeEncoder, Search, TwoHeadRegressor
from cpic.train import CohortData, Regression


class Scans:
    """Noise with a bright ball whose size is the target."""

    def __init__(self, n, *, shape=(8, 8, 8), seed=0, missing=()):
        generator = torch.Generator().manual_seed(seed)
        self.targets = torch.rand(n, generator=generator, dtype=torch.float64)
        axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij")
        distance = sum(axis**2 for axis in axes).sqrt()
        self.volumes = {
            f"p{k:02d}": ArrayVolume(
                (distance < 0.3 + 0.7 * float(self.targets[k])).float()
                + 0.1 * torch.rand(*shape, generator=generator)
            )
            for k in range(n)
        }
        for name in missing:
            del self.volumes[name]

    def volume(self, patient):
        return self.volumes[patient]


def table(scans, *, visits=1):
    names = [name for name in scans.volumes for _ in range(visits)]
    targets = [float(t) for t in scans.targets for _ in range(visits)]
    weeks = [float(k) for _ in scans.volumes for k in range(visits)]
    targets = [t + 0.01 * w for t, w in zip(targets, weeks, strict=True)]
    return pd.DataFrame(
        {"patient": names, "target": targets, "weeks": weeks, "first": [2000.0] * len(names)}
    )


def make_data(n=16, *, batch_size=4, validation=4, visits=1, scans=None, samples=None, **options):
    scans = scans or Scans(n)
    names = list(scans.volumes)
    samples = table(scans, visits=visits) if samples is None else samples
    fold = (names[validation:], names[:validation])
    options = {"fold": fold, "batch_size": batch_size, "scale": 1825.0, **options}
    return CohortData(scans, samples, **options)


class Means(nn.Module):
    """Means of a few random voxels, with batch norm, noise and a memory: like C-PIC, but small."""

    def __init__(self, n_outputs=1, *, n_tabular=0, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(1, 4)
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4 + n_tabular, n_outputs)
        self.places = {}
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.5, 0.5, generator=self.generator)

    def forward(self, volumes, names, *, rows=None, tabular=None):
        values = []
        for volume, name in zip(volumes, names, strict=True):
            places = self.places.get(name)
            if places is None or self.training:
                places = torch.randint(8, (50, 3), generator=self.generator)
            if self.training:
                self.places[name] = places
            values.append(volume.voxels(places).mean())
        features = self.norm(self.linear(torch.stack(values)[:, None].to(self.linear.weight)))
        if self.training:
            features = features + 0.1 * torch.randn_like(features)
        features = features if rows is None else features[rows]
        return self.out(features if tabular is None else torch.cat([features, tabular], 1))

    def get_extra_state(self):
        return {"names": list(self.places), "places": list(self.places.values())}

    def set_extra_state(self, state):
        self.places = dict(zip(state["names"], state["places"], strict=True))


def make_cpic(*, rank=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder, head = CubeEncoder(4), TwoHeadRegressor(rank, batch_norm=True, n_outputs=1)
    search = Search(rank=rank)
    return CPIC(encoder, head, shape=(8, 8, 8), search=search, generator=generator)


def make_task(model=None, **options):
    return Regression(model or Means(), **{"lr": 1e-2, **options})
