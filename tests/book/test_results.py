"""The scripts that made `book/results`, on the smallest data that they take."""

import dataclasses
import importlib
import json
import math
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
        cycle={"brats": 1, "osic": 1},
        folds=1,
    )
    monkeypatch.setattr(module, "STARTS", (1, 8))
    monkeypatch.setitem(module.SETTINGS, "small", small)
    return module


@pytest.mark.parametrize("row", ["mean", "blocks-8", "random-voxels", "strided", "cubes-grid"])
@pytest.mark.parametrize("task", ["brats", "osic"])
def test_rivals_are_trained_on_all_patients_of_the_same_folds(tables, tmp_path, task, row):
    name = f"{task}-{row}"
    found = tables.run(name, tables.SETTINGS["small"], tmp_path)
    solved = row in ("mean", "blocks-8", "random-voxels")
    assert len(found["folds"]) == (5 if solved else 1)
    assert all(fold["selection"] == () or fold["selection"] == [] for fold in found["folds"])
    assert found["parameters"] > 0
    assert found["folds"][0]["curve"][-1]["voxels_per_sample"] >= 0
    assert tables.asked(name, tables.SETTINGS["small"]).get("cycle") == (None if solved else 1)
    if row == "mean":
        metrics = found["folds"][0]["metrics"]
        assert metrics["error"] == pytest.approx(metrics["mean_error"], rel=1e-5)


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


@pytest.mark.parametrize("name", sorted(path.stem for path in RESULTS.glob("make_*.py")))
def test_every_script_says_what_it_does(name, load, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        load(name).main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}")


@pytest.fixture
def gpu(load, tmp_path, monkeypatch):
    """The script that measures a GPU, called with further arguments; returns failures and rows."""
    module, out = load("make_gpu"), tmp_path / "gpu.json"

    def run(*args):
        fixed = ["--device", "cpu", "--quick", "--out", str(out), "--work", str(tmp_path / "work")]
        monkeypatch.setattr("sys.argv", ["make_gpu.py", *fixed, *args])
        failed = module.main()
        return failed, json.loads(out.read_text())["rows"] if out.exists() else {}

    run.module, run.out = module, out
    return run


