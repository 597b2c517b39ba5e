import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from cpic.tt import Quantics, dense_entries

ORDERS = ["sequential", "interleaved"]


@st.composite
def maps(draw, largest=2**20):
    shape = draw(st.lists(st.integers(1, largest), min_size=1, max_size=4))
    return Quantics(
        shape,
        channels=draw(st.sampled_from([1, 1, 2, 3, 16])),
        order=draw(st.sampled_from(ORDERS)),
        base=draw(st.sampled_from([2, 4, 8])),
    )


def draws(sizes, seed, n=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(s, (2, n), generator=generator) for s in sizes], -1)


@settings(deadline=None, max_examples=60)
@given(grid=maps(2**40), seed=st.integers(0, 2**31))
def test_there_and_back(grid, seed):
    sites = draws(grid.sizes, seed)
    coords = grid.coords(sites)
    assert torch.equal(grid.sites(coords), sites)
    assert coords.shape[-1] == len(grid.shape) + (grid.channels > 1)
    assert (coords[..., : len(grid.shape)] < torch.tensor(grid.padded)).all()


@settings(deadline=None, max_examples=60)
@given(grid=maps(8), seed=st.integers(0, 2**31))
def test_split_and_join_are_the_map_of_coordinates(grid, seed):
    generator = torch.Generator().manual_seed(seed)
    modes = grid.shape if grid.channels == 1 else (*grid.shape, grid.channels)
    dense = torch.randn(2, *modes, generator=generator)
    split = grid.split(dense)
    assert split.shape == (2, *grid.sizes)
    assert torch.equal(grid.join(split), dense)
    assert_close(split.norm(), dense.norm())  # nothing but zeros in the padding
    coords = draws(modes, seed)
    assert torch.equal(dense_entries(split)(grid.sites(coords)), dense_entries(dense)(coords))
    sites = draws(grid.sizes, seed)
    asked = grid.entries(dense_entries(dense))
    assert torch.equal(asked(sites), dense_entries(split)(sites))


def test_golden_values():
    bits = torch.tensor([1, 0, 1, 0, 1, 1, 1, 1])
    for grid in (Quantics((8, 8, 4)), Quantics((8, 8), channels=4)):
        assert grid.coords(bits).tolist() == [5, 6, 3]
        assert grid.sites(torch.tensor([5, 6, 3])).tolist() == bits.tolist()
    grid = Quantics((1024, 1024, 1))
    bits = [int(b) for b in f"{464:010b}"[::-1] + f"{832:010b}"[::-1]]
    assert grid.sites(torch.tensor([464, 832, 0])).tolist() == bits
    assert grid.coords(torch.tensor(bits)).tolist() == [464, 832, 0]


@pytest.mark.parametrize(
    ("order", "base", "sizes", "sites"),
    [
        ("sequential", 2, (2,) * 7, [1, 1, 0, 1, 1, 0, 1]),
        ("sequential", 4, (4, 4, 2, 4), [3, 2, 1, 2]),
        ("sequential", 8, (8, 2, 2, 4), [3, 1, 1, 2]),
        ("interleaved", 2, (2,) * 7, [1, 1, 1, 0, 1, 0, 1]),
        ("interleaved", 4, (4, 4, 2, 4), [3, 1, 1, 2]),
        ("interleaved", 8, (8, 4, 4), [7, 2, 2]),
    ],
)
def test_orders_and_groups(order, base, sizes, sites):
    # Least significant first, 11 is 1101, 1 is 1 and channel 2 is 01.
    grid = Quantics((16, 2), channels=4, order=order, base=base)
    assert grid.sizes == sizes
    assert grid.sites(torch.tensor([11, 1, 2])).tolist() == sites


def test_padding_shows_the_function_only_true_coordinates():
    grid = Quantics((5, 3))
    seen = []
    asked = grid.entries(lambda c: seen.append(c) or torch.full(c.shape[:-1], torch.nan))
    corner = grid.sites(torch.tensor([[[7, 3], [4, 2], [5, 0]]]))
    assert asked(corner)[0, [0, 2]].tolist() == [0.0, 0.0]
    assert asked(corner)[0, 1].isnan()
    assert (seen[0] < torch.tensor([5, 3])).all()


@pytest.mark.parametrize("order", ORDERS)
def test_no_overflow(order):
    grid = Quantics((2**62, 2**40, 8192), channels=16, order=order, base=8)
    coords = torch.tensor([2**62 - 1, 2**40 - 3, 8191, 15])
    assert torch.equal(grid.coords(grid.sites(coords)), coords)


def test_facts():
    grid = Quantics((197, 233, 1), channels=3)
    assert (grid.shape, grid.padded, grid.n_sites) == ((197, 233, 1), (256, 256, 1), 18)
    assert Quantics((1, 1)).sizes == (1,)
    assert (
        repr(Quantics((4,)))
        == "Quantics((4,), channels=1, order='sequential', base=2): 2 sites (2, 2)"
    )


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: Quantics(()), ValueError, r"sizes 1 to 2\^62.*\(\).*omit axes"),
        (lambda: Quantics((4, 0)), ValueError, r"\(4, 0\).*omit axes"),
        (lambda: Quantics((4,), channels=0), ValueError, r"0 channels"),
        (lambda: Quantics((4,), base=3), ValueError, r"2, 4, 8, got 3"),
        (lambda: Quantics((4,), order="z"), ValueError, r"interleaved.*'z'"),
        (lambda: Quantics((4, 4)).sites(torch.tensor([4, 0])), IndexError, r"\(4, 4\), got 0 to 4"),
        (lambda: Quantics((4, 4)).sites(torch.tensor([1])), ValueError, r"\(\.\.\., 2\).*\(1,\)"),
        (lambda: Quantics((4,)).sites(torch.ones(1)), ValueError, r"int64 coordinates.*float32"),
        (lambda: Quantics((4,)).coords(torch.tensor([0, 2])), IndexError, r"sites.*got 0 to 2"),
        (lambda: Quantics((4, 4)).split(torch.ones(4, 4)), ValueError, r"\(K, 4, 4\).*batch first"),
        (lambda: Quantics((4,)).join(torch.ones(1, 4)), ValueError, r"\(K, 2, 2\).*\(1, 4\)"),
    ],
)
def test_rejects(use, error, message):
    with pytest.raises(error, match=message):
        use()


@pytest.mark.parametrize(("shape", "channels"), [((2.5, 2, 2), 1), ((4, 4), 1.5), (("8", 8), 1)])
def test_a_shape_is_of_whole_numbers(shape, channels):
    with pytest.raises(ValueError, match="Quantics needs whole numbers"):
        Quantics(shape, channels=channels)


@pytest.mark.parametrize("base", [2, 8])
@pytest.mark.parametrize("order", ["sequential", "interleaved"])
def test_coordinates_beyond_the_whole_numbers_of_a_float_are_exact(order, base):
    grid = Quantics((2**62, 2**54), channels=4, order=order, base=base)
    coords = torch.tensor([[2**62 - 1, 2**53 + 1, 3], [2**61 + 1, 2**54 - 1, 2], [0, 1, 0]])
    assert torch.equal(grid.coords(grid.sites(coords)), coords)
