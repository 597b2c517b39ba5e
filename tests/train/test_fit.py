"""One fold from end to end: losses, metrics of the whole fold, files, reasons to stop."""

import csv
import importlib.util
import json
import logging
import math

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from cpic.nn.metrics import laplace_log_likelihood, pinball
from cpic.train import (
    Classification,
    FoldResult,
    Quantiles,
    Regression,
    fit_fold,
    read_checkpoint,
)
from cpic.train.results._results import write_summary
from tests.train.tiny import Means, Scans, make_cpic, make_data, make_task, table


class Fixed(nn.Module):
    """Predictions of a table by name."""

    def __init__(self, outputs):
        super().__init__()
        self.shift, self.outputs = nn.Parameter(torch.zeros(1)), outputs

    def forward(self, volumes, names, *, rows=None, tabular=None):
        out = torch.stack([self.outputs[name] for name in names])[rows].to(self.shift)
        return out + self.shift if self.training else out


def outputs(n, *size, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return {f"p{k:02d}": torch.rand(size, generator=generator) for k in range(n)}


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# Batches of 4 and 3 samples: a mean of batch means would differ.
def test_rmse_is_of_the_whole_fold_in_days(tmp_path):
    known, data = outputs(15, 3), make_data(15, validation=7)
    task = Regression(Fixed(known), output=1)
    result = fit_fold(task, data, folder=tmp_path, num_epochs=1, precision=64)
    guess = torch.stack([known[name][1] for name in data.validation.patients]).double()
    target = data.validation.target
    assert result.metrics["rmse"] == pytest.approx(
        1825 * float((guess - target).square().mean().sqrt()), rel=1e-6
    )
    mean = data.train.target.mean()
    wanted = 1825 * float((mean - target).square().mean().sqrt())
    assert result.metrics["mean_error"] == pytest.approx(wanted, rel=1e-12)
    assert result.metrics["error"] == result.metrics["rmse"] == result.metrics["best_rmse"]


def test_log_likelihood_is_of_the_whole_fold_in_millilitres(tmp_path):
    known = {name: 0.5 + value.sort().values for name, value in outputs(15, 3).items()}
    data = make_data(15, validation=7, visits=3, scale="first")
    result = fit_fold(Quantiles(Fixed(known)), data, folder=tmp_path, num_epochs=1, precision=64)
    guess = torch.stack([known[name] for name in data.validation.patients]).double()
    target, scale = data.validation.target, data.validation.scale
    wanted = laplace_log_likelihood(guess, target, scale=scale).mean()
    assert result.metrics["mlll"] == pytest.approx(float(wanted), rel=1e-6)
    assert result.metrics["pinball"] == pytest.approx(float(pinball(guess, target)), rel=1e-6)
    median = ((guess[:, 1] - target) * scale).square().mean().sqrt()
    assert result.metrics["error"] == pytest.approx(float(median), rel=1e-6)
    constant = data.train.target.quantile(0.5)
    wanted = ((constant - target) * scale).square().mean().sqrt()
    assert result.metrics["mean_error"] == pytest.approx(float(wanted), rel=1e-12)


def test_accuracy_is_of_the_whole_fold(tmp_path):
    samples = table(Scans(15))
    samples["target"] = [float(k % 3 > 0) for k in range(15)]
    known, data = outputs(15, 2), make_data(15, validation=7, samples=samples)
    result = fit_fold(Classification(Fixed(known)), data, folder=tmp_path, num_epochs=1)
    guess = torch.stack([known[name] for name in data.validation.patients])
    target = data.validation.target.long()
    assert result.metrics["accuracy"] == pytest.approx(
        float((guess.argmax(1) == target).float().mean())
    )
    assert result.metrics["cross_entropy"] == pytest.approx(
        float(nn.functional.cross_entropy(guess, target)), rel=1e-6
    )
    # The training fold has more of class 1.
    assert result.metrics["mean_error"] == pytest.approx(float((target == 0).float().mean()))


@pytest.mark.parametrize("bits", [32, 64])
def test_training_keeps_the_floating_type(tmp_path, bits):
    result = fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1, precision=bits)
    saved, dtype = read_checkpoint(result.latest), getattr(torch, f"float{bits}")
    assert saved["model"]["out.weight"].dtype == dtype
    assert saved["optimizer"]["state"][0]["exp_avg"].dtype == dtype


