"""Selection, pools, encoders and peers on every device, with gradients of parameters."""

from functools import partial

import torch

from cpic.nn import ips
from cpic.nn.ips import Target
from tests.devices import CPU, drawn, everywhere, missing, source
from tests.nn.ips.problems import File
from tests.nn.test_devices import moved, trained

TARGETS = [Target("a", 3), Target("b", kind="sigmoid"), Target("c", 2, "multilabel")]
LABELS = {"a": [0, 2], "b": [1, 0], "c": [[1, 0], [0, 1]]}


def features(device, dtype, n=20):
    return drawn(device, dtype, 2, n, 8)


def selected(device, dtype, *, files=False, **options):
    """Indices and scores, of bags that lie on the device or in files."""
    scorer = moved(partial(ips.CrossAttention, 8, heads=2, grid=(4, 5)), device, dtype)
    patches = features(CPU if files else device, dtype)
    given = [File(bag) for bag in patches] if files else patches
    if options.pop("masked", False):
        options["mask"] = drawn(device, torch.float64, 2, 20) > 0.3
    found = ips.select(given, torch.nn.Identity(), scorer, m=4, i=5, generator=source(), **options)
    assert found.indices.device == found.mask.device == CPU
    return [part.to(device) for part in found if part is not None and part.is_floating_point()]


def pixels(device, dtype):
    return drawn(device, dtype, 2, 20, 1, 6, 6), drawn(device, dtype, 2, 1, 12, 15)


def net(device, dtype, choose, *, pool=None, where=None):
    """A classifier that learns, from patches on the device or elsewhere."""

    def make():
        made = pool or partial(ips.CrossAttention, heads=2, n_tokens=3, grid=(4, 5))
        encoder = ips.ConvEncoder(1, widths=(4,), n_dims=8)
        return ips.PatchClassifier(encoder, made(8), TARGETS, choose=choose)

    return answered(make, device, dtype, where)


def answered(make, device, dtype, where=None):
    model = moved(make, device, dtype)
    patches, views = pixels(device, dtype)
    torch.manual_seed(0)
    # Dropout has one stream for each device.
    for one in model.modules():
        if isinstance(one, torch.nn.Dropout):
            one.p = 0.0
    answer = model(patches.to(where or device), views, generator=source())
    labels = {name: torch.tensor(values, device=device) for name, values in LABELS.items()}
    loss = model.heads.loss(answer.logits, labels) + (answer.penalty or 0)
    loss.backward()
    return [loss, *answer.logits.values(), *(p.grad for p in model.parameters())]


def sampling():
    shared = ips.MapNet(1, grid=(4, 5)), ips.ConvEncoder(1, widths=(4,), n_dims=8)
    return ips.AttentionSampling(*shared, TARGETS, m=3)


def perturbed():
    shared = ips.MapNet(1, grid=(4, 5)), ips.ConvEncoder(1, widths=(4,), n_dims=8)
    pool = ips.CrossAttention(8, heads=2, n_tokens=3)
    return ips.DifferentiableSelection(*shared, pool, TARGETS, m=3, n_draws=20)


def estimated(device, dtype):
    attention, values = drawn(device, dtype, 2, 9).softmax(1), drawn(device, dtype, 2, 4, 3)
    one = ips.draw_patches(attention, m=4, generator=source())
    other = ips.draw_patches(attention, m=4, replace=True, generator=source())
    published = ips.expectation(values, one.attention, published=True)
    return [published, ips.expectation(values, other.attention, replace=True), *one, *other]


def losses(device, dtype):
    heads = moved(lambda: ips.Heads(TARGETS, 8, n_tokens=3), device, dtype)
    logits = heads(drawn(device, dtype, 2, 3, 8))
    labels = {name: torch.tensor(values, device=device) for name, values in LABELS.items()}
    numbers = []
    for target in TARGETS:
        target.check(labels[target.name])
        numbers.append(ips.target_metric(target, logits[target.name], labels[target.name]))
        numbers.append(ips.target_chance(target, labels[target.name], labels[target.name]))
    parts = [ips.target_loss(one, logits[one.name], labels[one.name]) for one in TARGETS]
    return [*parts, drawn(device, dtype, 1).new_tensor(numbers)]


def area(device, dtype):
    scores = drawn(device, dtype, 30)
    return scores.new_tensor([ips.roc_auc(scores, drawn(device, dtype, 30, seed=1) > 0.5)])


TABLE = {
    "select Selection Scorer": selected,
    "select, official": partial(selected, by="official", shuffle="instance"),
    "select, masked": partial(selected, masked=True, shuffle="batch"),
    "select, of files Bag Bags as_bags": partial(selected, files=True),
    "CrossAttention": lambda d, t: trained(
        moved(lambda: ips.CrossAttention(8, heads=2, dropout=0, attention_dropout=0), d, t),
        features(d, t),
    ),
    "GatedAttention": lambda d, t: trained(
        moved(lambda: ips.GatedAttention(8, n_tokens=2), d, t), features(d, t)
    ),
    "WithCovariance": lambda d, t: trained(
        moved(lambda: ips.WithCovariance(ips.GatedAttention(8), n_channels=3), d, t),
        features(d, t),
    ),
    "ResNetEncoder": lambda d, t: trained(
        moved(lambda: ips.ResNetEncoder(in_channels=1, stages=1, norm="running"), d, t),
        drawn(d, t, 2, 1, 12, 12),
    ),
    "ConvEncoder": lambda d, t: trained(
        moved(lambda: ips.ConvEncoder(2, widths=(4, 6), n_dims=5), d, t), drawn(d, t, 3, 2, 9, 9)
    ),
    "FeatureProjector": lambda d, t: trained(
        moved(lambda: ips.FeatureProjector(8, n_dims=5), d, t), drawn(d, t, 3, 8)
    ),
    "positional_encoding": lambda d, t: ips.positional_encoding(drawn(d, t, 5, 2), width=8),
    "PatchClassifier Answer Iterative": lambda d, t: net(d, t, ips.Iterative(m=3, i=4)),
    "PatchClassifier, patches on the CPU": lambda d, t: net(
        d, t, ips.Iterative(m=3, i=4, together=1, by="official"), where=CPU
    ),
    "RandomPatches": lambda d, t: net(d, t, ips.RandomPatches(m=3)),
    "AllPatches": lambda d, t: net(d, t, ips.AllPatches(), pool=ips.GatedAttention),
    "CrossPatches Chooser": lambda d, t: net(d, t, ips.CrossPatches(m=3, grid=(4, 5), budget=12)),
    "AttentionSampling": lambda d, t: answered(sampling, d, t),
    "DifferentiableSelection": lambda d, t: answered(perturbed, d, t),
    "MapNet": lambda d, t: trained(
        moved(lambda: ips.MapNet(1, grid=(2, 3)), d, t), drawn(d, t, 2, 1, 8, 9)
    ),
    "draw_patches expectation": estimated,
    "perturbed_topk": lambda d, t: ips.perturbed_topk(
        drawn(d, t, 2, 9), k=3, n_draws=50, generator=source()
    ),
    "Heads Target target_loss target_metric target_chance": losses,
    "roc_auc": area,
}


test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


def test_the_table_is_complete():
    assert not missing(TABLE, ips.__all__)
