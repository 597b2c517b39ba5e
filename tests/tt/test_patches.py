import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import pad
from torch.testing import assert_close

from cpic.tt import Quantics, TensorTrain, tt_svd
from tests.tt.test_train import random_train

ORDERS = ["sequential", "interleaved"]


def cut(dense, centers, width, channels):
    """Windows of padded dense arrays, one by one."""
    n_axes = centers.shape[-1]
    margin = width + 3
    wide = pad(dense, [0, 0] * (channels > 1) + [margin] * 2 * n_axes)
    windows = [
        wide[(k, *(slice(c + margin - width // 2, c + margin - width // 2 + width) for c in at))]
        for k, row in enumerate(centers.tolist())
        for at in row
    ]
    return torch.stack(windows).unflatten(0, centers.shape[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("shape", "channels", "base", "width"),
    [
        ((8, 8), 1, 2, 3),
        ((5, 6), 1, 2, 5),
        ((5, 3, 6), 4, 4, 3),
        ((5, 1, 7), 3, 8, 2),
        ((9,), 1, 4, 1),
        ((1, 1), 1, 2, 3),
        ((1, 1), 2, 2, 3),
    ],
)
def test_equal_to_cutting_the_full_array(generator, shape, channels, base, width, order, dtype):
    grid = Quantics(shape, channels=channels, order=order, base=base)
    train = random_train(generator, grid.sizes, 3, 2, dtype)  # not zero in the padding
    columns = [torch.randint(-2, size + 2, (2, 9), generator=generator) for size in shape]
    centers = torch.stack(columns, -1)
    got = grid.patches(train, centers, width=width)
    assert got.dtype == dtype
    slack = 1e-4 if dtype == torch.float32 else 1e-9
    want = cut(grid.join(train.full()), centers, width, channels)
    assert_close(got, want, atol=slack, rtol=slack)


@pytest.mark.parametrize("order", ORDERS)
def test_pieces_and_empty_requests(generator, order, monkeypatch):
    grid = Quantics((16, 16), order=order)
    train = random_train(generator, grid.sizes, 3, 2)
    centers = torch.randint(16, (2, 30, 2), generator=generator)
    whole = grid.patches(train, centers, width=3)
    assert grid.patches(train, centers[:, :0], width=3).shape == (2, 0, 3, 3)
    monkeypatch.setattr("cpic.tt._patches._PIECE", 700)
    assert_close(grid.patches(train, centers, width=3), whole)


@pytest.mark.parametrize("order", ORDERS)
def test_differentiable(generator, order):
    grid = Quantics((3, 4), order=order)
    train = random_train(generator, grid.sizes, 2, 2)
    centers = torch.tensor([[[0, 0], [1, 2]], [[2, 3], [1, 2]]])
    cores = [core.clone().requires_grad_() for core in train.cores]
    assert gradcheck(lambda *c: grid.patches(TensorTrain(c), centers, width=2), cores)


@pytest.mark.parametrize("order", ORDERS)
def test_a_grid_too_large_to_hold(generator, order):
    # x + y + z has rank two in every order, and its windows are known.
    grid = Quantics((8192, 8192, 8192), order=order)
    ones = torch.ones(1, 1, 2, 1, dtype=torch.float64)
    total = None
    for site in range(grid.n_sites):
        sites = torch.zeros(1, 1, grid.n_sites, dtype=torch.int64)
        sites[..., site] = 1
        weight = grid.coords(sites).sum().item()
        cores = [ones] * grid.n_sites
        cores[site] = torch.tensor([0.0, weight], dtype=torch.float64).view(1, 1, 2, 1)
        term = TensorTrain(cores)
        total = term if total is None else (total + term).round()
    assert max(total.ranks) == 2
    centers = torch.tensor([[[8000, 17, 4095], [1, 1, 8190]]])
    got = grid.patches(total, centers, width=3)
    step = torch.arange(-1, 2)
    want = centers.sum(-1)[..., None, None, None] + step[:, None, None] + step[:, None] + step
    assert_close(got, want.double(), rtol=1e-9, atol=1e-6)


def test_reads_a_compressed_image(generator):
    grid = Quantics((12, 20))
    image = torch.rand(1, 12, 20, generator=generator, dtype=torch.float64)
    centers = torch.tensor([[[3, 4], [11, 19]]])
    got = grid.patches(tt_svd(grid.split(image)), centers, width=5)
    assert_close(got, cut(image, centers, 5, 1))


@pytest.mark.parametrize(
    ("sizes", "centers", "width", "message"),
    [
        ((2, 2, 2), torch.zeros(1, 3, 2).long(), 3, r"sizes \(2, 2, 2, 2\), got \(2, 2, 2\).*same"),
        ((2,) * 4, torch.zeros(1, 3, 2), 3, r"int64 centers.*float32"),
        ((2,) * 4, torch.zeros(1, 3, 3).long(), 3, r"\(1, n, 2\).*\(1, 3, 3\).*one row"),
        ((2,) * 4, torch.zeros(3, 2).long(), 3, r"\(1, n, 2\).*\(3, 2\)"),
        ((2,) * 4, torch.zeros(1, 3, 2).long(), 0, r"width >= 1.*got 0"),
    ],
)
def test_rejects(generator, sizes, centers, width, message):
    with pytest.raises(ValueError, match=message):
        Quantics((4, 4)).patches(random_train(generator, sizes, 2, 1), centers, width=width)
