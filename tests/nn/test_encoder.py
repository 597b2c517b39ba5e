"""Encoders: what they see, how large they are, and what reaches them."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cpic.nn import CubeEncoder, PatchEncoder, QuantileHead, TwoHeadRegressor
from cpic.nn._centered import Centered


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_published_parameter_counts_in_three_dimensions():
    assert [count(CubeEncoder(n)) for n in (8, 16, 32)] == [17_738, 23_146, 33_962]


@pytest.mark.parametrize(
    ("n_dims", "rank", "total"),
    [(32, 10, 37_385), (16, 10, 26_569), (8, 10, 21_161), (8, 12, 21_361), (8, 15, 21_661)],
)
def test_published_parameter_counts_for_survival(n_dims, rank, total):
    assert count(CubeEncoder(n_dims), TwoHeadRegressor(rank)) == total


def test_published_parameter_counts_for_lung_function():
    assert count(QuantileHead(10)) == 64_283
    assert count(CubeEncoder(16), QuantileHead(10, ordered=True)) == 87_429


ENCODERS = [
    pytest.param(lambda **o: CubeEncoder(4, **o), (9, 9, 9), id="paper 3-D"),
    pytest.param(lambda **o: CubeEncoder(4, n_axes=2, **o), (17, 17), id="paper 2-D"),
    pytest.param(lambda **o: CubeEncoder(4, variant="fast", **o), (9, 9, 9), id="fast 3-D"),
    pytest.param(
        lambda **o: CubeEncoder(4, variant="fast", n_axes=2, channels_last=True, **o),
        (17, 17),
        id="fast 2-D",
    ),
    pytest.param(lambda **o: PatchEncoder(4, size=5, **o), (5, 5, 5), id="dense 3-D"),
    pytest.param(lambda **o: PatchEncoder(4, size=7, n_axes=2, **o), (7, 7), id="dense 2-D"),
]


def linear(encoder):
    """Without what saturates, so that each voxel shows."""
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            weight.fill_(0.01 if name.endswith("weight") else 0.1)
    return encoder.eval()


@pytest.mark.parametrize(("make", "shape"), ENCODERS)
@pytest.mark.parametrize("contrasts", [1, 3])
def test_every_voxel_of_the_receptive_field_counts(make, shape, contrasts, generator):
    encoder = linear(make(in_channels=contrasts, precision=torch.float64))
    assert (encoder.receptive_field,) * len(shape) == shape
    cubes = torch.rand(2, contrasts, *shape, generator=generator, dtype=torch.float64)
    cubes.requires_grad_()
    vectors = encoder(cubes)
    assert vectors.shape == (2, 4)
    assert vectors.dtype == torch.float64
    (grad,) = torch.autograd.grad(vectors[0].sum(), cubes)
    assert (grad[0] != 0).all()
    assert (grad[1] == 0).all()


@pytest.mark.parametrize(("make", "shape"), ENCODERS)
def test_gradient_reaches_every_parameter(make, shape, generator):
    encoder = make()
    vectors = encoder(torch.rand(40, 1, *shape, generator=generator))
    vectors.square().sum().backward()
    assert all((p.grad != 0).any() for n, p in encoder.named_parameters() if "bias" not in n)


def test_last_activation_is_sigmoid_in_3d_and_relu_in_2d(generator):
    cubes = 100 * torch.randn(50, 1, 9, 9, 9, generator=generator)
    vectors = CubeEncoder(16)(cubes)
    assert vectors.amin() >= 0
    assert vectors.amax() <= 1
    assert (vectors > 0).all()
    patches = 100 * torch.randn(50, 1, 17, 17, generator=generator)
    vectors = CubeEncoder(16, n_axes=2)(patches)
    assert vectors.amin() == 0
    assert vectors.amax() > 1


def test_paper_encoder_is_four_valid_convolutions(generator):
    encoder = CubeEncoder(16, precision=torch.float64)
    cubes = torch.rand(3, 1, 9, 9, 9, generator=generator, dtype=torch.float64)
    weights = list(encoder.parameters())
    hidden = cubes
    for k in range(4):
        hidden = torch.nn.functional.conv3d(hidden, weights[2 * k], weights[2 * k + 1])
        hidden = hidden.relu() if k < 3 else hidden.sigmoid()
    assert [w.shape[:2] for w in weights[::2]] == [(5, 1), (15, 5), (25, 15), (16, 25)]
    torch.testing.assert_close(encoder(cubes), hidden.flatten(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_layout_changes_no_value_and_precision_is_kept(precision, generator):
    one = CubeEncoder(8, precision=precision)
    other = CubeEncoder(8, precision=precision, channels_last=True)
    other.load_state_dict(one.state_dict())
    first = other.layers[2]
    assert first.weight.is_contiguous(memory_format=torch.channels_last_3d)
    cubes = torch.randint(0, 255, (6, 1, 9, 9, 9), generator=generator, dtype=torch.int16)
    assert one(cubes).dtype == precision
    torch.testing.assert_close(one(cubes), other(cubes), rtol=1e-5, atol=1e-6)


def test_dense_encoder_has_two_hidden_layers_with_batch_norm():
    kinds = [type(layer).__name__ for layer in PatchEncoder(8, size=3).layers]
    assert kinds == ["Flatten", *["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert count(PatchEncoder(8, size=3)) == 27 * 256 + 256 + 512 + 256 * 257 + 512 + 256 * 8 + 8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CubeEncoder(0), "n_dims"),
        (lambda: CubeEncoder(4, n_axes=4), "2 or 3 axes"),
        (lambda: CubeEncoder(4, variant="slow"), "variant"),
        (lambda: CubeEncoder(4, scales=()), r"CubeEncoder needs scales .* got \(\)"),
        (lambda: CubeEncoder(4, scales=(1, 1)), "different integers from 1"),
        (lambda: CubeEncoder(4, scales=(1, 2))(torch.zeros(2, 1, 9, 9, 9)), r"strides=\(1, 2\)"),
        (lambda: CubeEncoder(4, precision=torch.float16), "precision"),
        (lambda: CubeEncoder(4)(torch.zeros(2, 1, 7, 7, 7)), r"\(n, 1, 9, 9, 9\)"),
        (lambda: CubeEncoder(4)(torch.zeros(2, 2, 9, 9, 9)), r"got \(2, 2, 9, 9, 9\)"),
        (lambda: PatchEncoder(4, size=4), "odd"),
        (lambda: PatchEncoder(4, size=3)(torch.zeros(1, 1, 3, 3, 3)), "at least 2 rows"),
    ],
)
def test_bad_input_is_one_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("in_channels", [1, 4])
@pytest.mark.parametrize(("variant", "n_axes"), [("paper", 3), ("fast", 3), ("fast", 2)])
def test_products_instead_of_convolutions_change_nothing(
    variant, n_axes, in_channels, channels_last, generator
):
    encoder = CubeEncoder(
        4,
        in_channels=in_channels,
        n_axes=n_axes,
        variant=variant,
        channels_last=channels_last,
        precision=torch.float64,
    )
    size = encoder.receptive_field
    cubes = torch.randn(5, in_channels, *[size] * n_axes, generator=generator, dtype=torch.float64)
    cubes.requires_grad_()
    inputs = [cubes, *encoder.parameters()]
    found, wanted = encoder(cubes), encoder.layers(cubes).flatten(1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    slopes = (torch.autograd.grad(part.square().sum(), inputs) for part in (found, wanted))
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("variant", ["paper", "fast"])
def test_scales_are_channels_of_the_first_layer(variant, generator):
    options = {"in_channels": 2, "scales": (1, 2, 4), "last": "linear"}
    encoder = linear(CubeEncoder(4, variant=variant, **options))
    assert (encoder.in_channels, encoder.scales) == (2, (1, 2, 4))
    cubes = torch.rand(3, 6, 9, 9, 9, generator=generator).requires_grad_()
    (grad,) = torch.autograd.grad(encoder(cubes).sum(), cubes)
    assert (grad != 0).all()
    one, other = (CubeEncoder(4, variant=variant, **o) for o in ({}, {"scales": [1]}))
    assert count(one) == count(other)
    assert Centered(encoder).scales == encoder.scales


def test_no_gradient_of_the_cubes_is_computed_unless_it_is_asked_for():
    encoder = CubeEncoder(4, variant="fast")
    masks = []

    class Masks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution_backward.default:
                masks.append(args[-1])
            return func(*args, **(kwargs or {}))

    with Masks():
        encoder(torch.rand(3, 1, 9, 9, 9)).sum().backward()
    assert masks == [[False, True, True]]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_empty_cube_is_encoded_once_for_several_calls(batch_norm, generator):
    encoder = PatchEncoder(4, size=3) if batch_norm else CubeEncoder(4, variant="fast")
    size, counted = encoder.receptive_field, []
    encoder.register_forward_pre_hook(lambda module, given: counted.append(len(given[0])))
    parts = torch.rand(3, 5, 1, *[size] * 3, generator=generator)
    slopes = []
    for once in (False, True):
        centered = Centered(encoder, once=once)
        with torch.no_grad():
            centered(parts[0])
        loss = sum((k + 1) * centered(part).square().sum() for k, part in enumerate(parts))
        slopes.append(torch.autograd.grad(loss, list(encoder.parameters())))
    # Without batch norm: alone at each call, or with the first one of either kind.
    assert counted == ([6] * 8 if batch_norm else [5, 1] * 4 + [6, 6, 5, 5])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
