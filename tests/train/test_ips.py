"""`cpic ips`: batches of bags, schedule, metrics, every method and data set, resuming."""

import json
import math

import numpy as np
import pytest
import torch

from cpic import train
from cpic._errors import ImageError
from cpic.images import ArrayImage, Canvas, PatchSource, load, make_megapixel_mnist
from cpic.images.slides import heat_map, read_scores
from cpic.nn.ips import Target
from cpic.options import Patches, Selector
from cpic.train.loop._bag_data import BagData, columns
from cpic.train.tasks._bag_readers import Altered
from cpic.train.tasks._bags import Labeled, load_bags
from cpic.train.tasks._ips_run import make_model, set_aside
from cpic.train.tasks._patches import PatchTask, warmed
from cpic.train.tasks._scores import _placed
from tests.train.equal import assert_equal

SMALL = Canvas(n_train=12, n_test=6, width=112, height=112, n_noise=2)
TINY = {
    "patch": 28,
    "encoder": "conv",
    "width": 16,
    "heads": 2,
    "m": 3,
    "i": 4,
    "batch_size": 4,
    "num_epochs": 2,
    "places": "grid",
    "selection": 0,
    "num_workers": 0,
    "view": 28,
}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    make_megapixel_mnist(folder, SMALL)
    return folder


def run(mnist, folder, **options):
    return train.ips("mnist", root=mnist, results_folder=folder, **{**TINY, **options})


def test_the_schedule_has_the_published_values():
    factor = warmed(10, 150, 100)
    wanted = {500: 1.5e-4, 1000: 3e-4, 8000: 1.5015e-4, 15000: 3e-7}
    for step, rate in wanted.items():
        assert 3e-4 * factor((step - 1) / 15000) == pytest.approx(rate, rel=1e-9)
    rates = [factor(step / 15000) for step in range(15000)]
    assert max(rates) == rates[999] == 1
    assert rates[0] == pytest.approx(1e-3)


METHODS = ("ips", "random", "all", "cross", "ats", "dps")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_reports_all_tasks(method, mnist, tmp_path):
    options = {"i": None} if method == "ips" else {}
    (result,) = run(mnist, tmp_path, method=method, eager=method == "all", **options)
    name = "ips_mnist" if method == "ips" else f"ips_mnist_{method}"
    summary = json.loads((tmp_path / name / "summary.json").read_text())
    mean = summary["mean"]
    for task in ("majority", "max", "top", "multi"):
        assert 0 <= mean[f"{task}_accuracy"] <= 1
        assert 0 <= mean[f"{task}_chance"] <= 1
    parts = [mean[f"{task}_accuracy"] for task in ("majority", "max", "top", "multi")]
    assert mean["accuracy"] == pytest.approx(sum(parts) / 4)
    assert mean["chance"] == pytest.approx(1 - mean["mean_error"])
    assert summary["patches"] == 16
    assert math.isfinite(result.metrics["error"])


