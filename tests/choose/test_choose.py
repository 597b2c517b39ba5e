"""Choosers that read arrays: budgets, pictures, weights, and what each is exact on."""

import math

import pytest
import torch

from cpic import tt
from cpic.choose import CHOOSERS, choose
from cpic.tt._points import all_points

SHAPES = [(90, 50), (20, 18, 12)]
CASES = [(by, {}) for by in CHOOSERS if by not in ("importance", "pyramid")]
CASES += [("importance", {"map": "coarse"}), ("pyramid", {"levels": (2,)})]
CASES += [("cross-square", {"bits": "interleaved"})]
CASES += [("cross-least-squares", {"bits": "sequential", "base": 4})]
CASES += [("grid", {"phase": "random"}), ("random", {"rule": "nearest"})]
NAMES = [by + "-".join(map(str, options)) for by, options in CASES]
# What goes through every value that it read.
THROUGH = ["grid", "random", "jittered", "low-discrepancy", "importance", "coarse-to-fine"]


def smooth(shape, k=2):
    axes = [torch.linspace(0, 1, n, dtype=torch.float64) for n in shape]
    total = torch.stack(torch.meshgrid(*axes, indexing="ij")).sum(0)
    return torch.stack([(3 * total + 0.7 * j).sin() + 0.2 * total.cos() for j in range(k)])


def pooled(array, block):
    """Means over blocks of a batch `(K, *shape)` whose sizes are multiples of `block`."""
    for axis in range(1, array.ndim):
        array = array.unflatten(axis, (-1, block)).mean(axis + 1)
    return array


def found(by, options, array, budget, seed=0):
    shape, k = array.shape[1:], len(array)
    if options.get("map") == "coarse":
        options = options | {"map": torch.ones([math.ceil(n / 5) for n in shape]).cumsum(0)}
    if "levels" in options:
        options = options | {"levels": [pooled(array, block) for block in options["levels"]]}
    return choose(
        tt.dense_entries(array),
        shape,
        by=by,
        budget=budget,
        n_arrays=k,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("by", "options"), CASES, ids=NAMES)
def test_no_more_is_read_than_the_budget(by, options, shape):
    array = smooth(shape)
    for budget in (0.35, 4000):
        got = found(by, options, array, budget)
        most = budget if isinstance(budget, int) else budget * math.prod(shape)
        bound = math.prod(shape) if by == "tt-svd" else most
        assert (got.asked <= bound).all()
        assert (got.asked > bound / 6).all()
        distinct = [len(rows.unique(dim=0)) for rows in got.positions]
        assert distinct == (got.asked - got.beside).tolist()
        seen = tt.dense_entries(array)(got.positions)
        torch.testing.assert_close(got.values, seen)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("by", "options"), CASES, ids=NAMES)
def test_the_picture_is_the_same_whole_and_by_entries(by, options, shape, generator):
    got = found(by, options, smooth(shape), 0.4)
    points = all_points(shape).expand(2, -1, -1)
    dense = got.dense()
    assert dense.shape == (2, *shape)
    torch.testing.assert_close(got.entries(points), dense.flatten(1))
    if by in THROUGH:
        torch.testing.assert_close(got.entries(got.positions), got.values)
    torch.testing.assert_close(got.picture.mean(), dense.flatten(1).mean(1), atol=1e-3, rtol=0)
    if "bits" not in options:  # the padding is a jump
        truth = smooth(shape)
        most = 0.3 if by == "pyramid" else 0.2  # whose positions are where values are large
        assert (dense - truth).norm() < most * truth.norm()
        torch.testing.assert_close(got.mean(), truth.flatten(1).mean(1), atol=0.1, rtol=0)


