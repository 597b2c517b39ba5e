"""The search: exact where it can be, honest where it cannot, calm about bad input."""

import pytest
import torch

from cpic.tt import IndexSets, cap_ranks, cross, dense_entries, interpolate
from cpic.tt._ledger import Reader
from tests.bench import problems


def smooth(indices):
    return 1.0 / (1.0 + indices.sum(-1).double())


def low_rank(sizes, rank, generator, n_trains=1):
    total = 0.0
    for _ in range(rank):
        term = torch.ones(n_trains, *(1,) * len(sizes), dtype=torch.float64)
        for k, n in enumerate(sizes):
            line = torch.randn(n_trains, n, generator=generator, dtype=torch.float64)
            shape = [n_trains, *(1,) * len(sizes)]
            shape[k + 1] = n
            term = term * line.reshape(shape)
        total = total + term
    return total


@pytest.mark.parametrize("method", ["auto", "square", "least_squares"])
def test_exact_rank_is_recovered(method, generator):
    tensor = low_rank((9, 8, 7, 12), 3, generator, n_trains=3)
    found = cross(
        dense_entries(tensor), (9, 8, 7, 12), n_trains=3, rank=5, method=method, generator=generator
    )
    torch.testing.assert_close(found.train.full(), tensor, rtol=1e-8, atol=1e-8)
    assert found.converged.all()
    assert found.sets.nested


def test_a_batch_equals_its_members_one_by_one(generator):
    tensor = low_rank((9, 8, 7, 12), 2, generator, n_trains=3)
    for k in range(3):
        alone = cross(dense_entries(tensor[k : k + 1]), (9, 8, 7, 12), rank=2, generator=generator)
        torch.testing.assert_close(alone.train.full()[0], tensor[k])


def test_sets_rebuild_the_square_train(generator):
    found = cross(smooth, (12,) * 5, rank=5, method="square", generator=generator)
    again = interpolate(smooth, found.sets)
    points = torch.randint(0, 12, (1, 500, 5), generator=generator)
    torch.testing.assert_close(
        again.entries(points), found.train.entries(points), rtol=1e-6, atol=0
    )
    assert found.sets.nested


def test_held_out_error_is_the_true_error(generator):
    entries, sizes, reference = problems.gaussians("sequential", side=32)
    found = cross(entries, sizes, rank=6, generator=generator)
    true = problems.error_of(found.train, entries, reference)
    assert float(found.error) == pytest.approx(true, rel=0.5)
    assert not found.converged.any()


@pytest.mark.parametrize("seed", range(3))
def test_adaptive_search_keeps_its_promise(seed):
    entries, sizes, reference = problems.gaussians("sequential", side=64)
    found = cross(
        entries, sizes, tol=1e-6, max_rank=100, generator=torch.Generator().manual_seed(seed)
    )
    assert problems.error_of(found.train, entries, reference) < 1e-6
    assert found.converged.all()


def test_least_squares_beats_interpolation_on_data_of_full_rank(generator):
    axis = torch.linspace(-1, 1, 64, dtype=torch.float64)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    ball = ((x**2 + (1.3 * y - 0.2 * x) ** 2 + (z + 0.1 * x * y) ** 2) < 0.6).double()[None]
    noise = 0.1 * torch.randn(ball.shape, generator=generator, dtype=torch.float64)
    tensor = problems.bits_of(ball * (1 + noise), "sequential")
    errors = {}
    for method in ("square", "least_squares", "auto"):
        found = cross(dense_entries(tensor), (2,) * 18, rank=8, method=method, generator=generator)
        errors[method] = float((found.train.full() - tensor).norm() / tensor.norm())
    assert errors["least_squares"] < 0.8 * errors["square"]
    assert errors["auto"] < 0.8 * errors["square"]


def test_an_isolated_spike_is_found_or_reported():
    entries, sizes, reference = problems.spike()
    found = cross(
        entries, sizes, tol=1e-6, n_probes=50_000, generator=torch.Generator().manual_seed(1)
    )
    assert problems.error_of(found.train, entries, reference) < 1e-6
    assert int(found.ledger.distinct) < 300_000
    few = cross(entries, sizes, rank=1, n_probes=50_000, generator=torch.Generator().manual_seed(1))
    assert not few.converged.any()


def test_one_entry_among_4096_is_found(generator):
    tensor = torch.zeros(1, 8, 8, 8, 8, dtype=torch.float64)
    tensor[0, 1, 5, 2, 7] = 3.0
    found = cross(dense_entries(tensor), (8,) * 4, rank=3, generator=generator)
    torch.testing.assert_close(found.train.full(), tensor)
    assert found.converged.all()