def test_the_record_of_a_gpu_is_made_in_one_command(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr("tests.bench.training.ROOT", tmp_path)
    monkeypatch.setattr(gpu.module, "store_all", lambda shape, n: None)  # made when they are read
    monkeypatch.setattr("tests.bench.cases_gpu.STEPS", 1)
    failed, rows = gpu("--commit", "abc")
    assert failed == 0
    steps = [name for name in rows if "training" not in name]
    assert len(steps) == 8
    assert all(rows[name]["seconds"] > 0 for name in steps)
    fold = rows["training, fold 0"]
    assert len(fold["curve"]) == fold["epochs_planned"] == 2
    wanted = {"date", "torch", "commit", "cpus", "gpu", "device"}
    assert all(row["provenance"].keys() >= wanted for row in rows.values())
    assert {row["provenance"]["commit"] for row in rows.values()} == {"abc"}


def fake_rows(monkeypatch, gpu, **measures):
    monkeypatch.setattr(gpu.module, "store_all", lambda shape, n: None)
    monkeypatch.setattr(gpu.module, "rows", lambda *_: iter(measures.items()))


def test_a_row_that_fails_leaves_the_others(gpu, monkeypatch, caplog):
    fake_rows(
        monkeypatch, gpu, a=lambda: {"seconds": 1}, b=lambda: 1 // 0, c=lambda: {"seconds": 3}
    )
    failed, rows = gpu()
    assert (failed, list(rows)) == (1, ["a", "c"])
    assert "b failed" in caplog.text
    # Measured again: what is not, stays.
    fake_rows(monkeypatch, gpu, c=lambda: {"seconds": 4})
    assert {name: row["seconds"] for name, row in gpu()[1].items()} == {"a": 1, "c": 4}


def test_a_run_that_is_killed_keeps_what_it_had(gpu, monkeypatch):
    def killed():
        raise KeyboardInterrupt

    fake_rows(monkeypatch, gpu, a=lambda: {"seconds": 1}, b=killed)
    with pytest.raises(KeyboardInterrupt):
        gpu()
    assert list(json.loads(gpu.out.read_text())["rows"]) == ["a"]


def test_nothing_is_begun_when_time_is_up(gpu, monkeypatch):
    fake_rows(monkeypatch, gpu, a=lambda: {"seconds": 1})
    assert gpu("--minutes", "0.1") == (0, {})


def test_without_a_gpu_the_script_says_so(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        gpu("--device", "cuda")
    assert stopped.value.code == 2
    assert "a GPU is needed, and torch finds none" in capsys.readouterr().err


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


@pytest.mark.parametrize(("tails", "share"), [("compact", 1e-3), ("sigmoid", 1e-4)])
def test_blobs_have_the_levels_and_means_of_the_whole(load, tails, share, monkeypatch):
    script = load("make_rare")
    monkeypatch.setattr(script, "SIDE", 96)
    ground = 0.4 * torch.rand(96, 96, 96, generator=torch.Generator().manual_seed(3))
    blobs = script.Blobs(share, tails, ground, 2)
    points = torch.stack(torch.meshgrid(*[torch.arange(96)] * 3, indexing="ij"), -1).view(1, -1, 3)
    raw = blobs.raw(points.expand(2, -1, -1)).view(2, 1, 96, 96, 96)
    inside = (raw > (1 + ground) / 2).double().mean()
    assert float(inside) == pytest.approx(share, rel=0.2)
    torch.testing.assert_close(
        blobs.truth, script.encoded(raw).flatten(1).mean(1), rtol=1e-3, atol=0
    )
    for level, block in zip(blobs.levels, script.BLOCKS, strict=True):
        mean = torch.nn.functional.avg_pool3d(raw, block)[:, 0]
        torch.testing.assert_close(level.double(), mean, rtol=1e-4, atol=1e-6)


def test_a_phase_of_what_is_rare_at_equal_reading(load, monkeypatch):
    script = load("make_rare")
    for name, value in (("SIDE", 64), ("COUNT", 1024), ("N", 3)):
        monkeypatch.setattr(script, name, value)
    made = script.make("0.001-compact-zero", {}, torch.Tensor)
    assert set(made["rows"]) == set(script.NAMES)
    assert all(row["read"] <= 1024 for row in made["rows"].values())
    assert made["rows"]["pyramid"]["median"] < 0.3 < made["rows"]["random"]["median"]
    assert not script.lacks("a-textured", {"a-textured": {"more": {}}})
    assert script.lacks("a-textured", {"a-textured": {}})


def test_heads_hold_their_balls_and_vessels(load):
    script = load("make_rare")
    plain, centers, radii = script.heads(0, 2)
    crossed, *_ = script.heads(3, 2)
    for array, center, radius in zip(plain, centers, radii, strict=True):
        bright = (array > 0.85).nonzero()
        assert len(bright) == pytest.approx(4 / 3 * 3.14159 * float(radius) ** 3, rel=0.2)
        torch.testing.assert_close(bright.double().mean(0), center.double(), rtol=0, atol=0.1)
    assert ((crossed > 0.85).sum((1, 2, 3)) > (plain > 0.85).sum((1, 2, 3)) + 300).all()


@pytest.fixture
def comparison(load, monkeypatch):
    """The script of the comparison, with small tasks: bright pieces to find, flat or in space."""
    script = load("make_comparison")

    def small(n_axes, classes, placed=False):
        generator = torch.Generator().manual_seed(n_axes)
        side = 32 if n_axes == 2 else 16
        whole = torch.rand(48, 1, *[side] * n_axes, generator=generator)
        whole[:24, ..., 3:8] += 1
        labels = (torch.arange(48) < 24).long() if classes else torch.arange(48) / 24 - 1
        if placed:
            whole = torch.cat([whole, torch.rand_like(whole)], 1)
        pieces = script.cut(whole, 4)
        encoder = (
            script.VolumeEncoder(1 + placed)
            if n_axes == 3
            else script.ips.ConvEncoder(1, widths=(16, 32))
        )
        rows = torch.arange(0, 48, 2), torch.arange(1, 48, 2)
        grid = (side // 4,) * n_axes
        return script.Task(whole, pieces, grid, labels, classes, *rows, encoder, 10)

    tasks = {
        "textures": lambda seed: small(2, 2),
        "volumes": lambda seed: small(3, 0),
        "brats": lambda seed: small(3, 0, placed=True)._replace(best=0.25 + seed / 8),
    }
    monkeypatch.setattr(script, "TASKS", tasks)
    return script


@pytest.mark.parametrize("task", ["textures", "volumes", "brats"])
def test_pieces_are_those_of_the_whole(comparison, task):
    one = comparison.TASKS[task](0)
    assert one.pieces.shape[1] == 64
    corner = (slice(None), slice(None), *[slice(4, 8)] * len(one.grid))
    place = sum(one.grid[0] ** k for k in range(len(one.grid)))  # the second along each axis
    assert torch.equal(one.pieces[:, place], one.whole[corner])


@pytest.mark.parametrize("divisor", [2, 8, 32])
@pytest.mark.parametrize(
    "way", ["random", "grid", "coarse-to-fine", "ips", "ats", "covariance", "sttp"]
)
def test_ways_get_gradients_from_as_much_as_the_budget(comparison, way, divisor):
    for name, make in comparison.TASKS.items():
        if not comparison.fits(name, divisor, way):
            continue
        task = make(0)
        made = comparison.PARTS[way](task, divisor, 0)
        assert comparison.gradients(made, task) == pytest.approx(1 / divisor)


@pytest.mark.parametrize("divisor", [2, 8, 32])
def test_the_rest_stays_within_the_budget(comparison, divisor):
    for make in comparison.TASKS.values():
        task = make(0)
        view = comparison.gradients(comparison.coarse_view(task, divisor, 0), task)
        assert 0.6 / divisor <= view <= 1 / divisor
        made = comparison.cross(task, 2, 0)
        read, looked = comparison.crossed(made.model, task.whole[:20])
        assert 0 < read <= 0.5
        assert looked > 0
    assert comparison.gradients(comparison.network(task, 1, 0), task) == 1


def test_a_row_of_the_comparison_is_tuned_and_kept(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "OUT", tmp_path / "comparison.json")
    names = ["textures-8-means", "brats-8-random", "textures-1-histogram", "textures-32-dps"]
    monkeypatch.setattr("sys.argv", ["make_comparison.py", *names])
    comparison.main()
    record = json.loads(comparison.OUT.read_text())
    assert list(record["rows"]) == [name for name in comparison.ROWS if name in names]
    for name in ("brats-8-random", "textures-32-dps"):
        row = record["rows"][name]
        assert row["rate"] == float(min(row["trials"], key=row["trials"].get))
        assert len(row["trials"]) == len(comparison.RATES)
        assert len(row["errors"]) == 3
        assert row["kept_mib"] > 0
        assert row["steps"] == 10
    assert record["rows"]["brats-8-random"]["best"] == 0.375  # a mean over three cohorts
    assert record["rows"]["textures-32-dps"]["looked"] == 0.25
    assert record["rows"]["textures-1-histogram"]["errors"][0] < 0.5
    monkeypatch.setattr("sys.argv", ["make_comparison.py"])
    monkeypatch.setattr(comparison, "ROWS", {name: comparison.ROWS[name] for name in names})
    made = comparison.OUT.stat().st_mtime_ns
    comparison.main()
    assert comparison.OUT.stat().st_mtime_ns == made  # not made again


def test_ridge_leaves_out_one_sample_after_the_other(load, generator):
    ridge, penalties = load("_ridge").ridge, (0.3, 3.0, 30.0, 300.0)
    x, y = (torch.randn(20, k, generator=generator, dtype=torch.float64) for k in (5, 2))
    y = y + 0.2 * x @ torch.randn(5, 2, generator=generator, dtype=torch.float64)
    z, centered = (x - x.mean(0)) / x.std(0), y - y.mean(0)

    def solve(rows, penalty):
        gram = z[rows].T @ z[rows] + penalty * torch.eye(5, dtype=torch.float64)
        return torch.linalg.solve(gram, z[rows].T @ centered[rows])

    def left_out(penalty):
        rows = [torch.arange(20) != k for k in range(20)]
        return sum(
            float((centered[k] - z[k] @ solve(row, penalty)).square().sum())
            for k, row in enumerate(rows)
        )

    best = min(penalties, key=left_out)
    assert best > penalties[0]  # that of the least error on the samples themselves
    expected = z @ solve(torch.ones(20, dtype=torch.bool), best) + y.mean(0)
    torch.testing.assert_close(ridge(x, y, x, penalties), expected, rtol=1e-5, atol=1e-5)


def test_an_ablation_changes_one_setting_and_reports_relative_errors(load, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = load("make_ablation")
    monkeypatch.setattr(module, "WORK", tmp_path)
    small = {"patients": 31, "resolution": (16, 16, 16), "batch_size": 12, "num_epochs": 1}
    monkeypatch.setattr(module, "BASE", {**module.BASE, **small, "budget": 64})
    found = {name: module.make_run(name, 42) for name in ("base", "positions: cross")}
    assert all(0.5 < run["error"] < 3 for run in found.values())
    assert found["base"]["encoded"] <= 64 < found["positions: cross"]["encoded"]


@pytest.fixture
def lesion(load, monkeypatch):
    """The script of the lesion, and a task of few small chests with balls as shapes."""
    module = load("make_lesion")
    for name, value in {"SIDES": (64, 96, 96), "LEVEL": (8, 12, 12), "N_VESSELS": 3, "N_NODES": 1,
                        "N_TRAIN": 12, "N_TEST": 4, "N_CANDIDATES": 24}.items():  # fmt: skip
        monkeypatch.setattr(module, name, value)
    axis = torch.arange(-8.0, 9)
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    balls = [(distance <= radius).float() for radius in (6, 6.5, 7, 7.5, 8)]
    module.task = module.Task(module.Cohort(0, balls))
    return module


def test_cubes_are_those_around_their_blocks(lesion):
    task, ids = lesion.task, torch.tensor([3, 7])
    nearest = task.apart[ids].argmin(1, keepdim=True)
    cubes = task.cubes(ids, nearest).view(2, 2, 4, 4, 4)
    whole = torch.stack([lesion.F.avg_pool3d(one[None].float(), 2)[0] for one in task.cohort.maps])
    for cube, k, block in zip(cubes, ids.tolist(), nearest[:, 0], strict=True):
        low = [2 * int(n) for n in torch.unravel_index(block, lesion.LEVEL)]
        expected = whole[k][:, *[slice(n, n + 4) for n in low]]
        torch.testing.assert_close(cube, expected)
    # The middle of a lesion is brighter than the lung around it.
    centers = cubes[:, 0, 1:3, 1:3, 1:3].flatten(1).mean(1)
    assert (centers > cubes[:, 0].flatten(1).mean(1)).all()


def test_a_mixture_whose_only_part_is_sure_is_a_normal_distribution(lesion):
    target, values = torch.tensor([0.3, -1.0]), torch.tensor([[0.5], [0.2]])
    sure = torch.tensor([[0.0, -100.0]] * 2)
    answer = lesion.Answer(sure, values, None, torch.zeros(2, 1, dtype=torch.int64))
    torch.testing.assert_close(answer.guess(), values[:, 0])
    normal = torch.distributions.Normal(values[:, 0], 0.5).log_prob(target)
    constant = 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(answer.loss(target, 0.5), -(normal + constant).mean())


def test_every_way_is_trained_and_reads_what_it_says(lesion, monkeypatch):
    monkeypatch.setattr(lesion, "STEPS", 2)
    for (way, m), counts in list(lesion.CUBES.items()):
        few = min(m, 4)
        monkeypatch.setitem(lesion.CUBES, (way, few), tuple(min(n, 4) for n in counts))
        found = lesion.make(lesion.task, way, few, 0)
        assert all(math.isfinite(error) for error in found["errors"])
        if way not in lesion.BY_HAND:
            assert len(found["met"]) == len(counts)
            assert found["met"][0] == 1 if way == "place" else 0 <= found["met"][0] <= 1
    model = lesion.Reader(lesion.task, "grid", 4).eval()
    assert 1 <= model(torch.arange(3), None).blocks.shape[1] <= 4
