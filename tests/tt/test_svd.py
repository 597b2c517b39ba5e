import pytest
import torch
from torch.testing import assert_close

from cpic.tt import tt_svd
from tests.tt.test_train import random_train


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sizes", "rank"), [((6, 5, 4, 3), 2), ((2,) * 10, 3), ((40, 3, 2), 2)])
def test_recovers_the_exact_rank(generator, dtype, sizes, rank):
    train = random_train(generator, sizes, rank, 3, dtype)
    dense = train.full()
    found = tt_svd(dense, tol=1e-4)
    assert max(found.ranks) <= rank
    assert_close(found.full(), dense, rtol=1e-3, atol=1e-3)
    for core in found.cores[:-1]:
        matrix = core.flatten(1, 2)
        gram = matrix.mT @ matrix
        assert_close(
            gram, torch.diag_embed(gram.diagonal(dim1=1, dim2=2)).round(), atol=1e-5, rtol=0
        )


def test_by_rank_is_nearly_optimal(generator):
    dense = torch.randn(2, 6, 7, 8, generator=generator, dtype=torch.float64)
    found = tt_svd(dense, max_rank=3)
    assert found.ranks == (1, 3, 3, 1)
    tails = [
        torch.linalg.svdvals(dense.flatten(1, k).flatten(2))[:, 3:].square().sum(-1) for k in (1, 2)
    ]
    error = (found.full() - dense).flatten(1).square().sum(-1)
    assert (error <= tails[0] + tails[1]).all()
    assert (error >= torch.maximum(*tails) * (1 - 1e-9)).all()


def test_batch_equals_loop(generator):
    dense = torch.randn(3, 4, 5, 6, generator=generator, dtype=torch.float64)
    together = tt_svd(dense, tol=0.3).full()
    for k in range(3):
        assert_close(together[k : k + 1], tt_svd(dense[k : k + 1], tol=0.3).full())


@pytest.mark.parametrize("shape", [(2, 5), (2, 1, 4, 1), (0, 3, 4), (1, 1)])
def test_edges(generator, shape):
    dense = torch.randn(*shape, generator=generator).mT.contiguous().mT  # strided as it comes
    assert_close(tt_svd(dense).full(), dense)
    assert set(tt_svd(torch.zeros(shape)).ranks) == {1}


@pytest.mark.parametrize(
    ("tensor", "options", "error", "message"),
    [
        (torch.ones(3), {}, ValueError, r"\(3,\).*unsqueeze"),
        (torch.ones(1, 0, 2), {}, ValueError, r"empty axes.*\(1, 0, 2\)"),
        (torch.ones(1, 2, 2).long(), {}, TypeError, r"int64; cast"),
        (torch.full((1, 2, 2), torch.inf), {}, ValueError, r"finite.*nan_to_num"),
        (torch.ones(1, 2, 2), {"tol": -0.1}, ValueError, r"tol >= 0.*-0\.1"),
        (torch.ones(1, 2, 2), {"max_rank": 0}, ValueError, r"max_rank >= 1.*got 0"),
    ],
)
def test_rejects(tensor, options, error, message):
    with pytest.raises(error, match=message):
        tt_svd(tensor, **options)
