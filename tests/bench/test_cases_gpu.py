from dataclasses import replace

import pytest
import torch

from tests.bench import __main__, harness, training
from tests.bench.cases_gpu import Steps, busy, device_spans, gpu_cases, measured

SMALL = Steps("cpu", 16, (32,), {"batch": 4, "rank": 3, "n_dims": 4})


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "_build").mkdir()
    monkeypatch.setattr(training, "ROOT", tmp_path)


@pytest.mark.bench
@pytest.mark.parametrize("name", gpu_cases(SMALL))
def test_our_side_of_a_case_runs(name, home):
    figures = gpu_cases(SMALL)[name].ours(0)
    assert figures["seconds"] > 0


@pytest.mark.bench
def test_the_network_and_the_volumes_in_memory_run(home):
    pytest.importorskip("monai")
    one = gpu_cases(replace(SMALL, side=32))["step 32^3, paper, GPU"]
    rows = harness.measure(one)
    assert {(row.unit, row.peer) for row in rows} == {("seconds", "ResNet-34")}
    assert rows[0].goal == pytest.approx(min(0.060 / 4, (rows[0].peer_value or 0) / 20))
    stores = gpu_cases(SMALL)["step 16^3, fast, in stores, GPU"]
    (row,) = harness.measure(stores)
    assert row.goal == pytest.approx(1.5 * (row.peer_value or 0))


def test_time_of_a_device_is_counted_once():
    assert busy([(5.0, 6.0), (1.0, 3.0), (2.0, 2.5), (2.5, 4.0)]) == 4.0
    assert busy([]) == 0.0


def test_steps_are_those_of_known_sets_after_the_first(home):
    one = training.Training(training.Setting(shape=(16,) * 3, batch=4, rank=3, select=10**6))
    one.model.reset_counts()
    one.step()
    assert one.model.counts.asked == 4 * one.model.memory.get(one.names).n_entries


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_device_is_seen_to_work(device):
    x = torch.rand(1000, 1000, device=device)
    spans = device_spans(lambda: x @ x, device)
    assert 0 < busy(spans) < 10


@pytest.mark.cuda
def test_figures_of_a_gpu():
    x = torch.rand(1000, 1000, device="cuda")
    figures = measured(lambda: lambda: x @ x, "cuda", 1)
    assert figures["MB"] >= 4
    assert figures["kernels"] >= 1


def test_without_a_gpu_its_part_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench", "--parts", "gpu"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "the part gpu needs a CUDA device" in capsys.readouterr().err
