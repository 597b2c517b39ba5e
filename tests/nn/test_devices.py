"""Every network, loss and metric on every device, with gradients of inputs and parameters."""

from functools import partial

import pytest
import torch

from cpic import data, nn
from cpic.data import ArrayVolume
from cpic.nn import baselines, generative, metrics, patches, pooling
from cpic.nn._memory import SetMemory
from cpic.tt import IndexSets, Quantics, TensorTrain
from tests.devices import CPU, drawn, everywhere, graded, missing, source, tensors

SHAPE, SIZES, RANK = (8, 6, 8), (4, 3, 4), 3
NAMES = ["ada", "bea", "cy", "dora"]


def moved(make, device, dtype):
    """A module with the same numbers on every device."""
    torch.manual_seed(0)
    return make().to(device, dtype)


def trained(module, *inputs):
    """Outputs of a module, and the gradients of its parameters."""
    found = tensors(module(*inputs))
    sum(part.square().sum() for part in found).backward()
    return [*found, *(parameter.grad for parameter in module.parameters())]


def trains(device, dtype, n=4, seed=0):
    ranks = (1, 2, 2, 1)
    shapes = [(n, a, size, b) for a, size, b in zip(ranks, SIZES, ranks[1:], strict=False)]
    parts = [drawn(device, dtype, *shape, seed=seed + k) for k, shape in enumerate(shapes)]
    return TensorTrain([part - 0.3 for part in parts])


def scans(device, dtype, channels=1):
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    arrays = [drawn(device, dtype, *shape, seed=k) for k in range(len(NAMES))]
    return [ArrayVolume(array, channels=channels) for array in arrays]


class Small(torch.nn.Module):
    """An encoder that sees 3 voxels along each axis."""

    n_dims, in_channels, receptive_field = 2, 1, 3

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(27, self.n_dims)

    def forward(self, cubes):
        return self.linear(cubes.flatten(1).to(self.linear.weight)).sigmoid()


class Wide(Small):
    """Sees them at three scales."""

    scales = (1, 2, 3)

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(81, self.n_dims)


def entries(device, dtype, *, indices, volumes=CPU, make=Small, **options):
    """Values at multi-indices that lie elsewhere than the encoder, or the volumes."""
    grid, encoder = Quantics(SHAPE, channels=2), moved(make, device, dtype)
    found = nn.VolumeEntries(scans(volumes, dtype), encoder, grid, dtype=dtype, **options)
    below = torch.tensor(grid.sizes, device=indices)
    some = (drawn(indices, torch.float64, 4, 40, grid.n_sites) * below).long()
    values = torch.cat([found(some), found(some[:, :20])], 1)
    assert values.device == indices
    values.square().sum().backward()
    return [values.to(device), *(parameter.grad for parameter in encoder.parameters())]


def model(device, dtype, *, n_dims=2, apart=False, encoder=Small, **options):
    """C-PIC on a device; `apart`: only encoder and head are there."""
    torch.manual_seed(0)
    options = {"search": nn.Search(rank=RANK, n_sweeps=2), **options}
    width = nn.count_features(options.get("features", ("components",)), rank=RANK, n_dims=n_dims)
    made = nn.CPIC(
        encoder and encoder(),
        nn.TwoHeadRegressor(width, n_tabular=1, generator=source()),
        components=nn.Components(RANK, follow=None, refresh=1),
        shape=SHAPE,
        generator=source(),
        **options,
    ).to(CPU, dtype)
    for part in (made.encoder, made.head) if apart else (made,):
        if part is not None:
            part.to(device)
    return made


