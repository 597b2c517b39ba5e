"""The whole model: what it returns, what it remembers, and what it refuses."""

import copy
import io
import pickle
from dataclasses import replace

import pytest
import torch

from cpic.bottleneck import half_sweep
from cpic.data import ArrayVolume
from cpic.nn import (
    CPIC,
    Components,
    CubeEncoder,
    QuantileHead,
    Reading,
    Search,
    SetMemory,
    TwoHeadRegressor,
)
from cpic.nn._options import grouped
from cpic.tt import IndexSets, TensorTrain

SHAPE, RANK = (16, 12, 16), 3
NAMES = ["ada", "bea", "cy", "dora"]


def volumes(generator, n=4, channels=1, shape=SHAPE):
    full = (*shape, channels) if channels > 1 else shape
    arrays = [torch.rand(full, generator=generator) for _ in range(n)]
    return [ArrayVolume(array, channels=channels) for array in arrays]


def model(*, n_dims=2, channels=1, seed=0, head=None, **options):
    torch.manual_seed(seed)
    encoder = CubeEncoder(n_dims, in_channels=channels, variant="fast")
    head = head or TwoHeadRegressor(RANK, batch_norm=False)
    generator = torch.Generator().manual_seed(seed)
    options = grouped({"shape": SHAPE, "contrasts": channels, "rank": RANK, **options})
    return CPIC(encoder, head, generator=generator, **options)


def saved(net):
    """What a checkpoint file gives back, read as one from a stranger is."""
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def train(net, scans, steps, lr=1e-3):
    optimizer = torch.optim.RAdam(net.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = net(scans, NAMES).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


PUBLISHED = [
    ("BraTS n_dims 32", 32, 10, 0, True, 37_385),
    ("BraTS n_dims 16", 16, 10, 0, True, 26_569),
    ("BraTS n_dims 8", 8, 10, 0, True, 21_161),
    ("BraTS rank 12", 8, 12, 0, True, 21_361),
    ("BraTS rank 15", 8, 15, 0, True, 21_661),
    ("BraTS without encoder", None, 10, 0, True, 3_423),
    ("OSIC without encoder", None, 10, 1, False, 64_283),
    ("OSIC n_dims 16", 16, 10, 1, False, 87_429),
]


@pytest.mark.parametrize(
    ("n_dims", "rank", "tabular", "batch_norm", "count"),
    [row[1:] for row in PUBLISHED],
    ids=[row[0] for row in PUBLISHED],
)
def test_the_published_models_have_the_published_number_of_parameters(
    n_dims, rank, tabular, batch_norm, count
):
    encoder = None if n_dims is None else CubeEncoder(n_dims)
    head = TwoHeadRegressor(rank, n_tabular=tabular, batch_norm=batch_norm)
    generator = torch.Generator().manual_seed(0)
    net = CPIC(encoder, head, shape=(32, 32, 32), search=Search(rank=rank), generator=generator)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quantics": False},
        {"order": "interleaved"},
        {"padding": "encode"},
        {"select": 3},
        {"chunk": 50},
        {"solver": "qr"},
        {"components": {"gradient": "exact"}},
        {"components": {"follow": None, "refresh": 1}},
        {"n_dims": 1},
        {"channels": 2},
        {"by": "tt_svd"},
        {"centered": False},
    ],
    ids=str,
)
def test_it_trains_whatever_the_options_and_every_parameter_gets_a_gradient(generator, options):
    net = model(**options)
    scans = volumes(generator, channels=options.get("channels", 1))
    train(net, scans, 3)
    net.zero_grad()
    net(scans, NAMES).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert next(net.encoder.parameters()).grad.abs().max() > 0


def test_the_train_is_that_of_a_half_sweep_from_the_remembered_sets(generator):
    net, scans = model(), volumes(generator)
    with torch.no_grad():
        net.trains(scans, NAMES)
        before = net.memory.get(NAMES)
        towards = net.memory.towards(NAMES)
        from cpic.nn import VolumeEntries

        nothing = net.encoder(torch.zeros(1, 1, 9, 9, 9))

        class Difference(torch.nn.Module):
            n_dims, receptive_field, in_channels = 2, 9, 1

            def forward(self, cubes):
                return net.encoder(cubes) - nothing

        entries = VolumeEntries(scans, Difference(), net.grid)
        wanted = half_sweep(entries, before, towards=towards)
        found = net.trains(scans, NAMES)
    torch.testing.assert_close(found.full(), wanted.train.full(), rtol=1e-4, atol=1e-5)
    for side in ("left", "right"):
        for one, other in zip(
            getattr(net.memory.get(NAMES), side), getattr(wanted.sets, side), strict=True
        ):
            assert torch.equal(one, other)


