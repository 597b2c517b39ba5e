"""Attention sampling, perturbed scores, random and all patches, and the model around them."""

from functools import partial

import pytest
import torch
from torch import nn

from cpic.data import ArrayVolume
from cpic.nn import CubeEncoder, ips
from cpic.nn.ips import Target
from tests.nn.ips.problems import File

TASKS = [Target("a", 3), Target("b", kind="sigmoid")]


def test_estimates_without_replacement_have_the_published_values():
    a = torch.tensor([[0.4, 0.3, 0.1]], dtype=torch.float64, requires_grad=True)
    f = torch.tensor([[[1.0, 0], [0, 1], [2, 2]]], dtype=torch.float64, requires_grad=True)
    found = ips.expectation(f, a, published=True)
    torch.testing.assert_close(found, torch.tensor([[0.8, 0.5]]).double())
    g = torch.tensor([[1.0, -1.0]]).double()
    slopes = torch.autograd.grad(found, (a, f), g)
    wanted = torch.tensor([[5 / 6, 8 / 15, 0.1]]).double()
    torch.testing.assert_close(slopes[0], wanted)
    wanted = torch.tensor([[[0.6, -0.6], [0.3, -0.3], [0.1, -0.1]]]).double()
    torch.testing.assert_close(slopes[1], wanted)
    # p_i / a_i plus the number of those drawn later, times the product of g and f_i, over 3.
    unbiased = torch.autograd.grad(ips.expectation(f, a), (a, f), g)
    torch.testing.assert_close(unbiased[0], torch.tensor([[4.5 / 3, -3 / 3, 0.0]]).double())
    torch.testing.assert_close(unbiased[1], wanted)


@pytest.mark.parametrize("replace", [False, True])
def test_estimates_and_their_gradients_are_unbiased(replace, generator):
    # Of the mean over the map, whose gradients are known.
    logits = torch.tensor([0.3, -0.5, 1.0, 0.2], dtype=torch.float64)
    features = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    g = torch.tensor([0.7, -1.3], dtype=torch.float64)
    n = 200_000

    def slopes(expected):
        leaves = logits.clone().requires_grad_(), features.clone().requires_grad_()
        loss = expected(leaves[0].softmax(0), leaves[1]) @ g
        return [loss.detach(), *torch.autograd.grad(loss, leaves)]

    def estimate(a, f):
        drawn = ips.draw_patches(a.expand(n, -1), m=2, replace=replace, generator=generator)
        return ips.expectation(f[drawn.indices], drawn.attention, replace=replace).mean(0)

    pairs = zip(slopes(estimate), slopes(lambda a, f: a @ f), strict=True)
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("options", [{}, {"published": True}, {"replace": True}])
def test_an_estimate_from_fewer_draws_is_that_of_these_alone(options):
    a = torch.rand(3, 5, dtype=torch.float64).softmax(1)
    f = torch.randn(3, 5, 2, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]
    given = [one.requires_grad_() for one in (a.masked_fill(~mask, 0), f + 9 * ~mask[..., None])]
    whole = ips.expectation(given[1], given[0], mask=mask, **options)
    slopes = torch.autograd.grad(whole.square().sum(), given)
    for k, n in enumerate((5, 3, 1)):
        alone = [one[k : k + 1, :n].detach().requires_grad_() for one in given]
        found = ips.expectation(alone[1], alone[0], **options)
        torch.testing.assert_close(found[0], whole[k])
        for one, other in zip(
            torch.autograd.grad(found.square().sum(), alone), slopes, strict=True
        ):
            torch.testing.assert_close(one[0], other[k, :n])
            assert not other[k, n:].any()


@pytest.mark.parametrize("smooth", [1e-5, 0.0])
def test_sampling_from_a_padded_bag_is_that_of_the_bag_alone(smooth, generator):
    model, (patches, views) = sampling(test="top", smooth=smooth).eval(), images(generator)
    with torch.no_grad():
        # Some shares are rounded to 0.
        model.map_net.layers[-1].weight.mul_(1e4)
    mask = torch.zeros(4, 20, dtype=torch.bool)
    for k, places in enumerate(([*range(20)], [3, 17], [19], [0, 5, 6, 7])):
        mask[k, places] = True
    patches = patches.masked_fill(~mask[..., None, None, None], torch.nan)
    found = model(patches, views, mask=mask)
    assert found.selection.mask.sum(1).tolist() == [3, 2, 1, 3]
    for k in range(4):
        rows = slice(k, k + 1)
        alone = model(patches[rows], views[rows], mask=mask[rows])
        for name, logits in alone.logits.items():
            torch.testing.assert_close(found.logits[name][rows], logits)
        chosen = found.selection.indices[k][found.selection.mask[k]]
        assert bool(mask[k, chosen].all())
    model.train()(patches, views, mask=mask).logits["a"].sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.encoder.parameters())