def steps(device, dtype, *, volumes=CPU, weight=0.0, **options):
    """Two steps, a prediction, and the state they leave."""
    net = model(device, dtype, **options)
    optimizer = torch.optim.RAdam(net.parameters(), lr=1e-2)
    rows = torch.tensor([0, 1, 2, 3, 3], device=CPU)
    given = (scans(volumes, torch.float32), NAMES)
    age = drawn(CPU, torch.float32, 5, 1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = net(*given, rows=rows, tabular=age).square().mean()
        (loss + weight * net.residual() if weight else loss).backward()
        optimizer.step()
    twin = model(device, dtype, **options)
    twin.load_state_dict(net.state_dict())
    found = twin.eval()(*given, rows=rows, tabular=age)
    return [found, *(parameter.grad for parameter in net.parameters())]


def noisy(device, dtype):
    """Noise of features between draws."""
    net = model(device, dtype)
    net.features_of(scans(CPU, torch.float32), NAMES)
    noise = nn.feature_noise(net, scans(CPU, torch.float32), NAMES, generator=source())
    return noise.spread.to(dtype)


def remembered(device, dtype):
    """What is kept of names, and found again after a move."""
    memory = SetMemory(SIZES, 2, generator=source()).to(device)
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=source()).to(device)
    memory.put(NAMES[:2], sets)
    memory.put(NAMES[1:3], sets)
    found = SetMemory(SIZES, 2, generator=source()).to(device)
    found.load_state_dict(memory.state_dict())
    begun = found.double().begin(3, n_warm_starts=2)
    visits = found.visits(NAMES).tolist()
    assert (visits, found.towards(NAMES)) == ([1, 2, 1, 0], "right")
    return [begun, found.get(NAMES), drawn(device, dtype, 1)]


def followed(device, dtype):
    """Features in a basis that moves, then stays."""
    made = nn.Components(2, follow=2, refresh=1).to(device)
    parts = [made(trains(device, dtype, seed=10 * k)) for k in range(3)]
    assert made.basis.device == device
    return [*parts, made.eval().double()(trains(device, dtype))]


def patch_model(kind, n_outputs):
    def make():
        decoder = patches.PatchDecoder(n_outputs, n_dims=2, width=3, hidden=8)
        kinds = {"shape": SHAPE, "search": nn.Search(rank=RANK, n_sweeps=2)}
        return kind(Small(), decoder, **kinds, generator=source())

    return make


def rebuilt(device, dtype):
    net = moved(patch_model(patches.Autoencoder, 1), device, dtype)
    net.decoder.precision = dtype
    loss = net.loss(scans(CPU, torch.float32), NAMES, most=20, generator=source())
    loss.backward()
    seen = net.slice(net.compress(scans(CPU, torch.float32), NAMES), axis=0, at=2)
    return [loss, seen.to(dtype), *(parameter.grad for parameter in net.parameters())]


def segmented(device, dtype):
    net = moved(patch_model(patches.Segmenter, 3), device, dtype)
    labels = [ArrayVolume((3 * drawn(device, dtype, *SHAPE, seed=k)).long()) for k in range(4)]
    where = patches.BalancedPositions(labels, labels=(0, 1, 2), generator=source())
    rows = torch.arange(4, device=CPU)
    positions, classes = where.draw(rows, 12, generator=source())
    loss = net.loss(scans(device, dtype), NAMES, positions, classes)
    loss.backward()
    seen = net.slice(net.compress(scans(device, dtype), NAMES), axis=0, at=2)
    return [loss, seen, *(parameter.grad for parameter in net.parameters())]


def added(device, dtype):
    """Metrics are numbers, wherever the samples are."""
    one, other = drawn(device, dtype, 9), drawn(device, dtype, 9, seed=1)
    rmse, mean = metrics.RMSE(), metrics.FoldMean()
    overlap = metrics.Dice(3)
    rmse.add(one, other)
    mean.add(one)
    overlap.add((3 * one).long(), (3 * other).long())
    return drawn(device, dtype, 1).new_tensor([rmse.value, mean.value, *overlap.value.tolist()])


def maps(device, dtype):
    return (drawn(device, dtype, 3, 4, 3, 5) - 0.4).requires_grad_()


