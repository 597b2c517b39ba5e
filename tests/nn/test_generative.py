"""Generators, discriminators, classifiers: published sizes, losses, paths, distances."""

import math

import pytest
import scipy.linalg
import torch
from torch.nn import functional

from cpic.nn import generative as gen
from cpic.nn.baselines import SmallResNet, WideResNet
from cpic.nn.metrics import frechet_distance, kernel_distance


def numbers(network):
    """Numbers in the state without counters of batches."""
    state = network.state_dict()
    return sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked"))


PUBLISHED = {
    "D 32": (lambda: gen.Discriminator(32), 1_053_824),
    "D 48": (lambda: gen.Discriminator(48), 10_141_440),
    "D 32 narrow": (lambda: gen.Discriminator(32, width=32), 66_848),
    "D 48 narrow": (lambda: gen.Discriminator(48, width=64), 40_080),
    "G 32": (lambda: gen.Generator(32), 4_280_323),
    "WRN-28-10": (lambda: WideResNet(), 36_507_242),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_published_sizes(name):
    make, expected = PUBLISHED[name]
    with torch.device("meta"):
        assert numbers(make()) == expected


@pytest.mark.parametrize(("depth", "layers"), [(20, 20), (32, 32), (56, 56), (1202, 1202)])
def test_the_depth_counts_layers_with_weights(depth, layers):
    with torch.device("meta"):
        network = SmallResNet(depth=depth)
    weighted = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(m, weighted) for m in network.modules()) == layers


@pytest.mark.parametrize("size", [16, 32, 48, 64, 128])
@pytest.mark.parametrize("n_classes", [None, 3])
def test_generators_and_discriminators_fit_together(size, n_classes):
    make = gen.Generator(size, in_channels=2, width=64, n_classes=n_classes)
    score = gen.Discriminator(size, in_channels=2, width=64, n_classes=n_classes)
    labels = [] if n_classes is None else [torch.tensor([0, 2])]
    images = make(torch.randn(2, 128), *labels)
    assert images.shape == (2, 2, size, size)
    assert images.abs().max() <= 1
    score(images, *labels).sum().backward()
    assert all(p.grad is not None for p in [*make.parameters(), *score.parameters()])
    assert make.noise_to_conv.weight.grad.any()


def test_weights_start_as_published():
    torch.manual_seed(0)
    score = gen.Discriminator(32)
    bounds = {
        score.blocks[1].convolutions[0].weight: math.sqrt(2) * math.sqrt(6 / (2 * 128 * 9)),
        score.blocks[1].shortcut.weight: math.sqrt(6 / 256),
        score.last.weight: math.sqrt(6 / 129),
    }
    for weight, bound in bounds.items():
        assert 0.95 * bound < weight.abs().max() <= bound


def test_the_projection_adds_the_product_with_the_class():
    torch.manual_seed(0)
    score = gen.Discriminator(16, in_channels=1, width=8, n_classes=3)
    images, labels = torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 1])
    with torch.no_grad():
        features = functional.relu(score.blocks(images)).sum((2, 3))
        weights = score.last.weight + score.embedding.weight[labels]
    torch.testing.assert_close(score(images, labels), (weights * features).sum(1))


def test_a_conditional_norm_is_a_norm_for_each_class():
    torch.manual_seed(0)
    norm, images = gen.ConditionalBatchNorm(4, 2), torch.randn(6, 4, 5, 5)
    torch.nn.init.normal_(norm.scale.weight)
    torch.nn.init.normal_(norm.shift.weight)
    found = norm(images, torch.tensor([0, 1, 1, 0, 1, 0]))
    one = functional.batch_norm(
        images, None, None, norm.scale.weight[1], norm.shift.weight[1], training=True
    )
    torch.testing.assert_close(found[1], one[1])
    assert not torch.allclose(found[0], one[0])


