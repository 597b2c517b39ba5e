"""Networks with parametrized layers: what stays as it was, what comes back, and what is refused."""

import pytest
import torch
from torch import nn

from cpic.nn import Classifier, CubeEncoder, TwoHeadRegressor, spectral
from cpic.nn.spectral._weight import weight_of

# A layer with options that all matter, and the shape of its input.
LAYERS = {
    "linear": (lambda: nn.Linear(6, 8), (5, 3, 6)),
    "linear without bias": (lambda: nn.Linear(6, 8, bias=False), (5, 6)),
    "embedding": (lambda: nn.Embedding(9, 6), None),
    "embedding with padding": (lambda: nn.Embedding(9, 6, padding_idx=2), None),
    "1-d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 12)),
    "2-d": (lambda: nn.Conv2d(4, 6, (3, 5), padding=(1, 3), padding_mode="reflect"), (2, 4, 7, 9)),
    "2-d circular": (lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"), (2, 3, 5, 6)),
    "2-d replicate": (
        lambda: nn.Conv2d(3, 6, 2, padding="same", padding_mode="replicate"),
        (2, 3, 5, 6),
    ),
    "3-d": (lambda: nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), bias=False), (2, 2, 3, 5, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (2, 4, 5, 5)),
    "transposed 1-d": (lambda: nn.ConvTranspose1d(4, 6, 3, stride=3, output_padding=2), (2, 4, 5)),
    "transposed 2-d": (
        lambda: nn.ConvTranspose2d(4, 6, (3, 2), stride=2, padding=1, groups=2, dilation=2),
        (2, 4, 5, 6),
    ),
    "transposed 3-d": (lambda: nn.ConvTranspose3d(2, 3, 2, bias=False), (2, 2, 3, 4, 2)),
}


def inputs_for(shape):
    return torch.arange(9).repeat(2, 1) if shape is None else torch.randn(shape)


def options_of(layer):
    skipped = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
    return {name: value for name, value in vars(layer).items() if name not in skipped}


@pytest.mark.parametrize("kind", ["svdp", "sttp"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_comes_back_as_it_was(name, kind):
    make, shape = LAYERS[name]
    layer, inputs = make(), inputs_for(shape)
    expected, options, before = layer(inputs), options_of(layer), layer.state_dict()
    before = {key: value.clone() for key, value in before.items()}
    found = spectral.parametrize(layer, kind, rank=99, init="weight", gain="keep")
    assert found.net is layer
    assert found.errors[""] < 1e-5
    torch.testing.assert_close(layer(inputs), expected)
    back = spectral.remove(layer)
    assert back is layer
    assert type(back) is type(make())
    assert options_of(back).items() >= options.items()
    assert list(back.state_dict()) == list(before)
    for key, value in back.state_dict().items():
        torch.testing.assert_close(value, before[key])
    assert not any(hooks for hooks in (back._forward_hooks, back._forward_pre_hooks))


@pytest.mark.parametrize("spectrum", ["learned", "fixed"])
@pytest.mark.parametrize("name", LAYERS)
def test_factors_do_what_the_weight_does(name, spectrum):
    """Outputs and gradients of the layer, of its factors, and of the plain layer."""
    make, shape = LAYERS[name]
    inputs = inputs_for(shape)
    inputs = inputs.double() if shape else inputs
    options = {"rank": 3, "init": "qr_randn", "seed": 1, "spectrum": spectrum, "gain": 1.5}
    outer = nn.Sequential(make()).double()
    results = []
    for apply in ("formed", "direct", "auto"):
        net = spectral.parametrize(outer, apply=apply, copy=True, **options).net
        found = net(inputs)
        loss = found.square().sum()
        results.append([found, *torch.autograd.grad(loss, list(net.parameters()))])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-7, atol=1e-9)
    plain = spectral.remove(net)
    torch.testing.assert_close(plain(inputs), results[0][0])


def test_transposed_layers_take_an_output_size():
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2)
    inputs = torch.randn(2, 4, 5, 5)
    spectral.parametrize(layer, rank=2, apply="direct")
    found = layer(inputs, output_size=(12, 12))
    assert found.shape == (2, 6, 12, 12)
    torch.testing.assert_close(found, spectral.remove(layer)(inputs, output_size=(12, 12)))


