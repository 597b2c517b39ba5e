"""Pictures through the training loop: order, alterations, several optimizers, resuming."""

import pytest
import torch
from torch import nn

from cpic import images
from cpic._errors import ImageError
from cpic.options import Run, Training
from cpic.train import ImageData, fit_fold
from cpic.train.tasks._images import ImageClassification, train_on_images


def parts(n=64):
    return [images.load("small-digits", train=t).subset(range(n)) for t in (True, False)]


def noisy(image):
    return image.float() / 255 + 0.1 * torch.rand(image.shape)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def data(**options):
    return ImageData(*parts(), batch_size=16, augment=noisy, **options)


def test_every_picture_once_in_an_epoch():
    names = [name for batch in data().train_dataloader() for name in batch["names"]]
    assert sorted(names) == sorted(f"train {k}" for k in range(64))
    names = [name for batch in data().val_dataloader() for name in batch["names"]]
    assert names == [f"validation {k}" for k in range(64)]


def test_alterations_depend_on_seed_and_epoch_alone():
    def seen(seed, epoch):
        one = data(seed=seed)
        loader = one.loader(one.train, [[3, 4], [5, 6]], epoch=epoch)
        torch.rand(3)  # of no influence
        return torch.cat([batch["images"] for batch in loader])

    assert torch.equal(seen(0, 0), seen(0, 0))
    assert not torch.equal(seen(0, 0), seen(0, 1))
    assert not torch.equal(seen(0, 0), seen(1, 0))


def test_a_picture_is_read_with_its_label():
    one = data()
    pixels, labels = one.parts["train"].pixels, one.parts["train"].labels
    for batch in one.loader(one.train, [[7, 2]], epoch=None):
        assert batch["target"].tolist() == labels[[7, 2]].tolist()
        assert torch.equal(batch["images"], pixels[[7, 2]].float() / 255)


def test_views_are_averaged():
    net = model()
    task = ImageClassification(net)
    views = torch.rand(3, 2, 1, 8, 8)
    expected = (net(views[:, 0]) + net(views[:, 1])) / 2
    torch.testing.assert_close(task({"images": views}), expected)


@pytest.mark.parametrize("schedule", ["linear", lambda done: (1 - done) ** 2])
def test_rates_by_step(schedule, tmp_path):
    rates = []

    class Watched(ImageClassification):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])

    task = Watched(model(), lr=0.5, schedule=schedule, by_step=True, optimizer="sgd")
    fit_fold(task, data(), folder=tmp_path, num_epochs=2)
    factor = (lambda done: 1 - done) if schedule == "linear" else schedule
    assert rates == pytest.approx([0.5 * factor(k / 8) for k in range(8)])


class Two(ImageClassification):
    """Two optimizers, for the weight and the bias, with a rate of its own for the latter."""

    def configure_optimizers(self):
        weight, bias = self.model.parameters()
        return [
            torch.optim.Adam([weight], lr=self.lr),
            torch.optim.Adam([{"params": [bias], "factor": 10.0}], lr=self.lr),
        ]

    def training_step(self, batch, batch_idx):
        self.set_rate()
        first, second = self.optimizers()
        first.zero_grad(), second.zero_grad()
        self.loss(self(batch), batch).backward()
        first.step(), second.step()
        self._count(1.0, len(batch["target"]), (0, 0, 0), 0.1)


class Killed(RuntimeError):
    """As if the machine had been switched off."""


@pytest.mark.parametrize("kind", [ImageClassification, Two])
def test_a_killed_run_resumes_bit_for_bit(kind, tmp_path):
    def fit(folder, last=None, resume=False):
        class Stopping(kind):
            def on_train_batch_start(self, batch, batch_idx):
                if last is not None and self.current_epoch == 1 and batch_idx == last:
                    raise Killed

        task = Stopping(model(), lr=0.01, schedule="linear", by_step=True, optimizer="adam")
        fit_fold(task, data(), folder=folder, num_epochs=3, save_every=1, resume=resume)
        return [p.detach().clone() for p in task.model.parameters()]

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "part", last=2)
    resumed = fit(tmp_path / "part", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "part")]
    assert rows[0] == rows[1]


def test_summary_has_accuracy_and_chance(tmp_path):
    import json

    task = ImageClassification(model(), lr=0.05, optimizer="adam")
    (result,) = train_on_images(
        "digits",
        task,
        data(),
        optimization=Training(batch_size=16, num_epochs=8),
        run=Run(results_folder=tmp_path),
        config={"dataset": "small-digits"},
    )
    mean = json.loads((tmp_path / "digits" / "summary.json").read_text())["mean"]
    labels, before = data().validation.target, data().train.target
    commonest = before.long().bincount().argmax()
    assert mean["chance"] == pytest.approx(float((labels == commonest).double().mean()))
    assert mean["accuracy"] == result.metrics["accuracy"] > 2 * mean["chance"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a, b: ImageData(a, b, batch_size=65), "lower the batch size"),
        (lambda a, b: ImageData(a, b.subset([]), batch_size=2), "none to validation"),
        (lambda a, b: ImageData(a, b, selection=b.subset([]), batch_size=2), "none to selection"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ImageError, match=words):
        make(*parts())
