"""BYOL and LARS: formulas, views, and runs that are killed and continued."""

import copy
import math

import pytest
import torch
from torch import nn

from cpic._errors import ImageError
from cpic.images import ArrayImage, PatchSource
from cpic.train.pretrain import BYOL, LARS, _byol, pretrain, random_views
from tests.images import files


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(2), nn.Flatten())  # fmt: skip


def sources():
    return [PatchSource(ArrayImage(files.pixels(seed=k)), size=24) for k in range(2)]


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPTIONS = {"size": 16, "hidden": 8, "projection": 4, "lr": 2.0}


def run(folder, **options):
    options = {
        "num_epochs": 4,
        "batch_size": 16,
        "warmup_epochs": 1,
        "seed": 5,
        **OPTIONS,
        **options,
    }
    return pretrain(sources(), encoder(), 24, folder=folder, **options)


def test_a_step_of_lars_is_the_published_one():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    plain = copy.deepcopy(layer)
    options = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}
    optimizer = LARS(layer.parameters(), trust=0.02, **options)
    velocity = {name: torch.zeros_like(p) for name, p in plain.named_parameters()}
    for _ in range(3):
        x = torch.randn(5, 3).double()
        for one in (layer, plain):
            one.zero_grad()
            one(x).square().sum().backward()
        optimizer.step()
        for name, p in plain.named_parameters():
            g, rate = p.grad, 1.0
            if p.ndim > 1:
                rate = 0.02 * p.norm() / (g.norm() + 0.01 * p.norm())
                g = g + 0.01 * p
            velocity[name] = 0.9 * velocity[name] + 0.3 * rate * g
            p.data -= velocity[name].detach()
    for one, other in zip(layer.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="trust above 0"):
        LARS(layer.parameters(), lr=1.0, trust=0)


def test_rate_and_momentum_follow_their_schedules():
    model = BYOL(encoder(), 24, n_steps=110, warmup=10, batch_size=64, **OPTIONS)
    peak = 2.0 * 64 / 256
    expected = {0: 1e-3 * peak, 5: peak * 0.5005, 10: peak, 60: peak * 0.5005, 110: 1e-3 * peak}
    for step, rate in expected.items():
        assert model.rate(step) == pytest.approx(rate)
    for step, keep in {0: 0.99, 55: 0.995, 110: 1.0}.items():
        assert model.follow(step) == pytest.approx(keep)
    with pytest.raises(ValueError, match="0 <= warmup < n_steps"):
        BYOL(encoder(), 24, n_steps=5, warmup=5)


class Flipped(nn.Module):
    """Columns in reverse order."""

    def forward(self, values):
        return values.flip(1)


def test_the_loss_compares_each_view_with_the_target_of_the_other(monkeypatch):
    model = BYOL(encoder(), 24, n_steps=10, **OPTIONS)
    patches = torch.rand(8, 3, 20, 20)
    loss = model.loss(patches, step=3)
    loss.backward()
    assert 0 <= loss.item() <= 4
    assert all(p.grad is None for p in model.target.parameters())
    assert model.loss(patches, step=4) != loss
    learned = [*model.online.parameters(), *model.predictor.parameters()]
    assert all(p.grad.isfinite().all() for p in learned)
    first, second = torch.randn(2, 8, 4)
    views = iter([first, second])
    monkeypatch.setattr(_byol, "random_views", lambda *_, **options: next(views))
    model.online, model.predictor, model.target = nn.Identity(), nn.Identity(), Flipped()

    def cosine(a, b):
        return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()

    expected = 2 - (cosine(first, second.flip(1)) + cosine(second, first.flip(1)))
    torch.testing.assert_close(model.loss(patches, step=0), expected)