@pytest.mark.parametrize("by", ["grid", "random", "jittered", "coarse-to-fine"])
def test_everything_read_is_everything_known(by):
    array = smooth((9, 8)).float()
    got = found(by, {}, array, 1.0)
    assert (got.asked == 72).all()
    torch.testing.assert_close(got.dense(), array)
    assert got.dense().dtype == got.mean().dtype == got.entries(got.positions).dtype == array.dtype
    torch.testing.assert_close(got.mean(), array.flatten(1).mean(1))


@pytest.mark.parametrize("by", ["grid", "coarse-to-fine", "grid+cross"])
def test_multilinear_arrays_are_rebuilt_exactly(by):
    x, y, z = torch.meshgrid(*(torch.arange(n).double() for n in (25, 21, 18)), indexing="ij")
    array = ((1 + x) * (2 - y) * (3 + z))[None]
    phase = {} if by == "coarse-to-fine" else {"phase": "ends"}
    got = found(by, phase, array, 0.3)
    torch.testing.assert_close(got.dense(), array)


@pytest.mark.parametrize("order", ["sequential", "interleaved"])
@pytest.mark.parametrize("by", ["cross-square", "cross-least-squares"])
def test_bits_read_few_entries_of_exponentials(by, order):
    grow = torch.linspace(0, 1, 128, dtype=torch.float64).exp()
    array = (grow[:, None] / grow)[None]
    got = found(by, {"bits": order}, array, 0.1)
    torch.testing.assert_close(got.dense(), array)


@pytest.mark.parametrize("by", ["cross-square", "cross-least-squares", "tt-svd"])
def test_low_rank_is_rebuilt_exactly(by, generator):
    a, b, c = (torch.rand(n, 2, generator=generator).double() for n in (24, 20, 17))
    array = torch.einsum("xr,yr,zr->xyz", a, b, c)[None]
    got = found(by, {}, array, 0.5)
    torch.testing.assert_close(got.dense(), array)
    torch.testing.assert_close(got.mean(), array.mean()[None])
    assert got.weights is None


def test_coarse_to_fine_looks_where_something_is():
    """A disk on a ramp: the ramp is followed by straight lines, the edge is halved and halved."""
    x, y = torch.meshgrid(torch.arange(129.0), torch.arange(129.0), indexing="ij")
    radius = ((x - 70) ** 2 + (y - 60) ** 2).sqrt()
    array = (0.01 * x + 0.02 * y + (radius < 30)).double()[None]
    got = found("coarse-to-fine", {"coarse": 0.2}, array, 0.05)
    fine = got.positions[0, int(0.2 * got.positions.shape[1]) :]
    distance = (radius[fine.unbind(-1)] - 30).abs()
    near = (radius - 30).abs() < 8
    assert (distance < 8).double().mean() > 3 * near.double().mean()
    plain = found("grid", {}, array, 0.05)
    error, rival = ((g.dense() - array).norm() for g in (got, plain))
    assert error < 0.5 * rival


def test_a_level_of_a_pyramid_is_read_as_it_is():
    """Means over blocks of three are the values at their centers where an array is linear."""
    x, y = torch.meshgrid(torch.arange(45.0), torch.arange(36.0), indexing="ij")
    linear = ((1 + x) * (2 - y)).double()[None]
    spiked = linear.clone()
    spiked[0, 20, 20] += 1000
    for array in (linear, spiked):
        level = torch.nn.functional.avg_pool2d(array, 3)
        got = found("coarse-to-fine", {"level": level}, array, 500)
        assert 15 * 12 <= int(got.asked) <= 500
        wrong = (got.dense() - array).abs() > 1e-6
        if array is linear:
            assert not wrong.any()
        else:
            near = ((got.positions[0] - 19).abs() <= 2).all(-1)
            assert near.sum() > 4  # of the level only the center is that near
            assert not wrong[0, :15, :15].any()
    refused = {"level": torch.ones(2, 5, 5)}, {"level": torch.ones(1, 46, 5)}
    for options, message in [
        *((o, "needs a level") for o in refused),
        ({"level": level}, "at least"),
    ]:
        with pytest.raises(ValueError, match=message):
            found("coarse-to-fine", options, linear, 200)