def test_gradients_are_those_of_differences(generator):
    # Not of weights that put an entry on the kink of a ReLU: the differences of its sides differ.
    torch.manual_seed(1)
    net, scans = model(head=TwoHeadRegressor(RANK, batch_norm=False).double()), volumes(generator)
    net.encoder.double()
    train(net, scans, 2)
    net.components.eval()  # mean and spread carry no gradient, so they are held
    start = copy.deepcopy(net.memory.state_dict())

    def loss():
        net.memory.load_state_dict(copy.deepcopy(start))
        return net(scans, NAMES).square().sum()

    weight = next(net.encoder.parameters())
    (slope,) = torch.autograd.grad(loss(), weight)
    move = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    with torch.no_grad():
        weight += 1e-7 * move
        above = float(loss())
        weight -= 2e-7 * move
        below = float(loss())
    assert (above - below) / 2e-7 == pytest.approx(float((slope * move).sum()), rel=1e-4)


def test_evaluation_is_repeatable_changes_nothing_and_ignores_the_name(generator):
    net, scans = model(), volumes(generator)
    train(net, scans, 2)
    net.eval()
    before = saved(net)
    with torch.no_grad():
        first, second = net(scans, NAMES), net(scans, NAMES)
        renamed = net(scans, ["w", "x", "y", "z"])
        alone = torch.cat([net([scan], [name]) for scan, name in zip(scans, NAMES, strict=True)])
    assert torch.equal(first, second)
    assert torch.equal(first, renamed)
    torch.testing.assert_close(first, alone, rtol=1e-4, atol=1e-5)
    after = saved(net)
    assert str(before) == str(after)


def test_a_run_that_is_resumed_takes_the_same_steps(generator):
    scans = volumes(generator)
    net = model()
    train(net, scans, 3)
    state = saved(net)
    rest = train(net, scans, 3, lr=0.0)
    other = model(seed=1)
    other.load_state_dict(state)
    assert train(other, scans, 3, lr=0.0) == rest
    assert torch.equal(other.components.basis.cores[0], net.components.basis.cores[0])


def test_samples_of_one_volume_share_its_features(generator):
    head = QuantileHead(RANK, n_tabular=1, noise=0.0)
    net, scans = model(head=head), volumes(generator)
    rows, weeks = torch.tensor([0, 0, 2, 1, 3]), torch.tensor([[0.0], [1], [0], [0], [0]])
    out = net(scans, NAMES, rows=rows, tabular=weeks)
    assert out.shape == (5, 3)
    assert not torch.equal(out[0], out[1])
    net.eval()
    with torch.no_grad():
        a, b = net(scans, NAMES, rows=torch.tensor([2, 2]), tabular=torch.zeros(2, 1))
    torch.testing.assert_close(a, b)


def test_features_are_centered_and_scaled_over_the_batches(generator):
    net, scans = model(), volumes(generator)
    with torch.no_grad():
        for _ in range(30):
            features = net.components(net.trains(scans, NAMES))
    assert features.mean(0).abs().max() < 0.5
    assert 0.3 < float(features.std(0)[0]) < 3


def test_constant_volumes_give_finite_numbers(generator):
    net = model()
    scans = [ArrayVolume(torch.zeros(SHAPE)) for _ in range(3)] + volumes(generator, 1)
    net(scans, NAMES).sum().backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_empty_space_is_zero_in_the_trains(generator):
    scans = [ArrayVolume(torch.zeros(SHAPE)) for _ in range(4)]
    for centered in (True, False):
        with torch.no_grad():
            train = model(centered=centered).trains(scans, NAMES)
        assert (float(train.norm().max()) == 0) == centered


def test_counts_are_of_all_calls_and_far_below_the_volume(generator):
    shape = (64, 64, 64)
    net = model(shape=shape, rank=2, n_features=RANK)
    scans = volumes(generator, shape=shape)
    train(net, scans, 1)
    net.reset_counts()
    train(net, scans, 1)
    n_volumes, asked, encoded = net.counts
    assert n_volumes == 4
    assert 0 < encoded < asked < 4 * 500


def test_the_memory_starts_a_new_name_from_the_last_one(generator):
    memory = SetMemory((2, 3, 2), 2, generator=generator)
    first = memory.get(["new"])
    mine = IndexSets.random((2, 3, 2), 2, n_trains=2, generator=generator)
    memory.put(["a", "b"], mine)
    assert memory.visits(["a", "b", "c"]).tolist() == [1, 1, 0]
    assert torch.equal(memory.get(["c"]).left[1], mine.left[1][:1])
    assert torch.equal(memory.get(["b"]).right[0], mine.right[0][1:])
    assert memory.towards(["a", "b"]) == "left"
    assert memory.towards(["c"]) == "right"
    assert first.n_trains == 1


