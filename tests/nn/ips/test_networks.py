"""Encoders, pools and heads beside formulas, golden values and the network of torchvision."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cpic._vision import torchvision
from cpic.images import open_image
from cpic.nn import ips
from cpic.nn.ips import Target
from cpic.nn.ips._encoders import RunningNorm
from tests.nn.ips.problems import pool


def test_positional_encoding_has_the_published_values():
    found = ips.positional_encoding(torch.tensor([[3.0]]), width=8)[0]
    sines = torch.tensor([0.14112, 0.29552, 0.029996, 0.003])
    cosines = torch.tensor([-0.989992, 0.955336, 0.99955, 0.999996])
    torch.testing.assert_close(found[::2], sines, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[1::2], cosines, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("grid", [(7,), (3, 5), (2, 3, 4)])
def test_encodings_of_a_grid_are_those_of_its_cells(grid):
    found = pool(20, heads=1, grid=grid).encoding(torch.arange(math.prod(grid)))
    each = 2 * (20 // (2 * len(grid)))
    for index, cell in enumerate(
        torch.cartesian_prod(*map(torch.arange, grid)).view(-1, len(grid))
    ):
        parts = [ips.positional_encoding(at.double().view(1), width=each) for at in cell]
        wanted = torch.cat(parts)
        torch.testing.assert_close(found[index, : len(wanted)], wanted, atol=1e-6, rtol=1e-6)
        assert not found[index, len(wanted) :].any()


def transformer(layer, x):
    """One bag through the layer, head by head."""
    heads = []
    for h in range(layer.heads):
        rows = slice(h * layer.key_width, (h + 1) * layer.key_width)
        q, k = layer.tokens @ layer.query.weight[rows].T, x @ layer.key.weight[rows].T
        attention = (q @ k.T / math.sqrt(layer.key_width)).softmax(-1)
        wide = layer.value.out_features // layer.heads
        heads.append(attention @ x @ layer.value.weight[h * wide : (h + 1) * wide].T)
    normal = lambda a: nn.functional.layer_norm(a, a.shape[-1:], eps=1e-6)  # noqa: E731
    z = normal(torch.cat(heads, -1) @ layer.out.weight.T + layer.tokens)
    return normal(layer.second(layer.first(z).relu()) + z)


def test_cross_attention_is_the_published_layer():
    layer = pool(16, heads=4, n_tokens=3, key_width=5, value_width=7, inner=11).eval()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.stack([transformer(layer, bag) for bag in x]))
    widths = {name: tuple(value.shape) for name, value in layer.named_parameters()}
    assert widths["query.weight"] == widths["key.weight"] == (20, 16)
    assert (widths["value.weight"], widths["out.weight"]) == ((28, 16), (16, 28))
    assert not any("query.bias" in name for name in widths)


def with_covariance(width, **options):
    return ips.WithCovariance(ips.GatedAttention(width, **options), n_channels=3)


def test_covariances_of_patches_are_added_to_the_tokens():
    layer, x = with_covariance(16).double(), torch.randn(2, 9, 16, dtype=torch.float64)
    y = layer.reduce(x)
    y = y - y.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(y.mT @ y / 9)
    root = vectors * values.sqrt()[:, None] @ vectors.mT
    rows, columns = torch.triu_indices(3, 3)
    expected = layer.pool(x)[:, 0] + layer.expand(root[:, rows, columns])
    torch.testing.assert_close(layer(x)[:, 0], expected)
    torch.testing.assert_close(layer.logits(x), layer.pool.logits(x))
    model = ips.PatchClassifier(
        nn.Flatten(), layer.float(), [ips.Target("class", 3)], choose=ips.Iterative(m=5, i=4)
    )
    model(torch.randn(2, 20, 1, 4, 4)).logits["class"].sum().backward()
    assert all(one.grad is not None for one in model.parameters())


@pytest.mark.parametrize("kind", [ips.CrossAttention, ips.GatedAttention, with_covariance])
def test_padding_changes_nothing(kind):
    options = {"grid": (4, 5)} if kind is ips.CrossAttention else {}
    layer = kind(16, n_tokens=2, **options).double().eval()
    x, at = torch.randn(3, 9, 16, dtype=torch.float64), torch.arange(9).expand(3, -1)
    mask = torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    found = layer(x.masked_fill(~mask[..., None], 1e3), mask, at.masked_fill(~mask, -1))
    for k, size in enumerate((9, 4, 1)):
        alone = layer(x[k : k + 1, :size], indices=at[:1, :size])
        torch.testing.assert_close(found[k : k + 1], alone)


def test_pools_take_no_notice_of_the_order():
    x, order = torch.randn(2, 9, 16, dtype=torch.float64), torch.randperm(9)
    for layer in (
        pool(16, n_tokens=2).eval(),
        ips.GatedAttention(16).double(),
        with_covariance(16).double(),
    ):
        torch.testing.assert_close(layer(x), layer(x[:, order]))


def test_gated_attention_is_its_formula():
    layer = ips.GatedAttention(6, inner=4).double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    gate = layer.value(x).tanh() * layer.gate(x).sigmoid()
    weights = (gate @ layer.weight.weight[0]).softmax(1)
    torch.testing.assert_close(layer(x)[:, 0], (weights[..., None] * x).sum(1))


@pytest.mark.parametrize(
    ("kind", "stages", "channels", "n_dims"),
    [("resnet18", 2, 1, 128), ("resnet18", 4, 3, 512), ("resnet50", 2, 4, 512)],
)
def test_residual_networks_are_those_of_torchvision(kind, stages, channels, n_dims):
    encoder = ips.ResNetEncoder(kind, in_channels=channels, stages=stages, norm="batch").eval()
    whole = getattr(torchvision().models, kind)().eval()
    whole.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    theirs = [whole.conv1, whole.bn1, *(getattr(whole, f"layer{k + 1}") for k in range(stages))]
    ours = [encoder.stem[0], encoder.stem[1], *encoder.stages]
    for one, other in zip(ours, theirs, strict=True):
        one.load_state_dict(other.state_dict())
    patches = torch.rand(2, channels, 40, 48)
    x = whole.maxpool(whole.bn1(whole.conv1(patches)).relu())
    for layer in theirs[2:]:
        x = layer(x)
    assert encoder.n_dims == n_dims
    torch.testing.assert_close(encoder(patches), x.mean((2, 3)))


@pytest.mark.parametrize("norm", ["group", "running"])
def test_a_patch_is_the_same_when_chosen_and_when_trained_on(norm):
    encoder = ips.ResNetEncoder(in_channels=1, stages=1, norm=norm)
    patches = torch.rand(6, 1, 24, 24)
    with torch.no_grad():
        chosen = encoder.eval()(patches)[:2]
        trained = encoder.train()(patches[:2])
    torch.testing.assert_close(trained, chosen)
    published = ips.ResNetEncoder(in_channels=1, stages=1, norm="batch")
    with torch.no_grad():
        gap = (published.eval()(patches)[:2] - published.train()(patches[:2])).abs().max()
    assert float(gap) > 0.1


def test_running_statistics_follow_the_batches():
    ours, theirs = RunningNorm(3).double(), nn.BatchNorm2d(3).double()
    for _ in range(4):
        x = torch.randn(5, 3, 4, 4, dtype=torch.float64) * 2 + 1
        ours(x.requires_grad_()).sum().backward()
        theirs(x)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_weights_for_other_channels_see_gray_alike(monkeypatch):
    net = torchvision().models.resnet18()
    monkeypatch.setattr(
        torchvision().models, "resnet18", lambda weights, norm_layer: net if weights else None
    )
    three = ips.ResNetEncoder(stages=1, norm="running", pretrained=True)
    gray = torch.rand(2, 1, 32, 32)
    wanted = three.stem[0](gray.expand(-1, 3, -1, -1))
    for channels in (1, 2, 4):
        # With turns of three weights, an equal mean needs 1 or 3 k channels; others come close.
        other = ips.ResNetEncoder(in_channels=channels, stages=1, norm="running", pretrained=True)
        assert other.stem[0].weight.shape == (64, channels, 7, 7)
        net.conv1 = three.stem[0]
    six = ips.ResNetEncoder(in_channels=6, stages=1, norm="running", pretrained=True)
    torch.testing.assert_close(six.stem[0](gray.expand(-1, 6, -1, -1)), wanted)


def test_integers_are_pixels_from_0_to_1():
    encoder = ips.ConvEncoder(2, widths=(4,), n_dims=3)
    for dtype in (torch.uint8, torch.int16):
        top = torch.iinfo(dtype).max
        pixels = torch.randint(0, top, (3, 2, 9, 9), dtype=dtype)
        torch.testing.assert_close(encoder(pixels), encoder(pixels.float() / top))
    read = open_image(np.full((9, 9, 2), 65535, np.uint16)).read(
        torch.zeros(1, 2).long(), size=(9, 9)
    )
    torch.testing.assert_close(encoder(read), encoder(torch.ones(1, 2, 9, 9)))


SOFT, YES = Target("a", 3), Target("b", kind="sigmoid")
MANY = Target("c", 4, "multilabel")


def test_losses_are_those_of_probabilities_where_these_are_not_rounded():
    logits, labels = torch.randn(5, 3).double(), torch.tensor([0, 2, 1, 1, 0])
    wanted = -logits.softmax(1)[torch.arange(5), labels].log().mean()
    torch.testing.assert_close(ips.target_loss(SOFT, logits, labels), wanted)
    logits, labels = torch.randn(5, 4).double(), torch.randint(0, 2, (5, 4))
    p = logits.sigmoid()
    wanted = -torch.where(labels == 1, p, 1 - p).log().mean()
    torch.testing.assert_close(ips.target_loss(MANY, logits, labels), wanted)
    one = ips.target_loss(YES, logits[:, :1], labels[:, 0])
    torch.testing.assert_close(one, -torch.where(labels == 1, p, 1 - p).log()[:, 0].mean())
    # The published logarithm of a probability plus 1e-6 ends at 13.8.
    extreme = torch.tensor([[500.0, 0.0, 0.0]])
    assert float(ips.target_loss(SOFT, extreme, torch.tensor([1]))) == 500


def test_heads_read_the_token_of_their_number():
    heads = ips.Heads([SOFT, YES], 4, n_tokens=2)
    tokens = torch.randn(3, 2, 4)
    found = heads(tokens)
    torch.testing.assert_close(found["a"], heads["a"](tokens[:, 0]))
    torch.testing.assert_close(found["b"], heads["b"](tokens[:, 1]))
    labels = {"a": torch.tensor([0, 1, 2]), "b": torch.tensor([0, 1, 0])}
    parts = [ips.target_loss(one, found[one.name], labels[one.name]) for one in (SOFT, YES)]
    torch.testing.assert_close(heads.loss(found, labels), sum(parts) / 2)
    single = ips.Heads([SOFT, YES], 4)
    torch.testing.assert_close(single(tokens[:, :1])["b"], single["b"](tokens[:, 0]))


def test_area_under_the_curve_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    for seed in range(20):
        scores = torch.randint(0, 6, (30,), generator=torch.Generator().manual_seed(seed))
        labels = (torch.rand(30) < 0.4).long()
        wanted = roc_auc_score(labels, scores)
        assert ips.roc_auc(scores.float(), labels) == pytest.approx(wanted, abs=1e-12)
    assert math.isnan(ips.roc_auc(torch.rand(3), torch.zeros(3)))


def test_metrics_and_chance_are_counted():
    logits = torch.tensor([[2.0, 1, 0], [0, 3, 0], [1, 0, 0]])
    assert ips.target_metric(SOFT, logits, torch.tensor([0, 1, 2])) == pytest.approx(2 / 3)
    train = torch.tensor([2, 2, 0])
    assert ips.target_chance(SOFT, train, torch.tensor([2, 2, 0, 1])) == 0.5
    one = torch.tensor([[1.0, -1, 1, -1], [1, 1, 1, 1]])
    labels = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0]])
    assert ips.target_metric(MANY, one, labels) == 0.5
    assert ips.target_chance(MANY, labels[[0, 0, 1]], labels) == 0.5
    assert ips.target_chance(YES, labels[:, 0], labels[:, 0]) == 0.5


BAD = {
    "width": (lambda: ips.CrossAttention(0), "width"),
    "odd width": (lambda: ips.CrossAttention(5, heads=1, grid=(3,)), "even width"),
    "narrow": (lambda: ips.positional_encoding(torch.ones(2, 3), width=4), "at least 6"),
    "no indices": (lambda: pool(8, grid=(3,))(torch.ones(1, 2, 8).double()), "indices"),
    "kind": (lambda: ips.ResNetEncoder("resnet9"), "resnet50"),
    "stages": (lambda: ips.ResNetEncoder(stages=5), "stages"),
    "norm": (lambda: ips.ResNetEncoder(norm="layer"), "running"),
    "weights": (lambda: ips.ResNetEncoder(pretrained=True), "running"),
    "channels": (lambda: ips.ConvEncoder(3)(torch.ones(1, 1, 8, 8)), "in_channels"),
    "cubes": (lambda: ips.ConvEncoder(1)(torch.ones(1, 1, 8, 8, 8)), "in_channels"),
    "features": (lambda: ips.FeatureProjector(8)(torch.ones(2, 9)), "width"),
    "classes": (lambda: Target("x", 1), "several"),
    "yes or no": (lambda: Target("x", 2, "sigmoid"), "one class"),
    "no task": (lambda: ips.Heads([], 4), "tasks"),
    "twice": (lambda: ips.Heads([SOFT, SOFT], 4), "different names"),
    "tokens": (lambda: ips.Heads([SOFT, YES, MANY], 4, n_tokens=2), "2 tokens"),
    "labels of a task": (
        lambda: ips.Heads([SOFT, YES], 4).loss({}, {"a": torch.zeros(2)}),
        "none of b",
    ),
    "no place": (lambda: pool(8).encoding(torch.zeros(1).long()), "pass `grid`"),
    "empty grid": (lambda: pool(8, grid=(3, 0)), r"grid\[1\]"),
    "label": (lambda: SOFT.check(torch.tensor([0, 3])), "from 0 to 2"),
    "label of a set": (lambda: MANY.check(torch.zeros(2, 3)), r"\(B, 4\)"),
    "no label": (lambda: YES.check(torch.zeros(0)), "none"),
    "NaN label": (lambda: YES.check(torch.tensor([float("nan")])), "nan"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()