def test_a_run_that_was_stopped_ends_as_one_that_was_not(mnist, tmp_path, monkeypatch):
    options = {"num_epochs": 3, "warmup": 1, "save_every": 1, "shuffle": "instance"}
    whole = run(mnist, tmp_path, experiment_name="whole", **options)
    calls = []
    step = PatchTask.training_step

    def stop(self, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(PatchTask, "training_step", stop)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(mnist, tmp_path, experiment_name="part", **options)
    part = run(mnist, tmp_path, experiment_name="part", resume=True, **options)
    one, other = (torch.load(r[0].latest, weights_only=True) for r in (whole, part))
    assert_equal(one["model"], other["model"])
    tables = [
        (tmp_path / name / "fold_0" / "metrics.csv").read_text() for name in ("whole", "part")
    ]
    assert tables[0] == tables[1]


def test_efficiency_is_written_and_training_goes_on(mnist, tmp_path):
    (result,) = run(mnist, tmp_path, track_efficiency=True, track_epoch=1, num_epochs=3)
    assert result.epochs == 3
    found = json.loads((tmp_path / "ips_mnist" / "fold_0" / "efficiency.json").read_text())
    assert (found["epoch"], found["steps"]) == (1, 1)
    assert found["milliseconds"] > 0


def test_the_encoder_gets_other_layers_by_one_option(mnist, tmp_path):
    bags, _, _ = load_bags("mnist", Patches(root=mnist, patch=28), seed=0)
    options = {"encoder": "resnet18", "stages": 1, "norm": "running", "heads": 2, "m": 3}
    plain, sttp = (
        make_model(Selector(**options, layers=layers, rank=4), bags, 1).encoder
        for layers in ("plain", "sttp")
    )
    few, many = (sum(p.numel() for p in net.parameters()) for net in (sttp, plain))
    assert few < many / 4
    (result,) = run(mnist, tmp_path, layers="sttp", rank=4)
    assert math.isfinite(result.metrics["error"])


def test_losses_and_accuracies_of_every_task_are_in_the_row_of_an_epoch(mnist, tmp_path):
    (result,) = run(mnist, tmp_path, batch_size=5, lr=1e-3)
    rows = train.read_checkpoint(result.latest)["history"]
    names = ("majority", "max", "top", "multi")
    # All 12 images, the last two in a batch of their own.
    assert [row["step"] for row in rows] == [3, 6]
    for row in rows:
        losses = [row[f"train_{name}_loss"] for name in names]
        assert row["train_loss"] == pytest.approx(sum(losses) / 4)
        assert row["train_lr"] == pytest.approx(1e-3)
        for name in names:
            right = 12 * row[f"train_{name}_accuracy"]
            assert right == pytest.approx(round(right))
            assert 0 <= right <= 12
            assert row[f"val_{name}_loss"] > 0


def test_metrics_of_a_task_are_those_of_its_logits():
    targets = (Target("a", 3), Target("b", kind="sigmoid"))
    task = PatchTask(torch.nn.Linear(1, 1), targets)
    logits = torch.randn(9, 3), torch.randn(9, 1)
    labels = torch.arange(9) % 3, torch.arange(9) % 2
    found = task._measured([(*logits, torch.stack(labels, 1).double())])
    rows = logits[0].log_softmax(1)[torch.arange(9), labels[0]]
    assert found["a_loss"] == pytest.approx(-float(rows.mean()))
    p = logits[1][:, 0].sigmoid()
    right = torch.where(labels[1] == 1, p, 1 - p)
    assert found["b_loss"] == pytest.approx(-float(right.log().mean()))
    assert found["score"] == pytest.approx((found["a_accuracy"] + found["b_auc"]) / 2)
    # An area needs all answers of an epoch, so the training part has none.
    assert "train_b_accuracy" not in task.sums


def test_scores_of_images_become_a_map_of_their_attention(mnist, tmp_path):
    (result,) = run(mnist, tmp_path, write_scores=True, stride=14)
    bags, test, _ = load_bags("mnist", Patches(root=mnist, patch=28, stride=14), seed=0)
    options = {name: TINY[name] for name in ("encoder", "width", "heads", "m", "i", "places")}
    model = make_model(Selector(**options), bags, 1).eval()
    model.load_state_dict(train.read_checkpoint(result.best)["model"])
    folder = tmp_path / "ips_mnist" / "scores"
    assert len(list(folder.iterdir())) == 6
    for k in range(6):
        scores, source = read_scores(folder / f"test_{k:05d}.npz"), test.bag(k, None)
        patches = source.read(torch.arange(len(source)))
        with torch.no_grad():
            logits = model.pool.logits(model.encoder(patches)[None], torch.arange(49)[None])
        torch.testing.assert_close(scores.values, logits.softmax(-1).mean((1, 2))[0])
        # Overlaps add up.
        wanted = torch.zeros(112, 112, dtype=torch.float64)
        for value, (y, x) in zip(scores.values, source.corners.tolist(), strict=True):
            wanted[y : y + 28, x : x + 28] += value
        torch.testing.assert_close(heat_map(scores, downsample=1), wanted)


def test_scores_of_colored_patches_have_the_places_of_their_source():
    source = PatchSource(ArrayImage(np.zeros((20, 30, 3), np.uint8)), size=(8, 10))
    name, scores = _placed(torch.rand(9), Altered(source, None), 7)
    assert (name, scores.size0, scores.shape0) == ("test_00007", (8, 10), (20, 30))
    assert torch.equal(scores.corners0, source.corners0)


def test_digits_are_enlarged_and_cut(tmp_path):
    data = Patches(canvas=(56, 84), patch=28, images=20)
    images, test, facts = load_bags("digits", data, seed=0)
    assert (len(images), len(test), images.grid, facts["channels"]) == (20, 1000, (2, 3), 1)
    assert images.labels["digit"].tolist() == [*range(10)] * 2
    pixels = load("digits", train=True).read([400])  # the first one of class 1
    scaled = torch.nn.functional.interpolate(pixels.float(), (56, 84), mode="bilinear")[0, 0]
    patches = images.bag(1, None).read(torch.arange(6))[:, 0].float()
    whole = patches.view(2, 3, 28, 28).transpose(1, 2).reshape(56, 84)
    assert float((whole - scaled).abs().max()) <= 1
    options = {**TINY, "batch_size": 8, "num_epochs": 1, "m": 2, "canvas": (56, 56), "images": 20}
    (result,) = train.ips("digits", results_folder=tmp_path, **options)
    assert 0 <= result.metrics["digit_accuracy"] <= 1
    assert result.metrics["digit_chance"] == 0.1


def test_patches_are_cut_when_they_are_requested(mnist):
    data = Patches(root=mnist, patch=28)
    bags, _, facts = load_bags("mnist", data, seed=0)
    torch.manual_seed(0)
    model = make_model(Selector(encoder="conv", width=16, heads=2, m=3, i=4), bags, 1)
    batches = BagData(bags, bags, batch_size=4)
    batch = next(iter(batches.loader(batches.train, [[0, 1, 2, 3]], epoch=0)))
    assert [bag.image.ledger.asked for bag in batch["bags"]] == [0] * 4
    model(batch["bags"])
    # All 16 patches once without gradient, and the three that are chosen again.
    assert [bag.image.ledger.asked for bag in batch["bags"]] == [19 * 28 * 28] * 4
    assert facts["channels"] == 1
    eager = BagData(bags, bags, batch_size=4, eager=True)
    (found,) = eager.loader(eager.train, [[0, 1, 2, 3]], epoch=0)
    assert found["bags"].shape == (4, 16, 1, 28, 28)
    assert torch.equal(found["bags"][2], batch["bags"][2].read(torch.arange(16)))
    single = BagData(bags, bags, batch_size=4, eager=True, stack=False)
    (parts,) = single.loader(single.train, [[0, 1, 2, 3]], epoch=0)
    assert isinstance(parts["bags"], list)
    assert torch.equal(torch.stack(parts["bags"]), found["bags"])


def test_columns_are_the_labels(mnist):
    bags, _, _ = load_bags("mnist", Patches(root=mnist, patch=28), seed=0)
    batches = BagData(bags, bags, batch_size=4)
    found = columns(bags.targets, batches.train.target)
    assert all(torch.equal(found[name], bags.labels[name]) for name in bags.labels)


def test_chance_is_the_best_constant_of_the_training_part(mnist):
    bags, test, _ = load_bags("mnist", Patches(root=mnist, patch=28), seed=0)
    batches = BagData(bags, test, batch_size=4)
    model = make_model(Selector(encoder="conv", width=16, heads=2, m=3), bags, 1)
    found = PatchTask(model, bags.targets).chances(batches.train, batches.validation)
    commonest = bags.labels["max"].bincount().argmax()
    assert found["max"] == pytest.approx(float((test.labels["max"] == commonest).double().mean()))


class Features:
    """Slides of 3 to 20 patches, with a rare direction in those of label 1."""

    targets = (Target("metastases", kind="sigmoid"),)

    def __init__(self, n, seed):
        draw = torch.Generator().manual_seed(seed)
        self.labels = {"metastases": torch.arange(n) % 2}
        sizes = torch.randint(3, 20, (n,), generator=draw).tolist()
        self.bags = [torch.randn(size, 8, generator=draw) for size in sizes]
        for bag, label in zip(self.bags, self.labels["metastases"], strict=True):
            bag[0, 0] += 8 * float(label)

    def __len__(self):
        return len(self.bags)

    def bag(self, k, generator):
        return Whole(self.bags[k])

    def view(self, k):
        return None


class Whole:
    def __init__(self, patches):
        self.patches = patches

    def __len__(self):
        return len(self.patches)

    def read(self, indices):
        return self.patches[indices]


@pytest.mark.parametrize("eager", [False, True])
def test_bags_of_other_sizes_are_learned(eager, tmp_path):
    from cpic.nn import ips

    torch.manual_seed(0)
    encoder = ips.FeatureProjector(8, n_dims=16)
    pool = ips.CrossAttention(16, heads=2, dropout=0)
    model = ips.PatchClassifier(encoder, pool, Features.targets, choose=ips.Iterative(m=4, i=5))
    data = BagData(Features(48, 0), Features(40, 1), batch_size=8, eager=eager)
    task = PatchTask(model, Features.targets, lr=1e-2, optimizer="adamw")
    result = train.fit_fold(task, data, folder=tmp_path, num_epochs=12)
    assert result.metrics["metastases_auc"] > 0.9
    assert "accuracy" not in result.metrics
    assert result.metrics["mean_error"] == 0.5


def labeled(labels, kind="softmax"):
    width = 1 if kind == "sigmoid" else 10
    labels = torch.tensor(labels)
    return Labeled(
        (Target("a", width, kind),), {"a": labels}, None, None, torch.arange(len(labels))
    )


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_images_that_choose_the_epoch_have_each_class_in_its_share(kind):
    train, drawn = labeled([0] * 60 + [1] * 20, kind), set()
    for seed in range(5):
        rest, aside = set_aside(train, 0.2, seed)
        assert aside.labels["a"].bincount().tolist() == [12, 4]
        assert sorted([*rest.places.tolist(), *aside.places.tolist()]) == list(range(80))
        assert aside.places.tolist() == set_aside(train, 0.2, seed)[1].places.tolist()
        drawn.add(tuple(aside.places.tolist()))
    assert len(drawn) == 5


def test_an_image_alone_in_its_class_is_trained_on():
    train = labeled([0] * 20 + [7] + [1] * 20)
    for seed in range(20):
        rest, aside = set_aside(train, 0.2, seed)
        assert aside.labels["a"].bincount().tolist() == [4, 4]
        assert 7 in rest.labels["a"]


def test_where_classes_cannot_be_kept_images_are_drawn_at_random(caplog):
    several = torch.eye(10, dtype=torch.int64).tolist()
    for images in (labeled(list(range(10))), labeled([0, 0, 1, 1, 2, 2]), labeled([0, 7])):
        with caplog.at_level("INFO"):
            rest, aside = set_aside(images, 0.2, 0)
        n = max(1, len(images) // 5)
        assert (len(rest), len(aside)) == (len(images) - n, n)
        assert "do not have all classes" in caplog.text
        caplog.clear()
    assert len(set_aside(labeled(several, "multilabel"), 0.2, 0)[1]) == 2
    assert set_aside(labeled([0, 1]), 0, 0)[1] is None


BAD = {
    "no such task": ({"tasks": ["min"]}, "majority"),
    "no root": ({"dataset": "traffic", "root": None}, "make_traffic_like"),
    "channels": ({"in_channels": 3}, "in_channels=3"),
    "features": ({"encoder": "projector"}, "projector"),
    "width": ({"encoder": "resnet18", "width": 64}, "embeddings of 128"),
    "weights": ({"encoder": "resnet18", "pretrained": True, "width": None}, "running"),
    "canvas": ({"root": None, "canvas": (60, 60)}, "width=60"),
    "heads": ({"heads": 32}, "key_width"),
    "scores": ({"write_scores": True, "method": "dps"}, "another method"),
    "built in": ({"dataset": "digits", "patch": 100}, "leave it out"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name, mnist, tmp_path):
    options, words = BAD[name]
    given = {"dataset": "mnist", "root": mnist, "results_folder": tmp_path, "cache": tmp_path}
    with pytest.raises(ValueError, match=words):
        train.ips(**{**given, **TINY, **options})


def test_labels_out_of_range_are_one_clear_error():
    bags = Features(8, 0)
    bags.labels["metastases"][3] = 2
    with pytest.raises(ImageError, match="from 0 to 1"):
        BagData(bags, bags, batch_size=4)