def test_what_is_cheaper_is_chosen():
    """Counted, for a small and a large input."""
    layer = nn.Conv2d(32, 32, 3, padding=1)
    spectral.parametrize(layer, "svdp", rank=4)
    own, seen = weight_of(layer), []
    forming = own.forward
    own.forward = lambda *parts: (seen.append(1), forming(*parts))[1]
    layer(torch.randn(8, 32, 8, 8))
    assert not seen
    spectral.remove(layer)
    spectral.parametrize(layer, "svdp", rank=32)
    own = weight_of(layer)
    forming_now = own.forward
    own.forward = lambda *parts: (seen.append(1), forming_now(*parts))[1]
    layer(torch.randn(8, 32, 8, 8))
    assert seen


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )


def test_names_types_biases_and_norms():
    net = network()
    found = spectral.parametrize(
        net,
        rank=2,
        ignore=["0"],
        ignore_types=[nn.Linear],
        biases=False,
        batch_norms=False,
        copy=True,
    )
    assert found.names == ("3", "4")
    assert isinstance(found.net[1], nn.Identity)
    assert found.net[4].bias is None
    assert found.net[0].bias is not None
    assert isinstance(net[1], nn.BatchNorm2d)
    found = spectral.parametrize(net, rank=2, ignore=["[346]"], biases=True)
    assert found.names == ("0",)
    found = spectral.parametrize(net, rank={"3": 2, "6": 4}, biases=True)
    assert found.names == ("3", "6")
    torch.testing.assert_close(net[3].bias, torch.zeros(8))
    assert [weight_of(net[k]).plan.rank for k in (3, 6)] == [2, 4]


def test_modules_are_ignored_with_what_is_inside():
    net = nn.ModuleDict({"body": network(), "head": nn.Linear(4, 4)})
    assert spectral.parametrize(net, rank=2, ignore=["body"]).names == ("head",)


def test_seeds_draw_by_frame_size():
    """A layer of another size changes no other; one of the same size draws after the first."""
    one = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    two = nn.Sequential(nn.Linear(8, 8), nn.Linear(5, 12), nn.Linear(8, 8))
    for init in ("qr_randn", "qr_eye_randn"):
        first, second = (
            spectral.parametrize(net, "svdp", rank=3, seed=7, init=init, copy=True).net
            for net in (one, two)
        )
        torch.testing.assert_close(first[0].weight, second[0].weight)
        torch.testing.assert_close(first[1].weight, second[2].weight)
        assert not torch.equal(first[0].weight, first[1].weight)
    torch.manual_seed(3)
    free = spectral.parametrize(one, "svdp", rank=3, init="qr_randn", copy=True).net[0].weight
    assert not torch.equal(free, first[0].weight)


def test_starts():
    layer = nn.Linear(20, 10)
    weight = layer.weight.detach().clone()
    eye = spectral.parametrize(layer, "svdp", rank=10, init="eye", copy=True).net.weight
    torch.testing.assert_close(eye, torch.eye(10, 20))
    near = spectral.parametrize(layer, "svdp", rank=10, noise=1e-4, copy=True).net.weight
    assert 0 < (near - torch.eye(10, 20)).abs().amax() < 2e-3
    kept = spectral.parametrize(layer, rank=4, gain="keep", copy=True).net.weight
    torch.testing.assert_close(kept.norm(), weight.norm())
    given = spectral.parametrize(layer, rank=4, gain=0.25, copy=True).net
    torch.testing.assert_close(spectral.spectra(given)[""], torch.full((4,), 0.25))


