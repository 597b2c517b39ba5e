"""Baselines: the network that is compared is the one that was published."""

import builtins
import itertools

import pytest
import torch
from torch import nn

from cpic.nn import QuantileHead, spectral
from cpic.nn.baselines import DownsampleCNN, block_means, histogram_features, resnet34


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("monai")
    torch.manual_seed(0)
    return resnet34()


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_resnet_has_67_million_parameters(network):
    regressor = 512 * 2048 + 2048 + 2048 * 1024 + 1024 + 1024 * 512 + 512 + 512 + 1
    assert count(network.body) == 63_470_528
    assert count(network) == 63_470_528 + regressor == 67_144_641


def test_resnet_is_made_of_basic_blocks_with_batch_norm(network):
    body = network.body
    blocks = [len(stage) for stage in (body.layer1, body.layer2, body.layer3, body.layer4)]
    assert blocks == [3, 4, 6, 3]
    assert body.conv1.kernel_size == (7, 7, 7)
    assert body.conv1.stride == (1, 2, 2)
    norms = [m for m in body.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    # one in the stem, two a block, one in each of three projections
    assert len(norms) == 1 + 2 * 16 + 3


def test_resnet_predicts_and_gradient_reaches_the_stem(network):
    outputs = network.train()(torch.rand(2, 1, 16, 32, 32))
    assert outputs.shape == (2, 1)
    (grad,) = torch.autograd.grad(outputs.sum(), [network.body.conv1.weight])
    assert (grad != 0).any()


@pytest.mark.parametrize(
    ("stride", "pool", "shape"), [(2, True, (4, 4, 4)), ((1, 2, 2), False, (16, 8, 8))]
)
def test_resnet_stem_by_argument(stride, pool, shape):
    pytest.importorskip("monai")
    network = resnet34(stem_stride=stride, stem_pool=pool).eval()
    seen = []
    network.body.layer1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    with torch.no_grad():
        network(torch.rand(1, 1, 16, 16, 16))
    assert tuple(seen[0][2:]) == shape


def test_resnet_takes_tabular_features_and_contrasts():
    pytest.importorskip("monai")
    network = resnet34(in_channels=2, head=QuantileHead(512, n_tabular=1)).eval()
    with torch.no_grad():
        assert network(torch.rand(2, 2, 8, 8, 8), torch.rand(2, 1)).shape == (2, 3)


def test_resnet_says_what_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("monai"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="cpic\\[train\\]"):
        resnet34()


def test_resnet_of_another_size_is_refused(monkeypatch):
    resnet = pytest.importorskip("monai.networks.nets.resnet")
    monkeypatch.setattr(resnet, "resnet34", lambda **_: torch.nn.Linear(3, 4))
    with pytest.raises(RuntimeError, match="63,470,528 parameters, got 16"):
        resnet34()


@pytest.mark.parametrize("n_axes", [2, 3])
def test_downsample_cnn(n_axes, generator):
    network = DownsampleCNN(3, in_channels=2, n_axes=n_axes).double()
    volumes = torch.rand(2, 2, *[20] * n_axes, generator=generator, dtype=torch.float64)
    outputs = network(volumes.requires_grad_())
    assert outputs.dtype == torch.float64
    assert outputs.shape == (2, 3)
    (grad,) = torch.autograd.grad(outputs[0].sum(), volumes)
    assert (grad[0] != 0).float().mean() > 0.9
    assert (grad[1] == 0).all()
    assert network.layers(volumes).shape[2:] == (2,) * n_axes
    alone = torch.cat([network(volume[None]) for volume in volumes])
    torch.testing.assert_close(alone, outputs)


@pytest.mark.parametrize(("shape", "n"), [((4, 6, 8), 2), ((4, 6, 8), (1, 3, 8)), ((4, 6), 2)])
def test_block_means_are_means_of_blocks(shape, n, generator):
    volumes = torch.rand(2, 3, *shape, generator=generator, dtype=torch.float64)
    blocks = [n] * len(shape) if isinstance(n, int) else n
    found = block_means(volumes, n_blocks=n).view(2, 3, *blocks)
    for place in itertools.product(*map(range, blocks)):
        cut = tuple(
            slice(k * size // m, (k + 1) * size // m)
            for k, size, m in zip(place, shape, blocks, strict=True)
        )
        wanted = volumes[(..., *cut)].flatten(2).mean(2)
        torch.testing.assert_close(found[(..., *place)], wanted)


def test_histogram_equals_numpy(generator):
    import numpy as np

    volumes = torch.rand(3, 2, 7, 6, 5, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    found = histogram_features(volumes, n_bins=9, low=0.0, high=1.0)
    clipped = volumes.clamp(0, 1).reshape(6, -1).numpy()
    wanted = np.stack([np.histogram(row, 9, (0, 1))[0] for row in clipped]) / 210
    np.testing.assert_allclose(found.numpy(), wanted.reshape(3, 18))
    torch.testing.assert_close(found.view(3, 2, 9).sum(2), torch.ones(3, 2).double())


def test_histogram_of_integers_and_infinity():
    values = torch.tensor([[[-1000, 0, 400, 399, 3000]]], dtype=torch.int16)
    found = histogram_features(values, n_bins=2, low=-1000, high=400)
    torch.testing.assert_close(found, torch.tensor([[0.2, 0.8]], dtype=torch.float64))
    ends = torch.tensor([[[-torch.inf, torch.inf]]])
    assert histogram_features(ends, n_bins=4).tolist() == [[0.5, 0, 0, 0.5]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DownsampleCNN(0), "n_outputs"),
        (lambda: DownsampleCNN(widths=(6,)), "multiples of 4"),
        (lambda: DownsampleCNN()(torch.zeros(2, 8, 8, 8)), "contrasts"),
        (lambda: DownsampleCNN()(torch.zeros(2, 1, 8, 8, 8).double()), "float64"),
        (lambda: resnet34(stem_stride=(1, 2)), "three axes"),
        (lambda: resnet34(stem_stride=0), "stem_stride"),
        (lambda: block_means(torch.zeros(2, 1, 4)), "two or three axes"),
        (lambda: block_means(torch.zeros(2, 1, 4, 4), n_blocks=(2, 2, 2)), "n_blocks for each"),
        (lambda: block_means(torch.zeros(2, 1, 4, 4), n_blocks=8), r"\[8, 8\] for \(4, 4\)"),
        (lambda: block_means(torch.zeros(2, 1, 4, 4), n_blocks=0), "from 1 block"),
        (lambda: histogram_features(torch.zeros(3, 4)), "at least one"),
        (lambda: histogram_features(torch.zeros(3, 1, 0)), "at least one"),
        (lambda: histogram_features(torch.zeros(3, 1, 4), low=1.0), "low < high"),
        (lambda: histogram_features(torch.full((3, 1, 4), torch.nan)), "12 NaN"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_resnet_takes_spectral_layers():
    pytest.importorskip("monai")
    with torch.device("meta"):  # drawing its 67 million numbers takes seconds
        net = resnet34()
    net.to_empty(device="cpu")
    for part in (*net.parameters(), *net.buffers()):
        nn.init.constant_(part, 0.01)
    found = spectral.parametrize(net, rank=2, init="eye", gain="keep")
    assert len(found.names) == 40
    assert spectral.compression(net).percent < 1
    net(torch.rand(2, 1, 16, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert type(spectral.remove(net).body.conv1) is nn.Conv3d
