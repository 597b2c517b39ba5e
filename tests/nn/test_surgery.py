"""Networks in three parts from backbones."""

import pytest
import torch
from torch import nn

from cpic._vision import torchvision
from cpic.nn.pooling import (
    CompactBilinear,
    Reduction,
    ThreeParts,
    feature_layers,
    representation,
)
from cpic.nn.pooling._surgery import units


def small(*, pool=True):
    """A network whose last layers are a pooling and a classifier."""
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()]
    end = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, *end, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))


BACKBONES = {
    "alexnet": (256, 7),
    "vgg11_bn": (512, 8),
    "resnet18": (512, 4),
    "squeezenet1_1": (1000, 7),
    "shufflenet_v2_x0_5": (1024, 4),
    "densenet121": (1024, 4),
    "inception_v3": (2048, 2),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_of_torchvision(name):
    channels, size = BACKBONES[name]
    # Its initial values take seconds to draw.
    options = {"init_weights": False} if name == "inception_v3" else {}
    net = torchvision().models.get_model(name, weights=None, **options)
    found = feature_layers(net)
    with torch.no_grad():
        maps = found.layers.eval()(torch.rand(1, 3, 128, 128))
    assert maps.shape == (1, channels, size, size)
    assert found.n_channels == channels


def test_the_maps_are_those_of_the_backbone():
    net = torchvision().models.resnet18(weights=None).eval()
    layers = feature_layers(net).layers
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        mean = layers(images).mean((2, 3))
        assert torch.equal(net.fc(mean), net(images))
    assert not layers.training
    assert any(one is two for one in layers.parameters() for two in net.parameters())


def test_tokens_of_a_transformer_are_maps():
    net = torchvision().models.VisionTransformer(24, 8, 2, 2, 12, 16, num_classes=5)
    found = feature_layers(net)
    images = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        maps = found.layers.eval()(images)
        rows = net.conv_proj(images).flatten(2).mT
        tokens = net.encoder(torch.cat([net.class_token.expand(2, 1, 12), rows], 1))
    assert maps.shape == (2, 12, 3, 3)
    assert torch.allclose(maps.flatten(2).mT, tokens[:, 1:], atol=1e-6)
    reduced = nn.Sequential(found.layers, Reduction(found.n_channels, 4))
    whole = ThreeParts(reduced, representation("MPA", 4), 5)
    whole(images).sum().backward()
    assert all(one.grad is not None for one in net.encoder.layers.parameters())


@pytest.mark.parametrize("pool", [True, False])
def test_the_last_poolings_are_left_out(pool):
    net = small(pool=pool)
    layers, channels = feature_layers(net, size=16)
    assert channels == 6
    assert layers.training
    assert layers(torch.rand(2, 3, 16, 16)).shape == (2, 6, 8, 8)


def test_the_resolution_of_a_resnet_is_kept():
    net = torchvision().models.resnet18(weights=None)
    layers = feature_layers(net, size=64, keep_resolution=True).layers
    with torch.no_grad():
        assert layers(torch.rand(2, 3, 64, 64)).shape == (2, 512, 4, 4)


def three(name="MPNCOV", **options):
    layers, channels = feature_layers(small(), size=16)
    reduced = nn.Sequential(layers, Reduction(channels, 4))
    return ThreeParts(reduced, representation(name, 4), 5, **options)


def test_frozen_modules_keep_their_weights_but_not_their_statistics():
    torch.manual_seed(0)
    net = three()
    wrapped = ThreeParts(net.features[0], representation("MPNCOV", 6), 5)
    assert len(units(wrapped.features)) == 7
    wrapped.freeze(4)
    before = {name: x.clone() for name, x in wrapped.state_dict().items()}
    optimizer = torch.optim.SGD(wrapped.groups(), lr=0.1)
    wrapped(torch.rand(3, 3, 16, 16)).square().sum().backward()
    optimizer.step()
    changed = {name for name, x in wrapped.state_dict().items() if not torch.equal(x, before[name])}
    assert not {name for name in changed if name.startswith(("features.extractor.0.",))}
    assert {"features.extractor.1.running_mean", "features.extractor.4.weight"} <= changed
    assert not {"features.extractor.1.weight", "features.extractor.1.bias"} & changed
    wrapped.freeze(0)
    assert all(parameter.requires_grad for parameter in wrapped.parameters())


def test_groups_hold_each_trained_parameter_once():
    net = three(hidden=(7,))
    features, classifier = net.groups(factor=5.0, classifier_decay=0.0)
    assert (features["factor"], classifier["factor"]) == (1.0, 5.0)
    assert classifier["weight_decay"] == 0.0
    assert [len(one["params"]) for one in (features, classifier)] == [11, 4]
    assert "weight_decay" not in net.groups()[1]


def test_a_model_is_a_plain_module():
    net = three().eval()
    images = torch.rand(2, 3, 16, 16)
    text = repr(net)
    for word in ("features", "representation", "classifier", "newton_schulz"):
        assert word in text
    again = three().eval()
    again.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(again(images), net(images))


@pytest.mark.parametrize("name", ["MPNCOV", "MPA", "GAvP", "BCNN"])
def test_a_model_can_be_exported(name):
    layers, channels = feature_layers(small(), size=16)
    net = ThreeParts(layers, representation(name, channels, check=False), 5).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        exported = torch.export.export(net, (images,)).module()
        torch.testing.assert_close(exported(images), net(images))


def test_the_state_of_the_sketch_is_that_of_the_model():
    net = three("CBP")
    assert isinstance(net.representation, CompactBilinear)
    assert {"representation.places", "representation.signs"} <= set(net.state_dict())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: feature_layers(nn.Sequential(nn.MultiheadAttention(4, 2))),
            "got Sequential with attention over",
        ),
        (lambda: feature_layers(small(), keep_resolution=True), "needs a ResNet, got Sequential"),
        (
            lambda: feature_layers(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), size=4),
            "no feature",
        ),
        (lambda: three().freeze(99), "at most 2 modules"),
        (lambda: three(hidden=(0,)), "hidden"),
    ],
)
def test_rejects(call, message):
    with pytest.raises(ValueError, match=message):
        call()
