import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cpic.project import Basis, _pairs, project
from cpic.tt import TensorTrain, cap_ranks, tt_svd

ROUTES = ["qr", "gram", "tree"]
SIZES = (3, 4, 2, 5)


def random_train(generator, sizes, rank, trains, dtype=torch.float64):
    ranks = cap_ranks(sizes, rank)
    return TensorTrain(
        [
            torch.randn(trains, left, size, right, generator=generator, dtype=dtype) / left**0.5
            for left, size, right in zip(ranks, sizes, ranks[1:], strict=False)
        ]
    )


def low_rank_batch(generator, sizes, rank, trains, directions):
    """Trains whose tensors span few directions: combinations of few trains."""
    parts = random_train(generator, sizes, rank, directions)
    weights = torch.randn(trains, directions, generator=generator, dtype=torch.float64)
    batch = parts[[0] * trains].scale(weights[:, 0])
    for k in range(1, directions):
        batch = batch + parts[[k] * trains].scale(weights[:, k])
    return batch


def dense(trains):
    return trains.full().flatten(1).numpy()


def up_to_sign(features, expected):
    return features * np.sign((features * expected).sum(0, keepdims=True))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("sizes", "rank", "trains", "n"),
    [
        (SIZES, 3, 7, 4),
        (SIZES, 2, 6, 6),
        ((2,) * 9, 4, 9, 5),
        ((6,), 1, 4, 3),
        ((1, 5, 1), 1, 3, 2),
    ],
)
def test_equals_dense_components(generator, route, sizes, rank, trains, n):
    batch = random_train(generator, sizes, rank, trains)
    features, energies, basis = project(batch, n, route=route)
    left, values, right = np.linalg.svd(dense(batch), full_matrices=False)
    expected = left[:, :n] * values[:n]
    np.testing.assert_allclose(up_to_sign(features.numpy(), expected), expected, atol=1e-10)
    np.testing.assert_allclose(energies.numpy(), values[:n] ** 2, rtol=1e-10)
    tensors = basis.full().flatten(1).numpy()
    np.testing.assert_allclose(np.abs(tensors @ right[:n].T), np.eye(n), atol=1e-10)
    np.testing.assert_allclose(tensors @ tensors.T, np.eye(n), atol=1e-10)
    assert_close(basis.gram(), torch.eye(n).double(), rtol=0, atol=1e-10)
    assert basis.sizes == batch.sizes


