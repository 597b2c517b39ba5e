"""Rows of patch selection: memory against the number of patches, and time beside all patches.

Images are sparse and lie in memory by their pixels above 0, or are tiled files of generated
pictures; patches are cut when they are read. The peers of a step are attention-based pooling of all
patches with gradient, with the layer of `torchmil`, and for a selection a plain pass of the same
encoder without gradient.
"""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import nn

from cpic._files import replace_file
from cpic.images import PatchSource, SparseImage, TiffImage
from cpic.nn import ips
from tests.bench.harness import ROOT, Case
from tests.bench.timing import processor_clock
from tests.nn.ips.problems import ExactScorer, whole

PATCH, M, DIMS = 50, 100, 128
SIDES = (1500, 3000, 6000)
N_PIXELS = 8000
TARGETS = [ips.Target("majority", 10)]
# Pictures of 15 and 58 megapixels, in tiles of JPEG, of which two rows have to fit the cache.
PICTURES, TILE, CACHE = ((2700, 5400), (5400, 10800)), 256, 2**25
FEATURES, N_FEATURES, M_FEATURES = 2048, 250_000, 5000


def image(side: int, seed: int) -> PatchSource:
    """As many pixels above 0 as megapixel MNIST has, on a canvas of any size."""
    draw = np.random.default_rng(seed)
    places = np.unique(draw.integers(side * side, size=N_PIXELS))
    gray = draw.integers(1, 256, len(places)).astype(np.uint8)
    return PatchSource(SparseImage(places, gray, shape=(side, side)), size=PATCH)


def classifier(n_patches: int) -> ips.PatchClassifier:
    """The network of megapixel MNIST, with group norm."""
    torch.manual_seed(0)
    encoder = ips.ResNetEncoder("resnet18", in_channels=1, stages=2)
    pool = ips.CrossAttention(DIMS, grid=(n_patches,))
    return ips.PatchClassifier(encoder, pool, TARGETS, choose=ips.Iterative(m=M, i=M))


def learned(model: ips.PatchClassifier, bag: ips.Bag | torch.Tensor) -> dict[str, float]:
    """A training step on one image."""
    optimizer = torch.optim.AdamW(model.parameters())
    clock = processor_clock()
    logits = model([bag]).logits
    model.heads.loss(logits, {"majority": torch.zeros(1).long()}).backward()
    optimizer.step()
    return {"seconds": clock()}


