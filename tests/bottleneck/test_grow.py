"""Sets grow, stay nested, and the ranks of half-sweeps follow the tensor."""

import pytest
import torch

from cpic.bottleneck import grow, half_sweep
from cpic.tt import IndexSets, TensorTrain, cap_ranks, dense_entries

SIZES = (3, 4, 5, 4, 3)
WAYS = pytest.mark.parametrize("towards", ["right", "left"])


def of_rank(rank, generator):
    ranks = cap_ranks(SIZES, rank)
    shapes = zip(ranks[:-1], SIZES, ranks[1:], strict=True)
    cores = [
        torch.randn(2, *shape, generator=generator, dtype=torch.float64) / shape[0]
        for shape in shapes
    ]
    return TensorTrain(cores).full()


def side_of(sets, towards):
    return sets.right if towards == "right" else sets.left


@WAYS
@pytest.mark.parametrize("options", [{"by": 2}, {"ranks": 5}, {"ranks": (3, 4, 5, 3)}])
def test_new_multi_indices_are_nested_and_new(towards, options, generator):
    sets = IndexSets.random(SIZES, 3, n_trains=2, generator=generator)
    more = grow(sets, towards=towards, generator=generator, **options)
    assert more.nested
    counts = [rows.shape[1] for rows in side_of(more, towards)]
    inner = counts[:-1] if towards == "right" else counts[1:]
    assert inner == [3, 4 if isinstance(options.get("ranks"), tuple) else 5, 5, 3]
    for before, after in zip(side_of(sets, towards), side_of(more, towards), strict=True):
        assert torch.equal(after[:, : before.shape[1]], before)
        for rows in after:
            assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    other = "left" if towards == "right" else "right"
    pairs = zip(side_of(sets, other), side_of(more, other), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@WAYS
def test_growing_ends_at_what_the_sizes_allow(towards, generator):
    sets = IndexSets.random((2, 3, 2), 1, generator=generator)
    for _ in range(9):
        sets = grow(sets, towards=towards, by=1, generator=generator)
    counts = [rows.shape[1] for rows in side_of(sets, towards)]
    assert counts == ([2, 2, 1] if towards == "right" else [1, 2, 2])


@WAYS
def test_points_become_part_of_the_sets(towards, generator):
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    points = torch.stack([torch.randint(0, n, (2, 1), generator=generator) for n in SIZES], -1)
    more = grow(sets, towards=towards, points=points)
    for k in range(1, len(SIZES)):
        rows = more.right[k - 1] if towards == "right" else more.left[k]
        part = points[..., k:] if towards == "right" else points[..., :k]
        assert (rows == part).all(-1).any(-1).all()


def test_ranks_follow_a_tensor_whose_rank_rises_and_falls(generator):
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    for step, rank in enumerate((2, 4, 6, 7, 7, 5, 3, 1, 3, 3)):
        full = of_rank(rank, generator)
        towards = ("right", "left")[step % 2]
        sets = grow(sets, towards=towards, by=2, generator=generator)
        found = half_sweep(dense_entries(full), sets, towards=towards, tol=1e-9)
        assert found.train.ranks == cap_ranks(SIZES, rank)
        assert (found.train.full() - full).norm() <= 1e-9 * full.norm()
        sets = found.sets


@pytest.mark.parametrize("tol", [0.3, 0.03, 0.003])
def test_a_looser_tolerance_gives_lower_ranks_and_about_that_error(tol, generator):
    x = torch.linspace(0, 1, 8, dtype=torch.float64)
    full = (1 / (0.2 + x[:, None, None] + x[:, None] + x)).expand(2, -1, -1, -1)
    sets = IndexSets.random((8, 8, 8), 8, n_trains=2, generator=generator)
    found = half_sweep(dense_entries(full), sets, tol=tol)
    error = (found.train.full() - full).norm() / full.norm()
    assert error <= 3 * tol
    assert max(found.train.ranks) == {0.3: 1, 0.03: 2, 0.003: 3}[tol]


def test_sets_saved_in_the_middle_give_the_same_steps(generator, tmp_path):
    def steps(sets, first, generator):
        values = []
        for step in range(first, 6):
            full = of_rank(3, torch.Generator().manual_seed(step))
            towards = ("right", "left")[step % 2]
            sets = grow(sets, towards=towards, by=1, generator=generator)
            found = half_sweep(dense_entries(full), sets, towards=towards, tol=1e-8)
            sets = found.sets
            values.append(found.train.full())
            if step == 2:
                sets.save(tmp_path / "sets.npz")
                torch.save(generator.get_state(), tmp_path / "generator.pt")
        return torch.stack(values[-3:])

    through = steps(IndexSets.random(SIZES, 2, n_trains=2, generator=generator), 0, generator)
    again = torch.Generator()
    again.set_state(torch.load(tmp_path / "generator.pt", weights_only=True))
    assert torch.equal(steps(IndexSets.load(tmp_path / "sets.npz"), 3, again), through)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"towards": "up", "by": 1}, "`towards` out of 'right', 'left'"),
        ({"towards": "left"}, "one of"),
        ({"towards": "left", "by": 1, "ranks": 3}, "one of"),
        ({"towards": "left", "by": 0}, "by >= 1"),
        ({"towards": "left", "by": 1, "generator": None}, "generator"),
        ({"towards": "left", "points": torch.zeros(1, 1, 5, dtype=torch.int64)}, r"K=2"),
        ({"towards": "left", "ranks": 0}, "rank"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, message, generator):
    sets = IndexSets.random(SIZES, 2, n_trains=2, generator=generator)
    with pytest.raises(ValueError, match=message):
        grow(sets, **{"generator": generator, **options})
