"""Positions that need no values: how many, which, and that their quadrature is unbiased."""

import math

import pytest
import torch

from cpic.choose import positions
from cpic.choose._points import PLACERS

SHAPES = [(7,), (9, 5), (6, 7, 5), (3, 2, 2, 3, 2)]
# A chooser with options, and whether it draws its positions.
CASES = [
    ("grid", {}, False),
    ("grid", {"phase": 0.0}, False),
    ("grid", {"phase": "ends"}, False),
    ("grid", {"phase": "random"}, True),
    ("random", {}, True),
    ("jittered", {}, True),
    ("low-discrepancy", {}, True),
    ("importance", {"map": "cells"}, True),
]
DRAWN = [(by, options) for by, options, drawn in CASES if drawn]


def place(shape, by, options, **arguments):
    """`positions`, where a map is one of two cells an axis, the last of them dark."""
    if "map" in options:
        cells = torch.ones([min(2, n) for n in shape])
        cells.view(-1)[-1] = 0
        options = {"map": cells, "mix": 0.3}
    return positions(shape, by=by, **options, **arguments)


OPTIONS = {by: options for by, options, _ in CASES}


def test_every_placer_is_tested():
    assert {by for by, *_ in CASES} == set(PLACERS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("by", "options", "drawn"), CASES)
@pytest.mark.parametrize("share", [1e-9, 0.3, 1.0])
def test_positions_are_inside_and_weights_sum_to_one(by, options, drawn, shape, share, generator):
    total = math.prod(shape)
    budget = max(1, int(share * total))
    found = place(shape, by, options, budget=budget, n_arrays=3, generator=generator)
    k, m, d = found.positions.shape
    assert (k, d) == (3, len(shape))
    assert 1 <= m <= budget
    assert ((found.positions >= 0) & (found.positions < torch.tensor(shape))).all()
    assert found.weights.shape == (k, m)
    if by == "importance":
        assert (found.weights > 0).all()
        return
    torch.testing.assert_close(found.weights.sum(1), torch.ones(3).double())
    if by != "low-discrepancy":
        assert all(len(rows.unique(dim=0)) == m for rows in found.positions)
        assert share < 1 or m == total


@pytest.mark.parametrize(("by", "options"), DRAWN)
def test_the_mean_is_unbiased(by, options, generator):
    """10 000 draws; a rough array, so that no symmetry hides a wrong weight."""
    shape, n = (5, 7), 10_000
    array = torch.rand(shape, generator=generator, dtype=torch.float64) ** 3
    found = place(shape, by, options, budget=9, n_arrays=n, generator=generator)
    values = array[found.positions.unbind(-1)]
    estimate = (found.weights * values).sum(1)
    error = (estimate.mean() - array.mean()) / (estimate.std() / n**0.5)
    assert estimate.std() > 0
    assert abs(float(error)) < 4


@pytest.mark.parametrize("phase", [0.0, 0.5, "ends"])
def test_a_fixed_grid_integrates_what_it_interpolates(phase):
    """Between grid positions an array that is linear there; the closed form of its mean."""
    found = positions((21, 11), by="grid", budget=60, phase=phase)
    assert found.axes is not None
    first, second = found.axes
    x, y = found.positions[0].double().unbind(-1)
    values = (2 + x) * (1 - y)
    full = [torch.arange(n).double().clamp(int(a.min()), int(a.max())) for n, a in
            ((21, first), (11, second))]  # fmt: skip
    closed = (2 + full[0]).mean() * (1 - full[1]).mean()
    torch.testing.assert_close((found.weights[0] * values).sum(), closed)


def test_strides_are_equal_along_all_axes():
    found = positions((200, 100, 50), by="grid", budget=20 * 10 * 5, phase=0.5)
    assert found.axes is not None
    assert [axis.shape[1] for axis in found.axes] == [20, 10, 5]
    assert all((axis.diff() == 10).all() for axis in found.axes)


def test_every_subset_is_equally_likely(generator):
    """6 pairs of 4 entries, with many more draws than a pair of equal numbers would forgive."""
    found = positions((40,), by="random", budget=2, n_arrays=40_000, generator=generator)
    pairs = found.positions[..., 0].sort(1).values
    assert (pairs[:, 0] < pairs[:, 1]).all()
    counts = torch.bincount(pairs[:, 0] * 40 + pairs[:, 1])
    counts = counts[counts > 0].double()
    mean = 40_000 / 780
    assert len(counts) == 780
    # The sum of squares of 779 degrees of freedom, within four of its standard deviations.
    assert abs(float(((counts - mean) ** 2 / mean).sum()) - 779) < 4 * (2 * 779) ** 0.5


def test_jittered_has_one_position_in_each_block(generator):
    found = positions((12, 8), by="jittered", budget=24, n_arrays=50, generator=generator)
    block = torch.div(found.positions, torch.tensor([2, 2]), rounding_mode="floor")
    assert (block[..., 0] * 4 + block[..., 1] == torch.arange(24)).all()
    assert found.positions.unique(dim=0).shape[0] > 40


def test_huge_arrays_need_no_memory(generator):
    for by in PLACERS:
        found = place((2**20,) * 3, by, OPTIONS[by], budget=1000, generator=generator)
        assert found.positions.shape[1] <= 1000
        assert found.positions.amax() > 2**19


def test_the_same_seed_gives_the_same_positions():
    def draw(by):
        seed = torch.Generator().manual_seed(3)
        return place((50, 40), by, OPTIONS[by], budget=30, generator=seed)

    for by in PLACERS:
        assert (draw(by).positions == draw(by).positions).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "got 0 for shape"),
        ({"budget": 36}, "1 to 35 entries"),
        ({"budget": 0.0}, "got 0.0"),
        ({"budget": 1.5}, "got 1.5"),
        ({"budget": 1e-3}, "at least one entry"),
        ({"budget": float("nan")}, "got nan"),
        ({"by": "cross"}, "`by` out of 'grid'"),
        ({"by": "random", "generator": None}, "needs a generator"),
        ({"phase": "random", "generator": None}, "needs a generator"),
        ({"phase": 1.0}, "0 to below 1"),
        ({"phase": "left"}, "got 'left'"),
        ({"shape": (5, 0)}, "every size"),
        ({"shape": ()}, "at least one axis"),
        ({"n_arrays": 0}, "n_arrays >= 1"),
    ],
)
def test_bad_input_gets_one_clear_error(change, message, generator):
    arguments = {"shape": (5, 7), "by": "grid", "budget": 5, "generator": generator, **change}
    with pytest.raises(ValueError, match=message):
        positions(arguments.pop("shape"), **arguments)


@pytest.mark.parametrize("budget", [True, "1%", None])
def test_a_budget_is_a_number(budget):
    with pytest.raises(TypeError, match="an int"):
        positions((5, 7), budget=budget)
