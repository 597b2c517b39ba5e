"""Selection in chunks beside one pass over everything, and the bags it reads from."""

import numpy as np
import pytest
import torch
from torch import nn

from cpic.images import PatchSource, SparseImage
from cpic.nn import ips
from cpic.nn.ips import CrossAttention, Iterative, as_bags, select
from tests.counting import LiveBytes
from tests.nn.ips.problems import Exact, ExactScorer, File, pool, whole


def random_case(seed, generator):
    """Patches with ties, some padded, and how to look through them."""
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))  # noqa: E731
    n_bags, n, width = draw(1, 4), draw(2, 60), 3
    # Few different numbers: many patches of a bag are the same.
    patches = torch.randint(0, 3, (n_bags, n, width), generator=generator).double() / 4
    mask = torch.rand(n_bags, n, generator=generator) < 0.8 if seed % 2 else None
    if mask is not None:
        mask[:, draw(0, n)] = True
    return patches, mask, draw(1, n), draw(1, n + 3)


def test_exact_selection_is_that_of_one_pass_for_any_chunks(generator):
    n_ties = 0
    for seed in range(1000):
        patches, mask, m, i = random_case(seed, generator)
        scorer = ExactScorer(patches.shape[-1])
        found = select(patches, Exact().eval(), scorer, m=m, i=i, mask=mask)
        there = torch.ones(patches.shape[:2], dtype=torch.bool) if mask is None else mask
        if int(there.sum(1).max()) <= m:
            wanted = [bag.nonzero()[:, 0].tolist() for bag in there]
        else:
            wanted = whole(patches, scorer, m, there)
            n_ties += int(found.scores.diff(dim=1).eq(0).any())
        kept = zip(found.indices, found.mask, strict=True)
        assert [indices[ok].tolist() for indices, ok in kept] == wanted
        assert bool((found.indices[~found.mask] == -1).all())
    assert n_ties > 300


@pytest.mark.parametrize("by", ["exact", "official"])
def test_one_head_or_one_chunk_is_exact_in_both_ways(by, generator):
    for heads, i in ((1, 7), (8, 180)):
        patches = torch.randn(3, 200, 16, generator=generator, dtype=torch.float64)
        scorer = pool(heads=heads)
        found = select(patches, nn.Identity(), scorer, m=20, i=i, by=by)
        assert found.indices.tolist() == whole(patches, scorer, 20, torch.ones(3, 200).bool())


def test_official_scores_depend_on_the_chunks_with_eight_heads():
    # Nearly half of 200 random bags of 200 patches, with logits of a spread of 0.17.
    torch.manual_seed(0)
    scorer = CrossAttention(64, key_width=16)
    with torch.no_grad():
        scorer.query.weight.mul_(3.5)
    patches = torch.randn(200, 200, 64)
    found = select(patches, nn.Identity(), scorer, m=20, by="official")
    wanted = select(patches, nn.Identity(), scorer, m=20)
    pairs = zip(found.indices.tolist(), wanted.indices.tolist(), strict=True)
    share = sum(set(one) != set(other) for one, other in pairs) / 200
    assert 0.3 < share < 0.7


def official_by_hand(patches, scorer, m, i):
    """The published loop over one bag, with no masks and no shuffling."""
    best, start = torch.arange(m), m
    while start < len(patches):
        candidates = torch.cat([best, torch.arange(start, min(start + i, len(patches)))])
        logits = scorer.logits(patches[candidates][None], candidates[None])
        best = candidates[logits.softmax(-1).mean((0, 1, 2)).topk(m).indices]
        start += i
    return best


def test_official_selection_is_the_published_loop():
    patches = torch.randn(3, 200, 16, dtype=torch.float64)
    scorer = pool(grid=(200,), n_tokens=4)
    with torch.no_grad():
        wanted = torch.stack([official_by_hand(bag, scorer, 20, 33) for bag in patches])
    found = select(patches, nn.Identity(), scorer, m=20, i=33, by="official")
    assert torch.equal(found.indices, wanted)
    assert torch.equal(found.embeddings, patches.gather(1, wanted[..., None].expand(-1, -1, 16)))


