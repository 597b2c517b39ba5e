"""Predictions of more volumes than the cache of decoded chunks holds."""

from functools import partial

import pytest
import torch

from cpic.data import ArrayVolume, FlippedVolume, StackedVolume, ZarrVolume, save_zarr
from cpic.data._fitting import fitting
from cpic.data.stores import ChunkCache
from cpic.nn import CPIC, CubeEncoder, Positions, Search
from cpic.nn._memory import sought

SHAPE, N, WHOLE = (16, 12, 16), 5, 16 * 12 * 16 * 4
SIDES = ("left", "right")
NAMES = [f"patient {k}" for k in range(N)]


@pytest.fixture
def stores(tmp_path, generator):
    """A function that opens N stores of 48 chunks each with one cache, that of so many volumes."""

    def opened(n_held, n=N):
        paths, cache = [tmp_path / f"{k}.zarr" for k in range(n)], ChunkCache(int(n_held * WHOLE))
        for path in paths:
            if not path.exists():
                save_zarr(torch.rand(SHAPE, generator=generator), path, chunks=(4, 4, 4))
        return [ZarrVolume(path, cache=cache) for path in paths]

    return opened


def model(positions):
    torch.manual_seed(0)
    return CPIC(
        CubeEncoder(2),
        torch.nn.Identity(),
        shape=SHAPE,
        search=Search(rank=3),
        positions=positions,
        features=("maximum",) if positions.by == "grid+peaks" else ("components",),
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(
    "positions", [Positions(), Positions(correction=40), Positions(by="grid+peaks", budget=100)]
)
@pytest.mark.parametrize("n_held", [1.5, 2])
def test_a_prediction_decodes_a_chunk_once_and_is_that_of_all_volumes(
    stores, positions, n_held, monkeypatch
):
    searched = []

    def spied(*args):
        searched.append(sought(*args))
        return searched[-1]

    net = model(positions)
    net(stores(N), NAMES)
    net.eval()
    monkeypatch.setattr("cpic.nn._cpic.sought", spied)
    monkeypatch.setattr("cpic.nn._cpic.fitting", partial(fitting, least=1))
    found = {}
    for held in (n_held, N):
        searched.clear()
        net.reset_counts()
        volumes = stores(held)
        features = net(volumes, NAMES)
        ledgers = [(volume.ledger.chunks, volume.ledger.voxels) for volume in volumes]
        sides = [[rows for sets in searched for rows in sets.rows(side).whole] for side in SIDES]
        found[held] = features, ledgers, sides, net.counts, net._misfit
    grouped, together = found.values()
    # An encoder on more cubes at once may round otherwise.
    torch.testing.assert_close(grouped[0], together[0], rtol=1e-4, atol=1e-4)
    assert grouped[1] == together[1]
    assert all(0 < n_chunks <= 48 for n_chunks, _ in grouped[1])
    for mine, others in zip(grouped[2], together[2], strict=True):
        assert len(mine) == (0 if positions.by == "grid+peaks" else N)
        assert all(map(torch.equal, mine, others))
    assert grouped[3] == together[3]
    if positions.correction:
        torch.testing.assert_close(grouped[4], together[4], rtol=1e-4, atol=1e-4)
        assert len(grouped[4]) == N


def test_volumes_that_share_no_cache_stay_together(stores):
    array = ArrayVolume(torch.rand(SHAPE))
    pairs = zip(stores(2), stores(2), strict=True)  # each part has a cache of its own
    cases = [
        ([], [0]),
        ([array] * 3, [3]),
        (stores(2), [2, 2, 1]),
        (stores(1.9), [1] * 5),
        (stores(0.2), [1] * 5),  # none fits
        (stores(5), [5]),
        ([FlippedVolume(one, axes=[0]) for one in stores(2)], [2, 2, 1]),
        ([StackedVolume([one, array]) for one in stores(3)], [3, 2]),
        ([StackedVolume(pair) for pair in pairs], [2, 2, 1]),
        (
            [volume for one in stores(2) for volume in (one, FlippedVolume(one, axes=[1]))],
            [4, 4, 2],
        ),
        ([array, *stores(2)[:3], array, *stores(2)[:3]], [3, 4, 1]),
        ([volume for one in stores(0.5) for volume in (one, one)], [2] * 5),
        ([stores(0.5)[0] for _ in range(4)], [4]),
        ([*stores(2)[:2], object()], [3]),
    ]
    for volumes, sizes in cases:
        parts = fitting(volumes, least=1)
        assert [len(volumes[part]) for part in parts] == sizes
        assert [one for part in parts for one in volumes[part]] == volumes


def test_groups_of_few_volumes_are_not_worth_it(stores):
    for n_held, n, sizes in [(5, 10, [5, 5]), (4, 10, [10]), (8, 11, [8, 3]), (8, 9, [9])]:
        volumes = stores(n_held, n)
        assert [len(volumes[part]) for part in fitting(volumes)] == sizes


def test_small_chunks_need_what_their_slots_need(tmp_path):
    save_zarr(torch.rand(4, 4, 4), tmp_path / "a.zarr", chunks=(1, 1, 1))  # 4 bytes in slots of 16
    save_zarr(torch.rand(4, 4, 4), tmp_path / "b.zarr", chunks=(1, 1, 1))
    for n_bytes, n_groups in ((2 * 64 * 16, 1), (2 * 64 * 16 - 1, 2)):
        cache = ChunkCache(n_bytes)
        two = [ZarrVolume(tmp_path / name, cache=cache) for name in ("a.zarr", "b.zarr")]
        assert len(fitting(two, least=1)) == n_groups
