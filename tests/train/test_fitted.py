"""Linear rivals in closed form: what they solve for, what they read, what they refuse."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from cpic import train
from cpic.data import ArrayVolume
from cpic.nn.baselines import block_means
from cpic.train.tasks._fitted import Fitted, blocks, fit_closed_form, nothing, random_voxels
from cpic.train.tasks._tasks import Quantiles, Regression
from tests.train.tiny import Scans, make_data

from . import cohorts


def two_blocks(volume):
    return blocks(volume, n_blocks=2)


def fit(folder, data, model, task=Regression):
    module = task(model)
    return module, fit_closed_form(module, data, folder=folder, fold=0, config={"rank": 1})


def test_it_is_the_ridge_regression_of_scikit_learn(tmp_path):
    data = make_data(40, validation=10)
    module, result = fit(tmp_path, data, Fitted(two_blocks, 8, 1).double())
    inputs = {
        name: block_means(volume.read()[None, None], n_blocks=2)[0].double().numpy()
        for name, volume in data.volumes.items()
    }
    x, out = (np.stack([inputs[p] for p in t.patients]) for t in (data.train, data.validation))
    scaler = StandardScaler().fit(x)
    ridge = Ridge(result.metrics["alpha"]).fit(scaler.transform(x), data.train.target.numpy())
    guess = torch.from_numpy(ridge.predict(scaler.transform(out)))
    wanted = 1825 * float((guess - data.validation.target).square().mean().sqrt())
    assert result.metrics["error"] == pytest.approx(wanted, rel=1e-6)
    # The target is the radius of a bright ball, so the means of eight blocks know it.
    assert result.metrics["error"] < 0.4 * result.metrics["mean_error"]
    saved = train.read_checkpoint(result.best)["model"]
    assert torch.equal(saved["weight"], module.model.weight)


def test_the_mean_is_the_mean_and_reads_nothing(tmp_path):
    data = make_data(20)
    _, result = fit(tmp_path, data, Fitted(nothing, 0, 1).double())
    assert result.metrics["error"] == pytest.approx(result.metrics["mean_error"], rel=1e-12)
    assert sum(volume.ledger.voxels for volume in data.volumes.values()) == 0
    data = make_data(20, visits=3)
    _, result = fit(tmp_path / "visits", data, Fitted(nothing, 0, 3).double(), Quantiles)
    assert result.metrics["error"] == pytest.approx(result.metrics["mean_error"], rel=1e-12)


def test_quantiles_keep_the_distances_of_held_out_residuals(tmp_path):
    data = make_data(40, validation=10, visits=3, tabular=lambda rows: week(rows))
    model = Fitted(two_blocks, 8, 3, n_tabular=1, products=True).double()
    module, result = fit(tmp_path, data, model, Quantiles)
    assert model.weight.shape == (3, 17)
    assert torch.equal(model.weight[0], model.weight[2])
    low, middle, high = model.bias.tolist()
    assert low < middle < high
    assert result.metrics["mlll"] > -8
    (batch, *_) = data.val_dataloader()
    predictions = module(batch)
    torch.testing.assert_close(predictions.diff(dim=1)[0], model.bias.diff())


def week(rows):
    return torch.tensor(rows["weeks"].to_numpy())[:, None]


def test_random_voxels_are_the_same_in_all_volumes_and_nothing_else_is_read():
    scans = Scans(2)
    first, second = scans.volume("p00"), scans.volume("p01")
    found = [random_voxels(volume, n_voxels=100, n_bins=8) for volume in (first, second)]
    assert first.ledger.voxels == second.ledger.voxels == 100
    assert [float(f.sum()) for f in found] == pytest.approx([8, 8])
    assert not torch.equal(*found)
    assert torch.equal(random_voxels(first, n_voxels=100, n_bins=8), found[0])
    assert not torch.equal(random_voxels(first, n_voxels=100, n_bins=8, draw=1), found[0])
    several = ArrayVolume(torch.rand(4, 4, 4, 2), channels=2)
    assert len(random_voxels(several, n_voxels=10**6, n_bins=8)) == 16


def test_constant_features_give_the_mean(tmp_path):
    data = make_data(20)
    flat = Fitted(lambda volume: torch.ones(2), 2, 1).double()
    _, result = fit(tmp_path, data, flat)
    assert result.metrics["error"] == pytest.approx(result.metrics["mean_error"], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("blocks", {"n_blocks": 99}, r"block_means needs .* got \[99, 99, 99\]"),
        ("blocks", {"n_blocks": 0}, r"more\.n_blocks needs a whole number of at least 1"),
        ("blocks", {"n_bins": 3}, "there is no setting 'n_bins'"),
        ("blocks", {"volume": 3}, "there is no setting 'volume'"),
        ("random_voxels", {"n_voxels": -1}, r"more\.n_voxels needs a whole number"),
        ("mean", {"n_blocks": 2}, "there is no setting 'n_blocks'"),
    ],
)
def test_bad_options_are_refused(tmp_path, name, more, message):
    with pytest.raises(ValueError, match=message):
        train.baseline(name, **cohorts.options("brats", tmp_path, dense=True), more=more)


@pytest.mark.parametrize("task", ["brats", "osic"])
def test_a_checkpoint_predicts_and_a_run_may_go_on(tmp_path, task):
    options = cohorts.options(task, tmp_path, dense=True)
    (first,) = train.baseline("blocks", task=task, **options, more={"n_blocks": 4})
    assert first.selection == ()
    with pytest.raises(ValueError, match="holds a run already"):
        train.baseline("blocks", task=task, **options, more={"n_blocks": 4})
    (again,) = train.baseline("blocks", task=task, **options, more={"n_blocks": 4}, resume=True)
    assert again.metrics == first.metrics
    root, out = getattr(cohorts, task)(), tmp_path / "out.csv"
    train.predict(first.best, root, out=out, cache=options["cache"])
    assert len(out.read_text().splitlines()) > 8