def test_draws_follow_the_map(generator):
    a = torch.tensor([0.5, 0.3, 0.2])
    drawn = ips.draw_patches(a.expand(100_000, -1), m=2, generator=generator)
    first = drawn.indices[:, 0].bincount() / 100_000
    torch.testing.assert_close(first, a, atol=0.01, rtol=0)
    second = drawn.indices[drawn.indices[:, 0] == 0, 1].bincount(minlength=3).float()
    torch.testing.assert_close(
        second / second.sum(), torch.tensor([0, 0.6, 0.4]), atol=0.01, rtol=0
    )
    top = ips.draw_patches(a[None], m=2, noise=False)
    assert top.indices.tolist() == [[0, 1]]


def test_perturbed_scores_have_the_gradient_of_their_expectation():
    # The expectation by the same noise in all places: a difference quotient of means.
    scores = torch.tensor([[0.1, 0.3, 0.15, 0.2]], dtype=torch.float64)
    weight = torch.randn(1, 2, 4, dtype=torch.float64)
    options = {"k": 2, "sigma": 0.2, "n_draws": 400_000}
    seeded = lambda: torch.Generator().manual_seed(1)  # noqa: E731

    def mean(values):
        return (ips.perturbed_topk(values, generator=seeded(), **options) * weight).sum()

    leaf = scores.clone().requires_grad_()
    (found,) = torch.autograd.grad(mean(leaf), leaf)
    step = 0.05
    for k in range(4):
        move = torch.zeros_like(scores)
        move[0, k] = step
        slope = (mean(scores + move) - mean(scores - move)) / (2 * step)
        assert float(found[0, k]) == pytest.approx(float(slope), abs=0.05)
    (published,) = torch.autograd.grad(
        (ips.perturbed_topk(leaf, generator=seeded(), published=True, **options) * weight).sum(),
        leaf,
    )
    torch.testing.assert_close(published, 2 * found)


def test_slots_without_noise_are_the_best_in_order():
    found = ips.perturbed_topk(torch.tensor([[0.0, 3, 1, 2]]), k=3, sigma=1e-6, n_draws=4)
    assert found.argmax(-1).tolist() == [[1, 2, 3]]
    assert float(found.max()) == 1


def sampling(**options):
    net, encoder = ips.MapNet(1, grid=(4, 5)), ips.ConvEncoder(1, widths=(4,), n_dims=8)
    return ips.AttentionSampling(net, encoder, TASKS, m=3, **options)


def perturbed(**options):
    net, encoder = ips.MapNet(1, grid=(4, 5)), ips.ConvEncoder(1, widths=(4,), n_dims=8)
    pool = ips.CrossAttention(8, heads=2, n_tokens=2)
    return ips.DifferentiableSelection(net, encoder, pool, TASKS, m=3, n_draws=50, **options)


def classifier(choose, **options):
    pool = ips.CrossAttention(8, heads=2, n_tokens=2, grid=(4, 5), dropout=0, attention_dropout=0)
    encoder = ips.ConvEncoder(1, widths=(4,), n_dims=8)
    return ips.PatchClassifier(encoder, options.pop("pool", pool), TASKS, choose=choose)


MODELS = {
    "iterative": lambda: classifier(ips.Iterative(m=3, i=4)),
    "official": lambda: classifier(ips.Iterative(m=3, i=4, by="official", together=1)),
    "random": lambda: classifier(ips.RandomPatches(m=3)),
    "all": lambda: classifier(ips.AllPatches(), pool=ips.GatedAttention(8)),
    "coarse to fine": lambda: classifier(ips.CrossPatches(m=3, grid=(4, 5), budget=10)),
    "sampling": sampling,
    "sampling with replacement": lambda: sampling(replace=True, test="top"),
    "perturbed": perturbed,
}