@pytest.mark.parametrize("route", ROUTES)
def test_equals_scikit_learn(generator, route):
    """`TruncatedSVD` does not center; `PCA` does, so it sees the deviations from the mean."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    batch = random_train(generator, (4, 5, 3), 3, 8)
    uncentered = decomposition.TruncatedSVD(4, algorithm="arpack", random_state=0)
    expected = uncentered.fit_transform(dense(batch))
    found = project(batch, 4, route=route).features.numpy()
    np.testing.assert_allclose(up_to_sign(found, expected), expected, atol=1e-9)

    total = batch[[0] * 8]
    for k in range(1, 8):
        total = total + batch[[k] * 8]
    centered = batch - total / 8
    expected = decomposition.PCA(4).fit_transform(dense(batch))
    found = project(centered, 4, route=route).features.numpy()
    np.testing.assert_allclose(up_to_sign(found, expected), expected, atol=1e-9)


@pytest.mark.parametrize("route", ROUTES)
def test_ranks_between_sites_are_cut(generator, route):
    batch = low_rank_batch(generator, (2,) * 10, 2, 8, 3)
    exact = project(batch, 3, route=route)
    assert max(exact.basis.ranks) > 6
    for options in ({"tol": 1e-6}, {"max_rank": 6}):
        short = project(batch, 3, route=route, **options)
        assert max(short.basis.ranks) <= 6
        assert_close(short.features, exact.features, rtol=1e-6, atol=1e-6)
        assert_close(short.basis.gram(), torch.eye(3).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("route", ROUTES)
def test_a_cut_costs_no_more_than_stated(generator, route):
    batch = random_train(generator, (2,) * 10, 4, 12)
    exact = project(batch, 3, route="qr")
    capped = project(batch, 3, route=route, max_rank=8)
    assert max(capped.basis.ranks) == 8
    assert_close(capped.basis.gram(), torch.eye(3).double(), rtol=0, atol=1e-10)
    kept = capped.features.square().sum()
    assert 0.5 * exact.energies.sum() < kept < exact.energies.sum() * (1 + 1e-12)


@pytest.mark.parametrize("route", ["qr", "gram"])
@pytest.mark.parametrize("sizes", [(4,) * 5, (2,) * 10])
def test_keeps_the_tolerance(generator, route, sizes):
    batch = random_train(generator, sizes, 4, 12)
    exact = project(batch, 3)
    for tol in (0.1, 0.3, 0.5, 0.7):
        near = project(batch, 3, route=route, tol=tol)
        lost = 1 - near.features.square().sum() / exact.energies.sum()
        assert 0.2 * tol**2 < lost <= tol**2
        assert max(near.basis.ranks) < 0.5 * max(exact.basis.ranks)


def test_gram_drops_what_it_cannot_resolve(generator):
    batch = random_train(generator, (4, 4, 4), 3, 3)
    batch = batch.scale(torch.tensor([1.0, 0.5, 1e-10]).double())
    assert [project(batch, 3, route=route).basis.n_filled for route in ROUTES] == [3, 2, 3]


@pytest.mark.parametrize("route", ROUTES)
def test_components_over_many_decades(generator, route):
    """Squaring loses what is below 1e-8; the basis is orthonormal all the same."""
    batch = random_train(generator, (4, 4, 4), 3, 5)
    direction, values, _ = np.linalg.svd(dense(batch), full_matrices=False)
    scales = np.array([1.0, 1e-2, 1e-4, 1e-6, 1e-7]) / values
    tensors = torch.from_numpy(np.diag(scales) @ direction.T @ dense(batch)).view(5, 4, 4, 4)
    features, energies, basis = project(tt_svd(tensors), 5, route=route)
    assert_close(basis.gram(), torch.eye(5).double(), rtol=0, atol=1e-10)
    tolerance = 1e-2 if route == "gram" else 1e-7
    assert_close(
        energies.sqrt(),
        torch.tensor([1.0, 1e-2, 1e-4, 1e-6, 1e-7]).double(),
        rtol=tolerance,
        atol=0,
    )
    assert_close(features.T @ features, torch.diag(energies), rtol=tolerance, atol=1e-14)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("trains", [1, 3])
def test_missing_features_are_zero(generator, route, trains):
    batch = random_train(generator, SIZES, 2, trains)
    features, energies, basis = project(batch, 5, route=route)
    assert features.shape == (trains, 5)
    assert (features[:, trains:] == 0).all()
    assert (energies[trains:] == 0).all()
    assert basis.n_filled == trains
    assert_close(basis.gram(), torch.diag((torch.arange(5) < trains).double()), atol=1e-10, rtol=0)
    assert_close(features.square().sum(1), batch.norm() ** 2)
    with pytest.raises(ValueError, match=rf"span 5 directions, got {trains} trains.*pad=True"):
        project(batch, 5, route=route, pad=False)


@pytest.mark.parametrize("route", ROUTES)
def test_equal_samples_are_one_direction(generator, route):
    batch = random_train(generator, SIZES, 2, 2)[[0, 1, 0, 1, 0]]
    features, _, basis = project(batch, 4, route=route)
    assert basis.n_filled == 2
    assert_close(features[0], features[4])
    assert_close(features.square().sum(1), batch.norm() ** 2)
    silent = project(batch.scale(0.0), 4, route=route)
    assert silent.basis.n_filled == 0
    assert (silent.features == 0).all()
    assert torch.isfinite(silent.basis.gram()).all()


@pytest.mark.parametrize("route", ROUTES)
def test_columns_have_a_sign(generator, route):
    batch = random_train(generator, SIZES, 3, 7)
    for one in (batch, batch.scale(-1.0)):
        features = project(one, 4, route=route).features
        assert (features.gather(0, features.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("route", ROUTES)
def test_float32(generator, route):
    batch = random_train(generator, SIZES, 3, 7)
    exact = project(batch, 3)
    short = project(batch.to(torch.float32), 3, route=route)
    assert short.features.dtype == short.energies.dtype == short.basis.dtype == torch.float32
    assert_close(short.features.double(), exact.features, rtol=1e-4, atol=1e-4)
    assert_close(short.basis.gram(), torch.eye(3), rtol=0, atol=1e-5)


def test_features_of_other_trains(generator):
    batch, other = (
        random_train(generator, SIZES, rank, trains) for rank, trains in ((3, 6), (4, 2))
    )
    basis = project(batch, 4).basis
    assert_close(basis.features(batch), project(batch, 4).features)
    expected = other.full().flatten(1) @ basis.full().flatten(1).T
    assert_close(basis.features(other), expected)


def test_gradient_with_a_constant_basis(generator):
    batch = random_train(generator, (3, 2, 4), 2, 3)
    basis = project(batch, 2).basis
    cores = [core.clone().requires_grad_() for core in batch.cores]
    assert torch.autograd.gradcheck(lambda *c: basis.features(TensorTrain(c)), cores)
    features = project(TensorTrain(cores), 2).features
    weight = torch.randn(features.shape, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((features * weight).sum(), cores)
    twin = torch.einsum("kijl,rijl->kr", TensorTrain(cores).full(), basis.full())
    for one, other in zip(ours, torch.autograd.grad((twin * weight).sum(), cores), strict=True):
        assert_close(one, other)


def test_saved_basis(generator, tmp_path):
    basis = project(random_train(generator, SIZES, 3, 6), 4).basis
    basis.save(tmp_path / "basis.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["basis.npz"]
    again = Basis.load(tmp_path / "basis.npz")
    assert all(torch.equal(a, b) for a, b in zip(basis.cores, again.cores, strict=True))
    assert torch.equal(basis.factor, again.factor)
    (tmp_path / "bad").write_bytes(b"no basis")
    np.savez(tmp_path / "objects.npz", core0=np.array([{}], dtype=object), factor=np.eye(1))
    np.savez(tmp_path / "other.npz", left0=np.eye(2))
    for name in ("bad", "objects.npz", "other.npz"):
        with pytest.raises(ValueError, match=r"Basis\.load needs a file written by"):
            Basis.load(tmp_path / name)


def test_a_failed_save_keeps_the_old_file(generator, tmp_path, monkeypatch):
    path = tmp_path / "basis.npz"
    basis = project(random_train(generator, SIZES, 3, 6), 4).basis
    basis.save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("cpic.tt._files.np.savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        basis.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_basis_speaks_and_moves(generator):
    basis = project(random_train(generator, SIZES, 3, 2), 3).basis
    assert repr(basis).startswith("Basis: 3 tensors (2 filled), 4 sites, largest rank ")
    assert basis.to(torch.float32).dtype == basis.to(torch.float32).factor.dtype == torch.float32
    assert basis.ranks[0] == 3
    assert basis.ranks[-1] == 1


@pytest.mark.parametrize(
    ("change", "options", "kind", "message"),
    [
        (lambda t: t.scale(torch.nan), {}, ValueError, r"finite cores.*check how"),
        (lambda t: t.to(torch.float16), {}, TypeError, r"float32 or float64, got torch\.float16"),
        (lambda t: t.to(torch.bfloat16), {}, TypeError, r"got torch\.bfloat16; inner"),
        (lambda t: t[:0], {}, ValueError, r"at least one train, got 0"),
        (lambda t: t, {"rank": 0}, ValueError, r"rank >= 1.*got 0"),
        (lambda t: t, {"route": "svd"}, ValueError, r"'svd'.*accurate"),
        (lambda t: t, {"max_rank": 0}, ValueError, r"max_rank >= 1.*got 0"),
        (lambda t: t, {"tol": -1.0}, ValueError, r"tol >= 0.*-1\.0"),
    ],
)
def test_rejects(generator, change, options, kind, message):
    batch = change(random_train(generator, SIZES, 2, 3))
    with pytest.raises(kind, match=message):
        project(batch, **{"rank": 2, **options})


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda t: t.slice(1, 0), ValueError, r"sizes \(3, 4, 2, 5\).*got \(3, 2, 5\)"),
        (lambda t: t.to(torch.float32), TypeError, r"dtype torch\.float64.*float32; cast"),
        (lambda t: t.to("meta"), ValueError, r"device cpu.*got meta; move"),
    ],
)
def test_rejects_trains_of_another_kind(generator, change, kind, message):
    batch = random_train(generator, SIZES, 2, 3)
    basis = project(batch, 2).basis
    with pytest.raises(kind, match=message):
        basis.features(change(batch))


@pytest.mark.parametrize(
    ("cores", "factor", "kind", "message"),
    [
        ([], None, ValueError, "at least one core"),
        ([torch.ones(2, 3)], None, ValueError, r"\(p, size, q\)"),
        ([torch.ones(2, 3, 2), torch.ones(3, 1, 1)], None, ValueError, "agree between neighbors"),
        ([torch.ones(2, 3, 1).half()], None, TypeError, r"float16.*cast"),
        ([torch.ones(2, 3, 1)], torch.ones(3, 3), ValueError, r"factor of shape \(2, 2\)"),
    ],
)
def test_basis_rejects(cores, factor, kind, message):
    with pytest.raises(kind, match=message):
        Basis(cores, factor)


@pytest.mark.parametrize("sizes", [(2,) * 11, (2, 9, 2, 2, 3, 17, 2), (5,)])
def test_merged_sites_hold_the_same_tensors(sizes, generator):
    trains = random_train(generator, sizes, 4, 3)
    merged = TensorTrain(_pairs.merged(trains.cores))
    assert merged.n_sites < len(sizes) or len(sizes) == 1
    assert max(merged.sizes) <= max(16, *sizes)
    assert_close(merged.full().flatten(1), trains.full().flatten(1))
    basis = project(trains, 2).basis
    assert_close(basis.features(trains), _pairs.features(basis.cores, trains.cores))