def test_blocks_commute_as_they_say():
    """The cheap order of a 1x1 convolution and a change of size gives the published numbers."""
    torch.manual_seed(0)
    make = gen.Generator(16, in_channels=1, width=8)
    block, images = make.blocks[0], torch.randn(2, 8, 4, 4)
    twice = functional.interpolate(images, scale_factor=2, mode="bilinear")
    found = functional.relu(block.norms[0](images))
    found = functional.interpolate(found, scale_factor=2, mode="bilinear")
    found = functional.relu(block.norms[1](block.convolutions[0](found)))
    expected = block.convolutions[1](found) + block.shortcut(twice)
    torch.testing.assert_close(block(images), expected, rtol=1e-4, atol=1e-5)
    score = gen.Discriminator(16, in_channels=1, width=8)
    block, images = score.blocks[1], torch.randn(2, 8, 8, 8)
    entered = images.relu()
    found = block.convolutions[1](block.convolutions[0](entered).relu())
    expected = functional.avg_pool2d(found + block.shortcut(entered), 2)
    torch.testing.assert_close(block(images), expected, rtol=1e-4, atol=1e-5)


def test_the_shortcut_without_parameters_pads_on_both_sides():
    network = SmallResNet(in_channels=1, depth=8, width=4)
    block = network.blocks[1]
    with torch.no_grad():
        block.second.weight.zero_()
        images = torch.rand(2, 4, 6, 6)
        found = block.eval()(images)
    assert found.shape == (2, 8, 3, 3)
    torch.testing.assert_close(found[:, 2:6], images[:, :, ::2, ::2])
    assert not found[:, :2].any()
    assert not found[:, 6:].any()


def test_a_pixel_survives_the_way_there_and_back():
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(gen.to_pixels(gen.from_pixels(pixels)), pixels)
    noisy = gen.from_pixels(pixels, generator=torch.Generator().manual_seed(0))
    moved = (noisy - gen.from_pixels(pixels)).abs()
    assert 0.8 / 255 < moved.max() <= 1.001 / 255
    assert noisy.abs().max() <= 1
    # At most one level: half a level up or down is rounded back.
    assert (gen.to_pixels(noisy).int() - pixels.int()).abs().max() <= 1


PAIRS = {
    "quarter": ([1.0, 0.0], [0.0, 1.0], [math.sqrt(0.5), math.sqrt(0.5)]),
    "lengths": ([2.0, 0.0], [0.0, 8.0], [math.sqrt(8), math.sqrt(8)]),
    "parallel": ([1.0, 1.0], [3.0, 3.0], [2.0, 2.0]),
    "opposite": ([1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]),
    "zero": ([0.0, 0.0], [2.0, 0.0], [1.0, 0.0]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_middle_of_a_path(name):
    first, second, middle = (torch.tensor(one, dtype=torch.float64) for one in PAIRS[name])
    first.requires_grad_()
    found = gen.slerp(first, second, 0.5)
    torch.testing.assert_close(found, middle.double())
    assert torch.autograd.grad(found.sum(), first)[0].isfinite().all()


def test_paths_end_where_they_should_and_keep_the_length():
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 128, generator=draw, dtype=torch.float64)
    for path in (gen.lerp, gen.slerp):
        torch.testing.assert_close(path(first, second, 0.0), first)
        torch.testing.assert_close(path(first, second, 1.0), second)
    assert gen.lerp(first, second, 0.5).norm(dim=1).max() < 9.5
    assert gen.slerp(first, second, 0.5).norm(dim=1).min() > 10


@pytest.mark.parametrize("path", ["lerp", "slerp"])
def test_a_sheet_has_its_corners(path):
    corners = torch.randn(4, 6, dtype=torch.float64)
    found = gen.sheet(corners, side=5, path=path).view(5, 5, 6)
    torch.testing.assert_close(found[[0, 0, -1, -1], [0, -1, 0, -1]], corners)
    one = {"lerp": gen.lerp, "slerp": gen.slerp}[path]
    torch.testing.assert_close(found[2, 0], one(corners[0], corners[2], 0.5))


@pytest.mark.parametrize("n", [40, 5])
def test_frechet_distance_is_that_of_the_covariances(n):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 8, generator=draw, dtype=torch.float64)
    y = 2 * torch.randn(50, 8, generator=draw, dtype=torch.float64) + 0.5
    root = scipy.linalg.sqrtm((x.T.cov() @ y.T.cov()).numpy()).real
    expected = (x.mean(0) - y.mean(0)).square().sum() + x.T.cov().trace() + y.T.cov().trace()
    expected = float(expected) - 2 * root.trace()
    assert float(frechet_distance(x, y)) == pytest.approx(expected, rel=1e-6)
    assert float(frechet_distance(x, x)) == pytest.approx(0, abs=1e-12)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=draw, dtype=torch.float64)).Q
    turned = frechet_distance(x @ turn, y @ turn)
    assert float(turned) == pytest.approx(float(frechet_distance(x, y)))