@pytest.mark.parametrize("steps", ["", "ab", "xy", "xb", "bx bcx yb"])
def test_a_snapshot_of_the_memory_restores_all_and_copies_what_is_replaced(generator, steps):
    """A step stores the sets of names of one letter."""
    sizes = (2, 3, 2, 2)
    first = torch.Generator().manual_seed(0)
    memory = SetMemory(sizes, 2, generator=first)
    twin = copy.deepcopy(memory)

    def put(names, *memories):
        sets = IndexSets.random(sizes, 2, n_trains=len(names), generator=generator)
        for one in memories:
            one.put(list(names), sets)

    def assert_equal():
        state, wanted = memory.get_extra_state(), twin.get_extra_state()
        assert (state["names"], state["start"]) == (wanted["names"], wanted["start"])
        assert torch.equal(state["visits"], wanted["visits"])
        for side in ("left", "right"):
            assert all(map(torch.equal, state[side], wanted[side]))

    for names in ("abc", "ca"):
        put(names, memory, twin)
    memory.snapshot()
    put("ab", memory, twin)
    snapshot = memory.snapshot()
    for names in steps.split():
        put(names, memory)
    copied = [row for rows, _, _ in snapshot._copies for row in rows.tolist()]
    assert sorted(copied) == sorted(memory.slots[name] for name in set(steps) & set("abc"))
    snapshot.restore()
    assert_equal()
    put("bz", memory, twin)
    assert_equal()


def test_a_lesion_far_from_the_last_volume_is_found_from_several_warm_starts(generator):
    shape, corners = (16, 16, 16), torch.cartesian_prod(*[torch.tensor([4, 12])] * 3)
    net = model_without_encoder(shape=shape, n_sweeps=2).eval()
    for k, corner in enumerate(corners):
        places = corner + torch.randint(-2, 2, (1, 9, 3), generator=generator)
        points = net.grid.sites(places)
        sets = IndexSets.random(net.sizes, RANK, generator=generator, points=points)
        net.memory.put([str(k)], sets)

    def share(corner):
        """Of the norm of a volume with a cube of ones, the norm of its train."""
        values = torch.zeros(shape)
        values[tuple(slice(int(x) - 2, int(x) + 2) for x in corner)] = 1.0
        return float(net.trains([ArrayVolume(values)], ["new"]).norm() / values.norm())

    net.search = replace(net.search, n_warm_starts=1)
    assert share(corners[-1]) == pytest.approx(1.0, abs=1e-6)
    assert share(corners[0]) == 0.0
    net.search = replace(net.search, n_warm_starts=8)
    assert [share(corner) for corner in corners] == pytest.approx([1.0] * 8, abs=1e-6)


def test_there_are_as_many_warm_starts_as_volumes_remembered_at_most(generator):
    sizes = (2, 3, 2)
    memory = SetMemory(sizes, 2, generator=generator)
    assert memory.begin(2, n_warm_starts=4).ranks == memory.ranks
    mine = IndexSets.random(sizes, 2, n_trains=3, generator=generator)
    memory.put(["a", "b", "c"], mine)
    begun = memory.begin(2, n_warm_starts=4)
    assert begun.ranks == (1, 6, 6, 1)
    assert torch.equal(begun.left[1][1], mine.left[1].flatten(0, 1))
    assert torch.equal(memory.begin(1).left[1], mine.left[1][:1])


REFUSED = [
    ("first batch of at least 3", lambda net, s: net(s[:2], NAMES[:2])),
    ("needs a basis", lambda net, s: net.eval()(s, NAMES)),
    ("all different", lambda net, s: net(s, ["a", "a", "b", "c"])),
    ("one name for each volume", lambda net, s: net(s, NAMES[:3])),
    ("volumes of shape", lambda net, s: net([*s[:3], ArrayVolume(torch.zeros(8, 8, 8))], NAMES)),
    ("not all zero", lambda net, s: model_without_encoder()(zeros(4), NAMES)),
    ("sizes and ranks|of sizes", lambda net, s: net.load_state_dict(trained(rank=2))),
    ("`by` out of", lambda net, s: model(by="magic")),
    ("`select`", lambda net, s: model(select=0)),
    ("`n_warm_starts`", lambda net, s: model(n_warm_starts=0)),
    ("`chunk >= 1`", lambda net, s: model(chunk=0)),
    ("Components needs `rank` to be an integer of at least 1, got 0", lambda *_: Components(0)),
    ("`refresh` to be an integer of at least 1, got 0", lambda *_: Components(2, refresh=0)),
    ("`refresh` to be an integer", lambda *_: Components(2, refresh=1.5)),
    ("`follow` to be an integer of at least 0, got -1", lambda *_: Components(2, follow=-1)),
    ("`max_rank` to be an integer of at least 1", lambda *_: Components(2, max_rank=0)),
    ("Components needs 0 < forgetting <= 1, got 0", lambda *_: Components(2, forgetting=0.0)),
    ("Components with a gradient .* out of", lambda *_: Components(2, gradient="nearby")),
    ("0 <= momentum <= 1, got 2", lambda *_: Components(2, momentum=2.0)),
    ("0 <= momentum <= 1, got nan", lambda *_: Components(2, momentum=float("nan"))),
]