def test_one_step_is_that_of_radam_on_the_clipped_gradient(tmp_path):
    known, data = outputs(8), make_data(8, batch_size=4, validation=4)
    (batch,) = make_data(8, batch_size=4, validation=4).train_dataloader()
    task = Regression(Fixed(known), lr=0.1)
    fit_fold(task, data, folder=tmp_path, num_epochs=1, clip=1e-3, precision=64)
    shift = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    guess = torch.stack([known[name] for name in batch["names"]]).double()
    (guess + shift - batch["target"]).square().mean().backward()
    shift.grad *= (1e-3 / shift.grad.abs()).clamp_max(1)
    torch.optim.RAdam([shift], lr=0.1).step()
    assert shift.grad.abs().item() == pytest.approx(1e-3)
    torch.testing.assert_close(task.model.shift, shift, rtol=1e-4, atol=0)


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(tmp_path):
    tasks = [make_task() for _ in range(3)]
    before = torch.get_rng_state()
    runs = [
        fit_fold(task, make_data(seed=s), folder=tmp_path / str(k), num_epochs=2, seed=s)
        for k, (s, task) in enumerate(zip((1, 1, 2), tasks, strict=True))
    ]
    assert runs[0].metrics == runs[1].metrics
    assert runs[0].metrics["rmse"] != runs[2].metrics["rmse"]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_simple_model_learns(tmp_path):
    data = make_data(40, batch_size=8, validation=8)
    task = make_task(Means(), lr=0.05)
    result = fit_fold(task, data, folder=tmp_path, num_epochs=40)
    assert result.metrics["best_error"] < 0.6 * result.metrics["mean_error"]


def test_files_hold_an_epoch_a_row_and_what_was_read(tmp_path):
    data = make_data(min_patients=3)
    config = {"rank": 3, "lr": 1e-3}
    result = fit_fold(
        make_task(make_cpic()), data, folder=tmp_path, num_epochs=2, fold=4, config=config
    )
    rows, times = rows_of(tmp_path / "metrics.csv"), rows_of(tmp_path / "times.csv")
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in times] == ["0", "1"]
    assert [row["step"] for row in rows] == ["3", "6"]
    assert float(rows[1]["val_rmse"]) == result.metrics["rmse"]
    assert all(float(rows[1][f"{name}_per_sample"]) > 0 for name in ("asked", "encoded", "voxels"))
    # The first visit looks several times.
    assert float(rows[1]["asked_per_sample"]) < float(rows[0]["asked_per_sample"])
    assert all(float(row["seconds_per_sample"]) > 0 for row in times)
    assert float(times[1]["step_seconds"]) * 3 <= result.seconds
    text = (tmp_path / "config.yaml").read_text()
    assert "rank: 3" in text
    assert "batch_size: 4" in text
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    values = [event.value for event in board.Scalars("val_rmse")]
    assert values == pytest.approx([float(row["val_rmse"]) for row in rows])
    assert (result.fold, result.epochs, result.stopped) == (4, 2, "epochs")
    assert result.peak_bytes > 2**20
    assert 0 < result.step_seconds < result.seconds


@pytest.mark.parametrize(
    ("kind", "values", "best"),
    [(Regression, [3.0, 2.0, 5.0, 2.0], 1), (Quantiles, [-6.0, -8.0, -5.0, -7.0], 2)],
)
def test_the_best_checkpoint_is_of_the_best_epoch(tmp_path, kind, values, best):
    known = outputs(16) if kind is Regression else outputs(16, 3)
    task, told = kind(Fixed(known)), iter([*values, 0.0])
    finish = task.finish
    task.finish = lambda means: {**finish(means), task.monitor: next(told)}
    result = fit_fold(task, make_data(), folder=tmp_path, num_epochs=4)
    rows = rows_of(tmp_path / "metrics.csv")
    assert [float(row[f"val_{task.monitor}"]) for row in rows] == values
    assert result.metrics["best_epoch"] == best
    assert result.metrics[f"best_{task.monitor}"] == values[best]
    assert result.metrics[task.monitor] == values[-1]
    assert read_checkpoint(result.best)["epoch"] == best + 1
    assert read_checkpoint(result.latest)["epoch"] == 4


def test_the_best_epoch_is_chosen_by_patients_of_the_training_fold(tmp_path):
    task, told = Regression(Fixed(outputs(16, 1))), iter([3.0, 2.0, 1.0, 4.0, 2.0, 3.0, 0.0])
    task.finish = lambda means: {"rmse": (value := next(told)), "error": value}
    data = make_data(selection=["p04", "p09"])
    result = fit_fold(task, data, folder=tmp_path, num_epochs=3)
    rows = rows_of(tmp_path / "metrics.csv")
    assert [float(row["val_rmse"]) for row in rows] == [3.0, 1.0, 2.0]
    assert [float(row["selection_rmse"]) for row in rows] == [2.0, 4.0, 3.0]
    assert (result.metrics["best_epoch"], result.metrics["best_rmse"]) == (0, 3.0)
    assert result.selection == ("p04", "p09")
    assert read_checkpoint(result.best)["epoch"] == 1


def test_the_error_of_the_selection_is_that_of_its_patients(tmp_path):
    known, data = outputs(15, 1), make_data(15, validation=7, selection=["p08", "p12"])
    task = Regression(Fixed(known))
    fit_fold(task, data, folder=tmp_path, num_epochs=1, precision=64)
    for table_of, name in ((data.validation, "val_rmse"), (data.selection, "selection_rmse")):
        guess = torch.stack([known[patient][0] for patient in table_of.patients]).double()
        wanted = 1825 * (guess - table_of.target).square().mean().sqrt()
        assert float(rows_of(tmp_path / "metrics.csv")[0][name]) == pytest.approx(float(wanted))