def test_coarse_to_fine_has_nothing_to_read_on_a_constant():
    got = found("coarse-to-fine", {}, torch.full((2, 40, 40), 3.0), 0.2)
    assert (got.asked <= 0.05 * 1600).all()
    torch.testing.assert_close(got.dense(), torch.full((2, 40, 40), 3.0))
    assert got.weights is not None
    torch.testing.assert_close(got.weights.sum(1), torch.ones(2).double())


@pytest.mark.parametrize("by", ["grid", "coarse-to-fine"])
def test_arrays_of_a_batch_do_not_know_of_each_other(by, generator):
    rough = torch.rand(3, 30, 40, generator=generator, dtype=torch.float64) ** 4
    rough[1] = 0
    rough[2, :10] = 0
    whole = found(by, {}, rough, 0.2)
    for k in range(3):
        alone = found(by, {}, rough[k : k + 1], 0.2)
        torch.testing.assert_close(alone.dense()[0], whole.dense()[k])
        assert alone.asked[0] == whole.asked[k]


@pytest.mark.parametrize("finest", [1, 2, 5])
def test_finest_is_the_narrowest_interval(finest, generator):
    array = torch.rand(1, 64, 50, generator=generator)  # whose axes end at different steps
    got = found("coarse-to-fine", {"finest": finest, "coarse": 0.02}, array, 0.9)
    torch.testing.assert_close(got.entries(got.positions), got.values)
    gaps = torch.cat([x.unique().diff() for x in got.positions[0].unbind(-1)])
    assert int(gaps.min()) >= max(1, finest // 2)
    assert (finest == 1) == bool(gaps.min() == 1 and got.asked > 0.85 * 64 * 50)


@pytest.mark.parametrize(("by", "options"), [("grid", {}), ("coarse-to-fine", {})])
def test_weights_are_the_mean_of_the_picture(by, options):
    array = smooth((40, 33))
    got = found(by, options, array, 0.2)
    assert got.weights is not None
    torch.testing.assert_close((got.weights * got.values).sum(1), got.dense().flatten(1).mean(1))
    torch.testing.assert_close(got.weights.sum(1), torch.ones(2).double())


@pytest.mark.parametrize("by", ["grid", "coarse-to-fine"])
def test_pictures_are_linear_in_the_values(by):
    array = smooth((40, 33))
    got = found(by, {}, array, 0.2)
    assert got.remake is not None
    other = torch.cos(got.values)
    both = got.remake(2 * got.values + other).dense()
    torch.testing.assert_close(both, 2 * got.dense() + got.remake(other).dense())


@pytest.mark.parametrize("by", ["grid", "coarse-to-fine"])
def test_gradients_reach_the_entries(by, generator):
    array = torch.rand(2, 7, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    mixer = torch.rand(2, 7, 6, generator=generator, dtype=torch.float64)

    def total(array):
        return (found(by, {}, array, 0.5).dense() * mixer).sum()

    assert torch.autograd.gradcheck(total, array)


def test_importance_is_unbiased_where_its_map_is_zero(generator):
    """10 000 draws in one batch, each with the map of its half."""
    n, shape = 10_000, (6, 7)
    array = torch.rand(shape, generator=generator, dtype=torch.float64) ** 3
    maps = torch.zeros(2, 3, 4)
    maps[0, 0, 1], maps[1, 2, 2:] = 5.0, 1.0
    got = choose(
        lambda i: array[i.unbind(-1)],
        shape,
        by="importance",
        budget=8,
        n_arrays=n,
        generator=generator,
        map=maps.repeat(n // 2, 1, 1),
        mix=0.3,
    )
    assert got.weights is not None
    estimate = (got.weights * got.values).sum(1)
    for half in (estimate[0::2], estimate[1::2]):
        error = (half.mean() - array.mean()) / (half.std() / len(half) ** 0.5)
        assert abs(float(error)) < 4
    row, column = got.positions[0::2].unbind(-1)
    inside = (row < 2) & (column >= 1) & (column < 3)
    assert inside.double().mean() > 0.65


def test_importance_lowers_the_variance(generator):
    array = torch.zeros(32, 32, dtype=torch.float64)
    array[4:8, 20:28] = torch.rand(4, 8, generator=generator).double()
    map_ = (array > 0).double()[None].unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2))[0]
    batch = array.expand(500, -1, -1)
    spread = [found(by, o, batch, 64).mean().std() for by, o in
              (("importance", {"map": map_}), ("random", {}), ("jittered", {}))]  # fmt: skip
    assert spread[0] < spread[2] / 2 < spread[1] / 2


def test_the_maximum_is_one_that_was_read():
    array = torch.zeros(2, 40, 40)
    array[0, 8:20, 8:20], array[1, 25:, 30:] = 2.0, 3.0
    peak = found("grid", {}, array, 0.1).maximum()
    assert peak.value.tolist() == [2.0, 3.0]
    assert array[[0, 1], *peak.position.unbind(-1)].tolist() == [2.0, 3.0]


def test_one_array_of_one_entry():
    for by in ("grid", "random", "jittered", "coarse-to-fine"):
        assert found(by, {}, torch.full((1, 1, 1), 4.0), 1).dense().item() == 4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"by": "best"}, "`by` out of 'grid'"),
        ({"budget": 0}, "got 0"),
        ({"budget": 10**6}, "1 to 4500 entries"),
        ({"by": "random", "rule": "cubic"}, "`rule` out of"),
        ({"by": "random", "generator": None}, "generator"),
        ({"by": "cross-square", "generator": None}, "generator"),
        ({"by": "cross-square", "budget": 30}, "more than 30 entries"),
        ({"by": "cross-least-squares", "budget": 30}, "max_entries"),
        ({"by": "cross-square", "shape": (9, 8), "budget": 30}, "read arrays of at most 4096"),
        ({"by": "coarse-to-fine", "coarse": 1.0}, "`coarse` needs a share"),
        ({"by": "coarse-to-fine", "finest": 0}, "finest >= 1"),
        ({"by": "grid+cross", "coarse": 0.0}, "`coarse` needs a share"),
        ({"by": "importance", "map": torch.ones(3, 3), "mix": 0.0}, "mix above 0"),
        ({"by": "importance", "map": torch.zeros(3, 3)}, "only zeros"),
        ({"by": "importance", "map": torch.full((3, 3), torch.nan)}, "got NaN"),
        ({"by": "importance", "map": -torch.ones(3, 3)}, "below 0"),
        ({"by": "importance", "map": torch.ones(3)}, "got shape"),
        ({"by": "importance", "map": torch.ones(91, 3)}, "got shape"),
        ({"by": "importance", "map": torch.ones(3, 3, 3)}, "got shape"),
        ({"by": "cross-square", "rank": 9, "budget": 1500}, "lower the rank"),
        ({"entries": lambda i: i.sum(-1)}, "floating|float32"),
        ({"entries": lambda i: i[..., 0] / 0.0}, "finite"),
        ({"entries": lambda i: i.double()}, "one value for each"),
    ],
)
def test_bad_input_gets_one_clear_error(change, message, generator):
    arguments = {
        "entries": lambda i: i.double().sum(-1),
        "shape": (90, 50),
        "budget": 500,
        "generator": generator,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        choose(arguments.pop("entries"), arguments.pop("shape"), **arguments)


def test_pictures_too_large_for_memory_say_so():
    got = choose(lambda i: i.double().sum(-1), (2**12,) * 3, by="grid", budget=1000)
    assert got.entries(torch.tensor([[[5, 6, 7]]])).shape == (1, 1)
    with pytest.raises(ValueError, match="with `entries`"):
        got.dense()
