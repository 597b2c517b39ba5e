import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cpic.project import Basis, align, project, update
from cpic.project._update import _closest
from cpic.tt import TensorTrain
from tests.project.test_gradient import leaves, small
from tests.project.test_project import SIZES, dense, low_rank_batch, random_train


def join(*batches):
    return TensorTrain(
        [torch.cat(cores) for cores in zip(*(b.cores for b in batches), strict=True)]
    )


def sine(basis, other):
    """Of the largest angle between what two bases span."""
    mine, yours = (one.full().flatten(1) for one in (basis, other))
    return float(torch.linalg.matrix_norm(mine - (mine @ yours.T) @ yours, 2))


def stream(batches, rank, **options):
    found = project(batches[0], rank)
    for batch in batches[1:]:
        found = update(found.basis, batch, **options)
    return found


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sizes", [SIZES, (2,) * 7])
def test_a_stream_of_low_rank_equals_all_at_once(generator, sizes, aligned):
    everything = low_rank_batch(generator, sizes, 2, 15, 4)
    batches = [everything[:2], everything[2:5], everything[5:11], everything[11:]]
    found = stream(batches, 4, align=aligned, max_rank=100)
    whole = project(everything, 4)
    assert sine(found.basis, whole.basis) < 1e-9
    assert_close(found.energies, whole.energies)
    assert_close(found.basis.gram(), torch.eye(4).double(), rtol=0, atol=1e-10)
    turned = align(whole.basis, found.basis)
    assert_close(found.features, turned.features(everything[11:]))


def test_a_stream_of_higher_rank_stays_near(generator):
    """What is cut at a step is lost; directions well above it hardly move."""
    strong = low_rank_batch(generator, SIZES, 2, 24, 3)
    noise = random_train(generator, SIZES, 3, 24)
    everything = strong + noise.scale(0.02)
    batches = [everything[k : k + 6] for k in range(0, 24, 6)]
    found, whole = stream(batches, 4, max_rank=60), project(everything, 4)
    three = [project(one, 3).basis for one in (everything, strong)]
    assert 1e-9 < sine(three[0], found.basis) < 1e-5
    assert sine(three[0], found.basis) < 0.1 * sine(three[0], three[1])
    assert_close(found.energies[:3], whole.energies[:3], rtol=1e-3, atol=0)
    assert (found.energies <= whole.energies * (1 + 1e-9)).all()


def test_the_cost_does_not_grow(generator):
    found = project(random_train(generator, (2,) * 10, 3, 5), 4, max_rank=12)
    for _ in range(4):
        found = update(found.basis, random_train(generator, (2,) * 10, 3, 5))
        assert max(found.basis.ranks) == 12
        assert_close(found.basis.gram(), torch.eye(4).double(), rtol=0, atol=1e-10)


def test_forgetting(generator):
    """The weight of a batch falls by the square of the factor in the energies."""
    first, second = (random_train(generator, SIZES, 2, 3) for _ in range(2))
    found = update(project(first, 6).basis, second, forgetting=0.5, max_rank=100)
    weighted = np.concatenate([0.5 * dense(first), dense(second)])
    expected = np.linalg.svd(weighted, compute_uv=False) ** 2
    np.testing.assert_allclose(found.energies.numpy(), expected, rtol=1e-9)


def drifting(generator, steps=12, trains=10, sizes=(2,) * 8, rank=4):
    """Mini-batches and the same five probes, of samples whose tensors move with the step."""
    base = random_train(generator, sizes, 2, rank)
    moves = random_train(generator, sizes, 2, rank)
    weights = torch.randn(60, rank, generator=generator, dtype=torch.float64)

    def samples(rows, step):
        parts = TensorTrain(
            [c + 0.004 * step * m for c, m in zip(base.cores, moves.cores, strict=True)]
        )
        terms = [parts[[k] * len(rows)].scale(weights[rows, k]) for k in range(rank)]
        return sum(terms[1:], start=terms[0])

    for step in range(steps):
        rows = torch.randint(60, (trains,), generator=generator)
        yield samples(rows, step), samples(torch.arange(5), step)


