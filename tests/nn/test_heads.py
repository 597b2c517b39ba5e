"""Heads: sizes, which inputs count, and what training mode changes."""

import pytest
import torch

from cpic.nn import Classifier, CoreHead, CorePredictor, QuantileHead, TwoHeadRegressor
from cpic.tt import TensorTrain, tt_svd


def count(module):
    return sum(p.numel() for p in module.parameters())


def kinds(module):
    return [type(layer).__name__ for layer in module.modules() if not list(layer.children())]


def test_published_parameter_counts():
    assert count(TwoHeadRegressor(10)) == 3_423
    assert [count(TwoHeadRegressor(r)) for r in (12, 15)] == [3_623, 3_923]
    assert count(TwoHeadRegressor(10, n_tabular=1, batch_norm=False)) == 64_283
    assert count(TwoHeadRegressor(10, n_tabular=8, batch_norm=False)) == 64_283 + 7 * 500


def test_layers_are_the_published_ones():
    trunk = ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert kinds(TwoHeadRegressor(10)) == trunk
    bare = [kind for kind in trunk if kind != "BatchNorm1d"]
    branch = ["Linear", "ReLU"] * 2
    assert kinds(TwoHeadRegressor(10, n_tabular=1, batch_norm=False)) == branch + bare
    assert kinds(Classifier(10, 4)) == ["Linear", "BatchNorm1d", "ReLU"] * 3 + ["Linear"]
    assert [p.shape[0] for p in Classifier(10, 4).parameters() if p.ndim == 2] == [
        2048,
        1024,
        512,
        4,
    ]


def test_noise_is_added_in_training_mode_only(generator):
    head = QuantileHead(4, n_tabular=2, generator=generator)
    features, tabular = torch.rand(5, 4), torch.rand(5, 2)
    assert not torch.equal(head(features, tabular), head(features, tabular))
    head.eval()
    assert torch.equal(head(features, tabular), head(features, tabular))
    silent = QuantileHead(4, n_tabular=2, noise=0.0)
    silent.load_state_dict(head.state_dict())
    assert torch.equal(silent(features, tabular), head(features, tabular))


def test_noise_has_the_stated_size_and_comes_from_the_generator(generator):
    head = TwoHeadRegressor(4, n_tabular=2, batch_norm=False, generator=generator)
    seen = []
    head.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features, tabular = torch.rand(2000, 4), torch.rand(2000, 2)
    head(features, tabular)
    generator.manual_seed(0)
    head(features, tabular)
    head.eval()(features, tabular)
    assert torch.equal(seen[0], seen[1])
    noise = (seen[0] - seen[2])[:, 4:].detach()
    assert torch.equal(seen[0][:, :4], features)
    assert abs(float(noise.std()) - 0.2) < 0.002
    assert abs(float(noise.mean())) < 0.002


def test_ordered_quantiles_never_cross(generator):
    features, tabular = 100 * torch.randn(200, 4), 100 * torch.randn(200, 1)
    plain, ordered = QuantileHead(4, noise=0.0), QuantileHead(4, ordered=True, noise=0.0)
    ordered.load_state_dict(plain.state_dict())
    assert (ordered(features, tabular).diff(dim=1) >= 0).all()
    assert not (plain(features, tabular).diff(dim=1) >= 0).all()
    assert torch.equal(ordered(features, tabular)[:, 1], plain(features, tabular)[:, 1])


HEADS = [
    pytest.param(lambda: TwoHeadRegressor(4), (4,), id="regressor"),
    pytest.param(lambda: TwoHeadRegressor(4, n_tabular=2), (4, 2), id="tabular, batch norm"),
    pytest.param(lambda: QuantileHead(4, n_tabular=2), (4, 2), id="quantiles"),
    pytest.param(lambda: QuantileHead(4, n_tabular=0), (4,), id="quantiles alone"),
    pytest.param(lambda: Classifier(4, 3), (4,), id="classifier"),
]


