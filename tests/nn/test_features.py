"""Features of encoded volumes, beside what all voxels give."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from cpic import choose
from cpic.data import ArrayVolume
from cpic.nn import (
    CPIC,
    Components,
    CubeEncoder,
    Positions,
    Search,
    TwoHeadRegressor,
    VolumeEntries,
    count_features,
    feature_noise,
)
from cpic.nn._features import largest, spread
from cpic.nn._moments import contributions, moments_of_points, moments_of_trains
from cpic.nn._positions import beyond
from cpic.nn.pooling import SecondOrder
from cpic.tt import Quantics, TensorTrain, tt_svd
from cpic.tt._points import all_points

SHAPE = (6, 8, 5)
NAMES = list("abcdef")
ALL = Positions(by="grid", budget=6 * 8 * 5)


def volumes(generator, n=6, shape=SHAPE):
    return [ArrayVolume(torch.rand(shape, generator=generator)) for _ in range(n)]


def model(positions="cross", features=("components",), *, rank=3, n_dims=3, shape=SHAPE, seed=0):
    torch.manual_seed(seed)
    encoder = CubeEncoder(n_dims, variant="fast", precision=torch.float64)
    width = count_features(features, rank=rank, n_dims=n_dims)
    return CPIC(
        encoder,
        TwoHeadRegressor(width, n_outputs=1, batch_norm=False).double(),
        shape=shape,
        search=Search(rank=rank),
        positions=positions,
        features=features,
        components=Components(rank, follow=None),
        generator=torch.Generator().manual_seed(seed),
    )


def dense(net, cohort):
    """All vectors of encoded volumes, `(K, *shape, n)`."""
    entries = net._entries(cohort, remember=False)
    axes = [torch.arange(n) for n in net.shape]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    return entries.vectors(at.expand(len(cohort), -1, -1)).unflatten(1, net.shape)


def dense_moments(arrays):
    """Means of f, x f and x^2 f of `(K, *shape, n)`, one voxel after the other."""
    shape, total = arrays.shape[1:-1], 0
    for place in itertools.product(*map(range, shape)):
        x = torch.tensor([(2 * i + 1) / n - 1 for i, n in zip(place, shape, strict=True)])
        powers = torch.cat([torch.ones(1), x, x.square()]).double()
        total = total + arrays[(slice(None), *place)][..., None] * powers
    return total / torch.tensor(shape).prod()


GRIDS = {
    "sequential": {"order": "sequential"},
    "interleaved": {"order": "interleaved"},
    "base 4": {"order": "interleaved", "base": 4},
    "one channel": {"channels": 1},
    "plain": None,
}


@pytest.mark.parametrize("kind", GRIDS)
def test_moments_of_trains_are_those_of_all_voxels(kind, generator):
    options = GRIDS[kind]
    channels = 1 if kind == "one channel" else 3
    arrays = torch.rand(2, *SHAPE, channels, generator=generator, dtype=torch.float64)
    given = arrays[..., 0] if channels == 1 else arrays
    grid = None if options is None else Quantics(SHAPE, **{"channels": channels, **options})
    trains = tt_svd(given if grid is None else grid.split(given))
    found = moments_of_trains(trains, *contributions(trains.sizes, grid, 3), SHAPE, channels)
    assert torch.allclose(found, dense_moments(arrays), atol=1e-12)


def test_moments_of_all_points_are_those_of_all_voxels(generator):
    arrays = torch.rand(2, *SHAPE, 3, generator=generator, dtype=torch.float64)
    at, weights, _ = choose.positions(SHAPE, by="grid", budget=ALL.budget)
    weighted = arrays.flatten(1, 3) * weights[..., None]
    found = moments_of_points(at.expand(2, -1, -1), weighted, SHAPE)
    assert torch.allclose(found, dense_moments(arrays), atol=1e-12)


def test_moments_of_trains_have_the_gradient_of_differences(generator):
    cores = [torch.rand(1, *s, generator=generator, dtype=torch.float64, requires_grad=True)
             for s in ((1, 3, 2), (2, 4, 2), (2, 2, 1))]  # fmt: skip
    torch.autograd.gradcheck(
        lambda *c: moments_of_trains(TensorTrain(c), *contributions((3, 4, 2), None, 2), (3, 4), 2),
        cores,
    )


@pytest.mark.parametrize("kind", ["moments", "maximum", "covariance", "components"])
def test_features_of_a_full_grid_are_those_of_all_voxels(kind, generator):
    net, cohort = model(ALL, (kind,)), volumes(generator)
    net.train()
    found = net.features_of(cohort, NAMES)
    whole = dense(net, cohort).detach()
    if kind == "moments":
        raw = dense_moments(whole).flatten(1)
    elif kind == "maximum":
        raw = whole.flatten(1, 3).amax(1)
    elif kind == "covariance":
        raw = SecondOrder(3, weighted=True)(whole.flatten(1, 3).mT)
    else:
        rows = whole.flatten(1)
        u, s, _ = torch.linalg.svd(rows, full_matrices=False)
        raw = (u * s)[:, :3]
    raw = (raw - raw.mean(0)) / raw.std(0, correction=0)
    signs = (found * raw).sum(0).sign() if kind == "components" else 1
    assert torch.allclose(found, raw * signs, atol=1e-8)


@pytest.mark.parametrize("kind", ["components", "moments"])
def test_a_correction_by_all_voxels_makes_features_exact(kind, generator):
    cohort = volumes(generator)
    net = model(Positions(correction=ALL.budget), (kind,), rank=2)
    net.train()
    found = net.features_of(cohort, NAMES).detach()
    whole = dense(net, cohort).detach()
    if kind == "moments":
        raw = dense_moments(whole).flatten(1)
    else:
        basis = net.grid.join(net.components.basis.full())
        raw = torch.einsum("kxyzn,rxyzn->kr", whole, basis)
    raw = (raw - raw.mean(0)) / raw.std(0, correction=0)
    assert torch.allclose(found, raw, atol=1e-8)


def test_corrected_features_are_unbiased(generator):
    cohort = volumes(generator)
    net = model(Positions(correction=24), ("components",), rank=2)
    net.train()
    net.features_of(cohort, NAMES)
    whole = dense(net, cohort).detach()
    truth = torch.einsum("kxyzn,rxyzn->kr", whole, net.grid.join(net.components.basis.full()))
    entries = net._entries(cohort, remember=False)
    trains = TensorTrain([core.detach() for core in net._trains(cohort, NAMES)[1].cores])
    drawn = []
    with torch.no_grad():
        for _ in range(400):
            points, indices, _ = beyond(entries, trains, 24, net.generator)
            residual = points.weighted.flatten(1) * ALL.budget
            basis = net.components.basis
            drawn.append(basis.features(trains) + residual @ basis.entries(indices))
    drawn = torch.stack(drawn)
    error = drawn.mean(0) - truth
    assert (basis.features(trains) - truth).abs().max() > 0.03  # there is something to correct
    assert (error.abs() < 4 * drawn.std(0) / len(drawn) ** 0.5).all()


def test_the_residual_of_all_positions_is_that_of_the_dense_volumes(generator):
    cohort = volumes(generator)
    net = model(Positions(correction=ALL.budget), rank=2).train()
    encoded = net.encode(cohort, NAMES)
    # Trains also have values in the padding, where volumes are zero.
    coords = all_points((*net.grid.padded, net.grid.padded_channels))
    trains = encoded.trains.entries(net.grid.sites(coords).expand(6, -1, -1))
    beyond_it = trains.view(6, *net.grid.padded, net.grid.padded_channels).clone()
    whole = dense(net, cohort)
    beyond_it[:, :6, :8, :5, :3] -= whole
    wanted = beyond_it.flatten(1).square().sum(1) / whole.flatten(1).square().sum(1)
    torch.testing.assert_close(net.residual(), wanted.mean(), rtol=1e-8, atol=1e-10)
    assert 0.01 < net.residual() < 1
    slopes = torch.autograd.grad(net.residual(), list(net.encoder.parameters()))
    assert all((slope != 0).any() for slope in slopes)


def test_the_residual_falls_where_it_is_the_loss(generator):
    cohort, net = volumes(generator), model(Positions(correction=100), rank=2).train()
    optimizer = torch.optim.Adam(net.encoder.parameters(), lr=1e-2)
    found = []
    for _ in range(15):
        optimizer.zero_grad()
        net(cohort, NAMES)
        loss = net.residual()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    assert found[-1] < 0.7 * found[0]
    assert copy.deepcopy(net)._misfit is None  # a tensor with a gradient could not be copied


@pytest.mark.parametrize("positions", ["cross", "grid"])
def test_the_residual_needs_a_correction(positions, generator):
    net = model(positions)
    with pytest.raises(ValueError, match=r"Positions\(correction=500\)"):
        net.residual()
    net.train()(volumes(generator), NAMES)
    with pytest.raises(ValueError, match="a call with a correction"):
        net.residual()


def test_an_encoder_of_zeros_has_no_residual(generator):
    net = model(Positions(correction=50), ("maximum",)).train()
    for weight in net.encoder.parameters():
        torch.nn.init.zeros_(weight)
    net.features_of(volumes(generator), NAMES)
    assert net.residual() == 0


@pytest.mark.parametrize("by", ["grid", "jittered", "low-discrepancy", "random", "grid+peaks"])
def test_predictions_are_fixed_and_training_draws(by, generator):
    features = ("moments", "maximum", "attention")
    net, cohort = model(Positions(by=by, budget=60), features), volumes(generator)
    net.train()
    first, second = (net.encode(cohort, NAMES).points.positions for _ in range(2))
    assert not torch.equal(first, second)
    net.features_of(cohort, NAMES)
    net.eval()
    state = net.generator.get_state()
    assert torch.equal(net(cohort, NAMES), net(cohort, NAMES))
    alone = torch.cat([net([v], [n]) for v, n in zip(cohort, NAMES, strict=True)])
    assert torch.allclose(net(cohort, NAMES), alone)
    assert torch.equal(state, net.generator.get_state())
    assert net.counts.asked <= net.counts.volumes * 60 * 3


def test_peaks_are_read_around_the_largest(generator):
    arrays = torch.zeros(2, 1, 24, 24, 24)
    arrays[0, 0, 10:15, 3:8, 17:22] = arrays[1, 0, 2:7, 15:20, 4:9] = 1
    net = CPIC(
        None,
        torch.nn.Identity(),
        shape=(24, 24, 24),
        positions=Positions(by="grid+peaks", budget=432),
        features=("maximum",),
        generator=torch.Generator().manual_seed(0),
    )
    net.train()
    encoded = net.encode([ArrayVolume(a[0]) for a in arrays], ["a", "b"])
    coarse = encoded.points.positions.shape[1]
    values = encoded.read[0][:, 0].view(2, -1)
    assert values.shape[1] <= 432
    assert (values[:, coarse:].mean(1) > 3 * values[:, :coarse].mean(1)).all()


@pytest.mark.parametrize("features", [("components", "maximum"), ("moments", "attention")])
@pytest.mark.parametrize("positions", ["cross", Positions(correction=40), "grid"])
def test_a_step_has_the_gradient_of_differences(positions, features, generator):
    net, cohort = model(positions, features), volumes(generator)
    net.train()
    net.features_of(cohort, NAMES)
    net.eval()  # positions, sets, basis and statistics are fixed
    if net.pooled is not None:
        net.pooled.double()
    weight = net.encoder.layers[-2].bias
    ways = torch.rand(6, net.head.n_features, generator=generator, dtype=torch.float64)

    def loss():
        return (net.features_of(cohort, NAMES) * ways).sum()

    (slope,) = torch.autograd.grad(loss(), weight)
    with torch.no_grad():
        step = 1e-6
        weight[0] += step
        above = loss()
        weight[0] -= 2 * step
        below = loss()
    assert torch.allclose(slope[0], (above - below) / (2 * step), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positions", ["cross", "jittered"])
def test_a_model_with_features_is_restored_from_its_state(positions, generator):
    features = ("components", "maximum", "attention")
    net, cohort = model(positions, features), volumes(generator)
    net.train()
    net(cohort, NAMES)
    other = model(positions, features, seed=1)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(cohort, NAMES), other.eval()(cohort, NAMES))


def test_entries_of_a_basis_are_those_of_its_tensors(generator):
    net, cohort = model(), volumes(generator)
    net.train()
    net(cohort, NAMES)
    basis = net.components.basis
    at = torch.stack([torch.randint(size, (50,), generator=generator) for size in basis.sizes], 1)
    assert torch.allclose(basis.entries(at), basis.full()[(slice(None), *at.unbind(1))].mT)


@pytest.mark.parametrize("grid", [True, False])
def test_vectors_are_the_entries_of_all_channels(grid, generator):
    encoder, cohort = CubeEncoder(2, variant="fast"), volumes(generator, 2)
    entries = VolumeEntries(cohort, encoder, Quantics(SHAPE, channels=2) if grid else None)
    at = choose.positions(SHAPE, by="random", budget=30, generator=generator).positions
    found = entries.vectors(at.expand(2, -1, -1))
    asked = entries(entries.indices(at[0]).expand(2, -1, -1))
    assert torch.equal(found.flatten(1), asked)
    assert (entries.asked, entries.encoded) == (2 * 2 * 60, 2 * 2 * 30)


def test_reading_since_a_mark_lists_each_position_once(generator):
    encoder, cohort = CubeEncoder(2, variant="fast"), volumes(generator, 2)
    entries = VolumeEntries(cohort, encoder, remember=True)
    entries(torch.zeros(2, 1, 4, dtype=torch.int64))
    entries.mark()
    entries(torch.tensor([[[1, 2, 3, 0], [1, 2, 3, 1]], [[4, 4, 4, 0], [0, 0, 0, 1]]]))
    vectors, owner = entries.read()
    assert owner.tolist() == [0, 1, 1]
    at = torch.tensor([[[1, 2, 3]], [[4, 4, 4]]])
    assert torch.equal(vectors[[0, 2]].double(), entries.vectors(at)[:, 0])
    assert entries.encoded == 4


def test_ties_of_a_maximum_share_the_gradient():
    vectors = torch.tensor([[1.0], [3.0], [3.0], [2.0]], requires_grad=True)
    largest(vectors, torch.tensor([0, 0, 0, 1]), 2).sum().backward()
    assert vectors.grad[:, 0].tolist() == [0, 0.5, 0.5, 1]


@pytest.mark.parametrize(
    ("positions", "features", "message"),
    [
        ("nowhere", ("components",), "Positions needs `by` out of cross, grid"),
        ("grid", (), "one or more different names"),
        ("grid", ("maximum", "maximum"), "one or more different names"),
        ("grid", ("colors",), "out of components, learned, moments, maximum, attention"),
        ("random", ("components",), "positions in a fixed order for components"),
    ],
)
def test_unknown_choices_are_refused(positions, features, message):
    with pytest.raises(ValueError, match=message):
        CPIC(
            CubeEncoder(2),
            torch.nn.Identity(),
            shape=SHAPE,
            positions=positions,
            features=features,
            generator=torch.Generator(),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "grid", "budget": 0}, "`budget` to be an integer of at least 1"),
        ({"by": "cross", "correction": -1}, "`correction` to be an integer of at least 1"),
        ({"by": "grid", "correction": 10}, "nothing to correct"),
    ],
)
def test_positions_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Positions(**options)


def test_a_budget_above_the_voxels_reads_all_of_them(generator):
    net, cohort = model(Positions(by="grid", budget=10**6), ("maximum",)), volumes(generator)
    net(cohort, NAMES)
    assert net.counts.encoded == 6 * ALL.budget


def test_a_constant_encoder_has_features_of_zero(generator):
    net, cohort = model("grid", ("moments", "maximum")), volumes(generator)
    for weight in net.encoder.parameters():
        torch.nn.init.zeros_(weight)
    net.train()
    assert not net.features_of(cohort, NAMES).any()


@pytest.mark.parametrize(
    "positions", ["cross", Positions(correction=40), Positions(by="jittered", budget=60)]
)
def test_noise_is_that_of_repeated_draws_and_leaves_the_model(positions, generator):
    by_cross = not isinstance(positions, Positions) or positions.by == "cross"
    features = ("components", "moments") if by_cross else ("moments", "maximum")
    net, cohort = model(positions, features), volumes(generator)
    net.train()
    net(cohort, NAMES)
    before = [x.clone() for x in net.state_dict().values() if isinstance(x, torch.Tensor)]
    noise = feature_noise(net, cohort, NAMES, draws=4, generator=generator)
    assert net.training
    after = [x for x in net.state_dict().values() if isinstance(x, torch.Tensor)]
    assert all(map(torch.equal, before, after))
    assert (noise.spread > 0).all()
    assert noise.error is None
    exact = replace(net.positions, budget=ALL.budget)
    if by_cross:
        exact = replace(exact, correction=ALL.budget)
    net.positions = exact
    none = feature_noise(net, cohort, NAMES, generator=generator)
    assert (none.spread < 1e-9).all()


def test_noise_against_all_voxels_falls_with_a_correction(generator):
    cohort, found = volumes(generator), []
    for correction in (0, 20, 120):
        net = model(Positions(correction=correction), rank=2)
        net.train()
        net(cohort, NAMES)
        found.append(feature_noise(net, cohort, NAMES, dense=True, generator=generator).error)
    assert (found[0] > found[1]).any()
    assert (found[1] > found[2]).all()


def test_noise_needs_volumes_and_a_definition(generator):
    net, cohort = model("jittered"), volumes(generator)
    with pytest.raises(ValueError, match="at least 2 volumes and 2 draws, got 1 and 3"):
        feature_noise(net, cohort[:1], NAMES[:1], generator=generator)
    with pytest.raises(ValueError, match='needs positions by "cross" for `dense`'):
        feature_noise(net, cohort, NAMES, dense=True, generator=generator)


def test_all_entries_of_a_bottleneck_are_read_for_a_maximum(generator):
    net, cohort = model("cross", ("maximum",)), volumes(generator)
    net.search = Search(rank=3, by="tt_svd")
    encoded = net.encode(cohort, NAMES)
    found = largest(*encoded.read, len(cohort)).double()
    assert torch.allclose(found, dense(net, cohort).flatten(1, 3).amax(1))


def test_covariances_are_those_of_each_volume(generator):
    """Volumes of different numbers of positions, in any order, with the derivative."""
    vectors = torch.randn(14, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    owner = torch.tensor([0] * 5 + [1] * 8 + [2])[torch.randperm(14, generator=generator)]
    found = spread(vectors, owner, 3)
    for k in range(3):
        alone = SecondOrder(3, weighted=True)(vectors[owner == k].mT.unsqueeze(0))
        torch.testing.assert_close(found[k], alone[0])
    assert not found[2].any()  # one position
    torch.autograd.gradcheck(lambda v: spread(v, owner.clamp(max=1), 2), vectors)