def jumps(generator, aligned):
    """Relative change of the probes' features from step to step."""
    basis, last, found = None, None, []
    for batch, probes in drifting(generator):
        if basis is None:
            basis = project(batch, 4).basis
        else:
            basis = update(basis, batch, align=aligned, forgetting=0.9, max_rank=20).basis
        features = basis.features(probes)
        if last is not None:
            found.append(float((features - last).norm() / last.norm()))
        last = features
    return found


@pytest.mark.parametrize("seed", range(3))
def test_aligned_features_do_not_jump(seed):
    calm, wild = (jumps(torch.Generator().manual_seed(seed), aligned) for aligned in (True, False))
    assert max(calm) < 0.02
    assert max(wild) > 0.5
    assert np.mean(wild) > 20 * np.mean(calm)


def test_align(generator):
    basis = project(random_train(generator, SIZES, 3, 6), 4).basis
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    turned = basis.rotated(turn)
    assert_close(align(turned, basis).full(), basis.full())
    # The factor turns along: the second moments it stands for are the same tensors'.
    assert_close(turned.factor @ turned.full().flatten(1), basis.factor @ basis.full().flatten(1))
    assert_close(turned.energies, basis.energies)


def test_align_is_the_closest_rotation(generator):
    one, other = (project(random_train(generator, SIZES, 3, 6), 3).basis for _ in range(2))
    best = float((align(one, other).full() - other.full()).norm())
    for _ in range(50):
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
        assert float((one.rotated(turn).full() - other.full()).norm()) > best


def test_new_directions_fill_empty_places(generator):
    """A basis of two tensors and two zeros keeps the two and gains what is new."""
    first, second = (random_train(generator, SIZES, 1, n) for n in (2, 1))
    small = project(first, 4).basis
    found = update(small, second)
    assert (small.n_filled, found.basis.n_filled) == (2, 3)
    assert (found.features[:, 3] == 0).all()
    assert_close(found.basis.gram(), torch.diag(torch.tensor([1.0, 1, 1, 0]).double()))
    assert_close(found.basis.features(first), small.features(first), rtol=0, atol=1e-10)
    assert_close(found.features.norm(dim=1), second.norm())
    silent = project(first.scale(0.0), 4).basis
    assert update(silent, second).basis.n_filled == 1
    assert update(silent, second.scale(0.0)).basis.n_filled == 0