@pytest.mark.parametrize("by", ["exact", "official"])
@pytest.mark.parametrize("shuffle", [None, "batch", "instance"])
def test_padded_bags_are_as_bags_of_their_own_sizes(by, shuffle, generator):
    sizes = [50, 7, 31, 3]
    bags = [torch.randn(size, 16, generator=generator, dtype=torch.float64) for size in sizes]
    files = [File(bag) for bag in bags]
    padded = torch.nn.utils.rnn.pad_sequence(bags, batch_first=True, padding_value=torch.nan)
    mask = ~padded.isnan().any(-1)
    scorer = pool(heads=1)
    options = {"m": 6, "i": 4, "by": by, "shuffle": shuffle, "generator": generator}
    one = select(padded, nn.Identity(), scorer, mask=mask, **options)
    other = select(files, nn.Identity(), scorer, **options)
    alone = [select([bag], nn.Identity(), scorer, **options) for bag in bags]
    for k, size in enumerate(sizes):
        wanted = sorted(alone[k].indices[0].tolist())
        for found in (one, other):
            kept = found.indices[k][found.mask[k]]
            assert sorted(kept.tolist()) == wanted
            assert len(kept) == min(size, 6)
        # Every patch is read once.
        assert sorted(files[k].asked) == list(range(size))


def test_scores_are_those_of_the_pool_and_belong_to_the_given_order(generator):
    patches = torch.randn(2, 40, 16, generator=generator, dtype=torch.float64)
    scorer = pool(n_tokens=3)
    with torch.no_grad():
        wanted = scorer.logits(patches).softmax(-1).mean((1, 2))
    found = select(
        patches, nn.Identity(), scorer, m=5, i=9, shuffle="instance", generator=generator
    )
    torch.testing.assert_close(found.all_scores, wanted)
    torch.testing.assert_close(found.scores, wanted.topk(5).values)
    assert torch.equal(found.indices, wanted.topk(5).indices)


def test_shuffling_leaves_the_set_and_resolves_ties_uniformly(generator):
    blank = torch.zeros(1, 12, 4)
    counts = torch.zeros(12)
    for _ in range(400):
        options = {"m": 3, "i": 2, "shuffle": "batch", "generator": generator}
        counts[select(blank, nn.Identity(), CrossAttention(4, heads=1), **options).indices[0]] += 1
    # Each with probability 1/4; six standard deviations are 52.
    assert bool(((counts - 100).abs() < 52).all())
    fixed = select(blank, nn.Identity(), CrossAttention(4, heads=1), m=3, i=2)
    assert fixed.indices.tolist() == [[0, 1, 2]]


def test_exact_selection_reads_in_the_order_of_the_bag_and_official_in_that_of_the_draw(generator):
    patches = torch.randn(40, 16, generator=generator, dtype=torch.float64)
    scorer, asked = pool(heads=2), {}
    for by in ("exact", "official"):
        file = File(patches)
        options = {"by": by, "shuffle": "instance", "generator": generator}
        select([file], nn.Identity(), scorer, m=6, i=4, **options)
        asked[by] = file.asked
    assert asked["exact"] == list(range(40))  # so each tile of a file is decoded once
    assert sorted(asked["official"]) == asked["exact"] != asked["official"]


def test_modules_keep_their_modes_and_no_gradient_is_left():
    inner = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)).double()
    inner[1].eval()
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    scorer = pool().train()
    found = [select(torch.ones(2, 9, 16).double(), inner, scorer, m=2, i=4) for _ in range(2)]
    assert torch.equal(found[0].all_scores, found[1].all_scores)
    assert not found[0].all_scores.requires_grad
    assert [inner.training, inner[1].training, inner[2].training] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())


