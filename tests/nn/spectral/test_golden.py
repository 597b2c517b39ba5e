"""Published compression of six networks, by the surgery of the networks themselves."""

from functools import partial

import pytest
import torch
from torch import nn

from cpic.nn import generative as gen
from cpic.nn import spectral
from cpic.nn.baselines import WideResNet
from cpic.nn.spectral._plan import Shape, plan_of

D32, D48 = partial(gen.Discriminator, 32), partial(gen.Discriminator, 48)
D32_NARROW = partial(gen.Discriminator, 32, width=32)
D48_NARROW = partial(gen.Discriminator, 48, width=64)
G32, WRN = partial(gen.Generator, 32), WideResNet
# Percent of the numbers of the network, and half of the last published digit.
TABLE = [
    (D32, 64, "svdp", "learned", 53.358, 5e-4),
    (D32, 64, "sttp", "learned", 18.329, 5e-4),
    (D32, 64, "svdp", "fixed", 51.743, 5e-4),
    (D32, 64, "sttp", "fixed", 16.713, 5e-4),
    (D32, 32, "svdp", "learned", 27.706, 5e-4),
    (D32, 32, "sttp", "learned", 6.4436, 5e-5),
    (D48, 64, "svdp", "learned", 14.497, 5e-4),
    (D48, 64, "sttp", "learned", 3.5163, 5e-5),
    (D48, 64, "svdp", "fixed", 14.227, 5e-4),
    (D48, 64, "sttp", "fixed", 3.2459, 5e-5),
    (D32_NARROW, 64, "svdp", "learned", 100.0, 5e-2),
    (D32_NARROW, 64, "sttp", "learned", 94.639, 5e-4),
    (D32_NARROW, 64, "svdp", "fixed", 93.105, 5e-4),
    (D32_NARROW, 64, "sttp", "fixed", 87.744, 5e-4),
    (D48_NARROW, 64, "svdp", "learned", 100.0, 5e-2),
    (D48_NARROW, 64, "sttp", "learned", 84.671, 5e-4),
    (D48_NARROW, 64, "svdp", "fixed", 89.454, 5e-4),
    (D48_NARROW, 64, "sttp", "fixed", 74.124, 5e-4),
    (G32, 64, "svdp", "learned", 37.129, 5e-4),
    (G32, 64, "sttp", "learned", 18.822, 5e-4),
    (G32, 32, "svdp", "learned", 25.144, 5e-4),
    (G32, 32, "sttp", "learned", 14.608, 5e-4),
    (WRN, 8, "svdp", "learned", 2.0119, 5e-5),
    (WRN, 8, "sttp", "learned", 0.20915, 5e-6),
    (WRN, 64, "svdp", "learned", 14.8355, 5e-5),
    (WRN, 64, "sttp", "learned", 2.92197, 5e-6),
]


def compressed(network, kind, *, ignore=(), **options):
    """The compression of a network whose numbers take no memory."""
    with torch.device("meta"):
        net = network()
        if network is G32:
            ignore = ["noise_to_conv"]
        return spectral.compression(
            spectral.parametrize(net, kind, init="eye", ignore=ignore, **options).net
        )


@pytest.mark.parametrize(("network", "rank", "kind", "spectrum", "percent", "digit"), TABLE)
def test_compression_is_the_published_one(network, rank, kind, spectrum, percent, digit):
    found = compressed(network, kind, rank=rank, spectrum=spectrum)
    assert found.percent == pytest.approx(percent, abs=digit)


def test_the_first_convolution_may_stay_as_it_is():
    found = compressed(WRN, "sttp", rank=8, ignore=["stem"])
    assert found.percent == pytest.approx(0.20961, abs=5e-6)


def test_compression_counts_what_a_network_has():
    """The same numbers from a network as from the shapes of its layers, and from its parameters."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()
    )
    before = sum(value.numel() for value in net.state_dict().values() if value.ndim)
    found = spectral.parametrize(net, "svdp", rank=2, ignore=["3"]).net
    counted = spectral.compression(found)
    plan = plan_of(Shape((8, 3, 3, 3)), kind="svdp", rank=2)
    assert counted.original == 8 * 27
    assert counted.free == plan.parameters
    assert counted.original + counted.rest == before
    learned = sum(p.numel() for p in found.parameters())
    assert counted.free + counted.rest == learned + 2 * 8
    assert counted.percent == pytest.approx(100 * (plan.parameters + counted.rest) / before)
    assert counted.frames == {(8, 2, False): 1, (27, 2, False): 1}