def images(generator, n=4):
    patches = torch.rand(n, 20, 1, 6, 6, generator=generator)
    return patches, torch.rand(n, 1, 12, 15, generator=generator)


@pytest.mark.parametrize("name", MODELS)
def test_models_learn_and_predict_the_same_twice(name, generator):
    model, (patches, views) = MODELS[name](), images(generator)
    labels = {"a": torch.tensor([0, 1, 2, 1]), "b": torch.tensor([0, 1, 0, 1])}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss():
        answer = model(patches, views, generator=generator)
        return model.heads.loss(answer.logits, labels) + (answer.penalty or 0)

    before = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert all(one.grad is not None for one in model.parameters())
    model.eval()
    with torch.no_grad():
        # Other patches of four random images say nothing of their labels.
        assert loss().item() < before - 0.1 or name == "random"
        first, second = model(patches, views), model(patches, views)
    for task, logits in first.logits.items():
        assert torch.equal(logits, second.logits[task])
    m = 20 if name == "all" else 3
    assert first.selection.indices.shape == (4, m)
    for row in first.selection.indices:
        assert len(row.unique()) == m or "replacement" in name


@pytest.mark.parametrize("name", ["iterative", "official", "random"])
def test_bags_of_files_are_as_tensors(name, generator):
    model = MODELS[name]().eval()
    patches, _ = images(generator)
    with torch.no_grad():
        found = model([File(bag) for bag in patches])
        wanted = model(patches)
    assert torch.equal(found.selection.indices, wanted.selection.indices)
    for task, logits in wanted.logits.items():
        torch.testing.assert_close(found.logits[task], logits)


@pytest.mark.parametrize("name", ["iterative", "official", "all"])
@pytest.mark.parametrize("padded", [False, True])
def test_bags_of_other_sizes_in_a_batch_are_as_each_alone(name, padded, generator):
    model, sizes = MODELS[name]().eval(), (20, 2, 9, 1)
    bags = [torch.rand(n, 1, 6, 6, generator=generator) for n in sizes]
    mask = None
    if padded:
        given = nn.utils.rnn.pad_sequence(bags, batch_first=True, padding_value=torch.nan)
        mask = torch.arange(20) < torch.tensor(sizes)[:, None]
    else:
        given = [bags[0], File(bags[1]), bags[2], File(bags[3])]
    found, total = model(given, mask=mask), torch.zeros(())
    for k, bag in enumerate(bags):
        alone = model([bag])
        total = total + alone.logits["a"].square().sum()
        chosen = found.selection.indices[k][found.selection.mask[k]]
        wanted = alone.selection.indices[0][alone.selection.mask[0]]
        assert sorted(chosen.tolist()) == sorted(wanted.tolist())
        for task, logits in alone.logits.items():
            torch.testing.assert_close(found.logits[task][k : k + 1], logits)
    weights = list(model.encoder.parameters())
    slopes = torch.autograd.grad(found.logits["a"].square().sum(), weights)
    for one, other in zip(slopes, torch.autograd.grad(total, weights), strict=True):
        torch.testing.assert_close(one, other)


class Cubes:
    """Cubes of a volume around some voxels."""

    def __init__(self, volume, centers, size):
        self.volume, self.centers, self.size = volume, centers, size

    def __len__(self):
        return len(self.centers)

    def read(self, indices):
        return self.volume.cubes(self.centers[indices], size=self.size)


def test_cubes_of_volumes_are_bags_for_the_encoder_of_c_pic(generator):
    encoder = CubeEncoder(16, variant="fast")
    pool = ips.CrossAttention(16, n_tokens=2, heads=4, grid=(4, 4, 4), dropout=0)
    model = ips.PatchClassifier(encoder, pool, TASKS, choose=ips.Iterative(m=5, i=10))
    volumes = [ArrayVolume(torch.rand(16, 16, 16, generator=generator)) for _ in range(2)]
    centers = torch.cartesian_prod(*[torch.arange(2, 16, 4)] * 3)
    bags = [Cubes(one, centers, encoder.receptive_field) for one in volumes]
    model(bags).logits["a"].square().sum().backward()
    assert all(one.grad is not None for one in encoder.parameters())
    model.eval()
    cubes = torch.stack([bag.read(torch.arange(64)) for bag in bags])
    found, wanted = model(bags), model(cubes)
    assert torch.equal(found.selection.indices, wanted.selection.indices)
    torch.testing.assert_close(found.logits["a"], wanted.logits["a"])