def test_views_are_crops_turned_and_mirrored():
    """A ramp of position, without colors: each view is affine, with the area that was drawn."""
    edge = 40
    steps = (torch.arange(edge) + 0.5) / edge
    ramp = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))
    patches = torch.cat([ramp, torch.zeros(1, edge, edge)]).expand(400, 3, edge, edge)
    generator = torch.Generator().manual_seed(0)
    found = random_views(patches, size=20, jitter=(0, 0, 0, 0), blur=0.0, generator=generator)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    found = found * std + mean
    colored = (found[:, 2].abs().amax((1, 2)) < 1e-5).nonzero()[:, 0]  # those not made gray
    assert 0.7 < len(colored) / 400 < 0.9
    inner = found[colored, :2, 2:-2, 2:-2]
    down, right = inner.diff(dim=2).mean((2, 3)), inner.diff(dim=3).mean((2, 3))
    jacobian = 20 * torch.stack([down, right], 2)  # of position in the patch by that in the view
    areas = torch.linalg.det(jacobian).abs()
    assert 0.15 < areas.min() < 0.3 < 0.9 < areas.max() <= 1.001
    straight = jacobian[:, 0, 0].abs() > 0.1
    assert 0.4 < straight.float().mean() < 0.6  # else turned by a quarter
    assert (jacobian[straight, 0, 1].abs() < 1e-3).all()
    for part in (jacobian[straight, 0, 0], jacobian[~straight, 0, 1], torch.linalg.det(jacobian)):
        assert 0.35 < (part > 0).float().mean() < 0.65
    again = random_views(patches, size=20, generator=torch.Generator().manual_seed(7))
    other = random_views(patches, size=20, generator=torch.Generator().manual_seed(7))
    assert torch.equal(again, other)


def test_blur_and_solarize_do_what_they_say():
    patches = torch.rand(6, 3, 64, 64)
    draw = lambda **options: random_views(  # noqa: E731
        patches, size=64, scale=(1.0, 1.0), jitter=(0, 0, 0, 0),
        generator=torch.Generator().manual_seed(1), **options)  # fmt: skip
    sharp, blurred = draw(blur=0.0), draw(blur=1.0)
    rough = [views.diff(dim=3).abs().mean((1, 2, 3)) for views in (blurred, sharp)]
    assert (rough[0] <= rough[1]).all()
    assert (rough[0] < 0.5 * rough[1]).any()
    torch.testing.assert_close(sharp.mean((2, 3)), blurred.mean((2, 3)), atol=0.05, rtol=0)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    plain, solar = sharp * std + mean, draw(blur=0.0, solarize=1.0) * std + mean
    torch.testing.assert_close(solar, torch.where(plain >= 0.5, 1 - plain, plain))


def test_a_run_that_was_killed_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = run(tmp_path / "a")
    assert [row["epoch"] for row in whole.history] == [0, 1, 2, 3]
    assert whole.step == 4 * 4  # 70 patches, 16 a step
    steps, before = [], BYOL.training_step

    def dies(self, batch, batch_idx):
        steps.append(1)
        if len(steps) == 10:
            raise RuntimeError("killed")
        return before(self, batch, batch_idx)

    monkeypatch.setattr(BYOL, "training_step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "b")
    again = run(tmp_path / "b")
    assert len(steps) == 10 + 8  # epochs 2 and 3
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert again.history == whole.history
    assert (tmp_path / "a/metrics.csv").read_text() == (tmp_path / "b/metrics.csv").read_text()
    done = run(tmp_path / "b")
    assert len(steps) == 18
    assert torch.equal(done.encoder[0].weight, whole.encoder[0].weight)
    with pytest.raises(ValueError, match="batch_size"):
        run(tmp_path / "b", batch_size=8)


def test_the_target_follows_after_each_step(tmp_path):
    model = run(tmp_path, num_epochs=1, batch_size=64, warmup_epochs=0)
    assert model.step == 1
    start, now = encoder()[0].weight, model.encoder[0].weight
    assert not torch.equal(now, start)
    expected = start + (1 - 0.99) * (now - start)
    torch.testing.assert_close(model.target[0][0].weight, expected.detach(), rtol=1e-6, atol=1e-8)


def test_the_loss_falls_below_that_of_unrelated_projections(tmp_path):
    model = run(tmp_path, num_epochs=12)
    losses = [row["loss"] for row in model.history]
    assert losses[-1] < 0.6 * losses[0]
    assert all(map(math.isfinite, losses))


def test_what_cannot_be_learned_from_is_one_sentence(tmp_path):
    with pytest.raises(ImageError, match="at least one batch of 500 patches, got 70"):
        run(tmp_path, batch_size=500)
    with pytest.raises(RuntimeError, match="the loss of epoch 0 is nan; lower the rate"):
        run(tmp_path, lr=1e30)