def test_new_directions_are_sorted(generator):
    """By what was seen along them, each with its largest part positive."""
    first, second = (random_train(generator, (3, 4, 5), 3, n) for n in (1, 5))
    small = project(first, 6).basis
    moments = update(small, second, max_rank=50).basis
    moments = (moments.factor.mT @ moments.factor)[1:, 1:]
    assert_close(moments, torch.diag(moments.diagonal()))
    assert (moments.diagonal().diff() < 0).all()
    rows = _closest(small, project(second, 6).basis)[1:5, :5]
    assert (rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all()
    assert_close(rows @ rows.mT, torch.eye(4).double())


def test_the_same_train_twice(generator):
    """Nothing new: the directions stay, the energies add up."""
    batch = random_train(generator, SIZES, 2, 4)
    first = project(batch, 4)
    again = update(first.basis, batch)
    assert_close(again.features, first.features)
    assert_close(again.energies, 2 * first.energies)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize(("rank", "trains"), [(2, 3), (4, 1), (5, 2)])
def test_exact_gradient(generator, aligned, rank, trains):
    basis = project(small(random_train(generator, (3, 2, 4), 2, 3)), rank).basis
    cores = leaves(small(random_train(generator, (3, 2, 4), 2, trains)))
    weight = torch.randn(trains, rank, generator=generator, dtype=torch.float64)

    def value(*cores):
        found = update(
            basis, TensorTrain(cores), align=aligned, forgetting=0.8, gradient="exact", max_rank=50
        )
        if not aligned:
            return found.features.square() * weight  # signs are free
        # Two directions at once fill empty places: their rotation among themselves is free.
        old, new = found.features[:, :3] * weight[:, :3], found.features[:, 3:]
        return torch.cat([old.flatten(), new.square().sum(1)])

    assert torch.autograd.gradcheck(value, cores, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_detached_gradient_takes_the_new_basis_as_constant(generator):
    basis = project(random_train(generator, SIZES, 2, 3), 3).basis
    cores = leaves(random_train(generator, SIZES, 2, 3))
    found = update(basis, TensorTrain(cores))
    twin = found.basis.features(TensorTrain(cores))
    assert torch.equal(found.features, twin)
    gradients = [torch.autograd.grad((f**2).sum(), cores) for f in (found.features, twin)]
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    moving = update(basis, TensorTrain(cores), gradient="trunc")
    assert_close(moving.features, twin)
    assert not torch.allclose(
        torch.autograd.grad((moving.features**3).sum(), cores)[0], gradients[0][0]
    )


@pytest.mark.parametrize("method", ["trunc", "topn", "taylor", "pade", "power"])
def test_ties_give_finite_gradients(generator, method):
    batch = random_train(generator, SIZES, 2, 3)
    basis = project(batch, 4).basis
    cores = leaves(batch[[0, 0, 1]])
    features = update(basis, TensorTrain(cores), gradient=method).features
    for grad in torch.autograd.grad((features**3).sum(), cores):
        assert torch.isfinite(grad).all()


def test_another_rank_without_alignment(generator):
    basis = project(random_train(generator, SIZES, 2, 4), 4).basis
    batch = random_train(generator, SIZES, 2, 3)
    for rank in (2, 6):
        assert update(basis, batch, rank=rank, align=False).features.shape == (3, rank)


@pytest.mark.parametrize(
    ("change", "options", "kind", "message"),
    [
        (
            lambda t: t.slice(0, 0),
            {},
            ValueError,
            r"update needs trains with the sizes.*got \(4, 2, 5\)",
        ),
        (lambda t: t.to(torch.float32), {}, TypeError, r"dtype torch\.float64.*cast"),
        (lambda t: t.to(torch.float16), {}, TypeError, r"float32 or float64, got torch\.float16"),
        (lambda t: t.scale(torch.inf), {}, ValueError, "finite cores"),
        (lambda t: t[:0], {}, ValueError, "at least one train"),
        (lambda t: t, {"rank": 3}, ValueError, r"rank 4 of the basis.*got 3.*align=False"),
        (lambda t: t, {"rank": 0}, ValueError, r"rank >= 1"),
        (lambda t: t, {"forgetting": 0.0}, ValueError, r"0 < forgetting <= 1, got 0\.0"),
        (lambda t: t, {"forgetting": 1.5}, ValueError, r"got 1\.5"),
        (lambda t: t, {"max_rank": 0}, ValueError, r"max_rank >= 1"),
        (lambda t: t, {"gradient": "magic"}, ValueError, r"update.*'magic'"),
    ],
)
def test_rejects(generator, change, options, kind, message):
    basis = project(random_train(generator, SIZES, 2, 4), 4).basis
    with pytest.raises(kind, match=message):
        update(basis, change(random_train(generator, SIZES, 2, 3)), **options)


def test_rejects_a_basis_that_is_not_finite(generator):
    batch = random_train(generator, SIZES, 2, 3)
    basis = project(batch, 3).basis
    bad = Basis([basis.cores[0] * torch.nan, *basis.cores[1:]])
    with pytest.raises(ValueError, match=r"finite basis.*`project`"):
        update(bad, batch)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.to(torch.float32),
        lambda b: Basis([b.cores[0][:2], *b.cores[1:]]),
        lambda b: Basis([*b.cores[:-1], b.cores[-1][:, :2]]),
    ],
)
def test_align_rejects(generator, change):
    basis = project(random_train(generator, SIZES, 2, 4), 4).basis
    with pytest.raises(ValueError, match=r"equal rank, sizes, dtype and device.*align=False"):
        align(change(basis), basis)
