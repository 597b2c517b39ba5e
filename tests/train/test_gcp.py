"""Training with covariance pooling: recipes, schedules, the switch, crops, bad input."""

import csv
import dataclasses
import inspect
import json

import pytest
import torch
import yaml
from PIL import Image as pillow

from cpic import cli, train
from cpic._errors import ImageError
from cpic.cli import _flags
from cpic.images import load
from cpic.nn.pooling import (
    Reduction,
    SecondOrder,
    Switched,
    ThreeParts,
    representation,
    small_backbone,
)
from cpic.options import Descent, Pictures, Pooling, Run, _presets
from cpic.train.tasks import _gcp_run, _gcp_task, _gcp_views, _gcp_weights, _images
from tests.images.test_trees import MAKERS, cells, matlab, picture

SMALL = {
    "benchmark": "small-digits",
    "arch": "plain",
    "representation": "MPNCOV",
    "dimension_reduction": 8,
    "num_epochs": 2,
    "batch_size": 32,
    "lr": 0.02,
    "lr_params": (1,),
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A quarter of the digits."""

    def some(name, **options):
        images = load(name, **options)
        return images.subset(range(0, len(images), 4)) if name == "small-digits" else images

    monkeypatch.setattr(_gcp_run, "load", some)


def fitted(folder, **options):
    (result,) = train.gcp(
        **{**SMALL, "results_folder": folder, "experiment_name": "run", **options}
    )
    with (folder / "run" / "fold_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return result, rows


def test_a_run_learns_and_says_what_it_saw(tmp_path):
    result, rows = fitted(tmp_path, num_epochs=6, lr_params=(5,), compare_gap=True)
    mean = json.loads((tmp_path / "run" / "summary.json").read_text())["mean"]
    assert mean["accuracy"] > 3 * mean["chance"]
    assert mean["gap_accuracy"] > mean["chance"]
    assert mean["n_views"] == 1
    assert 0 <= mean["top5_error"] < 1 - mean["accuracy"]
    for row in rows:
        assert 0 < float(row["val_log10_condition"]) <= 16
        assert float(row["val_gradient_norm"]) > 0
    assert result.selection  # training pictures choose the epoch
    events = list((tmp_path / "run" / "fold_0" / "tensorboard").glob("events*"))
    text = b"".join(path.read_bytes() for path in events)
    assert b"gradient/classifier.0.weight" in text
    assert b"log10 of eigenvalues" in text
    assert b"gradient_norm" in text


def test_the_network_it_is_compared_with_is_trained_with_the_same_options(tmp_path, monkeypatch):
    calls, fit_fold = [], _images.fit_fold

    def spy(*args, **options):
        calls.append(options)
        return fit_fold(*args, **options)

    monkeypatch.setattr(_images, "fit_fold", spy)
    options = {"num_epochs": 1, "lr_params": (), "compare_gap": True, "save_every": 2}
    fitted(tmp_path, **options, max_faults=1, max_minutes=9)
    one, other = ({k: v for k, v in call.items() if k != "callbacks"} for call in calls)
    assert (one["folder"].name, other["folder"].name) == ("fold_0", "gap")
    assert {**one, "folder": None} == {**other, "folder": None}
    assert (one["save_every"], one["max_faults"], one["max_minutes"]) == (2, 1, 9)


def test_the_norm_is_that_before_clipping(tmp_path):
    _, loose = fitted(tmp_path, clip=None)
    _, tight = fitted(tmp_path / "tight", clip=1e-9)
    # The first epochs differ by their steps, but no norm is that of the clipped gradient.
    assert all(float(row["val_gradient_norm"]) > 1e-3 for row in (*loose, *tight))


def test_a_run_resumes_bit_for_bit_across_the_switch(tmp_path):
    options = {"switch_to": "SVD_Pade", "num_epochs": 3, "lr_params": (1, 2)}
    whole, rows = fitted(tmp_path, **options)

    class StopError(Exception):
        pass

    def stop(self):
        plain(self)
        if self.current_epoch == 2:
            raise StopError

    plain = _gcp_task.GCPTask.on_train_epoch_start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_gcp_task.GCPTask, "on_train_epoch_start", stop)
        with pytest.raises(StopError):
            fitted(tmp_path / "part", **options)
    part, again = fitted(tmp_path / "part", resume=True, **options)
    states = [train.read_checkpoint(one.latest)["model"] for one in (whole, part)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert rows == again


def test_every_epoch_is_kept_if_asked_for(tmp_path):
    result, _ = fitted(tmp_path, keep_epochs=True)
    kept = sorted(result.latest.parent.glob("*.ckpt"))
    assert [path.name for path in kept] == [
        "best.ckpt",
        "epoch_0.ckpt",
        "epoch_1.ckpt",
        "latest.ckpt",
    ]
    states = [train.read_checkpoint(path) for path in kept]
    assert [one["epoch"] for one in states[1:]] == [1, 2, 2]
    (again,) = train.gcp(str(kept[1]), **SMALL, results_folder=tmp_path, experiment_name="first")
    assert again.metrics["final_accuracy"] > 0


def test_errors_of_the_training_pictures_are_those_of_its_steps(tmp_path, monkeypatch):
    seen = []
    plain = _gcp_task.GCPTask.loss
    monkeypatch.setattr(
        _gcp_task.GCPTask,
        "loss",
        lambda self, p, batch: seen.append((p.detach(), batch["target"])) or plain(self, p, batch),
    )
    _, rows = fitted(tmp_path, num_epochs=1, lr_params=())
    predictions, target = (torch.cat(part) for part in zip(*seen, strict=True))
    best = predictions.argsort(1, descending=True)
    hits = best == target.long()[:, None]
    found = [float(rows[0][name]) for name in ("train_error", "train_top5_error")]
    errors = [1 - float(hits[:, :k].any(1).double().mean()) for k in (1, 5)]
    assert found == pytest.approx(errors)
    assert 0 < found[1] < found[0]


def test_steps_are_those_of_clipped_sgd_with_momentum(tmp_path, monkeypatch):
    """The published optimizer, from its definition: v <- 0.9 v + g + d w, w <- w - lr v."""
    norms, weights, steps = [], [], []
    plain = torch.nn.utils.clip_grad_norm_

    def clip(parameters, limit):
        parameters = list(parameters)
        weights.append([one.detach().clone() for one in parameters])
        norms.append(plain(parameters, limit))
        steps.append([one.grad.clone() for one in parameters])
        assert limit == 0.5
        assert float(plain(parameters, torch.inf)) <= 0.5001
        return norms[-1]

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    options = {"num_epochs": 1, "lr_params": (), "clip": 0.5, "weight_decay": 1e-2}
    fitted(tmp_path, **options)
    assert max(map(float, norms)) > 0.5
    speed = [torch.zeros_like(one) for one in weights[0]]
    for before, after, step in zip(weights, weights[1:], steps, strict=False):
        speed = [0.9 * v + g + 1e-2 * w for v, g, w in zip(speed, step, before, strict=True)]
        for w, v, new in zip(before, speed, after, strict=True):
            torch.testing.assert_close(new, w - 0.02 * v)
    descent = train.gcp.command.groups["optimization"]
    assert (descent.optimizer, descent.momentum, descent.clip) == ("sgd", 0.9, 5.0)


def test_the_switch_happens_at_the_last_decay(tmp_path, monkeypatch):
    seen = []
    plain = Switched.forward
    monkeypatch.setattr(
        Switched,
        "forward",
        lambda self, m: seen.append((self.training, self.late)) or plain(self, m),
    )
    fitted(tmp_path, switch_to="SVD_Pade", num_epochs=4, lr_params=(1, 2, 4))
    trained = [late for training, late in seen if training]
    n = len(trained) // 4
    assert trained == [False] * 2 * n + [True] * 2 * n
    assert not next(late for training, late in seen if not training)
    explicit = _gcp_run._switch_at(Pooling(switch_to="SEB", switch_at=3), Descent())
    assert explicit == 3


def test_the_switch_keeps_weights_optimizer_and_rate(tmp_path, monkeypatch):
    """One run: no parameter is new, and the momentum of the optimizer goes on."""
    kept = []
    plain = _gcp_task.GCPTask.on_train_epoch_start

    def watch(self):
        plain(self)
        (optimizer,) = self.trainer.optimizers
        names = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        kept.append((names, len(optimizer.state), [g["lr"] for g in optimizer.param_groups]))

    monkeypatch.setattr(_gcp_task.GCPTask, "on_train_epoch_start", watch)
    fitted(tmp_path, switch_to="SVD_Pade", num_epochs=2, lr_params=(1,), classifier_factor=4)
    assert kept[0][0] == kept[1][0]
    assert kept[1][1] == len(kept[1][0])
    assert kept[0][2] == pytest.approx([0.02, 0.08])
    assert kept[1][2] == pytest.approx([0.002, 0.008])


def test_schedules():
    step = _gcp_task.factors("step", (2, 4), 0.1, 6)
    assert [round(step(k / 6), 9) for k in range(6)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    log = _gcp_task.factors("log", (-1, -5), 0.1, 5)
    assert [0.1 * log(k / 5) for k in range(5)] == pytest.approx([1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
    with pytest.raises(ValueError, match="two exponents"):
        _gcp_task.factors("log", (), 0.1, 5)
    with pytest.raises(ValueError, match="epochs from 0"):
        _gcp_task.factors("step", (0.5,), 0.1, 5)


# To what pictures of 60 x 90 pixels are scaled where the network takes a seventh of the published
# size, and how they are cut in training.
PREPROCESSED = {
    "imagenet": ((37, 56), "resized"),
    "cub": ((64, 96), "center"),
    "aircraft": ((73, 73), "center"),
    "cars": ((64, 64), "center"),
    "dogs": ((73, 73), "center"),
}


@pytest.mark.parametrize("name", PREPROCESSED)
def test_pictures_are_scaled_and_cut_as_published(name, tmp_path):
    """Against the transforms of torchvision; in training, mirrored or not."""
    v2 = pytest.importorskip("torchvision.transforms.v2")
    MAKERS[name][0](tmp_path)
    draw = torch.Generator().manual_seed(0)
    for path in sorted(p for p in tmp_path.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")):
        pixels = torch.randint(0, 256, (6, 9, 3), generator=draw, dtype=torch.uint8)
        pixels = pixels.repeat_interleave(10, 0).repeat_interleave(10, 1)
        pillow.fromarray(pixels.numpy()).save(path)
    crop = 32 if name == "imagenet" else 64
    data = Pictures(benchmark=name, root=tmp_path, image_size=crop)
    descent = dataclasses.replace(
        train.gcp.command.groups["optimization"], selection=0, batch_size=2
    )
    pictures, _ = _gcp_run._pictures(data, Pooling(arch="resnet18"), descent, Run(num_workers=0))
    size, kind = PREPROCESSED[name]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    steps = [v2.Resize(size), v2.CenterCrop(crop), v2.ToImage(), v2.ToDtype(torch.float32, True)]
    twin = v2.Compose([*steps, v2.Normalize(mean, std)])
    part = pictures.parts["validation"]
    (batch,) = pictures.loader(pictures.validation, [[0, 1]], epoch=None)
    expected = torch.stack([twin(pillow.open(path)) for path in part.paths[:2]])
    torch.testing.assert_close(batch["images"], expected)
    (seen,) = pictures.loader(pictures.train, [[0, 1]], epoch=0)
    assert seen["images"].shape == (2, 3, crop, crop)
    for image, path in zip(seen["images"], pictures.parts["train"].paths, strict=False):
        whole = twin(pillow.open(path))
        same = any(torch.allclose(image, one, atol=1e-5) for one in (whole, whole.flip(-1)))
        assert same == (kind == "center")


def test_digits_of_color_are_cut_from_a_border_of_zeros():
    """As published for CIFAR-10: 4 zeros around, a part at random, mirrored or not."""
    view = _gcp_views.views_of(_gcp_views.RECIPES["cifar10"], color=True)["train"]
    image = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    mean, spread = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]])
    sizes = set()
    for _ in range(60):
        found = view(image)
        pixels = found * spread.view(3, 1, 1) + mean.view(3, 1, 1)
        torch.testing.assert_close(pixels[:, 16, 16], torch.ones(3))
        black = (pixels.abs() < 1e-5).all(0)
        sizes |= {int(black.all(0).sum()), int(black.all(1).sum())}
    assert sizes == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("name", _gcp_views.RECIPES)
def test_crops(name):
    recipe = _gcp_views.RECIPES[name].of_size(16)
    views = _gcp_views.views_of(recipe, color=True)
    side = 17
    image = torch.randint(0, 256, (3, side + 3, side + 5), dtype=torch.uint8)
    recipe_mean = torch.tensor(recipe.normal[0]).mean()
    assert views["train"](image).shape == views["center"](image).shape == (3, 16, 16)
    two, ten = views["mirrored"](image), views["ten"](image)
    assert (two.shape, ten.shape) == ((2, 3, 16, 16), (10, 3, 16, 16))
    assert torch.equal(two[0], views["center"](image))
    assert torch.equal(two[1], two[0].flip(-1))
    mirrored = [any(torch.equal(one.flip(-1), two) for two in ten[5:]) for one in ten[:5]]
    assert all(mirrored)
    black = views["center"](torch.zeros(1, 20, 20, dtype=torch.uint8))
    assert black.shape[0] == 3
    assert float(black.mean()) < 0 < float(recipe_mean)


def test_scores_of_all_crops_are_averaged(monkeypatch):
    torch.manual_seed(0)
    net = ThreeParts(small_backbone("plain"), representation("GAvP", 32), 8)
    task = _gcp_task.GCPTask(net).eval()
    part = load("textures", train=False).subset(range(0, 720, 90))
    view = _gcp_views.views_of(_gcp_views.RECIPES["textures"].of_size(48), color=False)["ten"]
    crops = torch.stack([view(one) for one in part.read(range(8))])
    with torch.no_grad():
        logits = torch.stack([net(crops[:, k]) for k in range(10)]).mean(0)
        torch.testing.assert_close(task({"images": crops}), logits)
    batch = {"images": crops, "target": part.labels.double()}
    found = _gcp_task.evaluate(task, [batch])
    hits = (logits.argmax(1) == part.labels).double().mean()
    assert found["accuracy"] == pytest.approx(float(hits))
    top = logits.topk(5, 1).indices
    missed = ~(top == part.labels[:, None]).any(1)
    assert found["top5_error"] == pytest.approx(float(missed.double().mean()))
    assert task.training is False


def test_a_checkpoint_is_evaluated_with_its_crops(tmp_path):
    result, _ = fitted(tmp_path, switch_to="SVD_Pade", selection=0)
    (again,) = train.gcp(
        str(result.best), **SMALL, switch_to="SVD_Pade", selection=0,
        results_folder=tmp_path, experiment_name="later",
    )  # fmt: skip
    assert again.metrics["final_accuracy"] == result.metrics["final_accuracy"]
    assert again.epochs == 0
    assert json.loads((tmp_path / "later" / "evaluation.json").read_text())["n_views"] == 1


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    result, _ = fitted(tmp_path)
    with pytest.raises(ValueError, match="model of a checkpoint cannot be used here"):
        train.gcp(str(result.best), **{**SMALL, "arch": "dense"}, results_folder=tmp_path)


def test_a_covariance_of_one_channel_is_trained(tmp_path):
    _, rows = fitted(tmp_path, dimension_reduction=1)
    assert all(float(row["val_log10_condition"]) == 0 for row in rows)
    assert all(int(row["faults"]) == 0 for row in rows)


def test_networks_without_second_order_have_as_many_parameters():
    for width, n_classes in ((32, 8), (256, 200)):
        n_outputs = width * (width + 1) // 2
        hidden = _gcp_run._as_many(n_outputs, width, n_classes)
        budget = (n_outputs + 1) * n_classes
        found = (width + 1) * hidden + (hidden + 1) * n_classes
        assert abs(found - budget) <= (width + 1 + n_classes) / 2


def test_small_backbones_are_of_equal_size():
    sizes = [
        sum(p.numel() for p in small_backbone(kind).parameters())
        for kind in ("plain", "residual", "dense")
    ]
    assert max(sizes) < 1.2 * min(sizes)


def test_pretrained_weights_are_found_by_name(tmp_path):
    torch.manual_seed(0)
    net = ThreeParts(small_backbone("plain"), representation("GAvP", 32), 3)
    other = ThreeParts(
        torch.nn.Sequential(small_backbone("plain"), Reduction(32, 8)), representation("GAvP", 8), 5
    )
    file = tmp_path / "weights.pt"
    torch.save(net.state_dict(), file)
    plain = ThreeParts(small_backbone("plain"), representation("GAvP", 32), 9)
    _gcp_weights.load_pretrained(file, plain, "plain")
    same = zip(plain.features.parameters(), net.features.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    torch.save({"x": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"needs weights of plain, got .* such as x"):
        _gcp_weights.load_pretrained(file, other, "plain")
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match="pretrained needs a file of weights"):
        _gcp_weights.load_pretrained(file, other, "plain")


def test_the_second_stage_begins_where_the_first_one_ended(tmp_path):
    first, _ = fitted(tmp_path, freeze=2, classifier_factor=5)
    ended = train.read_checkpoint(first.best)["model"]
    options = Pooling(arch="plain", dimension_reduction=8, pretrained=first.best)
    descent = train.gcp.command.groups["optimization"]
    whole = _gcp_run._task(options, descent, 10, 1, gap=False, seed=1).model.state_dict()
    assert all(torch.equal(whole[name], ended[name]) for name in ended)
    other = _gcp_run._task(options, descent, 9, 1, gap=False, seed=1).model.state_dict()
    same = {name for name in ended if torch.equal(other[name], ended[name])}
    assert {name for name in ended if name not in same} == {
        "classifier.0.weight",
        "classifier.0.bias",
    }


RECIPE_NAMES = [name for name in _presets.preset_names() if name.startswith("gcp/")]


def settings(name):
    file = _presets.preset_file(name)
    given = yaml.safe_load(file.read_text())
    read = _presets.read_settings([file], train.gcp.command, ("gcp",))
    return given, read


def test_the_presets_are_the_published_recipes():
    """Architecture, representation, batch, epochs, rate, decays, weight decay, factor, freezing."""
    published = {
        "gcp/alexnet": ("alexnet_bn", "SVD_Pade", 128, 30, 0.0794, [10, 20, 30], 5e-4, None, None),
        "gcp/resnet50": ("resnet50", "SVD_Pade", 256, 60, 0.0794, [30, 45, 60], 1e-4, None, None),
        "gcp/resnet101": ("resnet101", "SVD_Pade", 256, 60, 0.0794, [30, 45, 60], 1e-4, None, None),
        "gcp/resnet50_hybrid": (
            *("resnet50", "MPNCOV", 256, 60, 0.0794, [30, 45, 60], 1e-4, None, None),
        ),
        "gcp/aircraft": ("resnet50", "SEB", 8, 50, 3e-3, [21, 40, 50], 1e-3, 5, None),
        "gcp/cars": ("resnet50", "SEB", 10, 200, 3e-3, [50, 100, 200], 1e-4, 10, None),
        "gcp/cub": ("resnet50", "SEB", 10, 200, 3e-3, [50, 100, 200], 1e-4, 20, None),
        "gcp/finetune": ("resnet50", "MPNCOV", 10, 100, 1.2e-3, [100], 1e-4, 5, None),
        "gcp/vgg16": ("vgg16_bn", "MPNCOV", 10, 40, 3e-3, [20, 40], 1e-4, 20, None),
        "gcp/bcnn_stage1": ("vgg16", "BCNN", 40, 100, 1e-3, [100], 5e-4, 1000, 30),
        "gcp/bcnn_stage2": ("vgg16", "BCNN", 10, 100, 1e-3, [100], 5e-4, 1000, 0),
    }  # fmt: skip
    assert set(published) == set(RECIPE_NAMES)
    keys = ("arch", "representation", "batch_size", "num_epochs", "lr", "lr_params")
    for name, values in published.items():
        given, _ = settings(name)
        found = [given[key] for key in keys]
        found += [given.get(key) for key in ("weight_decay", "classifier_factor", "freeze")]
        assert found == list(values), name
        assert given["selection"] == 0
        # Never a covariance of all 2048 channels of a ResNet.
        assert given["dimension_reduction"] == (0 if "bcnn" in name else 256)


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_a_recipe_without_its_data_says_so(name, tmp_path):
    _, options = settings(name)
    with pytest.raises(ImageError, match=r"needs its folder; pass root="):
        train.gcp(**options, results_folder=tmp_path)


def test_the_published_alexnet_has_batch_norms_and_no_dropout():
    descent = train.gcp.command.groups["optimization"]
    options = Pooling(arch="alexnet_bn", hidden=(4096, 4096), representation="SVD_Pade")
    task = _gcp_run._task(options, descent, 1000, 3, gap=False, seed=0)
    layers = [type(one).__name__ for one in task.model.modules()]
    assert layers.count("Conv2d") == layers.count("BatchNorm2d") == 5
    assert "Dropout" not in layers
    features = task.model.features
    # 2 469 696 of torchvision's convolutions, and two numbers for each of 1152 channels.
    assert sum(p.numel() for p in features.parameters()) == 2_469_696 + 2 * 1152
    with torch.no_grad():
        assert features.eval()(torch.rand(1, 3, 224, 224)).shape == (1, 256, 13, 13)


def test_names_of_published_networks_keep_the_resolution():
    descent = train.gcp.command.groups["optimization"]
    sizes = {}
    for arch in ("resnet18", "mpncovresnet18"):
        task = _gcp_run._task(Pooling(arch=arch), descent, 5, 3, gap=False, seed=0)
        with torch.no_grad():
            sizes[arch] = task.model.features.eval()(torch.rand(1, 3, 64, 64)).shape[2:]
    assert sizes == {"resnet18": (2, 2), "mpncovresnet18": (4, 4)}


@pytest.mark.parametrize("name", ["gcp/finetune", "gcp/vgg16", "gcp/bcnn_stage1"])
def test_a_recipe_makes_its_network(name):
    _, options = settings(name)
    command = train.gcp.command.arguments(options)
    task = _gcp_run._task(command["model"], command["optimization"], 200, 3, gap=False, seed=0)
    with torch.no_grad():
        assert task.model.eval()(torch.rand(1, 3, 96, 96)).shape == (1, 200)
    frozen = [not p.requires_grad for p in task.model.features.parameters()]
    assert all(frozen) if name.endswith("stage1") else not any(frozen)
    if isinstance(task.model.representation, SecondOrder):
        assert task.model.representation.n_outputs == 32896


@pytest.mark.parametrize(("benchmark", "train_kind"), [("cub", "center"), ("imagenet", "resized")])
def test_photographs_of_any_size_are_trained_on(benchmark, train_kind, tmp_path):
    assert _gcp_views.RECIPES[benchmark].train == train_kind
    MAKERS[benchmark][0](tmp_path)
    for k, path in enumerate(sorted(tmp_path.rglob("*.jp*g")) + sorted(tmp_path.rglob("*.JPEG"))):
        picture(path, color=(20 * k, 0, 0), size=(40 + 3 * k, 50 - 2 * k))
    result, _ = fitted(
        tmp_path / "out", benchmark=benchmark, root=tmp_path, image_size=32, batch_size=2,
        num_epochs=1, selection=0, num_workers=0, lr_params=(),
    )  # fmt: skip
    assert result.metrics["n_views"] == (10 if benchmark == "imagenet" else 2)


def test_the_command_takes_the_published_flags(tmp_path, capsys):
    words = "gcp --benchmark small-digits -b 32 -a plain --representation MPNCOV --wd 1e-4 -j 0"
    words += " --dimension_reduction 8 --epochs 1 --lr 0.1 --lr-method step --lr-params 1 2 -p 100"
    words += f" --momentum 0.8 --seed 3 --classifier-factor 2 --modeldir {tmp_path} --num-classes 9"
    words += " --freezed-layer 1 --gpu 0 --store-model-everyepoch"
    with pytest.warns((FutureWarning, UserWarning)) as said:
        assert cli.main(words.split()) == 0
    said = " ".join(str(one.message) for one in said)
    for text in (
        "'epochs' is now",
        "--print_freq is ignored",
        "num-classes is ignored: it follows",
    ):
        assert text in said
    out = capsys.readouterr().out
    assert "accuracy" in out
    saved = yaml.safe_load(next(tmp_path.rglob("config.yaml")).read_text())
    assert saved["optimization"]["momentum"] == 0.8
    assert saved["optimization"]["lr_params"] == [1, 2]
    assert (saved["optimization"]["classifier_factor"], saved["model"]["freeze"]) == (2, 1)
    assert list(tmp_path.rglob("epoch_0.ckpt"))


def test_the_folder_comes_first_and_pretrained_needs_no_value():
    command = train.gcp.command
    found = _flags.split(command, ["DATA", "--pretrained", "-e", "a.ckpt", "--benchmark=cub"])
    values = {"root": ["DATA"], "pretrained": ["torchvision"], "evaluate": ["a.ckpt"]}
    assert found.values == {**values, "benchmark": ["cub"]}


def test_the_quick_preset_is_complete():
    read = _presets.read_settings(
        [_presets.preset_file("quick")], train.gcp.command, train.COMMANDS
    )
    assert read["benchmark"] == "textures"
    assert read["compare_gap"]
    assert "root" not in read


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"representation": "MPNCov"}, "representation needs"),
        ({"benchmark": "cats"}, "benchmark needs"),
        ({"momentum": 1.0}, "momentum needs"),
        ({"power": 0}, "power needs"),
        ({"arch": "resnet5"}, "arch needs plain, residual, dense"),
        ({"arch": "vit_b_16"}, "attention over tokens"),
        ({"keep_resolution": True, "arch": "alexnet"}, "needs a ResNet"),
        ({"freeze": 99}, "freeze needs at most"),
        ({"switch_to": "GAvP"}, "two powers of a covariance"),
        ({"switch_to": "SEB", "lr_params": ()}, "decay of the learning rate"),
        ({"lr_method": "log", "lr_params": (1,)}, "two exponents"),
        ({"power": 0.3}, "MPNCOV needs the power 0.5"),
        ({"evaluate": "nowhere.ckpt"}, "no checkpoint nowhere.ckpt"),
        ({"pretrained": "nowhere.pt"}, "nowhere.pt"),
        ({"arch": "alexnet_bn", "pretrained": "torchvision"}, "no weights of alexnet_bn"),
        ({"hidden": (0,)}, "hidden needs"),
        ({"views": "eleven"}, "views needs"),
        ({"batch_size": 0}, "batch_size needs"),
        ({"batch_size": 999}, "batch"),
        ({"image_size": 4}, "maps of two positions or more, got one for pictures of 4 x 4"),
        ({"arch": "alexnet", "image_size": 8}, "cannot take pictures of 8 x 8 pixels"),
        ({"root": "elsewhere"}, "are built in, got the folder elsewhere"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises((ValueError, ImageError), match=message):
        train.gcp(**{**SMALL, "results_folder": tmp_path, **options})
    assert not list(tmp_path.rglob("*.ckpt"))


def test_parts_of_different_data_sets_are_refused(tmp_path):
    MAKERS["dogs"][0](tmp_path)
    for name in ("n1-Pug/1", "n3-Vizsla/1"):
        picture(tmp_path / "Dogs" / "Images" / f"{name}.jpg")
    lists = {"annotation_list": cells(["n1-Pug/1", "n3-Vizsla/1"]), "labels": [[1], [3]]}
    matlab(tmp_path / "Dogs" / "test_list.mat", **lists)
    with pytest.raises(ImageError, match="2 classes to train with and 3 to test with"):
        train.gcp(**{**SMALL, "benchmark": "dogs"}, root=tmp_path, results_folder=tmp_path)


def test_wide_maps_are_refused_before_training(tmp_path):
    options = {"arch": "resnet50", "dimension_reduction": 0}
    with pytest.raises(ValueError, match=r"2048 channels.*set dimension_reduction"):
        train.gcp(**{**SMALL, "results_folder": tmp_path, **options})


def test_every_option_is_documented():
    doc = inspect.getdoc(train.gcp) or ""
    for name in train.gcp.command.options:
        assert f"\n    {name}: " in doc
