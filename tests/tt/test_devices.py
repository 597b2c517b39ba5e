"""Every function on every device, with its gradient."""

import torch

from cpic import tt
from tests.devices import drawn, everywhere, graded, missing, source

SIZES = (4, 3, 5, 4)
LARGE = (12,) * 6  # more entries than are read whole
GRID = tt.Quantics((5, 7), channels=2)


def cores(device, dtype, sizes=SIZES, rank=3, seed=0):
    ranks = (1, *[rank] * (len(sizes) - 1), 1)
    shapes = [(2, a, n, b) for a, n, b in zip(ranks, sizes, ranks[1:], strict=False)]
    return [drawn(device, dtype, *shape, seed=seed + k) for k, shape in enumerate(shapes)]


def train(device, dtype, *args, **options):
    return tt.TensorTrain(cores(device, dtype, *args, **options))


def sets(device, sizes=SIZES, rank=2):
    return tt.IndexSets.random(sizes, rank, n_trains=2, generator=source()).to(device)


def smooth(dtype):
    """Entries of two tensors."""

    def entries(indices):
        shift = torch.tensor([[1.0], [2.5]], dtype=dtype, device=indices.device)
        return 1 / (shift + indices.to(dtype).sum(-1))

    return entries


def rough(dtype):
    """Of full rank, with a jump."""

    def entries(indices):
        large = indices.to(dtype)
        return (large * large.roll(1, -1)).sum(-1).sin() + (indices[..., 0] > 5)

    return entries


def search(device, dtype, entries=smooth, **options):
    states = []
    sizes = options.pop("sizes", LARGE)
    found = tt.cross(
        entries(dtype),
        sizes,
        n_trains=2,
        dtype=dtype,
        device=device,
        generator=source(),
        callback=states.append,
        **{"n_probes": 200, "sweeps": 1, **options},
    )
    points = torch.zeros(2, 3, len(sizes), dtype=torch.int64, device=device)
    points[:, 1:] = torch.tensor([[1], [2]], device=device)
    # The numbers of a train are unique, its cores are not. Errors may have more digits.
    parts = [found.train.entries(points), found.errors.to(dtype), found.converged, found.sets]
    return [*parts, found.ledger.distinct, states[0].train.entries(points), states[0].sets]


def points(device, sizes=SIZES):
    below = torch.tensor(sizes, device=device)
    return (drawn(device, torch.float64, 2, 6, len(sizes)) * below).long()


def of_cores(device, dtype, function):
    """What a function of a train returns, and its gradient."""
    return graded(lambda *parts: function(tt.TensorTrain(parts)), *cores(device, dtype))


TABLE = {
    "cap_ranks": lambda d, t: train(d, t).round(max_rank=tt.cap_ranks(SIZES, 2)).full(),
    "cross CrossResult CrossLedger CrossState": lambda d, t: search(d, t, rank=2),
    "cross, small": lambda d, t: search(d, t, sizes=SIZES, rank=2),
    "cross, by tolerance": lambda d, t: search(d, t, tol=1e-3),
    "cross, least squares": lambda d, t: search(d, t, rough, rank=2, method="least_squares"),
    "cross, auto": lambda d, t: search(d, t, rough, rank=2),
    "cross, of given sets": lambda d, t: search(d, t, rank=2, sets=sets(d, LARGE)),
    "dense_entries Entries": lambda d, t: graded(
        lambda x: tt.dense_entries(x)(points(d)), drawn(d, t, 2, *SIZES)
    ),
    "find_extrema Extrema": lambda d, t: tt.find_extrema(
        smooth(t), LARGE, n_trains=2, n_probes=50, generator=source(), dtype=t, device=d
    ),
    "IndexSets": lambda d, t: [sets(d), sets(d).mirrored(), drawn(d, t, 1)],
    "IndexSets, of points": lambda d, t: tt.IndexSets.random(
        SIZES, 8, n_trains=2, points=points(d), generator=source()
    ),
    "Quantics": lambda d, t: graded(
        lambda x: GRID.join(GRID.split(x)[:, ...]), drawn(d, t, 2, 5, 7, 2)
    ),
    "Quantics, indices": lambda d, t: GRID.coords(GRID.sites(points(d, (5, 7, 2)))),
    "Quantics, entries": lambda d, t: GRID.entries(smooth(t))(points(d, GRID.sizes)),
    "Quantics, patches": lambda d, t: GRID.patches(
        train(d, t, GRID.sizes), points(d, (5, 7)), width=3
    ),
    "tt_svd": lambda d, t: tt.tt_svd(drawn(d, t, 2, *SIZES), max_rank=3).full(),
    "TensorTrain, entries": lambda d, t: of_cores(d, t, lambda x: x.entries(points(d))),
    "TensorTrain, full": lambda d, t: of_cores(d, t, lambda x: x.full()),
    "TensorTrain, norm": lambda d, t: of_cores(d, t, lambda x: [x.norm(), x.inner(2 * x)]),
    "TensorTrain": lambda d, t: of_cores(
        d, t, lambda x: ((x + 1) * x - x / 2).scale(drawn(d, t, 2)).slice(1, 2).concatenate()
    ),
    "TensorTrain, round": lambda d, t: [
        train(d, t).round(0.1, method=method).full() for method in ("qr", "gram")
    ],
}
for solver in ("solve", "qr", "ridge"):
    TABLE[f"interpolate {solver}"] = lambda d, t, solver=solver: graded(
        lambda x: tt.interpolate(tt.dense_entries(x), sets(d), solver=solver, with_condition=True),
        drawn(d, t, 2, *SIZES),
    )


test_results_and_gradients_lie_where_the_input_does = everywhere(TABLE)


def test_the_table_is_complete():
    assert not missing(TABLE, tt.__all__)