def stepped(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """A training step on one image by its chosen patches."""
    source = image(side, seed)
    return learned(classifier(len(source)), source)


@cache
def picture(height: int, width: int) -> Path:
    """A file of noise on a gradient, which is written tile by tile, once."""

    def tiles() -> Iterator[np.ndarray]:
        draw = np.random.default_rng(0)
        for row in range(0, height, TILE):
            for column in range(0, width, TILE):
                middle = 64 + 128 * row // height, 64 + 128 * column // width, 128
                noise = draw.integers(-40, 40, (TILE, TILE, 3))
                yield (noise + middle).astype(np.uint8)

    options = {"shape": (height, width, 3), "dtype": "uint8", "tile": (TILE, TILE)}
    path = ROOT / "_build" / f"picture-{height}x{width}.tif"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        options |= {"photometric": "rgb", "compression": "jpeg"}
        replace_file(path, lambda file: tifffile.imwrite(file, tiles(), **options))
    return path


def stepped_on_picture(
    shape: tuple[int, int], seed: int, *, whole: bool = False, check: bool = True
) -> dict[str, float]:
    """A training step on a picture by its chosen patches, with a small encoder."""
    source = PatchSource(TiffImage(picture(*shape), cache_bytes=CACHE), size=PATCH)
    torch.manual_seed(seed)
    encoder = ips.ConvEncoder(3, widths=(16, 32), n_dims=DIMS)
    pool = ips.CrossAttention(DIMS, grid=(len(source),))
    model = ips.PatchClassifier(encoder, pool, TARGETS, choose=ips.Iterative(m=M, i=M))
    found = learned(model, source.read(torch.arange(len(source))) if whole else source)
    return {**found, "decoded, share": source.fraction}


def stepped_on_all(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """A training step on one image by all of its patches."""
    from torchmil.models import ABMIL

    source = image(side, seed)
    encoder = classifier(1).encoder
    pool = ABMIL(in_shape=(DIMS,), gated=True, criterion=nn.BCEWithLogitsLoss())
    optimizer = torch.optim.AdamW([*encoder.parameters(), *pool.parameters()])
    clock = processor_clock()
    patches = source.read(torch.arange(len(source)))
    found = pool(encoder(patches)[None])
    pool.criterion(found, torch.zeros_like(found)).backward()
    optimizer.step()
    return {"seconds": clock()}


@cache
def bag(side: int) -> torch.Tensor:
    """All patches of an image at once; a first selection, which takes longer, is made."""
    source = image(side, 0)
    patches = source.read(torch.arange(len(source)))[None]
    model = classifier(len(source))
    ips.select(patches[:, : M + 1], model.encoder, model.pool, m=M, i=M)
    return patches


def selected(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """A selection."""
    patches = bag(side)
    model = classifier(patches.shape[1])
    clock = processor_clock()
    ips.select(patches, model.encoder, model.pool, m=M, i=M)
    return {"seconds": clock()}


@torch.no_grad()
def passed(side: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """The encoder over all patches, in as many calls."""
    patches = bag(side)
    encoder = classifier(patches.shape[1]).encoder.eval()
    clock = processor_clock()
    for part in patches[0].split(M):
        encoder(part)
    return {"seconds": clock()}


def differing(n_cases: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """Selections in chunks that differ from one pass over everything."""
    draw = torch.Generator().manual_seed(seed)
    exact = official = 0
    for k in range(n_cases):
        n = int(torch.randint(30, 200, (1,), generator=draw))
        m, i = (int(x) for x in torch.randint(1, 30, (2,), generator=draw))
        # Every other case has equal patches.
        patches = torch.randint(0, 2 if k % 2 else 50, (2, n, 3), generator=draw).double() / 8
        mask = torch.rand(2, n, generator=draw) < 0.9
        mask[:, 0] = True
        scorer = ExactScorer(3, tokens=1)
        wanted = whole(patches, scorer, m, mask)
        options = {"m": m, "i": i, "mask": mask}
        for by in ("exact", "official"):
            found = ips.select(patches, nn.Identity(), scorer, by=by, **options)
            rows = [
                set(row[ok].tolist()) for row, ok in zip(found.indices, found.mask, strict=True)
            ]
            differs = any(row != set(best) for row, best in zip(rows, wanted, strict=True))
            exact, official = exact + (by == "exact" and differs), official + differs
    # Both were counted as the second.
    return {"exact, sets": exact, "official, share": (official - exact) / n_cases}


class Made:
    """Features that are computed when they are read."""

    def __init__(self, n: int):
        self.n = n
        self.rows = torch.randn(4096, FEATURES, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.n

    def read(self, indices: torch.Tensor) -> torch.Tensor:
        """Features of some patches."""
        return self.rows[indices % len(self.rows)] * (1 + indices[:, None] / self.n)


def slide(n: int, m: int, seed: int, *, check: bool = True) -> dict[str, float]:
    """A training step on the features of a slide."""
    torch.manual_seed(0)
    pool = ips.CrossAttention(512)
    targets = [ips.Target("metastases", kind="sigmoid")]
    choose = ips.Iterative(m=m)
    model = ips.PatchClassifier(ips.FeatureProjector(FEATURES), pool, targets, choose=choose)
    clock = processor_clock()
    logits = model([Made(n)]).logits
    model.heads.loss(logits, {"metastases": torch.ones(1)}).backward()
    return {"seconds": clock()}


def ips_cases() -> dict[str, Case]:
    """Every case by its name."""
    cases = [
        Case(
            name=f"step on {M} of {(side // PATCH) ** 2} patches, {side}^2",
            ours=partial(stepped, side),
            peers={} if side == SIDES[0] else {"1500^2": partial(stepped, SIDES[0])},
            goals={},
            shares={} if side == SIDES[0] else {("MB", "1500^2"): 1.1},
            repeats=1,
        )
        for side in SIDES
    ]
    few, many = PICTURES
    cases += [
        Case(
            name=f"step on {M} patches of a generated picture of 58 megapixels",
            ours=partial(stepped_on_picture, many),
            peers={
                "15 megapixels": partial(stepped_on_picture, few),
                "read whole": partial(stepped_on_picture, many, whole=True),
            },
            # All tiles once, then those of the chosen patches.
            goals={"decoded, share": 1.5},
            shares={("MB", "15 megapixels"): 1.1, ("MB", "read whole"): 0.5},
            repeats=1,
        ),
        Case(
            name="selection of 100 of 900 patches",
            ours=partial(selected, 1500),
            peers={"plain pass": partial(passed, 1500)},
            goals={},
            shares={("seconds", "plain pass"): 1.1},
            repeats=5,
            peak="none",
        ),
        Case(
            name="step on 100 of 3600 patches",
            ours=partial(stepped, 3000),
            peers={"torchmil, all": partial(stepped_on_all, 3000)},
            goals={},
            shares={("seconds", "torchmil, all"): 1 / 2.5, ("MB", "torchmil, all"): 1 / 10},
            repeats=3,
        ),
        Case(
            name="selection in chunks, 1000 cases",
            ours=partial(differing, 1000),
            peers={},
            goals={"exact, sets": 0},
            repeats=1,
            peak="none",
        ),
        Case(
            name=f"step on {M_FEATURES} of {N_FEATURES} features",
            ours=partial(slide, N_FEATURES, M_FEATURES),
            peers={},
            goals={"MB": 1000},
            repeats=1,
        ),
    ]
    return {case.name: case for case in cases}
