import pytest
import torch
from torch.testing import assert_close

from cpic.tt import TensorTrain, tt_svd
from tests.tt.test_train import random_train

METHODS = ["qr", "gram"]
SIZES = (4, 5, 6, 3)


def relative(train, dense):
    return (train.full() - dense).flatten(1).norm(dim=1) / dense.flatten(1).norm(dim=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recovers_the_exact_rank(generator, dtype, method):
    train = random_train(generator, SIZES, 2, 3, dtype)
    tripled = (train + train + train).round(1e-3 if dtype == torch.float32 else 1e-6, method=method)
    assert tripled.ranks == (1, 2, 2, 2, 1)
    assert tripled.dtype == dtype
    assert_close(tripled.full(), 3 * train.full(), rtol=1e-3, atol=1e-3)  # float32 Gram: half


def test_zero_tolerance_drops_only_rounding(generator):
    train = random_train(generator, SIZES, 3, 4)
    rounded = (train + train).round()
    assert rounded.ranks == train.round().ranks
    assert_close(rounded.full(), 2 * train.full())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-2, 1e-3])
def test_keeps_the_tolerance_for_each_train(generator, method, tol):
    noise = torch.randn(4, *SIZES, generator=generator, dtype=torch.float64)
    smooth = random_train(generator, SIZES, 1, 4).full()
    dense = smooth + noise * torch.tensor([0.0, 0.01, 0.1, 1.0]).view(4, 1, 1, 1, 1)
    for rounded in (tt_svd(dense).round(tol, method=method), tt_svd(dense, tol=tol)):
        assert (relative(rounded, dense) <= tol * (1 + 1e-6)).all()


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_loop_and_pads_with_zeros(generator, method):
    sharp, flat = (random_train(generator, SIZES, rank, 1) for rank in (3, 1))
    flat = flat + flat + flat
    pair = TensorTrain([torch.cat(cores) for cores in zip(sharp.cores, flat.cores, strict=True)])
    rounded = pair.round(1e-5, method=method)
    assert rounded.ranks == (1, 3, 3, 3, 1)
    assert flat.round(1e-5, method=method).ranks == (1, 1, 1, 1, 1)
    assert_close(rounded[:1].full(), sharp.round(1e-5, method=method).full())
    assert (rounded.cores[1][1, 1:].norm() == 0) | (rounded.cores[0][1, ..., 1:].norm() == 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_cap_is_kept(generator, method):
    train = random_train(generator, SIZES, 3, 2)
    assert train.round(max_rank=2, method=method).ranks == (1, 2, 2, 2, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("sizes", "trains"), [((5,), 2), ((1, 4, 1), 2), ((3, 4), 0)])
def test_edges(generator, method, sizes, trains):
    train = random_train(generator, sizes, 2 if len(sizes) > 1 else 1, trains)
    assert_close(train.round(method=method).full(), train.full(), atol=1e-6, rtol=1e-6)
    zero = train.scale(0.0).round(0.1, method=method)
    assert set(zero.ranks) == {1}
    assert (zero.full() == 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": -1.0}, r"tol >= 0.*-1\.0"),
        ({"max_rank": 0}, r"max_rank >= 1.*got 0.*None"),
        ({"method": "svd"}, r"'svd'.*accurate"),
    ],
)
def test_rejects(generator, options, message):
    with pytest.raises(ValueError, match=message):
        random_train(generator, SIZES, 2, 1).round(**options)


def test_rejects_nan(generator):
    with pytest.raises(ValueError, match=r"finite cores.*check how the train was made"):
        random_train(generator, SIZES, 2, 1).scale(torch.nan).round()