@pytest.mark.parametrize("shape", [(24, 10), (12, 6, 3, 3), (7, 30), (16, 4, 3)], ids=str)
def test_errors_from_weights_are_those_of_the_best_rank(shape):
    """With two frames exactly; with trains, of a weight that has these ranks."""
    weight = torch.randn(shape)
    kinds = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}
    layer = kinds[len(shape)](shape[1], shape[0], *([shape[2:]] if shape[2:] else []))
    layer.weight = nn.Parameter(weight)
    for rank in (1, 3, 5):
        found = spectral.parametrize(
            layer, "svdp", rank=rank, init="weight", gain="keep", copy=True
        )
        values = torch.linalg.svdvals(weight.flatten(1))
        best = values[rank:].norm() / values.norm()
        assert found.errors[""] == pytest.approx(best.item(), abs=1e-6)
        torch.testing.assert_close(spectral.spectra(found.net)[""], values[:rank])
        train = spectral.parametrize(layer, rank=rank, init="qr_randn", gain=1.3, copy=True).net
        again = spectral.remove(train)
        assert spectral.parametrize(again, rank=rank, init="weight", gain="keep").errors[""] < 1e-5
        # Equal singular values need a fixed spectrum and the mean of the values.
        flat = spectral.parametrize(
            layer, "svdp", rank=rank, init="weight", gain="keep", spectrum="fixed", copy=True
        )
        gap = (values[:rank] - values[:rank].mean()).norm() ** 2 + values[rank:].norm() ** 2
        assert flat.errors[""] == pytest.approx((gap.sqrt() / values.norm()).item(), abs=1e-5)


def test_a_long_embedding_starts_from_its_weight():
    layer = nn.Embedding(30000, 50)
    found = spectral.parametrize(layer, "svdp", rank=50, init="weight", gain="keep")
    assert found.errors[""] < 1e-5
    assert spectral.report(layer)[0].defect < 1e-6


def test_assignment_inverts_or_refuses():
    layer = spectral.parametrize(nn.Conv2d(4, 6, 3), rank=3, gain=1.0).net
    other = spectral.parametrize(nn.Conv2d(4, 6, 3), rank=3, gain=2.0, init="qr_randn").net
    layer.weight = other.weight
    torch.testing.assert_close(layer.weight, other.weight)
    with pytest.raises(ValueError, match="cannot be: the nearest is"):
        layer.weight = torch.randn(6, 4, 3, 3)
    fixed = spectral.parametrize(nn.Linear(4, 6), rank=3, spectrum="fixed").net
    fixed.weight = -spectral.parametrize(
        nn.Linear(4, 6), rank=3, spectrum="fixed", init="qr_randn"
    ).net.weight
    with pytest.raises(ValueError, match="norm 1"):
        fixed.weight = 2 * fixed.weight


def test_parts_of_c_pic_take_it():
    """Encoder, heads and the rival network: outputs stay at full rank, and all is trained."""
    cubes, rows = torch.rand(3, 1, 9, 9, 9), torch.rand(4, 10)
    for net, inputs in (
        (CubeEncoder(8), (cubes,)),
        (CubeEncoder(8, variant="fast"), (cubes,)),
        (TwoHeadRegressor(10, n_tabular=2, noise=0.0), (rows, torch.rand(4, 2))),
        (Classifier(10, 3), (rows,)),
    ):
        expected = net(*inputs)
        if not isinstance(net, Classifier):  # whose decompositions take seconds
            found = spectral.parametrize(
                net, "svdp", rank=999, init="weight", gain="keep", copy=True
            )
            torch.testing.assert_close(found.net(*inputs), expected, rtol=1e-3, atol=1e-4)
        small = spectral.parametrize(net, rank=4, init="eye").net
        small(*inputs).sum().backward()
        assert all(parameter.grad is not None for parameter in small.parameters())
        assert spectral.compression(small).percent < 100


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first


def test_a_layer_under_two_names_stays_one():
    net = spectral.parametrize(Twice(), rank=2).net
    assert net.first is net.second
    assert weight_of(net.first) is not None
    assert len(spectral.remove(net).state_dict()) == 4


def parametrized(net=None, **options):
    return spectral.parametrize(net or network(), **{"rank": 2, **options}).net


def spoiled(value):
    net = parametrized(nn.Linear(4, 4))
    with torch.no_grad():
        net.parametrizations.weight.original1.fill_(value)
    return net


def zeroed():
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    return layer


def not_finite():
    layer = nn.Linear(4, 4)
    nn.init.constant_(layer.weight, float("nan"))
    return layer


def hooked():
    layer = nn.Linear(4, 4)
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