@pytest.mark.parametrize(("make", "widths"), HEADS)
def test_every_input_counts_and_float64_is_kept(make, widths, generator):
    head = make().double()
    inputs = [torch.rand(6, w, generator=generator, dtype=torch.float64) for w in widths]
    for one in inputs:
        one.requires_grad_()
    outputs = head(*inputs)
    assert outputs.shape == (6, 3)
    assert outputs.dtype == torch.float64
    grads = torch.autograd.grad(outputs.square().sum(), inputs)
    assert all((grad.abs().sum(0) > 0).all() for grad in grads)


def trains(generator, n=5):
    return tt_svd(torch.rand(n, 3, 4, 2, generator=generator, dtype=torch.float64))


def test_core_head_is_a_linear_layer_on_the_tensor(generator):
    head, batch = CoreHead((3, 4, 2), 6, rank=2), trains(generator)
    head.bias.data.normal_()
    weight = torch.einsum("oanb,obmc,ocld->onml", *[core.double() for core in head.cores])
    wanted = torch.einsum("onml,knml->ko", weight, batch.full()) + head.bias
    found = head(batch)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    assert all((core.grad != 0).any() for core in head.cores)


def test_core_head_begins_at_the_size_of_the_entries():
    torch.manual_seed(0)
    sizes = (2,) * 20
    head = CoreHead(sizes, 400, rank=4)
    # The tensor of ones: its typical entry is 1.
    ones = TensorTrain([torch.ones(1, 1, 2, 1) for _ in sizes])
    assert 0.2 < float(head(ones).detach().square().mean().sqrt()) < 3


@pytest.mark.parametrize("n_axes", [2, 3])
def test_core_predictor_makes_trains_that_depend_on_the_volume(n_axes, generator):
    torch.manual_seed(0)
    predictor = CorePredictor((2,) * 9, 5, in_channels=2, n_axes=n_axes)
    volumes = torch.rand(3, 2, *[12] * n_axes, generator=generator).requires_grad_()
    predicted = predictor(volumes)
    assert predicted.n_trains == 3
    assert predicted.ranks == (1, 2, 4, 5, 5, 5, 5, 4, 2, 1)
    assert 0.05 < float(predicted.full().detach().square().mean().sqrt()) < 20
    (grad,) = torch.autograd.grad(predicted[0].norm().sum(), volumes)
    assert (grad[0] != 0).any()
    assert (grad[1:] == 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TwoHeadRegressor(0), "n_features"),
        (lambda: TwoHeadRegressor(4, n_tabular=-1), "n_tabular"),
        (lambda: TwoHeadRegressor(4)(torch.zeros(2, 5)), r"\(K, 4\)"),
        (lambda: TwoHeadRegressor(4)(torch.zeros(2, 4).double()), "float32, got"),
        (lambda: TwoHeadRegressor(4)(torch.zeros(1, 4)), "at least 2 rows"),
        (lambda: TwoHeadRegressor(4)(torch.zeros(2, 4), torch.zeros(2, 1)), "0 tabular"),
        (lambda: QuantileHead(4)(torch.zeros(2, 4)), "1 tabular features, got none"),
        (lambda: QuantileHead(4)(torch.zeros(2, 4), torch.zeros(2, 3)), r"\(K, 1\)"),
        (lambda: Classifier(4, 2)(torch.zeros(1, 4)), "batch norm"),
        (lambda: CoreHead((2, 2), 0), "n_outputs"),
        (lambda: CoreHead((2, 2), 3)(tt_svd(torch.ones(1, 2, 3))), r"sizes \(2, 2\)"),
        (lambda: CorePredictor((2, 2), 0), "rank"),
        (lambda: CorePredictor((2, 2), 2)(torch.zeros(1, 8, 8, 8)), "contrasts"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_layer_norm_hides_amounts():
    # Without biases a head is homogeneous: twice the amount, twice the prediction. With layer norm
    # the prediction stays.
    x = torch.rand(5, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    for layer_norm, factor in ((False, 2.0), (True, 1.0)):
        head = TwoHeadRegressor(16, batch_norm=False, layer_norm=layer_norm).eval()
        for layer in head.layers:
            if getattr(layer, "bias", None) is not None:
                torch.nn.init.zeros_(layer.bias)
        torch.testing.assert_close(head(2 * x), factor * head(x), rtol=1e-2, atol=1e-2)
