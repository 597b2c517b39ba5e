import pytest
import torch

from cpic.data import brain_like
from tests.bench import harness
from tests.bench.cases_training import resolution_cases, training_cases
from tests.bench.training import Dense, Setting, Training, head, stored

SMALL = {"batch": 4, "rank": 3}
CASES = training_cases((16,) * 3, **SMALL) | resolution_cases(((16,) * 3,), (32,), base=16, **SMALL)
NAMES = [
    "training step 16^3, encoder paper, in chunks",
    "prediction 16^3",
    "second visit against first, 16^3",
    "training step 32^3 of a formula, in chunks",
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "_build").mkdir()
    monkeypatch.setattr("tests.bench.training.ROOT", tmp_path)
    return tmp_path


@pytest.mark.bench
@pytest.mark.parametrize("name", NAMES)
def test_our_side_of_a_case_runs(name, home):
    figures = CASES[name].ours(0)
    assert figures["seconds"] > 0
    assert figures["positions"] <= 16**3 * (1 if "16^3" in name else 8) * 10


@pytest.mark.bench
def test_peers_of_a_step_run(home):
    pytest.importorskip("monai")
    case = training_cases((32, 64, 64), **SMALL)["training step 32x64x64, encoder fast"]
    (seconds,) = (row for row in harness.measure(case) if row.unit == "seconds")
    assert seconds.peer == "ResNet-34"
    assert seconds.goal == pytest.approx((seconds.peer_value or 0) * 256**3 / 32 / 64**2 / 80)


@pytest.mark.bench
def test_tntorch_sweeps_the_encoded_volume(home):
    pytest.importorskip("tntorch")
    case = CASES["step against 15 sweeps, 16^3, encoder fast"]
    theirs = case.peers["tntorch"](0)
    assert theirs["entries"] > theirs["positions"] > 1000


def test_stores_are_distinct_heads_made_once(home):
    paths = [stored((12, 10, 8), seed) for seed in (0, 1, 0)]
    assert paths[0] == paths[2] != paths[1]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == ["0.zarr", "1.zarr"]
    one, two = head((12, 10, 8), 0), head((12, 10, 8), 1)
    assert one.shape == (12, 10, 8)
    assert (one - two).abs().max() > 0.1


def test_a_step_changes_the_encoder_and_counts_its_positions(home):
    training = Training(Setting(shape=(16,) * 3, batch=4, rank=3, n_dims=4), warm=1)
    before = [p.detach().clone() for p in training.encoder.parameters()]
    training.model.reset_counts()
    training.step()
    assert all((a != b).any() for a, b in zip(before, training.encoder.parameters(), strict=True))
    assert 0 < training.model.counts.encoded <= training.model.counts.asked


def test_the_network_has_a_gradient_of_the_whole_volume():
    pytest.importorskip("monai")
    dense = Dense((40, 64, 64), brain_like((40, 64, 64)))
    dense.step()
    gradients = [p.grad for p in dense.model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