BAD = {
    "rank 0": (lambda: parametrized(rank=0), "`rank` to be an integer of at least 1"),
    "rank of a layer too high": (lambda: parametrized(rank={"0": 9}), "at most 8 for layer '0'"),
    "rank of no layer": (lambda: parametrized(rank={"nine": 2}), "names of layers in `rank`"),
    "no layers": (lambda: parametrized(nn.ReLU()), "network with layers out of Linear"),
    "all ignored": (lambda: parametrized(ignore=["*"]), "a layer that is not ignored"),
    "unknown name": (lambda: parametrized(ignore=["nine"]), "match a layer, got 'nine'"),
    "no kind": (lambda: parametrized(kind="svd"), "`kind` out of 'svdp', 'sttp'"),
    "no spectrum": (lambda: parametrized(spectrum="free"), "`spectrum` out of"),
    "no init": (lambda: parametrized(init="zeros"), "`init` out of"),
    "no apply": (lambda: parametrized(apply="fast"), "`apply` out of"),
    "gain 0": (lambda: parametrized(gain=0), "`gain` to be a positive number"),
    "gain and weight": (lambda: parametrized(gain=1.0, init="weight"), "takes the norm from"),
    "negative noise": (lambda: parametrized(noise=-1.0), "`noise` to be at least 0"),
    "twice": (lambda: parametrized(parametrized()), "parametrized already"),
    "normalized": (
        lambda: parametrized(spectral.spectral_norm(network()).net),
        "parametrized already",
    ),
    "a hook": (lambda: parametrized(hooked()), "where a hook computes it"),
    "empty": (lambda: parametrized(empty()), "not empty"),
    "lazy": (lambda: parametrized(nn.LazyLinear(3)), "lazy layer"),
    "tied": (lambda: parametrized(Tied()), "'first' and 'second' share"),
    "max_norm": (lambda: parametrized(nn.Embedding(4, 4, max_norm=1.0)), "without max_norm"),
    "sparse": (lambda: parametrized(nn.Embedding(4, 4, sparse=True)), "without max_norm"),
    "zero weight": (lambda: parametrized(zeroed(), init="weight"), "positive singular value"),
    "NaN weight": (lambda: parametrized(not_finite(), init="weight"), "needs a finite weight"),
    "nothing to remove": (lambda: spectral.remove(network()), "changed, got none"),
    "NaN spectrum": (lambda: spectral.report(spoiled(float("nan"))), "got NaN or infinite values"),
    "zero spectrum": (lambda: spectral.spectra(spoiled(0.0)), "got zeros only"),
    "penalty of what is fixed": (
        lambda: spectral.penalty(parametrized(spectrum="fixed")),
        "a learned spectrum",
    ),
    "divergence of one": (
        lambda: spectral.penalty(parametrized(rank=1), "divergence"),
        "at least 2 values",
    ),
    "no penalty": (lambda: spectral.penalty(parametrized(), "l2"), "`kind` out of"),
    "floor 0": (lambda: spectral.penalty(parametrized(), floor=0.0), "to be positive"),
    "compensated frames": (
        lambda: spectral.Compensation(parametrized()),
        "Compensation needs plain",
    ),
    "compensated norms": (
        lambda: spectral.Compensation(spectral.spectral_norm(network()).net),
        "Compensation needs plain",
    ),
    "compensated NaN": (
        lambda: spectral.Compensation(not_finite()).step(),
        "needs a finite weight",
    ),
    "truncated to none": (lambda: spectral.Compensation(network(), truncate=0), "`truncate`"),
    "negative decay": (
        lambda: spectral.parameter_groups(network(), weight_decay=-1.0),
        "at least 0",
    ),
    "grid too small": (
        lambda: spectral.convolution_norm(torch.ones(1, 1, 3), (2,)),
        "at least its size",
    ),
}


def empty():
    with pytest.warns(UserWarning, match="zero-element"):
        return nn.Linear(0, 4)


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        call()


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match=r"real floating-point numbers, got torch\.complex64"):
        parametrized(nn.Linear(3, 3, dtype=torch.complex64))


def test_a_refused_network_stays_as_it_was():
    net = nn.Sequential(nn.Linear(4, 4), nn.Embedding(4, 4, max_norm=1.0))
    with pytest.raises(ValueError, match="max_norm"):
        spectral.parametrize(net, rank=2)
    assert type(net[0]) is nn.Linear