@pytest.mark.parametrize("kind", [Regression, Quantiles])
def test_patience_ends_training(tmp_path, kind):
    # Predictions of the validation do not change, so the first epoch is the best.
    known = outputs(16) if kind is Regression else outputs(16, 3)
    task = kind(Fixed(known))
    result = fit_fold(task, make_data(), folder=tmp_path, num_epochs=9, patience=2)
    assert (result.epochs, result.stopped) == (3, "patience")
    assert result.metrics["best_epoch"] == 0
    options = {"folder": tmp_path, "num_epochs": 9, "resume": True}
    assert fit_fold(kind(Fixed(known)), make_data(), patience=2, **options).epochs == 3
    assert fit_fold(kind(Fixed(known)), make_data(), patience=4, **options).epochs == 5


def test_time_ends_training_inside_an_epoch_with_a_validation(tmp_path):
    options = {"folder": tmp_path, "num_epochs": 5}
    result = fit_fold(make_task(), make_data(), max_minutes=1e-9, **options)
    assert (result.epochs, result.stopped) == (1, "minutes")
    assert read_checkpoint(result.latest)["step"] == 1
    assert math.isfinite(result.metrics["rmse"])
    again = fit_fold(make_task(), make_data(), max_minutes=1e-9, resume=True, **options)
    assert (again.epochs, again.metrics, again.stopped) == (1, result.metrics, "minutes")
    more = fit_fold(make_task(), make_data(), max_minutes=9, resume=True, **options)
    assert (more.epochs, more.stopped) == (5, "epochs")


def test_nothing_is_printed_and_lightning_keeps_to_the_point(tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO):
        fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_bar_shows_what_a_sample_costs(tmp_path, capfd):
    task = make_task(make_cpic())
    fit_fold(task, make_data(min_patients=3), folder=tmp_path, num_epochs=1, progress=True)
    shown = "".join(capfd.readouterr())
    assert all(
        name in shown for name in ("s_per_sample", "evaluations_per_sample", "voxels_per_sample")
    )


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_wandb_says_what_to_install(tmp_path):
    with pytest.raises(ImportError, match=r"pip install .*wandb"):
        fit_fold(make_task(), make_data(), folder=tmp_path, num_epochs=1, wandb=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": 16}, "precision needs one of 32, 64, got 16"),
        ({"num_epochs": 0}, "num_epochs needs a whole number of at least 1.*, got 0"),
        ({"save_every": 0}, "save_every needs a whole number of at least 1.*, got 0"),
        ({"ngpus": 99}, "ngpus between 0 and the .* GPUs of this machine, got 99"),
        ({"patience": -1}, "patience needs a whole number of at least 1.*, got -1"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        fit_fold(make_task(), make_data(), folder=tmp_path, **{"num_epochs": 1, **options})


def test_an_output_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written \(.*\); choose another results"):
        fit_fold(make_task(), make_data(), folder=tmp_path / "file" / "fold_0", num_epochs=1)
    with pytest.raises(ValueError, match=r"summary\.json cannot be written"):
        write_summary(tmp_path / "file", [], {})


def test_an_output_that_becomes_unwritable_keeps_the_last_state(tmp_path):
    class Removing(Means):
        def forward(self, *args, **options):
            if not self.training and (tmp_path / "latest.ckpt").exists():
                (tmp_path / "metrics.csv").unlink(missing_ok=True)
                (tmp_path / "metrics.csv").mkdir(exist_ok=True)
            return super().forward(*args, **options)

    with pytest.raises(ValueError, match=r"metrics\.csv cannot be written"):
        fit_fold(make_task(Removing()), make_data(), folder=tmp_path, num_epochs=3)
    assert read_checkpoint(tmp_path / "latest.ckpt")["epoch"] == 1


def test_several_outputs_need_a_choice(tmp_path):
    with pytest.raises(RuntimeError, match=r"Regression needs one output, got 3"):
        fit_fold(
            Regression(Fixed(outputs(16, 3))),
            make_data(),
            folder=tmp_path,
            num_epochs=1,
            max_faults=0,
        )


def test_a_summary_holds_folds_means_and_provenance(tmp_path):
    folder = tmp_path / "run"
    results = [
        FoldResult(
            fold=k,
            metrics={"rmse": 100.0 + 10 * k, "best_epoch": k},
            epochs=3,
            seconds=1.0,
            step_seconds=0.1,
            peak_bytes=10,
            latest=folder / f"fold_{k}" / "latest.ckpt",
            best=folder / f"fold_{k}" / "best.ckpt",
        )
        for k in range(2)
    ]
    path = write_summary(folder, results, {"rank": 10, "shape": (8, 8)})
    summary = json.loads(path.read_text())
    assert summary["mean"] == {"rmse": 105.0}
    assert summary["folds"][1]["latest"] == "fold_1/latest.ckpt"
    assert summary["folds"][1]["metrics"]["best_epoch"] == 1
    assert summary["shape"] == [8, 8]
    assert {"torch", "cpic", "commit", "machine", "python"} <= set(summary["provenance"])
    assert [p.name for p in folder.iterdir()] == ["summary.json"]
    assert pd.DataFrame(summary["folds"]).shape[0] == 2
