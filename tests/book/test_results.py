"""The scripts that made `book/results`, on the smallest data that they take."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import pad

from cpic import tt

RESULTS = Path(__file__).parents[2] / "book" / "results"


@pytest.fixture
def load(monkeypatch):
    """A script by its name, imported as it imports the others."""
    monkeypatch.syspath_prepend(RESULTS)
    return importlib.import_module


@pytest.mark.parametrize(("factor", "every"), [(1, 1), (2, 1), (4, 1), (4, 4), (2, 3)])
def test_cubes_of_finer_scans_are_those_of_the_whole(load, factor, every, generator):
    values = torch.rand(5, 6, 7, generator=generator)
    volume = load("make_resolution").Finer(values, factor, every=every)
    reach = 4 * every
    whole = pad(volume.read(), [reach + 3] * 6)
    centers = torch.stack(
        [torch.randint(-3, n + 3, (60,), generator=generator) for n in volume.shape], 1
    )
    expected = [
        whole[tuple(slice(place + 3, place + 4 + 2 * reach, every) for place in center)]
        for center in centers.tolist()
    ]
    cubes = volume.cubes(centers, size=9)
    torch.testing.assert_close(cubes[:, 0], torch.stack(expected))
    torch.testing.assert_close(volume.voxels(centers), cubes[:, 0, 4, 4, 4])


@pytest.fixture
def tables(load, tmp_path, monkeypatch):
    """The script of the tables, with a cache of its own and runs of seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = load("make_tables")
    small = dataclasses.replace(
        module.SETTINGS["small"],
        patients={"brats": 31, "osic": 16},
        resolution={"brats": (24, 24, 24), "osic": (8, 24, 24)},
        epochs={"brats": 1, "osic": 1},
    )
    monkeypatch.setattr(module, "STARTS", (1, 8))
    monkeypatch.setitem(module.SETTINGS, "small", small)
    return module


def test_a_row_of_the_table_and_its_searches(tables, tmp_path, monkeypatch):
    name = "brats-cpic-n4-r10"
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr("sys.argv", ["make_tables.py", name, "--setting", "small", *folders])
    (tmp_path / "out").mkdir()
    tables.main()
    path = tmp_path / "out" / f"{name}.json"
    row = json.loads(path.read_text())
    assert row["setting"] == tables.asked(name, tables.SETTINGS["small"])
    assert [len(fold["curve"]) for fold in row["folds"]] == [1] * 5
    # The runs are made with eight, so that search gives the errors of the table again.
    (one, eight) = row["searches"]
    assert (one["starts"], eight["starts"]) == (1, 8)
    assert eight["errors"] == pytest.approx([f["metrics"]["error"] for f in row["folds"]], abs=0.06)
    made = path.stat().st_mtime_ns
    tables.main()
    assert path.stat().st_mtime_ns == made  # not made again


def test_functions_of_the_map_of_choosers(load, generator):
    """Noise of the deviation it claims, of the entry alone; bells along the axes have rank 4."""
    script = load("make_choosers")
    function = script.Functions(3, "bells", "oblique", "large", 0.1)
    points = torch.stack(torch.meshgrid(*[torch.arange(64)] * 3, indexing="ij"), -1).view(1, -1, 3)
    points = points.expand(3, -1, -1)
    pure, noisy = function.pure(points), function(points)
    noise = noisy - pure
    rms = pure.square().mean(1).sqrt()
    torch.testing.assert_close(noise.std(1), 0.1 * rms, rtol=0.1, atol=0)
    assert (noise.mean(1).abs() < 0.001 * rms).all()
    assert (
        torch.corrcoef(torch.cat([noise, noise.roll(1, 1)])).fill_diagonal_(0).abs() < 0.02
    ).all()
    torch.testing.assert_close(function(points[:, :9]), noisy[:, :9])
    straight = script.Functions(3, "bells", "along", "small", 0.0)
    dense = straight(points).view(3, 64, 64, 64)
    assert max(tt.tt_svd(dense, tol=1e-10).ranks) == 4


def test_a_row_of_choosers_at_equal_reading(load, monkeypatch):
    script = load("make_choosers")
    photograph = torch.rand(1, 8, 8).repeat_interleave(16, 1).repeat_interleave(16, 2)
    monkeypatch.setattr(script, "subject", lambda name: torch.cat([photograph] * 3))
    monkeypatch.setattr(script, "SHARES", (0.05,))
    (row,) = script.make_subject("blocks")
    assert row["errors"]["coarse-to-fine"][0] < 0.9 * row["errors"]["best grid"][0]
    assert row["errors"]["grid"][0] >= row["errors"]["best grid"][0]
    assert {"random", "importance", "tt-svd", "grid+tt-svd"} <= set(row["errors"])
    assert all(share <= 0.0501 for share in row["read"].values())