def test_gradients_are_those_of_the_chosen_patches_alone(generator):
    model, (patches, _) = MODELS["iterative"](), images(generator)
    answer = model(patches, generator=generator)
    chosen = answer.selection.indices
    alone = classifier(ips.AllPatches())
    alone.load_state_dict(model.state_dict())
    answer.logits["a"].square().sum().backward()
    part = patches.gather(1, chosen[..., None, None, None].expand(-1, -1, 1, 6, 6))
    tokens = alone.pool(alone.encoder(part.flatten(0, 1)).view(4, 3, 8), indices=chosen)
    alone.heads(tokens)["a"].square().sum().backward()
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_the_cross_encodes_a_part_and_finds_the_peak():
    grid, counts = (40, 40), []
    at = torch.cartesian_prod(torch.arange(40.0), torch.arange(40.0))
    bump = (-((at - torch.tensor([11.0, 29.0])) ** 2).sum(1) / 200).exp()

    class Count(nn.Module):
        def forward(self, x):
            counts.append(len(x))
            return x

    class Value:
        def logits(self, embeddings, indices):
            return embeddings[..., 0][:, None, None]

    bags = ips.as_bags(bump.view(1, -1, 1))
    for by, budget in (("coarse-to-fine", 0.2), ("cross-least-squares", 1.0)):
        counts.clear()
        choose = ips.CrossPatches(m=4, grid=grid, budget=budget, by=by)
        found = choose(bags, Count(), Value(), training=False)
        assert 0 < sum(counts) <= budget * 1600
        assert float(bump[found.indices[0]].min()) > 0.98 * float(bump.max())


def test_the_mixture_of_patches_reads_only_those_in_a_slot(generator):
    model, (patches, views) = perturbed(sigma=(1e-7, 1e-7)), images(generator)
    files = [File(bag) for bag in patches]
    with torch.no_grad():
        model(files, views, generator=generator)
        best = model.scores(views, ips.as_bags(patches)).topk(3).indices
    for file, wanted in zip(files, best, strict=True):
        assert sorted(file.asked) == sorted(wanted.tolist())
    model.anneal(0.0)
    assert model.sigma == 1e-7
    other = perturbed()
    other.anneal(1.0)
    assert other.sigma == pytest.approx(1e-5)
    other.anneal(0.5)
    assert other.sigma == pytest.approx((0.05 + 1e-5) / 2)


ONES = torch.ones(2, 6)
BAD = {
    "m of a chooser": (lambda: ips.Iterative(m=0), "`m`"),
    "m of a random one": (lambda: ips.RandomPatches(m=0), "`m`"),
    "too many draws": (lambda: ips.draw_patches(ONES, m=7), "replacement"),
    "no draws": (lambda: ips.draw_patches(ONES, m=0), "`m`"),
    "slots": (lambda: ips.perturbed_topk(ONES, k=7), "6 cells"),
    "noise": (lambda: ips.perturbed_topk(ONES, k=2, sigma=0), "sigma"),
    "more slots than patches": (
        lambda: ips.DifferentiableSelection(
            ips.MapNet(1, grid=(1, 2)), nn.Flatten(), ips.CrossAttention(8), TASKS[:1], m=3
        )(torch.ones(1, 2, 8), torch.ones(1, 1, 8, 8)),
        "at most the 2 patches",
    ),
    "no views": (lambda: sampling()(torch.ones(1, 20, 1, 6, 6)), "views"),
    "other grid": (lambda: sampling()(torch.ones(1, 9, 1, 6, 6), torch.ones(1, 1, 8, 8)), "9"),
    "views": (lambda: perturbed()(torch.ones(1, 20, 1, 6, 6), torch.ones(1, 3, 8, 8)), "in_chan"),
    "bags of other sizes": (
        lambda: perturbed()([torch.ones(9, 1, 6, 6)], torch.ones(1, 1, 8, 8)),
        "20 patches",
    ),
    "cross of other sizes": (
        lambda: MODELS["coarse to fine"]().eval()(torch.ones(1, 9, 1, 6, 6)),
        "20 patches",
    ),
    "mask twice": (
        lambda: ips.as_bags(ips.as_bags(torch.ones(1, 9, 4)), torch.ones(1, 9).bool()),
        "already",
    ),
    "test": (partial(sampling, test="mean"), "sample"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()
