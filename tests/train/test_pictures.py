"""Training on pictures: steps of a GAN and of a classifier, what they write, and resuming."""

import json
import zipfile
from pathlib import Path

import onnx
import onnx.reference
import pytest
import torch
from torch.nn import functional

from cpic import images, train
from cpic._errors import ImageError
from cpic.images import _alter, _sheet
from cpic.nn import spectral
from cpic.nn.generative import Generator
from cpic.train.loop._step_data import StepData
from cpic.train.tasks import _code, _judge, _pair
from cpic.train.tasks._classification import PictureClassification
from cpic.train.tasks._outputs import onnx_bytes
from tests.train.equal import assert_equal

GAN = {
    "dataset": "small-digits", "size": 16, "g_width": 8, "d_width": 8, "n_latent": 4,
    "batch_size": 8, "num_steps": 4, "d_steps": 2, "d_layers": "sttp", "d_rank": 4,
    "evaluate_every": 2, "spectra_every": 2, "sheets_every": 2, "log_every": 1, "onnx": False,
    "num_samples": 20, "batch_size_inference": 8, "metrics": "features", "num_workers": 0,
}  # fmt: skip
CLASSES = {
    "dataset": "small-digits", "augment": "none", "depth": 10, "widen": 1, "layers": "sttp",
    "rank": 8, "batch_size": 32, "num_steps": 4, "evaluate_every": 2, "spectra_every": 2,
    "log_every": 1, "num_workers": 0,
}  # fmt: skip
KINDS = {
    "sttp, average, classes": {
        "ema": 0.5, "conditional": True, "g_layers": "svdp", "g_rank": 4, "d_penalty": "d_optimal",
    },
    "sn": {"d_layers": "sn", "d_rank": 64, "g_optimizer": "sgd", "d_optimizer": "sgd"},
    "sr": {"d_layers": "sr", "d_layer_options": {"every": 2}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A classifier that judges after a few steps is enough here."""
    monkeypatch.setattr(_judge, "_STEPS", 3)


@pytest.fixture
def gan(tmp_path):
    """Run `cpic gan` on tiny networks."""

    def call(name, **options):
        train.gan(**{**GAN, **options}, results_folder=str(tmp_path), experiment_name=name)
        return tmp_path / name

    return call


def state(folder):
    """A checkpoint without the name of its run, and without times."""
    found = dict(train.read_checkpoint(folder / "fold_0" / "latest.ckpt"))
    options = found.pop("config")["options"]
    assert options["data"]["dataset"] == "small-digits"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_pair_ends_as_if_it_had_not_been(gan, monkeypatch, kind):
    whole = gan("whole", **KINDS[kind])
    update, calls = _pair.Adversarial._update, []

    def dies(self, *args):
        calls.append(1)
        # In the third step of four: the generator is updated, the discriminator is not.
        if len(calls) == 8:
            raise KeyboardInterrupt
        return update(self, *args)

    monkeypatch.setattr(_pair.Adversarial, "_update", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        gan("cut", **KINDS[kind], save_every=1)
    monkeypatch.undo()
    cut = gan("cut", **KINDS[kind], resume=True)
    assert_equal(state(cut), state(whole))
    rows = [(one / "fold_0" / "metrics.csv").read_bytes() for one in (cut, whole)]
    assert rows[0] == rows[1]


def test_a_pair_writes_what_it_should(gan):
    folder = gan("run", onnx=True)
    summary = json.loads((folder / "summary.json").read_text())
    assert {"distance", "distance_start", "kernel_distance"} <= set(summary["mean"])
    assert summary["mean"]["mean_error"] == summary["mean"]["distance_start"]
    assert "not FID" in summary["metrics"]
    assert summary["compression"]["discriminator"]["free"] > 0
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert "singular_values_discriminator_0000002.png" in names
    assert "samples_fixed_0000004.png" in names
    assert "interpolation_random_0000004.png" in names
    onnx.checker.check_model(onnx.load(folder / "generator_best.onnx"))


def test_a_run_is_not_resumed_by_other_code(gan, monkeypatch):
    folder = gan("run")
    with zipfile.ZipFile(folder / "source.zip") as archive:
        names = set(archive.namelist())
        assert archive.read("cpic/train/tasks/_pair.py") == Path(_pair.__file__).read_bytes()
    assert {"cpic/__init__.py", "cpic/nn/spectral/_frames.py"} <= names
    gan("run", resume=True)
    read, changed = _code._read, {"_frames.py": b"x = 1"}
    monkeypatch.setattr(_code, "_read", lambda path: changed.get(path.name) or read(path))
    with pytest.raises(ValueError, match=r"begun by other code: cpic/.*_frames.py differs; use"):
        gan("run", resume=True)
    (folder / "source.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"source.zip cannot be read"):
        gan("run", resume=True)
    (folder / "source.zip").unlink()
    gan("run", resume=True)


def test_an_exported_generator_is_the_generator():
    torch.manual_seed(0)
    net = Generator(16, in_channels=1, width=8, n_latent=4, n_classes=3).eval()
    spectral.parametrize(net, "sttp", rank=4, ignore=["noise_to_conv"])
    model = onnx.load_from_string(onnx_bytes(net))
    assert [one.name for one in model.graph.input] == ["z", "condition"]
    assert [one.name for one in model.graph.output] == ["rgb"]
    # It is exported from a batch of two, and takes any other.
    for n in (1, 2, 5):
        z, labels = torch.randn(n, 4), torch.arange(n) % 3
        inputs = {"z": z.numpy(), "condition": labels.numpy()}
        (found,) = onnx.reference.ReferenceEvaluator(model).run(None, inputs)
        expected = net.pixels(z, labels)
        assert expected.shape == found.shape
        assert (torch.from_numpy(found.copy()).int() - expected.int()).abs().max() <= 1


def test_an_update_is_seen_by_the_next_one(gan, monkeypatch):
    """The generator first, then the discriminator, each with the weights of now."""
    order, old = [], _pair.Adversarial._update
    loss = _pair.Adversarial._d_loss

    def update(self, optimizer, network, function):
        order.append(type(network).__name__[0])
        return old(self, optimizer, network, function)

    def d_loss(self, pixels, labels):
        noise, draw = torch.randn(3, 4), self.pair.generator
        # Forget nothing by hand: what is computed must follow from the parameters.
        fresh = type(draw)(16, in_channels=1, width=8, n_latent=4)
        spectral.parametrize(fresh, "svdp", rank=4)
        fresh.load_state_dict(draw.state_dict())
        torch.testing.assert_close(draw(noise), fresh.train()(noise))
        draw.load_state_dict(fresh.state_dict())
        return loss(self, pixels, labels)

    monkeypatch.setattr(_pair.Adversarial, "_update", update)
    monkeypatch.setattr(_pair.Adversarial, "_d_loss", d_loss)
    gan("run", g_layers="svdp", g_rank=4, g_ignored=[])
    assert "".join(order) == "GDD" * 4


def test_rates_fall_linearly_to_zero(gan, monkeypatch):
    rates, old = [], _pair.Adversarial._update

    def update(self, optimizer, *rest):
        rates.append(optimizer.param_groups[0]["lr"])
        return old(self, optimizer, *rest)

    monkeypatch.setattr(_pair.Adversarial, "_update", update)
    gan("run", g_lr=0.1, d_lr=0.2)
    expected = [rate * (1 - step / 4) for step in range(4) for rate in (0.1, 0.2, 0.2)]
    assert rates == pytest.approx(expected)


def test_an_update_that_is_not_finite_is_skipped(gan, monkeypatch):
    old, calls = _pair.Adversarial._g_loss, []

    def broken(self, n):
        calls.append([p.detach().clone() for p in self.pair.generator.parameters()])
        found = old(self, n)
        return found * float("nan") if len(calls) == 2 else found

    monkeypatch.setattr(_pair.Adversarial, "_g_loss", broken)
    folder = gan("run")
    assert all(map(torch.equal, calls[1], calls[2]))
    assert not all(map(torch.equal, calls[0], calls[1]))
    assert state(folder)["faults"] == 1


def test_a_classifier_learns_and_resumes(tmp_path, monkeypatch):
    options = {**CLASSES, "results_folder": str(tmp_path), "augment": "shift", "selection": 0.1}
    whole = train.imgcls(**options, experiment_name="whole", penalty="d_optimal")
    task = PictureClassification
    old, calls = task.loss, []

    def dies(self, *args):
        calls.append(1)
        if self.training and len(calls) > 2:
            raise KeyboardInterrupt
        return old(self, *args)

    monkeypatch.setattr(task, "loss", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train.imgcls(**options, experiment_name="cut", penalty="d_optimal", save_every=1)
    monkeypatch.undo()
    train.imgcls(**options, experiment_name="cut", penalty="d_optimal", resume=True)
    assert_equal(state(tmp_path / "cut"), state(tmp_path / "whole"))
    assert {"accuracy", "chance", "top5"} <= set(whole[0].metrics)
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["compression"]["percent"] < 60


def test_weights_of_a_classifier_are_compensated(tmp_path):
    options = {**CLASSES, "layers": "sr", "layer_options": {"every": 1}}
    train.imgcls(**options, results_folder=str(tmp_path), experiment_name="run")
    saved = state(tmp_path / "run")["model"]
    assert saved["compensation._extra_state"]["count"] == 4
    assert torch.linalg.matrix_norm(saved["stem.weight"].flatten(1), 2) == pytest.approx(1.0)


@pytest.mark.slow
def test_a_classifier_is_better_than_chance(tmp_path):
    options = {**CLASSES, "num_steps": 60, "evaluate_every": 60}
    (found,) = train.imgcls(**options, results_folder=str(tmp_path))
    assert found.metrics["accuracy"] > 0.7 > 0.2 > found.metrics["chance"]


def test_frames_may_be_spared_from_decay(tmp_path, monkeypatch):
    task = PictureClassification
    groups, old = [], task.configure_optimizers

    def kept(self):
        optimizer = old(self)
        groups.append((optimizer.param_groups, dict(self.model.named_parameters())))
        return optimizer

    monkeypatch.setattr(task, "configure_optimizers", kept)
    for decay in ("all", "weights"):
        options = {**CLASSES, "num_steps": 1, "results_folder": str(tmp_path), "decay": decay}
        train.imgcls(**options, experiment_name=decay)
    (everything,), named = groups[0]
    assert len(everything["params"]) == len(named)
    (decayed, spared), named = groups[1]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0.0)
    frames = {id(p) for name, p in named.items() if name.endswith("original0")}
    assert {id(p) for p in spared["params"]} == frames
    assert frames


@pytest.mark.parametrize("per_epoch", [3, 5, 7, 100])
def test_the_order_depends_on_the_number_of_the_step(per_epoch):
    pixels = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1)
    pictures = images.PixelImages.make(pixels, torch.arange(10) % 2, classes=("a", "b"))
    data = StepData(
        pictures, pictures, num_steps=7, steps_per_epoch=per_epoch, batch_size=4, seed=3
    )

    class Now:
        current_epoch = 0

    data.trainer, seen = Now(), []
    for Now.current_epoch in range(data.num_epochs):
        loader = data.train_dataloader()
        assert len(loader) == data.n_batches
        seen += [batch["images"].flatten().tolist() for batch in loader]
    assert len(seen) == 7
    flat = [k for batch in seen for k in batch]
    assert sorted(flat[:10]) == sorted(flat[10:20]) == list(range(10))
    assert flat[:10] != flat[10:20]
    # A resumed run goes on where it was.
    Now.current_epoch, data.start = 0, (0, 2)
    assert next(iter(data.train_dataloader()))["images"].flatten().tolist() == seen[2]


def test_random_parts_are_parts():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(6, 2, 8, 8, generator=draw)
    same = _alter.random_parts(x, generator=draw, pad=0, areas=(1, 1), ratio=1.0)
    for one, other in zip(x, same, strict=True):
        assert any(torch.allclose(other, y, atol=1e-5) for y in (one, one.flip(2)))
    whole = _alter.random_parts(x, generator=draw, pad=2, areas=(1, 1), ratio=1.0)
    expected = functional.interpolate(functional.pad(x, (2,) * 4), (8, 8), mode="bilinear")
    for one, other in zip(expected, whole, strict=True):
        assert any(torch.allclose(other, y, atol=1e-5) for y in (one, one.flip(2)))
    # A linear image stays linear, whatever part is taken, and never leaves its range.
    ramp = torch.linspace(0, 1, 8).expand(50, 1, 8, 8)
    parts = _alter.random_parts(ramp, generator=draw, pad=0)
    steps = parts.diff(dim=3)
    torch.testing.assert_close(steps[..., 2:-2], steps[..., 3:4].expand_as(steps[..., 2:-2]))
    assert parts.min() >= 0
    assert parts.max() <= 1
    widths = steps[:, 0, 0, 3].abs() * 7  # of the part, as a share of the picture
    assert 0.2 < widths.min() < 0.5 < widths.max() <= 1.001


def test_shifted_pictures_are_moved():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(20, 1, 6, 6, generator=draw)
    found = _alter.shifted(x, 1, generator=draw)
    padded = functional.pad(x, (1,) * 4)
    moves = [(i, j) for i in range(3) for j in range(3)]
    at = []
    for k in range(20):
        cut = {m: padded[k, :, m[0] : m[0] + 6, m[1] : m[1] + 6] for m in moves}
        at += [m for m, part in cut.items() if torch.equal(part, found[k])]
    assert len(at) == 20
    assert len(set(at)) > 5


def test_sheets_show_what_they_say():
    values = [torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.5])]
    found = _sheet.spectra_sheet(values, top=2)
    assert found.shape[1] == 16 + 2 * 4
    columns = found[:, 16:20, [0, 6]].float()
    red, green = columns[:, 0, 0], columns[:, 0, 1]
    assert red[0] > red[2]  # the largest value is red
    assert green[2] > green[0]  # the smallest one shown is blue
    picture = _sheet.tiled(torch.arange(5).view(5, 1, 1, 1), columns=3)
    assert picture.tolist() == [[[0, 1, 2], [3, 4, 0]]]


WRONG = {
    "no weights": ({"metrics": "fidelity"}, (ImportError, ValueError), "metrics=fidelity needs"),
    "no wandb": ({"wandb": True}, ImportError, "wandb=true needs wandb"),
    "no folder": ({"dataset": "cifar10"}, ImageError, "cifar10 needs its folder"),
    "penalty": ({"d_penalty": "d_optimal", "d_spectrum": "fixed"}, ValueError, "learned spectrum"),
    "penalty of sn": ({"d_penalty": "d_optimal", "d_layers": "sn"}, ValueError, "learned spectrum"),
    "layer option": ({"d_layer_options": {"nois": 1}}, ValueError, "'nois', did you mean 'noise'"),
    "layer bound": ({"d_layer_options": {"noise": "x"}}, ValueError, "layer_options.noise needs"),
    "plain option": (
        {"g_layer_options": {"noise": 1.0}}, ValueError, "g_layer_options of plain layers",
    ),
    "name": ({"d_ignored": ["nowhere"]}, ValueError, "nowhere"),
    "leading": ({"leading_metric": "fid"}, ValueError, "leading_metric.*'fid'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_run_is_refused_before_training(gan, name):
    options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        gan("run", **options)


def test_one_class_cannot_judge(monkeypatch, gan):
    old = images.load

    def one_class(*args, **options):
        found = old(*args, **options)
        return found.subset((found.labels == 0).nonzero()[:, 0])

    monkeypatch.setattr(images, "load", one_class)
    with pytest.raises(ImageError, match="several classes"):
        gan("run")
    with pytest.raises(ValueError, match="conditional needs labeled"):
        gan("run", conditional=True)
