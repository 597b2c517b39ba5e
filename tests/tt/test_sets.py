"""Index sets: caps, nesting, saving, counts, refusals."""

import pickle

import numpy as np
import pytest
import torch

from cpic.tt import IndexSets, cap_ranks


@pytest.mark.parametrize(
    ("bits", "entries"), [(28, 4488), (29, 4688), (30, 4888), (27, 4288), (42, 7288)]
)
def test_one_pass_costs_what_the_capped_ranks_say(bits, entries, generator):
    assert IndexSets.random((2,) * bits, 10, generator=generator).n_entries == entries


@pytest.mark.parametrize(
    ("sizes", "rank", "wanted"),
    [
        ((2, 2, 2, 2), 10, (1, 2, 4, 2, 1)),
        ((7,), 3, (1, 1)),
        ((3, 1, 3), 5, (1, 3, 3, 1)),
        ((4, 4, 4), (2, 3), (1, 2, 3, 1)),
        ((4, 4, 4), (1, 9, 9, 1), (1, 4, 4, 1)),
    ],
)
def test_ranks_are_capped_by_both_sides(sizes, rank, wanted):
    assert cap_ranks(sizes, rank) == wanted


@pytest.mark.parametrize("rank", [0, (1, 2, 3, 4), (2, 0)])
def test_impossible_ranks_are_refused(rank):
    with pytest.raises(ValueError, match="rank"):
        cap_ranks((4, 4, 4), rank)


@pytest.mark.parametrize("sizes", [(), (3, 0, 2)])
def test_empty_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="at least one mode"):
        cap_ranks(sizes, 2)


def test_random_sets_are_nested_and_complete_at_the_ends(generator):
    sets = IndexSets.random((2, 3, 4, 2), 6, n_trains=3, generator=generator)
    assert sets.nested
    assert sets.ranks == (1, 2, 6, 2, 1)
    assert (sets.left[1].flatten() == torch.tensor([0, 1] * 3)).all()


def test_sets_of_all_sites_in_one_tensor_are_the_same_sets(generator):
    sets = IndexSets.random((2, 3, 4, 2), 6, n_trains=3, generator=generator)
    joined = IndexSets.joined(sets.sizes, sets.rows("left"), sets.rows("right"))
    assert (joined.n_trains, joined.ranks, joined.n_entries) == (3, sets.ranks, sets.n_entries)
    assert joined.counts("right") == sets.counts("right") == (2, 6, 2, 1)
    for side in ("left", "right"):
        assert all(map(torch.equal, getattr(joined, side), getattr(sets, side)))
    copied = pickle.loads(pickle.dumps(joined))
    assert copied.nested
    with pytest.raises(AttributeError, match="no attribute 'middle'"):
        _ = sets.middle


def test_a_stranger_breaks_the_nesting(generator):
    sets = IndexSets.random((9, 9, 9), 2, generator=generator)
    left = [rows.clone() for rows in sets.left]
    left[1] = (left[1] + 1) % 9
    left[1][0, 1] = left[1][0, 0]
    assert not IndexSets(sets.sizes, left, sets.right).nested


def test_saved_sets_come_back_and_leave_no_other_file(generator, tmp_path):
    sets = IndexSets.random((5, 2, 4), 3, n_trains=2, generator=generator)
    sets.save(tmp_path / "sets.npz")
    again = IndexSets.load(tmp_path / "sets.npz")
    pairs = zip(sets.left + sets.right, again.left + again.right, strict=True)
    assert again.sizes == sets.sizes
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [file.name for file in tmp_path.iterdir()] == ["sets.npz"]


def test_loading_executes_nothing(tmp_path):
    np.savez(tmp_path / "bad.npz", sizes=np.array([object()], dtype=object))
    (tmp_path / "worse.npz").write_bytes(b"no archive")
    for name in ("bad.npz", "worse.npz"):
        with pytest.raises(ValueError, match=r"IndexSets\.save"):
            IndexSets.load(tmp_path / name)


def test_indices_outside_the_sizes_are_refused(generator):
    sets = IndexSets.random((4, 4), 2, generator=generator)
    left = (sets.left[0], sets.left[1] + 9)
    with pytest.raises(ValueError, match="within sizes"):
        IndexSets(sets.sizes, left, sets.right)
    with pytest.raises(ValueError, match="int64"):
        IndexSets(sets.sizes, (sets.left[0], sets.left[1].int()), sets.right)
