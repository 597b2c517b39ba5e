"""Every function on every device, with its gradient."""

from cpic import project as p
from cpic.linalg._gaps import _METHODS
from cpic.tt import TensorTrain
from tests.devices import DTYPES, check, drawn, everywhere, graded, missing

SIZES, RANK, N = (4, 3, 5), 2, 6


def cores(device, dtype, seed=0):
    shapes = [(N, a, n, b) for a, n, b in zip((1, 2, 2), SIZES, (2, 2, 1), strict=True)]
    return [drawn(device, dtype, *shape, seed=seed + k) - 0.3 for k, shape in enumerate(shapes)]


def trains(device, dtype, seed=0):
    return TensorTrain(cores(device, dtype, seed))


def basis(device, dtype):
    return p.project(trains(device, dtype), RANK).basis


def of_cores(device, dtype, function, seed=0):
    """What a function of trains returns, and its gradient."""
    return graded(lambda *parts: function(TensorTrain(parts)), *cores(device, dtype, seed))


def known(found):
    """What does not depend on how cores are turned."""
    return [found.features, found.energies, found.basis.full()]


def moved(device, dtype, path):
    """A basis that was saved, and came back."""
    basis(device, dtype).save(path)
    return p.Basis.load(path).to(device).full()


TABLE = {
    "Projection": lambda d, t: known(p.project(trains(d, t), RANK, max_rank=3)),
    "project, padded": lambda d, t: p.project(trains(d, t)[:1], RANK).features,
    "update": lambda d, t: of_cores(
        d, t, lambda x: known(p.update(basis(d, t), x, forgetting=0.5, tol=1e-3)), 10
    ),
    "update, exact": lambda d, t: of_cores(
        d, t, lambda x: known(p.update(basis(d, t), x, gradient="exact")), 10
    ),
    "update, unaligned": lambda d, t: of_cores(
        d, t, lambda x: known(p.update(basis(d, t), x, rank=3, align=False)), 10
    ),
    "align": lambda d, t: p.align(p.project(trains(d, t, 10), RANK).basis, basis(d, t)).full(),
    "gather": lambda d, t: of_cores(d, t, lambda x: p.gather(x)),
    "Basis": lambda d, t: p.Basis(basis(d, t).cores).factor,
    "Basis, features": lambda d, t: of_cores(d, t, lambda x: basis(d, t).features(x)),
    "Basis, gram": lambda d, t: [basis(d, t).gram(), basis(d, t).energies],
}
for route in ("qr", "gram", "tree"):
    TABLE[f"project {route}"] = lambda d, t, route=route: known(
        p.project(trains(d, t), RANK, route=route)
    )
for gradient in ("exact", *_METHODS):
    TABLE[f"project {gradient}"] = lambda d, t, gradient=gradient: of_cores(
        d, t, lambda x: p.project(x, RANK, gradient=gradient).features
    )


test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


def test_a_saved_basis_can_be_moved(device, tmp_path):
    check(lambda d, t: moved(d, t, tmp_path / "basis.npz"), device, DTYPES[0])


def test_the_table_is_complete():
    assert not missing(TABLE, p.__all__)