def zeros(n):
    return [ArrayVolume(torch.zeros(SHAPE)) for _ in range(n)]


def model_without_encoder(**options):
    head = TwoHeadRegressor(RANK, batch_norm=False)
    options = {"shape": SHAPE, "generator": torch.Generator().manual_seed(0), **options}
    return CPIC(None, head, **grouped({"rank": RANK, **options}))


def trained(**options):
    head = TwoHeadRegressor(RANK, batch_norm=False)
    net = model(head=head, n_features=RANK, **options)
    return net.state_dict()


@pytest.mark.parametrize(("message", "act"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_does_not_fit_is_named(generator, message, act):
    with pytest.raises(ValueError, match=message):
        act(model(), volumes(generator))


def test_components_without_gradient_to_the_basis_are_inner_products(generator):

    cores = [
        torch.randn(5, a, 3, b, dtype=torch.float64, generator=generator)
        for a, b in [(1, 2), (2, 2), (2, 1)]
    ]
    trains, components = TensorTrain(cores), Components(2, momentum=0.1)
    components(trains)
    raw = components.basis.features(trains)
    wanted = (raw - raw.mean(0)) / raw.std(0, correction=0)
    components.eval()
    torch.testing.assert_close(components(trains), wanted)


def test_features_that_are_the_same_for_all_are_zero_with_a_finite_gradient(generator):
    core = torch.randn(1, 1, 5, 1, dtype=torch.float64, generator=generator).expand(4, 1, 5, 1)
    core = core.clone().requires_grad_(True)
    features = Components(2)(TensorTrain([core]))
    features.square().sum().backward()
    assert features.abs().max() < 1e-5
    assert torch.isfinite(core.grad).all()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"rank": 2, "looks": 3, "starts": 1},
            {"search": Search(rank=2, n_sweeps=3, n_warm_starts=1)},
        ),
        ({"quantics": False, "by": "tt_svd"}, {"search": Search(quantics=False, by="tt_svd")}),
        ({"centre": False, "chunk": 50}, {"reading": Reading(centered=False, chunk=50)}),
        (
            {"padding": "encode", "reading": Reading(chunk=7)},
            {"reading": Reading(padding="encode", chunk=7)},
        ),
    ],
)
def test_options_that_are_given_one_by_one_are_grouped_with_a_warning(generator, old, new):
    with pytest.warns(FutureWarning, match=f"takes some options by {next(iter(new))}="):
        found = CPIC(None, torch.nn.Identity(), shape=(4, 4, 4), generator=generator, **old)
    wanted = CPIC(None, torch.nn.Identity(), shape=(4, 4, 4), generator=generator, **new)
    assert (found.search, found.reading) == (wanted.search, wanted.reading)
    assert found.components.max_rank == 2 * wanted.search.rank


def test_features_that_are_given_one_by_one_are_components(generator):
    options = {"n_features": 5, "components": {"follow": None, "momentum": 0.2}, "rank": 3}
    with pytest.warns(FutureWarning, match="components=Components"):
        net = CPIC(None, torch.nn.Identity(), shape=(4, 4, 4), generator=generator, **options)
    made = net.components
    assert (made.rank, made.follow, made.momentum, made.max_rank) == (5, None, 0.2, 6)


def test_old_attributes_are_fields_with_a_warning():
    net = model(chunk=7)
    with pytest.warns(FutureWarning, match=r"search\.n_warm_starts"):
        assert net.starts == 4
    with pytest.warns(FutureWarning, match="search"):
        net.starts = 8
    assert net.search == Search(rank=RANK, n_warm_starts=8)
    with pytest.warns(FutureWarning, match=r"reading\.chunk"):
        assert net.chunk == 7


def test_old_name_of_warm_starts_of_a_memory(generator):
    memory = SetMemory((2, 3, 2), 2, generator=generator)
    with pytest.warns(FutureWarning, match="n_warm_starts"):
        memory.begin(2, n_starts=4)


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("options", [{}, {"components": {"gradient": "exact"}}, {"by": "cp"}])
def test_a_copy_takes_the_same_steps(generator, twin, options):
    net, scans = model(**options), volumes(generator)
    train(net, scans, 2)
    other = twin(net)
    assert train(other, scans, 2) == train(net, scans, 2)