def test_groups_of_bags_are_as_all_bags_together(generator):
    sizes = [50, 4, 31]
    bags = as_bags([torch.randn(size, 16, generator=generator).double() for size in sizes])
    scorer = pool()
    every = Iterative(m=6, i=5)(bags, nn.Identity(), scorer, training=False)
    single = Iterative(m=6, i=5, together=1)(bags, nn.Identity(), scorer, training=False)
    assert torch.equal(every.mask, single.mask)
    for k in (0, 2):
        assert torch.equal(every.indices[k], single.indices[k])
    # A bag of at most m patches is not scored alone.
    assert sorted(single.indices[1].tolist()) == sorted(every.indices[1].tolist())
    assert single.scores is None


def step_bytes(side, *, choose):
    """The most bytes of tensors in a step on a canvas of patches of 10 pixels, model included."""
    target = ips.Target("digit", 10)
    with LiveBytes() as alive:
        image = SparseImage(np.arange(50), np.full(50, 9, np.uint8), shape=(side, side))
        source = PatchSource(image, size=10)
        pool = CrossAttention(64, heads=2, grid=(len(source),))
        encoder = ips.ConvEncoder(1, widths=(8,), n_dims=64)
        model = ips.PatchClassifier(encoder, pool, [target], choose=choose)
        logits = model([source]).logits
        model.heads.loss(logits, {"digit": torch.tensor([3])}).backward()
    return alive.peak, len(source)


def test_a_further_patch_costs_a_step_less_than_its_embedding_or_the_code_of_its_place():
    (few, n), (many, n_more) = (step_bytes(side, choose=Iterative(m=20)) for side in (150, 600))
    assert (n, n_more) == (225, 3600)
    assert (many - few) / (n_more - n) < 64 * 4 / 2
    # With all patches, it also keeps the pixels and what the layers return.
    (few, _), (many, _) = (step_bytes(side, choose=ips.AllPatches()) for side in (150, 600))
    assert (many - few) / (n_more - n) > 10 * 64 * 4


ONE = torch.zeros(1, 5, 4)
BAD = {
    "m": (lambda: select(ONE, Exact(), None, m=0), "`m`"),
    "i": (lambda: select(ONE, Exact(), None, m=2, i=0), "`i`"),
    "by": (lambda: select(ONE, Exact(), None, m=2, by="best"), "exact"),
    "shuffle": (lambda: select(ONE, Exact(), None, m=2, shuffle="all"), "instance"),
    "no patch": (lambda: select(torch.zeros(2, 0, 4), Exact(), None, m=2), "bag 0"),
    "no bag": (lambda: select([], Exact(), None, m=2), "no bag"),
    "one empty bag": (lambda: select([ONE[0], ONE[0, :0]], Exact(), None, m=2), "bag 1"),
    "patches of other shapes": (
        lambda: select([ONE[0], torch.zeros(3, 5)], Exact().eval(), None, m=2),
        "of one shape",
    ),
    "no batch axis": (lambda: select(ONE[0], Exact(), None, m=2), "axis"),
    "mask": (lambda: select(ONE, Exact(), None, m=2, mask=torch.ones(1, 4).bool()), "mask"),
    "mask of numbers": (lambda: select(ONE, Exact(), None, m=2, mask=torch.ones(1, 5)), "bool"),
    "mask of a list": (
        lambda: select([ONE[0]], Exact(), None, m=2, mask=torch.ones(1, 5).bool()),
        "leave the mask out",
    ),
    "wide encoder": (lambda: select(ONE, lambda x: x[:, None], None, m=2), "encoder"),
    "NaN": (
        lambda: select(
            torch.stack([ONE[0], ONE[0] / 0]), nn.Identity(), CrossAttention(4, heads=1), m=2
        ),
        "bag 1",
    ),
    "width": (lambda: select(ONE, nn.Identity(), CrossAttention(8), m=2), "as wide"),
    "grid": (
        lambda: select(ONE, nn.Identity(), CrossAttention(4, heads=1, grid=(3,)), m=2),
        "grid of 3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        call()
