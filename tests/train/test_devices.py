"""Training on every device: the same run, from any checkpoint to any device."""

import contextlib
import logging

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.accelerators import cuda
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

from cpic import train
from cpic.nn import CPIC, CubeEncoder, Search, TwoHeadRegressor
from cpic.train import Classification, HistogramLinear, Quantiles, dense, fit_fold, read_checkpoint
from cpic.train.loop._globals import matmul_precision
from tests import card
from tests.devices import CPU, tensors
from tests.train import cohorts
from tests.train.tiny import Scans, make_data, make_task, table


class OnCard(CPUAccelerator):
    """What Lightning needs to know of the second device."""

    def setup_device(self, device):
        """Nothing to set up."""


@pytest.fixture
def ngpus(device, monkeypatch):
    """The option that trains on the device."""
    trainer = pl.Trainer

    def on_card(*, accelerator, devices, strategy, **options):
        assert (accelerator, devices, strategy) == ("cpu", 1, "auto")
        place = SingleDeviceStrategy(device, accelerator=OnCard())
        return trainer(strategy=place, devices=1, **options)

    if device == card.DEVICE:
        monkeypatch.setattr(pl, "Trainer", on_card)
    # A loader of torch needs the default device to be that of its generator.
    with CPU:
        yield int(device.type == "cuda")


@pytest.fixture
def fit(device, ngpus, tmp_path):
    """Train on the device; returns what the last checkpoint holds."""

    def run(name, task, data, **options):
        seen = set()
        task.model.register_forward_pre_hook(
            lambda model, _: seen.add(next(model.parameters()).device)
        )
        options = {"num_epochs": 2, "precision": 64, "ngpus": ngpus, **options}
        result = fit_fold(task, data, folder=tmp_path / name, **options)
        assert seen == {device}
        return read_checkpoint(result.latest)

    return run


@pytest.fixture
def fit_on_cpu(tmp_path, monkeypatch):
    """The same on the CPU, with Lightning's own trainer."""
    trainer = pl.Trainer

    def run(name, task, data, **options):
        with monkeypatch.context() as patch:
            patch.setattr(pl, "Trainer", trainer)
            options = {"num_epochs": 2, "precision": 64, **options}
            return read_checkpoint(fit_fold(task, data, folder=tmp_path / name, **options).latest)

    return run


def few(**options):
    """A batch to train on and one to validate."""
    return make_data(8, **options)


def with_classes():
    samples = table(Scans(8))
    samples["target"] = [float(k % 2) for k in range(8)]
    return few(samples=samples)


def cpic():
    torch.manual_seed(0)
    encoder, head = CubeEncoder(2, variant="fast"), TwoHeadRegressor(3, n_outputs=1)
    search, generator = Search(rank=3, n_sweeps=1), torch.Generator().manual_seed(0)
    return CPIC(encoder, head, shape=(8, 8, 8), search=search, generator=generator)


def histogram(n_outputs):
    torch.manual_seed(0)
    return dense(HistogramLinear(n_outputs, n_bins=8), (8, 8, 8))


# Each without noise, which a GPU draws from a generator of its own.
RUNS = {
    "C-PIC, Regression": lambda: (make_task(cpic()), few(min_patients=3)),
    "Quantiles": lambda: (Quantiles(histogram(3), lr=1e-2), few(visits=2)),
    "Classification": lambda: (Classification(histogram(2), lr=1e-2), with_classes()),
}


