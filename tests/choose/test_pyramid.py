"""Positions by the levels of a pyramid: what is read, and means that are unbiased."""

import pytest
import torch

from cpic import tt
from cpic.choose import choose

SHAPE = (48, 32)


def pyramid(array, *blocks):
    return [torch.nn.functional.avg_pool2d(array, block) for block in blocks]


def read(array, levels, budget=120, seed=0, **options):
    return choose(
        tt.dense_entries(array) if isinstance(array, torch.Tensor) else array,
        SHAPE,
        by="pyramid",
        budget=budget,
        n_arrays=2,
        generator=torch.Generator().manual_seed(seed),
        levels=levels,
        **options,
    )


@pytest.fixture
def needles():
    """Two arrays with 3 x 3 entries of one each."""
    array = torch.zeros(2, *SHAPE, dtype=torch.float64)
    array[0, 21:24, 9:12] = array[1, 40:43, 28:31] = 1.0
    return array


@pytest.mark.parametrize("blocks", [(4,), (4, 8), (2, 8), (2, 4, 8), (1, 2, 4, 8)])
def test_what_is_rare_is_found(needles, blocks):
    got = read(needles, pyramid(needles, *blocks), score=lambda x: x)
    assert (got.asked <= 120).all()
    assert (got.values == 1).any(1).all()
    torch.testing.assert_close(got.mean(), needles.flatten(1).mean(1), rtol=0.35, atol=0)


def test_a_finer_level_lowers_the_variance(needles):
    spread = [
        torch.stack([
            read(needles, pyramid(needles, *blocks), seed=seed).mean() for seed in range(30)
        ]).std(0)
        for blocks in [(8,), (4, 8)]
    ]  # fmt: skip
    assert (spread[1] < 0.6 * spread[0]).all()


def test_only_the_best_blocks_of_finer_levels_are_read(needles):
    seen = []

    def fine(indices):
        seen.append(indices)
        return tt.dense_entries(pyramid(needles, 4)[0])(indices)

    coarse = pyramid(needles, 8)[0]
    got = read(needles, [(fine, (12, 8)), coarse], coarse=0.3)
    (cells,) = seen
    assert got.beside == 24 + cells.shape[1]
    assert cells.shape[1] == 0.3 * (120 - 24) // 4 * 4
    for where, rows in zip(((23, 10), (41, 29)), cells, strict=True):
        assert (rows == torch.tensor(where) // 4).all(1).any()
        assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.parametrize("score", [None, lambda x: (x - 0.4).relu()])
@pytest.mark.parametrize("blocks", [(8,), (2, 4, 8)])
def test_the_mean_is_unbiased_whatever_the_levels_say(score, blocks, generator):
    """10 000 draws; the levels are those of another array."""
    n = 10_000
    array, other = torch.rand(2, *SHAPE, generator=generator, dtype=torch.float64) ** 3
    levels = [x.expand(n, -1, -1) for x in pyramid(other[None], *blocks)]
    options = {"score": score} if score else {}
    got = choose(
        lambda i: array[i.unbind(-1)],
        SHAPE,
        by="pyramid",
        budget=48,
        n_arrays=n,
        generator=generator,
        levels=levels,
        mix=0.3,
        **options,
    )
    estimate = got.mean()
    assert estimate.std() > 0
    assert abs(float((estimate.mean() - array.mean()) / (estimate.std() / n**0.5))) < 4


def test_levels_of_a_constant_leave_uniform_positions():
    array = torch.full((2, *SHAPE), 3.0)
    got = read(array, pyramid(array, 4, 8))
    assert got.weights is not None
    torch.testing.assert_close(got.weights, torch.full_like(got.weights, 1 / got.weights.shape[1]))
    torch.testing.assert_close(got.mean(), torch.full((2,), 3.0))


def test_blocks_need_not_divide_the_array():
    """Blocks of unequal widths have exact weights, too."""
    levels = [torch.rand(4000, 9, 6), torch.rand(4000, 3, 2)]
    array = torch.rand(10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) ** 3
    draw = torch.Generator().manual_seed(0)
    got = choose(lambda i: array[i.unbind(-1)], (10, 7), by="pyramid", budget=30, n_arrays=4000,
                 generator=draw, levels=levels)  # fmt: skip
    error = got.mean() - array.mean()
    assert abs(float(error.mean() / error.std() * 4000**0.5)) < 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": []}, "needs levels"),
        ({"levels": [torch.ones(3, 6, 4)]}, "needs levels of 2 arrays"),
        ({"levels": [torch.ones(2, 6)]}, "needs levels"),
        ({"levels": [torch.ones(2, 49, 4)]}, "needs levels"),
        ({"levels": [torch.ones(2, 6, 4), torch.ones(2, 4, 4)]}, "multiples"),
        ({"levels": [torch.ones(2, 6, 4), torch.ones(2, 12, 8)]}, "the finest first"),
        ({"levels": [torch.ones(2, 24, 16)]}, "above the 384 numbers"),
        ({"levels": [torch.full((2, 6, 4), torch.nan)]}, "NaN|finite"),
        ({"score": lambda x: x - 2}, "score of finite numbers of at least 0"),
        ({"score": lambda x: x.sum(1)}, "score of finite numbers"),
        ({"coarse": 1.0}, "`coarse` needs a share"),
        ({"mix": 0.0}, "mix above 0"),
    ],
)
def test_bad_input_gets_one_clear_error(change, message):
    options = {"levels": [torch.ones(2, 6, 4)], **change}
    with pytest.raises(ValueError, match=message):
        read(torch.ones(2, *SHAPE), **options)
