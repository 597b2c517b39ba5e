"""Penalties, normalization, compensation and reports beside their formulas."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cpic.nn import spectral
from cpic.nn.spectral._weight import weight_of


def with_spectra(*spectra, **options):
    """A network whose layers have these spectra, up to their scale."""
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in spectra)).double()
    spectral.parametrize(net, "svdp", rank=8, init="qr_randn", **options)
    for k, values in enumerate(spectra):
        state = net[k].parametrizations.weight
        rank = len(values)
        if rank < 8:
            spectral.remove(net[k])
            spectral.parametrize(net[k], "svdp", rank=rank, init="qr_randn", **options)
            state = net[k].parametrizations.weight
        with torch.no_grad():
            state.original1.copy_(torch.tensor([values], dtype=torch.float64))
    return net


SPECTRA = [(2.0, 1.0, -0.5, 0.3), (0.1, 0.2), (3.0, -2.0), (1.0,), (0.7, 0.2, 0.01, 0.6)]


def test_d_optimal_is_the_mean_of_negative_logarithms():
    net = with_spectra(*SPECTRA)
    normalized = [np.abs(s) / np.abs(s).max() for s in map(np.array, SPECTRA)]
    expected = -np.log(np.concatenate(normalized)).mean()
    assert spectral.penalty(net, "d_optimal").item() == pytest.approx(expected, abs=1e-5)


def test_divergence_is_what_it_says():
    net = with_spectra(*SPECTRA)
    terms = []
    for values in SPECTRA:
        s = np.sort(np.abs(values) / np.abs(values).max())[::-1]
        if len(s) > 1:
            gaps = s[:-1] - s[1:]
            terms.append(np.mean((1 - s[1:]) ** 2 / 0.1**2 - np.log(np.maximum(gaps, 1e-7))))
    found = spectral.penalty(net, "divergence", floor=1e-12)
    assert found.item() == pytest.approx(np.mean(terms), rel=1e-6)


def test_penalties_have_gradients_where_they_are_needed():
    """At equal values, where the published one has none, and at values that are zero."""
    net = with_spectra((1.0,) * 8, (1.0,) * 8)
    scale = net[0].parametrizations.weight.original1
    published = spectral.penalty(net, "divergence", floor=1e-7)
    assert published.item() == pytest.approx(16.118, abs=5e-4)
    (slope,) = torch.autograd.grad(spectral.penalty(net, "divergence"), scale)
    assert 0 < slope.abs().amax() < 1e3
    with torch.no_grad():
        scale[0, 3] = 0.0
    (slope,) = torch.autograd.grad(spectral.penalty(net, "d_optimal"), scale)
    assert slope.isfinite().all()
    assert slope[0, 3] < 0


@pytest.mark.parametrize("kind", ["d_optimal", "divergence"])
def test_penalties_equal_finite_differences(kind):
    net = with_spectra(*SPECTRA)
    leaves = [net[k].parametrizations.weight.original1 for k in range(len(SPECTRA))]
    slopes = torch.autograd.grad(spectral.penalty(net, kind), leaves, allow_unused=True)
    for leaf, slope in zip(leaves, slopes, strict=True):
        for k in range(leaf.numel()):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    leaf[0, k] += step
                    values.append(spectral.penalty(net, kind).item())
                    leaf[0, k] -= step
            expected = (values[0] - values[1]) / 2e-6
            found = 0.0 if slope is None else slope[0, k].item()
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_training_with_penalties_moves_the_spectra():
    """D-optimal lifts a collapsed one, divergence spreads equal ones."""
    net = with_spectra((1.0, 0.5, 1e-6, 0.0))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        spectral.penalty(net).backward()
        optimizer.step()
    assert spectral.spectra(net)["0"].amin() > 0.3
    net = with_spectra((1.0,) * 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.0, 0.9))
    for _ in range(60):
        optimizer.zero_grad()
        spectral.penalty(net, "divergence").backward()
        optimizer.step()
    values = spectral.spectra(net)["0"]
    assert (values[:-1] - values[1:]).amin() > 1e-3


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.Conv2d(6, 6, 3),
        nn.Flatten(),
        nn.ConvTranspose1d(6, 4, 3, groups=2),
        nn.Linear(6, 5),
        nn.Embedding(5, 4),
    ).double()


def matrices(layer):
    weight = layer.weight.detach()
    if isinstance(layer, nn.ConvTranspose1d):
        return [part.transpose(0, 1).flatten(1) for part in weight.chunk(layer.groups)]
    return [weight.flatten(1)]


def test_compensation_is_what_it_says():
    """Beside one layer at a time in numpy, over steps that shrink singular values."""
    for normalize in (True, False):
        net = plain()
        kept = spectral.Compensation(net, normalize=normalize, every=2)
        assert set(kept.layers) == {"0", "2", "3", "5", "6"}
        seen = {}
        for step in range(5):
            expected = {}
            for name, layer in kept.layers.items():
                for g, matrix in enumerate(matrices(layer)):
                    u, s, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
                    expected[name, g] = matrix.numpy()
                    if step % 2:
                        continue
                    relative = s / s[0]
                    if (name, g) in seen:
                        relative = np.maximum(relative, seen[name, g])
                        expected[name, g] = (u * relative * (1 if normalize else s[0])) @ v
                    seen[name, g] = relative
            kept.step()
            for name, layer in kept.layers.items():
                for g, matrix in enumerate(matrices(layer)):
                    np.testing.assert_allclose(matrix.numpy(), expected[name, g], atol=1e-10)
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))


def test_compensation_of_an_unchanged_weight_changes_nothing_more():
    """The published one lets weight and spectrum grow at every call without normalization."""
    for normalize in (True, False):
        layer = nn.Linear(6, 4)
        norm = torch.linalg.matrix_norm(layer.weight.detach(), 2)
        kept = spectral.Compensation(layer, normalize=normalize)
        for _ in range(2):
            kept.step()
        weight, spectrum = layer.weight.detach().clone(), kept.spectra[""].clone()
        for _ in range(3):
            kept.step()
        torch.testing.assert_close(layer.weight.detach(), weight)
        torch.testing.assert_close(kept.spectra[""], spectrum)
        expected = 1.0 if normalize else norm.item()
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(expected, abs=1e-5)


def test_compensation_truncates_and_continues():
    net = plain()
    kept = spectral.Compensation(net, truncate=2, every=2)
    for _ in range(3):
        kept.step()
    assert torch.linalg.matrix_rank(net[2].weight.detach().flatten(1)) == 2
    assert kept.spectra["2"].shape == (1, 6)
    other = spectral.Compensation(plain(), every=2)
    other.load_state_dict(kept.state_dict())
    assert other.count == 3
    torch.testing.assert_close(other.spectra, kept.spectra)
    with pytest.raises(ValueError, match="state of spectra of shapes"):
        spectral.Compensation(nn.Linear(3, 3)).load_state_dict(kept.state_dict())


def test_normalization_divides_by_the_norm_and_can_be_removed():
    net = plain()
    before = [layer.weight.detach().clone() for layer in net if hasattr(layer, "weight")]
    found = spectral.spectral_norm(net, ignore=["6"], n_iterations=50)
    assert found.names == ("0", "2", "3", "5", "7")
    assert {row.kind for row in spectral.report(net)} == {"plain", "spectral_norm"}
    state = {key: value.clone() for key, value in net.state_dict().items()}
    values = spectral.spectra(net)
    torch.testing.assert_close(net.state_dict(), state)  # reading is no iteration
    assert net.training
    norm = torch.linalg.matrix_norm(before[1].flatten(1), 2)
    torch.testing.assert_close(values["2"], torch.linalg.svdvals(before[1].flatten(1)) / norm)
    spectral.remove(net)
    torch.testing.assert_close(net[2].weight.detach(), before[1] / norm)
    torch.testing.assert_close(net[6].weight.detach(), before[4])
    assert type(net[2]) is nn.Conv2d


def test_reports():
    net = plain()
    spectral.parametrize(net, "svdp", rank=3, ignore=["7"], init="qr_randn", gain=0.5)
    rows = {row.name: row for row in spectral.report(net)}
    assert list(rows) == ["0", "2", "3", "5", "6", "7"]
    assert rows["5"].kind == "svdp"
    assert rows["5"].rank == 2
    assert rows["5"].free == sum(p.numel() for p in net[5].parametrizations.parameters())
    assert rows["0"].norm == pytest.approx(0.5)
    assert rows["0"].stable_rank == pytest.approx(3.0)
    assert rows["0"].defect < 1e-12
    assert rows["7"].defect is None
    assert rows["7"].free == rows["7"].original == 20
    values = spectral.spectra(net)
    for name, layer in (("2", net[2]), ("6", net[6]), ("7", net[7])):
        expected = torch.linalg.svdvals(layer.weight.detach().flatten(1))
        torch.testing.assert_close(values[name], expected[: len(values[name])])
    groups = [torch.linalg.svdvals(m)[:2] for m in matrices(net[5])]
    torch.testing.assert_close(values["5"], torch.cat(groups).sort(descending=True).values)


def test_a_report_sees_frames_that_are_not_orthonormal(monkeypatch):
    from cpic.nn.spectral import _factors

    make = _factors.frames
    monkeypatch.setattr(_factors, "frames", lambda free, **size: 1.01 * make(free, **size))
    (row,) = spectral.report(spectral.parametrize(nn.Linear(6, 4), "svdp", rank=3).net)
    assert row.defect == pytest.approx(1.01**2 - 1, rel=1e-3)


@pytest.mark.parametrize(
    ("kernel", "size"), [((3,), (7,)), ((3, 2), (4, 5)), ((2, 3, 1), (3, 3, 2))]
)
def test_the_norm_of_a_convolution_is_that_of_its_matrix(kernel, size):
    """Of the whole periodic convolution, one column for each input."""
    weight = torch.randn(3, 2, *kernel, dtype=torch.float64)
    convolution = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}
    inputs = torch.eye(2 * math.prod(size), dtype=torch.float64).view(-1, 2, *size)
    padded = inputs
    for axis, k in enumerate(kernel):
        first = padded.narrow(2 + axis, 0, k - 1)
        padded = torch.cat([padded, first], 2 + axis)
    whole = convolution[len(kernel)](padded, weight).flatten(1)
    expected = torch.linalg.matrix_norm(whole, 2)
    torch.testing.assert_close(spectral.convolution_norm(weight, size), expected)


def test_the_matrix_of_a_kernel_bounds_the_operator_only_loosely():
    layer = nn.Conv2d(8, 8, 3)
    spectral.parametrize(layer, rank=8, init="qr_randn")
    norm = spectral.convolution_norm(layer.weight.detach(), (16, 16)).item()
    assert 1 / 3 <= norm <= 3
    assert abs(norm - 1) > 0.05


def test_decay_shrinks_singular_values_and_leaves_frames():
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    spectral.parametrize(net, "svdp", rank=3, init="qr_randn", gain=1.0, ignore=["1"])
    groups = spectral.parameter_groups(net, weight_decay=0.1)
    assert sorted(map(id, net.parameters())) == sorted(id(p) for g in groups for p in g["params"])
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = net[0].weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(net[0].weight.detach(), 0.9 * before)
    assert len(spectral.parameter_groups(nn.Linear(2, 2), weight_decay=0.0)) == 1


def test_stable_ranks():
    values = torch.tensor([[1.0, 1.0, 0.5], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0]])
    torch.testing.assert_close(spectral.stable_rank(values), torch.tensor([2.25, 0.0, 1.0]))


def test_ranks_are_kept_apart_from_groups():
    layer = nn.Conv2d(8, 8, 3, groups=4)
    spectral.parametrize(layer, "svdp", rank=2)
    own = weight_of(layer)
    assert own.plan.shape.widths == (2, 18)
    assert layer.parametrizations.weight.original1.shape == (4, 2)