def test_a_warm_start_needs_one_sweep(generator):
    first = cross(smooth, (12,) * 5, rank=6, generator=generator)
    warm = cross(smooth, (12,) * 5, rank=6, sweeps=1, sets=first.sets, generator=generator)
    assert warm.error < 2 * first.error
    with pytest.raises(ValueError, match="starting sets"):
        cross(smooth, (12,) * 4, rank=6, sets=first.sets, generator=generator)


def test_callback_sees_every_half_sweep(generator):
    states = []
    found = cross(smooth, (9,) * 4, rank=3, sweeps=2, generator=generator, callback=states.append,
                  method="square")  # fmt: skip
    assert (
        [state.half_sweep for state in states]
        == [1, 2, 3, 4]
        == list(range(1, len(found.errors) + 1))
    )
    assert all(state.sets.sizes == (9,) * 4 for state in states)
    assert states[-1].asked == found.ledger.asked >= int(found.ledger.distinct)


def test_ledger_counts_what_the_function_saw(generator):
    seen = []

    def entries(indices):
        seen.append(indices[0])
        return smooth(indices)

    ledger = cross(entries, (9,) * 5, rank=3, generator=generator).ledger
    asked = torch.cat(seen)
    assert ledger.asked == len(asked)
    assert int(ledger.distinct) == len(asked.unique(dim=0))


def test_more_entries_than_int64_holds_are_kept_apart(generator):
    # Every sum of two bits: keys that are multiples of one number agree for many of them.
    d = 90
    pairs = torch.combinations(torch.arange(d), 2)
    indices = torch.zeros(1, len(pairs), d, dtype=torch.int64).scatter_(2, pairs[None], 1)
    reader = Reader(lambda i: i.double().sum(-1), (2,) * d, torch.device("cpu"))
    reader.points(indices)
    assert int(reader.ledger(0, 0.0).distinct) == len(pairs)


def test_a_search_in_a_tensor_of_1e30_entries_remembers_the_right_ones(generator):
    weights = torch.linspace(0.2, 1.0, 15, dtype=torch.float64)

    def entries(indices):
        return torch.cos((indices * weights).sum(-1)) + 2.0

    found = cross(entries, (100,) * 15, tol=1e-8, generator=generator)
    places = torch.randint(0, 100, (1, 2000, 15), generator=generator)
    assert found.converged
    torch.testing.assert_close(found.train.entries(places), entries(places), rtol=1e-6, atol=1e-6)


def test_threads_are_restored_after_an_error(generator):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def entries(indices):
            assert torch.get_num_threads() == 1
            raise RuntimeError("no data")

        with pytest.raises(RuntimeError, match="no data"):
            cross(entries, (9,) * 5, rank=3, generator=generator)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def identity(indices):
    return (indices[..., ::2] == indices[..., 1::2]).all(-1).double()


@pytest.mark.parametrize(
    ("entries", "sizes"),
    [
        (lambda i: torch.sin(i.sum(-1).double()), (40, 30)),
        (lambda i: torch.sin(i.sum(-1).double()), (40,)),
        (lambda i: torch.sin(i.sum(-1).double()), (100_000,)),  # more than are looked through
        (lambda i: torch.sin(i.sum(-1).double()), (1, 100_000, 1)),
        (lambda i: torch.sin(i.sum(-1).double()), (12, 1, 9, 1, 14)),
        (lambda i: torch.sin(i.sum(-1).double()), (1, 1, 1)),
        (lambda i: torch.sin(i.sum(-1).double()), (2, 31, 3, 64)),
        (lambda i: torch.zeros(i.shape[:-1]), (9,) * 5),
        (lambda i: torch.full(i.shape[:-1], 3.0), (9,) * 5),
        (lambda i: (1.0 + i).double().prod(-1), (9,) * 5),
        (lambda i: i.sum(-1).double(), (9,) * 5),
        (identity, (2,) * 14),
        (lambda i: 1e-200 * torch.sin(i.sum(-1).double()), (9,) * 5),
        (lambda i: 1e200 * torch.sin(i.sum(-1).double()), (9,) * 5),
    ],
)
@pytest.mark.parametrize(
    "how", [{"rank": 10}, {"tol": 1e-8}, {"rank": 10, "method": "least_squares"}]
)
def test_edge_cases_are_exact(entries, sizes, how, generator):
    found = cross(entries, sizes, generator=generator, **how)
    points = torch.stack(torch.meshgrid(*map(torch.arange, sizes), indexing="ij"), -1)
    truth = entries(points.flatten(0, -2)[None]).double()
    peak = truth.abs().max().clamp_min(1e-300)
    values = found.train.entries(points.flatten(0, -2)[None])
    assert float(((values - truth) / peak).abs().max()) < 1e-7
    assert found.converged.all()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (lambda i: smooth(i)[:, :-1], r"\(K, n\)"),
        (lambda i: smooth(i).numpy(), "ndarray"),
        (lambda i: torch.where(i[..., 0] == 3, torch.nan, 1.0), r"index \(3,"),
        (lambda i: torch.where(i[..., 0] == 3, torch.inf, 1.0), "finite"),
        (lambda i: smooth(i) * 1j, "complex"),
        (lambda i: smooth(i).to("meta"), "device"),
    ],
)
def test_bad_entries_give_one_clear_error(entries, message, generator):
    with pytest.raises(ValueError, match=message):
        cross(entries, (9,) * 5, rank=3, generator=generator)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "rank or a tol"),
        ({"rank": 0}, "rank >= 1"),
        ({"rank": 2.5}, "rank >= 1"),
        ({"rank": [3, 2.5]}, "rank >= 1"),
        ({"tol": 0.0}, "tol > 0"),
        ({"tol": -1e-6}, "tol > 0"),
        ({"tol": float("nan")}, "tol > 0"),
        ({"tol": float("inf")}, "tol > 0"),
        ({"rank": 2, "sweeps": 0}, "sweeps >= 1"),
        ({"rank": 2, "method": "best"}, "method"),
        ({"rank": 2, "dtype": torch.complex128}, "float32 or float64"),
    ],
)
def test_bad_arguments_give_one_clear_error(how, message, generator):
    with pytest.raises(ValueError, match=message):
        cross(smooth, (9,) * 3, generator=generator, **how)


