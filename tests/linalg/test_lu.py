import pytest
import torch
from torch.testing import assert_close

from cpic.linalg import rank_revealing_lu

SEARCHES = ["full", "rook"]


def low_rank(generator, rank, *, b=3, m=30, n=25, dtype=torch.float64):
    left = torch.randn(b, m, rank, generator=generator, dtype=dtype)
    return left @ torch.randn(b, rank, n, generator=generator, dtype=dtype)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("rank", [0, 1, 4, 25])
def test_finds_the_rank_and_rebuilds(generator, search, rank):
    matrix = low_rank(generator, rank)
    found = rank_revealing_lu(matrix, search=search, generator=generator)
    assert found.rank.tolist() == [rank] * 3
    assert_close(found.left @ found.right, matrix)
    assert (found.residual <= 1e-11).all()


@pytest.mark.parametrize("search", SEARCHES)
def test_exact_in_chosen_rows_and_columns(generator, search):
    matrix = torch.randn(4, 20, 15, generator=generator)
    found = rank_revealing_lu(matrix, max_rank=6, search=search, generator=generator)
    error = (matrix - found.left @ found.right).abs()
    each = torch.arange(4).unsqueeze(1)
    assert error[each, found.rows].max() < 1e-4  # float32 after six eliminations
    assert error[each, :, found.cols].max() < 1e-4
    assert_close(found.residual, error.amax((-2, -1)))
    minor = matrix[each.unsqueeze(-1), found.rows.unsqueeze(-1), found.cols.unsqueeze(-2)]
    assert_close(torch.linalg.det(minor).abs(), found.pivots.prod(-1).abs(), rtol=1e-3, atol=0)


def test_full_search_takes_the_largest_entries(generator):
    matrix = torch.diag(torch.tensor([3.0, 9.0, 1.0, 5.0]))
    found = rank_revealing_lu(matrix)
    assert found.pivots.tolist() == [9.0, 5.0, 3.0, 1.0]
    assert found.rows.tolist() == [1, 3, 0, 2]
    assert rank_revealing_lu(matrix, tol=0.4).rank == 2
    assert rank_revealing_lu(matrix, tol=0.4).residual == 3.0


def test_rook_pivots_are_largest_in_row_and_column(generator):
    matrix = torch.randn(60, 40, 30, generator=generator)  # a few would pass by luck
    found = rank_revealing_lu(matrix, max_rank=1, search="rook", generator=generator)
    each = torch.arange(60)
    size = found.pivots[:, 0].abs()
    assert_close(matrix[each, found.rows[:, 0]].abs().amax(-1), size)
    assert_close(matrix[each, :, found.cols[:, 0]].abs().amax(-1), size)


def test_unequal_ranks_are_padded(generator):
    matrix = torch.stack([low_rank(generator, rank, b=1)[0] for rank in (2, 0, 5)])
    found = rank_revealing_lu(matrix)
    assert found.rank.tolist() == [2, 0, 5]
    assert (found.rows[0] >= 0).tolist() == [True, True, False, False, False]
    assert_close(found.left @ found.right, matrix)
    for k in range(3):
        alone = rank_revealing_lu(matrix[k])
        assert torch.equal(alone.rows, found.rows[k, : alone.rank])


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (4, 0), (2, 3, 4, 5)])
def test_shapes(shape):
    found = rank_revealing_lu(torch.ones(shape))
    assert found.left.shape[:-1] == shape[:-1]
    assert found.rank.shape == shape[:-2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rank": 0}, r"max_rank >= 1.*got 0.*None"),
        ({"tol": -1.0}, r"tol >= 0.*-1\.0"),
        ({"search": "some"}, "'some'.*full"),
        ({"search": "rook"}, "generator.*None.*manual_seed"),
    ],
)
def test_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        rank_revealing_lu(torch.eye(3), **options)


def test_rejects_nan():
    with pytest.raises(ValueError, match=r"finite.*NaN.*nan_to_num"):
        rank_revealing_lu(torch.full((3, 3), torch.nan))
