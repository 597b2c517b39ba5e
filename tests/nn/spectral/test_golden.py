"""Published compression of four networks, from the shapes of their layers."""

import pytest
import torch
from torch import nn

from cpic.nn import spectral
from cpic.nn.spectral._plan import Shape, plan_of
from tests.nn.spectral import shapes

D32, D48 = shapes.discriminator_32(), shapes.discriminator_48()
D32_NARROW, D48_NARROW = shapes.discriminator_32(32), shapes.discriminator_48(64)
G32, WRN = shapes.generator_32(), shapes.wide_resnet()
ORIGINAL = [
    (D32, 1_053_824),
    (D48, 10_141_440),
    (D32_NARROW, 66_848),
    (D48_NARROW, 40_080),
    (G32, 4_280_323),
    (WRN, 36_507_242),
]
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


@pytest.mark.parametrize(("network", "numbers"), ORIGINAL)
def test_networks_have_the_published_numbers(network, numbers):
    weights, rest = network
    assert sum(torch.Size(size).numel() for size in weights) + rest == numbers


@pytest.mark.parametrize(("network", "rank", "kind", "spectrum", "percent", "digit"), TABLE)
def test_compression_is_the_published_one(network, rank, kind, spectrum, percent, digit):
    weights, rest = network
    whole = sum(torch.Size(size).numel() for size in weights) + rest
    plans = [plan_of(Shape(size), kind=kind, rank=rank, spectrum=spectrum) for size in weights]
    assert 100 * (sum(plan.parameters for plan in plans) + rest) / whole == pytest.approx(
        percent, abs=digit
    )


def test_the_first_convolution_may_stay_as_it_is():
    weights, rest = WRN
    first = torch.Size(weights[0]).numel()
    free = sum(plan_of(Shape(size), kind="sttp", rank=8).parameters for size in weights[1:])
    assert 100 * (free + first + rest) / 36_507_242 == pytest.approx(0.20961, abs=5e-6)


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
