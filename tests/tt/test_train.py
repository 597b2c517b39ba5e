import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from cpic.tt import TensorTrain, dense_entries
from cpic.tt._entries import known_inside

CASES = [((4, 5, 6, 2), 3, 3), ((7,), 1, 2), ((1, 4, 1), 2, 3), ((2,) * 8, 4, 1), ((3, 4), 2, 0)]
DTYPES = [torch.float32, torch.float64]


def random_train(generator, sizes, rank, trains, dtype=torch.float64):
    ranks = [1, *[rank] * (len(sizes) - 1), 1]
    return TensorTrain(
        [
            torch.randn(trains, ranks[k], size, ranks[k + 1], generator=generator, dtype=dtype)
            for k, size in enumerate(sizes)
        ]
    )


def by_hand(train):
    """The definition, one entry at a time."""
    dense = torch.empty(train.n_trains, *train.sizes, dtype=train.dtype)
    for k in range(train.n_trains):
        for index in torch.cartesian_prod(*(torch.arange(s) for s in (*train.sizes, 1)))[:, :-1]:
            product = torch.ones(1, 1, dtype=train.dtype)
            for core, i in zip(train.cores, index.tolist(), strict=True):
                product = product @ core[k, :, i]
            dense[(k, *index.tolist())] = product.squeeze()
    return dense


def test_full_is_the_definition(generator):
    for sizes, rank, trains in CASES:
        train = random_train(generator, sizes, rank, trains)
        assert_close(train.full(), by_hand(train))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sizes", "rank", "trains"), CASES)
def test_operations_equal_their_dense_twins(generator, sizes, rank, trains, dtype):
    a = random_train(generator, sizes, rank, trains, dtype)
    b = random_train(generator, sizes, rank + 1, trains, dtype)
    A, B = a.full(), b.full()
    each = torch.randn(trains, generator=generator, dtype=dtype)
    weight = each.view(-1, *[1] * len(sizes))
    slack = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {}  # sums of products
    for got, want in [
        (a + b, A + B),
        (a - b, A - B),
        (a * b, A * B),
        (a * 3, 3 * A),
        (2 * a, 2 * A),
        (a / 4, A / 4),
        (-a, -A),
        (a + 2, A + 2),
        (1 - a, 1 - A),
        (a * each, A * weight),
        (a + each, A + weight),
        (a.scale(each), A * weight),
    ]:
        assert got.dtype == dtype
        assert_close(got.full(), want, **slack)
    assert_close(a.inner(b), (A * B).flatten(1).sum(1), **slack)
    assert_close(a.norm(), A.flatten(1).norm(dim=1), **slack)


@pytest.mark.parametrize(("sizes", "rank", "trains"), CASES)
def test_entries_slices_and_concatenation(generator, sizes, rank, trains):
    train = random_train(generator, sizes, rank, trains)
    dense = train.full()
    columns = [torch.randint(s, (trains, 40), generator=generator) for s in sizes]
    indices = torch.stack(columns, -1)
    assert_close(train.entries(indices), dense_entries(dense)(indices))
    assert train.entries(indices[:, :0]).shape == (trains, 0)
    if trains:
        assert_close(train.concatenate().full(), dense.unsqueeze(0))
        assert_close(train[-1].full(), dense[-1:])
    for site in range(len(sizes) if len(sizes) > 1 else 0):
        last = sizes[site] - 1
        assert_close(train.slice(site, last).full(), dense.select(site + 1, last))


def test_one_index_a_train(generator):
    train = random_train(generator, (4, 5, 6), 3, 3)
    got = train.slice(1, torch.tensor([4, 0, 2])).full()
    assert_close(got, train.full()[torch.arange(3), :, torch.tensor([4, 0, 2])])


def test_pieces_change_nothing(generator, monkeypatch):
    train = random_train(generator, (9, 2, 5), 3, 2)
    indices = torch.randint(2, (2, 50, 3), generator=generator)
    whole = train.entries(indices)
    monkeypatch.setattr("cpic.tt._contract._PIECE", 100)
    assert_close(train.entries(indices), whole)


def test_norm_keeps_its_digits_where_trains_cancel(generator):
    train = random_train(generator, (6, 6, 6), 3, 2)
    other = train.scale(1 + 1e-12)
    assert_close(
        (train - other).norm() / train.norm(), torch.full((2,), 1e-12).double(), rtol=1e-2, atol=0
    )


def test_differentiable(generator):
    train = random_train(generator, (3, 2, 4), 2, 2)
    other = random_train(generator, (3, 2, 4), 2, 2)
    indices = torch.randint(2, (2, 5, 3), generator=generator)
    cores = [core.clone().requires_grad_() for core in train.cores]
    for read in (
        lambda t: t.full(),
        lambda t: t.entries(indices),
        lambda t: t.inner(other),
        lambda t: t.norm(),
        lambda t: t.slice(1, 0).full(),
        lambda t: (t * other + t).concatenate().full(),
    ):
        assert gradcheck(lambda *c, read=read: read(TensorTrain(c)), cores)
    zero = TensorTrain([torch.zeros(1, 1, 3, 1, requires_grad=True)])
    (slope,) = torch.autograd.grad(zero.norm().sum(), zero.cores)
    assert (slope == 0).all()