def assert_close(found, expected):
    pairs = zip(tensors(found["model"]), tensors(expected["model"]), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    for row, wanted in zip(found["history"], expected["history"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_that_of_the_cpu(name, fit, fit_on_cpu):
    assert_close(fit("run", *RUNS[name]()), fit_on_cpu("cpu", *RUNS[name]()))


def test_a_run_goes_on_on_another_device(fit, fit_on_cpu):
    name = "C-PIC, Regression"
    whole = fit_on_cpu("whole", *RUNS[name]())
    fit("run", *RUNS[name](), num_epochs=1)
    assert_close(fit_on_cpu("run", *RUNS[name](), resume=True), whole)
    fit_on_cpu("back", *RUNS[name](), num_epochs=1)
    assert_close(fit("back", *RUNS[name](), resume=True), whole)


COMMANDS = {
    "brats": lambda options: train.brats(**options("brats")),
    "osic": lambda options: train.osic(**options("osic")),
    "baseline": lambda options: train.baseline(
        "histogram", task="brats", **options("brats", dense=True)
    ),
}
GPU = pytest.param("cuda", marks=pytest.mark.cuda)


# On the CPU in the tests of the command line.
@pytest.mark.parametrize("device", ["card", GPU], indirect=True)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_cohort_is_trained_on_and_predicted(name, device, ngpus, tmp_path):
    def options(task, **kind):
        return {**cohorts.options(task, tmp_path, **kind), "ngpus": ngpus}

    (result,) = COMMANDS[name](options)
    assert result.metrics["rmse"] > 0
    saved = read_checkpoint(result.latest)
    assert {tensor.device for tensor in tensors(saved["model"])} == {CPU}
    if name == "brats":
        out, cache = tmp_path / "days.csv", cohorts.folder() / "cache"
        train.predict(result.latest, cohorts.brats(), out=out, cache=cache)
        assert len(out.read_text().splitlines()) > 10


def test_every_public_name_is_tried():
    tried = {"CohortData", "FoldResult", "Regression", "HistogramLinear", "dense", "fit_fold"}
    tried |= {"Quantiles", "Classification", "predict", "read_checkpoint", *COMMANDS}
    # On pictures, so far on the CPU only.
    others = {"ImageData", "BagData", "LabeledBags", "PatchTask", "gan", "gcp", "imgcls", "ips"}
    assert set(train.__all__) == tried | others


class Tipped(OnCard):
    """Lightning's advice to a user with Tensor Cores, as if there were some."""

    def setup_device(self, device):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
            patch.setattr(cuda, "_is_ampere_or_later", lambda _: True)
            cuda._check_cuda_matmul_precision.__wrapped__(device)


@pytest.mark.parametrize(("bits", "inside"), [(32, "high"), (64, "highest")])
def test_products_on_a_gpu_are_as_precise_as_the_option_says(
    bits, inside, tmp_path, monkeypatch, caplog
):
    trainer, seen = pl.Trainer, []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.random, "fork_rng", contextlib.nullcontext)

    def on_card(*, accelerator, devices, **options):
        assert (accelerator, devices) == ("gpu", 1)
        options["strategy"] = SingleDeviceStrategy(card.DEVICE, accelerator=Tipped())
        return trainer(devices=1, **options)

    monkeypatch.setattr(pl, "Trainer", on_card)
    task, data = RUNS["Quantiles"]()
    task.model.register_forward_pre_hook(
        lambda *_: seen.append(torch.get_float32_matmul_precision())
    )
    with card.Card(), caplog.at_level(logging.INFO):
        fit_fold(task, data, folder=tmp_path, num_epochs=1, precision=bits, ngpus=1)
    assert set(seen) == {inside}
    assert torch.get_float32_matmul_precision() == "highest"
    assert not caplog.records


@pytest.mark.parametrize("name", ["high", "medium"])
def test_the_precision_of_products_is_left_alone_without_a_gpu_and_after_errors(name):
    torch.set_float32_matmul_precision(name)
    try:
        with matmul_precision(32, on_gpu=False):
            assert torch.get_float32_matmul_precision() == name
        with contextlib.suppress(ValueError), matmul_precision(32, on_gpu=True):
            assert torch.get_float32_matmul_precision() == "high"
            raise ValueError
        assert torch.get_float32_matmul_precision() == name
    finally:
        torch.set_float32_matmul_precision("highest")


def test_an_unused_gpu_is_no_reason_to_warn(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    with pytest.warns(UserWarning, match="GPU available but not used"):
        pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    fit_fold(*RUNS["Quantiles"](), folder=tmp_path, num_epochs=1)
    assert not recwarn.list
