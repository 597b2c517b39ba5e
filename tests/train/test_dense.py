"""Networks over whole volumes see each volume once, as it is."""

import pytest
import torch
from torch import nn

from cpic.data import ArrayVolume
from cpic.nn.baselines import DownsampleCNN, ResNet
from cpic.train import HistogramLinear, dense, fit_fold
from tests.train.tiny import make_data, make_task


class Seen(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.got = []

    def forward(self, volumes, *tabular):
        self.got.append((volumes, *tabular))
        return volumes.flatten(1).sum(1, keepdim=True) * self.weight


def volumes(*shapes, channels=1):
    more = (channels,) if channels > 1 else ()
    return [ArrayVolume(torch.rand(*shape, *more), channels=channels) for shape in shapes]


def test_volumes_are_read_in_the_type_of_the_network_and_shown_once():
    inner, scans = Seen(), volumes((4, 5, 6), (4, 5, 6))
    out = dense(inner, (4, 5, 6))(scans, ["a", "b"], rows=torch.tensor([0, 1, 1]))
    ((seen,),) = inner.got
    assert (seen.shape, seen.dtype) == ((2, 1, 4, 5, 6), torch.float64)
    assert torch.equal(seen[1, 0], scans[1].read().double())
    assert torch.equal(out, seen.flatten(1).sum(1, keepdim=True)[[0, 1, 1]])


def test_contrasts_come_first_and_far_ends_are_cut_or_filled():
    inner, scans = Seen(), volumes((6, 3, 5), channels=2)
    dense(inner, (4, 5, 5))(scans, ["a"])
    ((seen,),) = inner.got
    wanted = torch.zeros(2, 4, 5, 5, dtype=torch.float64)
    wanted[:, :, :3] = scans[0].read().double().movedim(-1, 0)[:, :4]
    assert torch.equal(seen[0], wanted)


@pytest.mark.parametrize("kind", ["resnet", "histogram", "other"])
def test_tabular_features_reach_the_network_by_sample(kind):
    class Head(nn.Module):
        def forward(self, features, tabular):
            return torch.cat([features, tabular], 1)

    body = nn.Sequential(nn.Flatten(), nn.Linear(8, 2))
    other = Seen()
    modules = {"resnet": ResNet(body, Head()), "other": other,
               "histogram": HistogramLinear(1, n_bins=4, n_tabular=1)}  # fmt: skip
    scans, rows = volumes((2, 2, 2), (2, 2, 2)), torch.tensor([1, 0, 1])
    tabular = torch.tensor([[1.0], [2.0], [3.0]])
    out = dense(modules[kind], (2, 2, 2))(scans, ["a", "b"], rows=rows, tabular=tabular)
    if kind == "resnet":
        whole = torch.stack([scan.read()[None] for scan in scans])
        torch.testing.assert_close(out, torch.cat([body(whole)[rows], tabular], 1))
    elif kind == "histogram":
        assert out.shape == (3, 1)
        assert out[0] != out[2]
    else:
        assert torch.equal(other.got[0][1], tabular)
        assert torch.equal(other.got[0][0][:, 0], torch.stack(
            [scans[row].read().double() for row in rows]))  # fmt: skip


def test_a_volume_with_other_axes_is_refused():
    with pytest.raises(ValueError, match=r"needs volumes with 3 axes, got \(4, 4\)"):
        dense(Seen(), (4, 4, 4))(volumes((4, 4)), ["a"])


@pytest.mark.parametrize("kind", ["cnn", "histogram"])
def test_dense_networks_train(tmp_path, kind):
    # Made here and not when the tests are collected: its weights depend on nothing before it.
    torch.manual_seed(0)
    network = DownsampleCNN(1, widths=(4, 8)) if kind == "cnn" else HistogramLinear(1)
    data = make_data(read=True, num_workers=1)
    result = fit_fold(
        make_task(dense(network, (8, 8, 8)), lr=0.03), data, folder=tmp_path, num_epochs=4
    )
    assert result.metrics["best_error"] < 2 * result.metrics["mean_error"]
    text = (tmp_path / "metrics.csv").read_text().splitlines()[1]
    assert "512.0" in text  # Voxels a sample.