def test_non_contiguous_cores(generator):
    cores = [torch.randn(2, 4, 5, 3, generator=generator).permute(3, 0, 1, 2)[:, :1, :, :1]]
    assert_close(TensorTrain(cores).full(), cores[0][:, 0, :, 0])


def test_facts(generator):
    train = random_train(generator, (4, 5, 6), 3, 2)
    assert train.ranks == (1, 3, 3, 1)
    assert (train.n_trains, train.n_sites, len(train)) == (2, 3, 2)
    assert train.memory() == 8 * 2 * (12 + 45 + 18)
    assert train.to(torch.float32).dtype == torch.float32
    assert train[[1, 0, 1]].n_trains == 3
    live = TensorTrain([core.requires_grad_() for core in train.cores])
    assert not live.detach().cores[0].requires_grad


def test_repr_draws_every_site(generator):
    drawn = repr(random_train(generator, (2,) * 42, 10, 2))
    assert drawn.count("o--") + drawn.count("o ...") + 1 >= 42
    assert drawn.count("|") == 42
    assert max(map(len, drawn.splitlines())) <= 100
    assert repr(random_train(generator, (256, 7), 3, 1)).splitlines()[1:] == [
        "  256     7",
        "   |      |",
        "   o---3--o",
    ]


def one(*shape, **options):
    return torch.ones(*shape, **options)


@pytest.mark.parametrize(
    ("cores", "error", "message"),
    [
        ([], ValueError, r"at least one core.*pass one per site"),
        ([one(1, 3, 1)], ValueError, r"\(K, l, size, r\).*\(1, 3, 1\) at site 0.*unsqueeze"),
        ([one(1, 1, 0, 1)], ValueError, r"empty axes.*\(1, 1, 0, 1\)"),
        ([one(1, 1, 3, 2), one(1, 3, 3, 1)], ValueError, r"agree.*\(1, 3, 2\), \(3, 3, 1\).*pad"),
        ([one(1, 1, 3, 2)], ValueError, r"1 at both ends.*pad"),
        ([one(1, 1, 3, 1), one(2, 1, 3, 1)], ValueError, r"2 trains.*site 1.*1 on.*stack"),
        ([one(1, 1, 3, 1).long()], TypeError, r"int64 at site 0.*to\(dtype\)"),
        ([one(1, 1, 3, 1), one(1, 1, 3, 1).double()], TypeError, r"float64 at site 1.*cast"),
    ],
)
def test_rejects_cores(cores, error, message):
    with pytest.raises(error, match=message):
        TensorTrain(cores)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda t: t + t[:1], ValueError, r"\(2, 3, 4\) and \(1, 3, 4\).*repeat"),
        (lambda t: t.full(max_entries=23), ValueError, r"at most 23 entries, got 24.*slice"),
        (lambda t: t.slice(2, 0), IndexError, r"0 to 1, got 2.*n_sites"),
        (lambda t: t.slice(1, 4), IndexError, r"0 to 3 at site 1, got 4"),
        (lambda t: t.slice(0, 0).slice(0, 0), ValueError, r"two sites.*entries"),
        (lambda t: t.scale(torch.ones(3)), ValueError, r"shape \(2,\).*\(3,\).*one factor"),
        (lambda t: t[2], IndexError, r"2 trains has no train 2"),
        (lambda t: t[[]].concatenate(), ValueError, r"at least one train, got 0"),
        (lambda t: t.entries(one(2, 5, 2)), ValueError, r"int64.*\(2, n, 2\).*float32"),
        (lambda t: t.entries(one(1, 5, 2).long()), ValueError, r"got torch.int64 of shape \(1, 5"),
        (lambda t: t.entries(4 * one(2, 5, 2).long()), IndexError, r"\(3, 4\), got 4 to 4.*clamp"),
        (lambda t: t.entries(-one(2, 5, 2).long()), IndexError, r"got -1 to -1.*clamp"),
    ],
)
def test_rejects_uses(generator, use, error, message):
    with pytest.raises(error, match=message):
        use(random_train(generator, (3, 4), 2, 2))


def test_dense_entries_reject_a_vector():
    with pytest.raises(ValueError, match=r"\(5,\).*unsqueeze"):
        dense_entries(torch.ones(5))


def test_a_mark_of_checked_indices_ends_when_they_are_written_to():
    train = TensorTrain([torch.ones(1, 1, 2, 1), torch.ones(1, 1, 2, 1)])
    indices = known_inside(torch.zeros(1, 3, 2, dtype=torch.int64), (2, 2))
    train.entries(indices)
    indices[0, 0, 0] = 2
    with pytest.raises(IndexError, match="got 0 to 2"):
        train.entries(indices)
    other = known_inside(torch.full((1, 3, 2), 2), (3, 3))
    with pytest.raises(IndexError, match="got 2 to 2"):
        train.entries(other)