def test_kernel_distance_is_the_unbiased_estimate():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 7, 3, generator=draw, dtype=torch.float64)

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(7) for j in range(7)]
    own = sum(k(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / 42
    expected = own - 2 * sum(k(x[i], y[j]) for i, j in pairs) / 49
    found = kernel_distance(x, y, generator=draw, n_subsets=2)
    assert float(found.mean) == pytest.approx(expected)
    assert float(found.std) == pytest.approx(0, abs=1e-12)
    same = [
        kernel_distance(*torch.randn(2, 60, 3, generator=draw), generator=draw, n_subsets=1).mean
        for _ in range(100)
    ]
    spread = float(torch.stack(same).std())
    assert abs(float(torch.stack(same).mean())) < 4 * spread / 10


BAD = {
    "side": (lambda: gen.Generator(40), "images of side 16, 32"),
    "width": (lambda: gen.Discriminator(48, width=40), "a multiple of 16.*got 40; choose 32"),
    "latent": (lambda: gen.Generator(16, width=8)(torch.rand(2, 3)), r"\(K, 128\), got \(2, 3\)"),
    "labels": (
        lambda: gen.Generator(16, width=8)(torch.rand(2, 128), torch.tensor([0, 0])),
        "made without classes",
    ),
    "no labels": (
        lambda: gen.Generator(16, width=8, n_classes=3)(torch.rand(2, 128)),
        "needs labels",
    ),
    "labels of another type": (
        lambda: gen.Generator(16, width=8, n_classes=3)(torch.rand(2, 128), torch.rand(2)),
        "int64, got",
    ),
    "channels": (lambda: gen.Discriminator(16, width=8)(torch.rand(2, 1, 16, 16)), "needs volumes"),
    "wide factor": (lambda: WideResNet(widen=0.4), "between 0.5 and 256, got 0.4"),
    "wide depth": (lambda: WideResNet(depth=27), "4 plus a multiple of 6, got 27"),
    "small depth": (lambda: SmallResNet(depth=21), "2 plus a multiple of 6, got 21"),
    "sheet": (lambda: gen.sheet(torch.rand(3, 2), side=4), "needs corners"),
    "path": (lambda: gen.sheet(torch.rand(4, 2), side=4, path="arc"), "got .* 'arc'"),
    "one sample": (lambda: frechet_distance(torch.rand(1, 2), torch.rand(5, 2)), "at least 2"),
    "features": (lambda: frechet_distance(torch.rand(4, 3), torch.rand(5, 2)), "needs features"),
    "nan": (lambda: frechet_distance(torch.rand(4, 2) / 0, torch.rand(5, 2)), "finite features"),
    "subsets": (
        lambda: kernel_distance(
            torch.rand(4, 2), torch.rand(4, 2), generator=torch.Generator(), n_subsets=0
        ),
        "at least 1 subset",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()