def test_no_tensors_and_too_large_ranks(generator):
    none = cross(smooth, (9,) * 3, n_trains=0, rank=4, generator=generator)
    assert none.train.n_trains == 0
    assert none.converged.shape == (0,)
    high = cross(smooth, (3, 3, 3), rank=50, generator=generator)
    assert high.train.ranks == (1, 3, 3, 1)


def test_float32_stays_float32(generator):
    found = cross(smooth, (9,) * 4, rank=4, dtype=torch.float32, generator=generator)
    assert found.train.dtype == torch.float32
    assert isinstance(found.sets, IndexSets)
    assert float(found.error) < 3e-3


def changing(indices):
    """Mirrors the first mode in place, as code from NumPy does, and returns one buffer always."""
    indices[..., 0] = 8 - indices[..., 0]
    values = smooth(indices)
    indices.fill_(-1)
    return values


class Reusing:
    """Returns views of one buffer."""

    def __init__(self):
        self.buffer = torch.zeros(1, 100_000, dtype=torch.float64)

    def __call__(self, indices):
        part = self.buffer[:, : indices.shape[1]]
        part.copy_(smooth(indices))
        return part


@pytest.mark.parametrize(
    "how", [{"rank": 6}, {"rank": 6, "method": "least_squares"}, {"tol": 1e-6}]
)
@pytest.mark.parametrize("entries", [changing, Reusing()])
def test_entries_may_change_what_is_theirs(entries, how, generator):
    found = cross(entries, (9,) * 5, generator=generator, **how)
    points = torch.randint(0, 9, (1, 500, 5), generator=generator)
    truth = entries(points.clone()).clone()
    torch.testing.assert_close(found.train.entries(points), truth, rtol=1e-2, atol=0)


def test_sets_found_with_changing_entries_rebuild_the_train(generator):
    found = cross(changing, (9,) * 5, rank=6, method="square", generator=generator)
    points = torch.randint(0, 9, (1, 500, 5), generator=generator)
    again = interpolate(changing, found.sets).entries(points)
    torch.testing.assert_close(again, found.train.entries(points), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float16, torch.float32])
@pytest.mark.parametrize("how", [{"rank": 3}, {"tol": 1e-6}])
def test_values_of_other_types_are_converted(dtype, how, generator):
    def entries(indices):
        return (indices.sum(-1) % 2).to(dtype)

    found = cross(entries, (9,) * 5, generator=generator, **how)
    points = torch.randint(0, 9, (1, 500, 5), generator=generator)
    assert found.train.dtype == torch.float64
    torch.testing.assert_close(found.train.entries(points), entries(points).double())


def hidden(indices):
    return (-50.0 * (indices.double() - 10).square().sum(-1)).exp()


@pytest.mark.parametrize(
    "how",
    [{"tol": 1e-6}, {"rank": 3}, {"rank": 3, "method": "least_squares"}, {"rank": 3, "tol": 1.0}],
)
@pytest.mark.parametrize("entries", [hidden, lambda i: torch.zeros(i.shape[:-1])])
def test_zeros_say_nothing_of_what_was_not_looked_at(entries, how):
    found = cross(entries, (21,) * 7, generator=torch.Generator().manual_seed(1), **how)
    assert not found.converged.any()
    assert found.error.isnan().all()
    assert not found.train.entries(torch.zeros(1, 1, 7, dtype=torch.int64)).isnan().any()


