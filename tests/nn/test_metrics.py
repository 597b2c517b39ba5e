"""Losses and metrics: published values, and folds instead of batches."""

import math

import pytest
import torch

from cpic.nn.metrics import RMSE, FoldMean, laplace_log_likelihood, pinball


@pytest.mark.parametrize(("target", "loss"), [(0.95, 0.065), (1.2, 0.24)])
def test_pinball_values(target, loss):
    predictions = torch.tensor([[0.9, 1.0, 1.1]], dtype=torch.float64)
    found = pinball(predictions, torch.tensor([target], dtype=torch.float64))
    assert float(found) == pytest.approx(loss, abs=1e-12)


def test_pinball_is_least_at_the_quantile(generator):
    target = torch.rand(1001, generator=generator, dtype=torch.float64)
    grid = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    for q in (0.2, 0.5, 0.8):
        losses = [pinball(g.expand(1001, 1), target, quantiles=(q,)) for g in grid]
        best = grid[int(torch.stack(losses).argmin())]
        assert abs(float(best) - float(target.quantile(q))) <= 0.01


def test_pinball_gradient(generator):
    predictions = torch.rand(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.rand(5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: pinball(p, target), (predictions,))
    mean = torch.stack(
        [pinball(p[None], y[None]) for p, y in zip(predictions, target, strict=True)]
    )
    torch.testing.assert_close(mean.mean(), pinball(predictions, target))


QUANTILES = torch.tensor([[2500.0, 2600.0, 2700.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("target", "value"), [(2600.0, -5.644891), (2550.0, -5.998444), (4000.0, -12.715959)]
)
@pytest.mark.parametrize("scale", [1.0, 2800.0])
def test_log_likelihood_values(target, value, scale):
    target = torch.tensor([target], dtype=torch.float64)
    found = laplace_log_likelihood(QUANTILES / scale, target / scale, scale=scale)
    assert float(found) == pytest.approx(value, abs=5e-7)
    each = laplace_log_likelihood(QUANTILES / scale, target / scale, scale=torch.tensor([scale]))
    torch.testing.assert_close(each, found)


def test_log_likelihood_is_clipped():
    point = torch.tensor([[2600.0, 2600.0, 2600.0]], dtype=torch.float64)
    crossed = torch.tensor([[2700.0, 2600.0, 2500.0]], dtype=torch.float64)
    for predictions in (point, crossed):
        best = laplace_log_likelihood(predictions, torch.tensor([2600.0]).double())
        assert float(best) == pytest.approx(-math.log(math.sqrt(2) * 70), abs=1e-12)
    far = laplace_log_likelihood(QUANTILES.expand(2, -1), torch.tensor([4000.0, 1e9]).double())
    assert far[0] == far[1]


def test_log_likelihood_takes_a_scale_for_each_sample(generator):
    predictions = torch.rand(4, 3, generator=generator, dtype=torch.float64).sort(1).values
    target = torch.rand(4, generator=generator, dtype=torch.float64)
    scale = 1000 * (1 + torch.rand(4, generator=generator, dtype=torch.float64))
    together = laplace_log_likelihood(predictions, target, scale=scale)
    parts = zip(predictions, target, scale, strict=True)
    alone = [laplace_log_likelihood(p[None], y[None], scale=float(s)) for p, y, s in parts]
    torch.testing.assert_close(together, torch.cat(alone))


def test_rmse_is_that_of_the_fold_not_of_batches(generator):
    predictions, target = torch.rand(2, 45, generator=generator)
    whole = float((predictions.double() - target.double()).square().mean().sqrt()) * 1825
    error, halves = RMSE(), [RMSE(), RMSE()]
    for at in range(0, 45, 20):
        error.add(predictions[at : at + 20], target[at : at + 20])
        halves[at // 20 % 2].add(predictions[at : at + 20], target[at : at + 20])
    assert error.value == pytest.approx(whole, rel=1e-12)
    assert (halves[0] + halves[1]).value == pytest.approx(whole, rel=1e-12)
    batches = [(predictions[a : a + 20] - target[a : a + 20]).square().mean() for a in (0, 20, 40)]
    assert abs(error.value - 1825 * float(torch.stack(batches).mean().sqrt())) > 1e-3
    assert RMSE(scale=2.0).scale == (RMSE(scale=2.0) + RMSE(scale=2.0)).scale == 2.0


def test_fold_mean_keeps_no_graph_and_counts_samples():
    mean = FoldMean()
    assert math.isnan(mean.value)
    mean.add(torch.ones(3, requires_grad=True) * 2)
    mean.add(torch.tensor([7.0]))
    assert (mean.value, mean.count) == (13 / 4, 4)
    assert isinstance(mean.total, float)
    assert (mean + FoldMean(total=3.0, count=1)).value == 16 / 5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: pinball(torch.zeros(2, 3), torch.zeros(2, 1)), r"\(n, 3\)"),
        (lambda: pinball(torch.zeros(2, 2), torch.zeros(2)), r"\(n, 3\)"),
        (lambda: pinball(torch.zeros(0, 3), torch.zeros(0)), "n >= 1"),
        (lambda: pinball(torch.zeros(2, 1), torch.zeros(2), quantiles=(1.0,)), "between 0 and 1"),
        (lambda: pinball(torch.zeros(2, 3), torch.tensor([1.0, torch.nan])), "1 of 2"),
        (lambda: laplace_log_likelihood(torch.zeros(2, 3), torch.zeros(3)), "got"),
        (
            lambda: laplace_log_likelihood(torch.zeros(2, 3), torch.zeros(2), scale=torch.ones(3)),
            "scale of shape",
        ),
        (lambda: RMSE().add(torch.zeros(2, 1), torch.zeros(2)), r"\(n,\)"),
        (lambda: RMSE().add(torch.zeros(2), torch.full((2,), torch.inf)), "finite targets"),
    ],
)
def test_bad_input_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