def pooled(layer, device, dtype):
    """Vectors of masked maps, and their gradient at the maps."""
    given = maps(device, dtype)
    mask = torch.ones(3, 3, 5, dtype=torch.bool, device=device)
    mask[1, 2], mask[2] = False, False
    module = moved(lambda: layer, device, dtype)
    found = module(given, mask)
    return [found, torch.autograd.grad(found.square().sum(), given)[0]]


def in_three_parts(device, dtype):
    """Logits of a network in three parts, and all gradients."""

    def make():
        backbone = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
        )
        found: pooling.Features = pooling.feature_layers(backbone, size=8)
        layers = torch.nn.Sequential(found.layers, pooling.Reduction(found.n_channels, 4))
        return pooling.ThreeParts(layers, pooling.representation("MPNCOV", 4), 5)

    return trained(moved(make, device, dtype), drawn(device, dtype, 3, 3, 8, 8))


TABLE = {
    **{
        f"representation {name}": lambda d, t, name=name: pooled(
            pooling.representation(name, 4), d, t
        )
        for name in pooling.REPRESENTATIONS
    },
    "SecondOrder MatrixPower of another power": lambda d, t: pooled(
        pooling.SecondOrder(4, pooling.MatrixPower(0.3), shrinkage=0.1, weighted=True), d, t
    ),
    "Switched": lambda d, t: pooled(
        pooling.SecondOrder(4, pooling.Switched(pooling.MatrixPower(), pooling.ScaledRoot())), d, t
    ),
    "small_backbone": lambda d, t: trained(
        moved(lambda: pooling.small_backbone("dense", n_parameters=900), d, t),
        drawn(d, t, 2, 1, 8, 8),
    ),
    "ScaledRoot": lambda d, t: pooled(pooling.SecondOrder(4, pooling.ScaledRoot()), d, t),
    "CovariancePool triangle": lambda d, t: pooling.triangle(
        pooling.CovariancePool(precision=t)(maps(d, t))
    ),
    "GlobalAverage Bilinear CompactBilinear": lambda d, t: [
        pooled(pooling.GlobalAverage(4), d, t),
        pooled(pooling.Bilinear(4), d, t),
        pooled(pooling.CompactBilinear(4, 8, generator=source(), raw=True), d, t),
    ],
    "DecorrelatedBatchNorm": lambda d, t: trained(
        moved(lambda: pooling.DecorrelatedBatchNorm(4, groups=2), d, t), maps(d, t)
    ),
    "transfer_statistics": lambda d, t: pooling.transfer_statistics(maps(d, t), maps(d, t)),
    "ThreeParts Reduction feature_layers Features": in_three_parts,
    "CubeEncoder": lambda d, t: trained(
        moved(lambda: nn.CubeEncoder(4, precision=t), d, t), drawn(d, t, 5, 1, 9, 9, 9)
    ),
    "CubeEncoder fast": lambda d, t: trained(
        moved(lambda: nn.CubeEncoder(4, variant="fast", channels_last=True, bias=-1.0), d, t),
        drawn(d, t, 5, 1, 9, 9, 9),
    ),
    "CubeEncoder of scales": lambda d, t: trained(
        moved(lambda: nn.CubeEncoder(4, variant="fast", scales=(1, 2, 4, 8)), d, t),
        drawn(d, t, 5, 4, 9, 9, 9),
    ),
    "PatchEncoder": lambda d, t: trained(
        moved(lambda: nn.PatchEncoder(4, size=3), d, t), drawn(d, t, 5, 1, 3, 3, 3)
    ),
    "TwoHeadRegressor": lambda d, t: trained(
        moved(lambda: nn.TwoHeadRegressor(3, n_tabular=2, generator=source()), d, t),
        drawn(d, t, 5, 3),
        drawn(d, t, 5, 2),
    ),
    "QuantileHead": lambda d, t: trained(
        moved(lambda: nn.QuantileHead(3, ordered=True, generator=source()), d, t),
        drawn(d, t, 5, 3),
        drawn(d, t, 5, 1),
    ),
    "Classifier": lambda d, t: trained(moved(lambda: nn.Classifier(3, 2), d, t), drawn(d, t, 5, 3)),
    "CoreHead": lambda d, t: trained(
        moved(lambda: nn.CoreHead(SIZES, 2, rank=2), d, t), trains(d, t)
    ),
    "CorePredictor": lambda d, t: trained(
        moved(lambda: nn.CorePredictor(SIZES, 2, widths=(4, 4)), d, t), drawn(d, t, 3, 1, 8, 8, 8)
    ),
    "Components": followed,
    "SetMemory": remembered,
    "VolumeEntries": lambda d, t: entries(d, t, indices=d),
    "VolumeEntries, indices on the CPU": lambda d, t: entries(d, t, indices=CPU),
    "VolumeEntries, remembered": lambda d, t: entries(d, t, indices=CPU, remember=True),
    "VolumeEntries, in chunks": lambda d, t: entries(d, t, indices=CPU, chunk=30),
    "VolumeEntries, volumes on the device": lambda d, t: entries(
        d, t, indices=d, volumes=d, padding="encode", remember=True
    ),
    "VolumeEntries, scales on the device": lambda d, t: entries(
        d, t, indices=d, volumes=d, make=Wide
    ),
    "CPIC": lambda d, t: steps(d, t),
    "CPIC, several scales": lambda d, t: steps(d, t, encoder=Wide),
    "CPIC, volumes on the device": lambda d, t: steps(d, t, volumes=d),
    "CPIC, sets on the CPU": lambda d, t: steps(d, t, apart=True),
    "CPIC, sets on the CPU, volumes on the device": lambda d, t: steps(d, t, apart=True, volumes=d),
    "CPIC, corrected Positions": lambda d, t: steps(d, t, positions=nn.Positions(correction=40)),
    "CPIC, residual": lambda d, t: steps(d, t, positions=nn.Positions(correction=40), weight=0.5),
    "CPIC, other features count_features": lambda d, t: steps(
        d, t, features=("components", "learned", "moments", "maximum", "attention", "covariance")
    ),
    "CPIC, on a grid": lambda d, t: steps(
        d, t, positions=nn.Positions(by="jittered", budget=50), features=("moments", "maximum")
    ),
    "CPIC, attended cubes": lambda d, t: steps(
        d, t, positions=nn.Positions(by="attended", budget=9), features=("attention", "maximum")
    ),
    "CPIC, learned features of a grid": lambda d, t: steps(
        d, t, positions=nn.Positions(by="grid", budget=60), features=("learned",)
    ),
    "feature_noise FeatureNoise": noisy,
    "CPIC, known sets": lambda d, t: steps(d, t, search=nn.Search(rank=RANK, select=2)),
    "CPIC, in chunks Reading": lambda d, t: steps(d, t, reading=nn.Reading(chunk=50)),
    "CPIC, all entries Search": lambda d, t: steps(d, t, search=nn.Search(rank=RANK, by="tt_svd")),
    "Autoencoder PatchModel PatchDecoder": rebuilt,
    "Segmenter BalancedPositions": segmented,
    "class_of": lambda d, t: patches.class_of((2 * drawn(d, t, 9)).long(), labels=(0, 1)).to(t),
    "RMSE FoldMean Dice": added,
    "dice": lambda d, t: drawn(d, t, 1).new_tensor(
        metrics.dice(drawn(d, t, 9, 3), (3 * drawn(d, t, 9)).long(), n_classes=3).tolist()
    ),
    "pinball": lambda d, t: metrics.pinball(drawn(d, t, 9, 3), drawn(d, t, 9)),
    "laplace_log_likelihood": lambda d, t: metrics.laplace_log_likelihood(
        drawn(d, t, 9, 3), drawn(d, t, 9), scale=500 * drawn(d, t, 9)
    ),
    "block_means": lambda d, t: baselines.block_means(drawn(d, t, 2, 1, 4, 4, 4), n_blocks=2),
    "histogram_features": lambda d, t: baselines.histogram_features(drawn(d, t, 2, 1, 4, 4, 4)),
    "DownsampleCNN": lambda d, t: trained(
        moved(lambda: baselines.DownsampleCNN(2, widths=(4, 4)), d, t), drawn(d, t, 3, 1, 8, 8, 8)
    ),
    "SmallResNet": lambda d, t: trained(
        moved(lambda: baselines.SmallResNet(2, depth=8, width=4), d, t), drawn(d, t, 3, 3, 8, 8)
    ),
    "WideResNet": lambda d, t: trained(
        moved(lambda: baselines.WideResNet(2, depth=10, widen=1), d, t), drawn(d, t, 3, 3, 8, 8)
    ),
    "Discriminator hinge_discriminator": lambda d, t: generative.hinge_discriminator(
        *moved(lambda: generative.Discriminator(16, width=8, n_classes=2), d, t)(
            drawn(d, t, 4, 3, 16, 16), (2 * drawn(d, t, 4)).long()
        ).split(2)
    ),
    "Generator ConditionalBatchNorm hinge_generator": lambda d, t: generative.hinge_generator(
        moved(lambda: generative.Generator(16, width=8, n_classes=2), d, t)(
            drawn(d, t, 4, 128), (2 * drawn(d, t, 4)).long()
        )
    ),
    "lerp": lambda d, t: graded(generative.lerp, *drawn(d, t, 3, 4, 5)),
    "slerp": lambda d, t: graded(generative.slerp, *drawn(d, t, 2, 4, 5), drawn(d, t, 4, 1)),
    "sheet": lambda d, t: generative.sheet(drawn(d, t, 4, 5), side=3),
    "from_pixels to_pixels": lambda d, t: generative.from_pixels(
        generative.to_pixels(2 * drawn(d, t, 3, 4) - 1), generator=source(), dtype=t
    ),
    "frechet_distance": lambda d, t: metrics.frechet_distance(
        drawn(d, t, 9, 3), drawn(d, t, 8, 3, seed=1) + 1
    ),
    "kernel_distance KernelDistance": lambda d, t: metrics.kernel_distance(
        drawn(d, t, 9, 3),
        drawn(d, t, 8, 3, seed=1) + 1,
        generator=source(),
        n_subsets=2,
        subset_size=4,
    ),
}
PUBLIC = {
    *nn.__all__,
    *patches.__all__,
    *metrics.__all__,
    *baselines.__all__,
    *generative.__all__,
    *pooling.__all__,
}


test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


@pytest.mark.parametrize(
    "make",
    [data.brain_like, data.gaussians, partial(data.gaussians, rotated=True), data.spike],
    ids=["brain_like", "gaussians", "rotated gaussians", "spike"],
)
def test_formulas_are_evaluated_where_the_positions_are(make, device):
    grid = Quantics((16, 16, 16))
    below = torch.tensor(grid.sizes, device=device)
    indices = (drawn(device, torch.float64, 1, 30, grid.n_sites) * below).long()
    formula = make((16, 16, 16))
    assert formula.read().device == CPU
    values = nn.VolumeEntries([formula], None, grid)(indices)
    assert values.device == device
    torch.testing.assert_close(values.cpu(), nn.VolumeEntries([formula], None, grid)(indices.cpu()))


def test_the_table_is_complete():
    # Counts are of no device; a ResNet is too slow for every test, see `tests.bench`.
    assert not missing(
        TABLE, PUBLIC, besides=["Counts", "FEATURES", "REPRESENTATIONS", "ResNet", "resnet34"]
    )