def test_a_zero_tensor_in_a_batch_is_told_from_the_others(generator):
    def entries(indices):
        return smooth(indices) * torch.tensor([[1.0], [0.0]])

    found = cross(entries, (12,) * 6, n_trains=2, tol=1e-4, generator=generator)
    assert found.converged.tolist() == [True, False]
    assert found.error.isnan().tolist() == [False, True]


def test_a_lone_entry_of_a_small_tensor_is_found_where_all_probes_are_zero(generator):
    def entries(indices):
        return (indices == 4).all(-1).double()

    found = cross(entries, (9,) * 5, tol=1e-6, generator=generator)
    assert float(found.train.entries(torch.full((1, 1, 5), 4))) == pytest.approx(1.0)
    assert found.converged.all()


@pytest.mark.parametrize("method", ["auto", "square", "least_squares"])
@pytest.mark.parametrize("rank", [[2, 9, 3], [1, 1, 1], [9, 2, 9], (1, 3, 4, 5, 1)])
def test_every_bond_keeps_its_bound(method, rank, generator):
    weights = torch.tensor([12.9, 78.2, 37.7, 4.6], dtype=torch.float64)

    def rough(indices):
        return torch.frac(torch.sin(indices.double() @ weights) * 43758.5)

    found = cross(rough, (12,) * 4, rank=rank, method=method, generator=generator)
    bounds = cap_ranks((12,) * 4, rank)
    assert all(a <= b for a, b in zip(found.train.ranks, bounds, strict=True))


@pytest.mark.parametrize("how", [{"rank": 9}, {"tol": 1e-8}])
def test_least_squares_needs_no_more_than_the_rank(how, generator):
    tensor = low_rank((9, 8, 7, 12), 2, generator)
    found = cross(
        dense_entries(tensor), (9, 8, 7, 12), method="least_squares", generator=generator, **how
    )
    assert found.train.ranks == (1, 2, 2, 2, 1)
    torch.testing.assert_close(found.train.full(), tensor, rtol=1e-6, atol=1e-6)


def test_least_squares_by_tolerance_rounds_to_it(generator):
    found = cross(smooth, (12,) * 5, tol=1e-3, method="least_squares", generator=generator)
    assert found.converged.all()
    assert max(found.train.ranks) < 8  # where its fits begin


@pytest.mark.parametrize("seed", range(3))
def test_the_error_counts_what_lives_in_a_corner(seed):
    # Uniform probes of this function never come near its corner, where errors are largest.
    entries, sizes, reference = problems.reciprocal()
    found = cross(entries, sizes, tol=1e-6, generator=torch.Generator().manual_seed(seed))
    true = problems.error_of(found.train, entries, reference)
    assert found.converged.all()
    assert true < 2e-6
    assert float(found.error) == pytest.approx(true, rel=2)


def test_noise_is_no_low_rank(generator):
    noisy = torch.Generator().manual_seed(5)

    def entries(indices):
        return torch.rand(indices.shape[:-1], generator=noisy, dtype=torch.float64)

    found = cross(entries, (9,) * 5, tol=1e-3, max_rank=8, method="square", generator=generator)
    assert not found.converged.any()
    assert max(found.train.ranks) <= 8


def test_luck_does_not_end_a_search():
    # Few entries of this jump are missed, each by one: the more often it looks, the more it needs.
    def jump(indices):
        return (indices.sum(-1) > 40).double()

    true = []
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        found = cross(jump, (20,) * 4, tol=1e-2, method="square", generator=draw)
        points = torch.cartesian_prod(*[torch.arange(20)] * 4)[None]
        truth = jump(points)
        error = float((found.train.entries(points) - truth).norm() / truth.norm())
        true.append(error if found.converged else 0.0)
    assert sorted(true)[1] < 0.03


def test_a_long_mode_is_read_once(generator):
    found = cross(lambda i: i.sum(-1).double().sin(), (20_000, 1), tol=1e-6, generator=generator)
    assert found.ledger.asked <= 2 * 20_000
    assert found.converged.all()


@pytest.mark.parametrize("options", [{"rank": 1}, {"tol": 1e-4}], ids=str)
@pytest.mark.parametrize(("dtype", "top"), [(torch.float64, 1.7e308), (torch.float32, 3.3e38)])
def test_values_near_the_largest_number(dtype, top, options, generator):
    def entries(i):
        return (top * torch.cos(0.1 * i.double()).prod(-1)).to(dtype)

    found = cross(entries, (9,) * 5, generator=generator, dtype=dtype, **options)
    assert found.converged.all()
    truth = entries(torch.cartesian_prod(*[torch.arange(9)] * 5))
    full = found.train.full().flatten()
    torch.testing.assert_close(full / top, truth.to(full) / top, rtol=0, atol=1e-5)
