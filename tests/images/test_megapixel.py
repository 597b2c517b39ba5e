"""Megapixel MNIST: what is on the canvas, the answers, the files, and reading patches of it."""

import hashlib
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import torch

from cpic import images
from cpic._errors import ImageError
from cpic.images import Canvas, SparseImage, load_megapixel_mnist, make_megapixel_mnist
from cpic.images._compose import _make_shard, make_strokes

SCRIPT = Path(__file__).parents[2] / "data_scripts" / "make_megapixel_mnist.py"
SMALL = Canvas(n_train=130, n_test=20, width=220, height=180, n_noise=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    return folder, *make_megapixel_mnist(folder, SMALL)


def stamps(dataset, k, pool):
    """Corners and classes of the digits on an image, found by comparing all of a pool."""
    canvas = dataset.image(k).read(torch.tensor([[0, 0]]), size=dataset.shape)[0, 0].numpy()
    found = []
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (28, 28))
    for pixels, label in zip(pool.read(range(len(pool)))[:, 0].numpy(), pool.labels, strict=True):
        row, column = np.unravel_index(pixels.argmax(), pixels.shape)
        # Where the brightest pixel would be, then the whole stamp.
        at = windows[:, :, row, column] == pixels[row, column]
        for place in np.argwhere(at):
            if (windows[tuple(place)] == pixels).all():
                found.append((*place.tolist(), int(label)))
    return sorted(set(found))


def test_digits_are_those_of_one_split_whole_apart_and_asked_for(made):
    _, train, test = made
    for dataset, other in ((train, False), (test, True)):
        for k in range(2):
            digits = stamps(dataset, k, images.load("digits", train=dataset is train))
            assert len(digits) == 5
            corners = np.array([digit[:2] for digit in digits])
            gaps = np.abs(corners[:, None] - corners).max(-1) + 99 * np.eye(5, dtype=int)
            assert (gaps >= 28).all()
            classes = [digit[2] for digit in digits]
            answers = {name: labels[k] for name, labels in dataset.labels.items()}
            assert classes.count(int(answers["majority"])) == 3
            assert max(classes) == answers["max"]
            assert digits[0][2] == answers["top"]  # sorted by row
            assert answers["multi"].nonzero()[:, 0].tolist() == sorted(set(classes))
            assert stamps(dataset, k, images.load("digits", train=other)) == []


def test_strokes_lie_between_the_digits(made):
    strokes = make_strokes(SMALL, "train")
    assert strokes.shape == (8, 28, 28)
    assert (strokes.max((1, 2)) >= 204).all()
    _, train, _ = made
    bare = make_megapixel_mnist(made[0].parent / "bare", replace(SMALL, noise=False, n_train=3))[0]
    for k in range(3):
        # The same digits, and more around them.
        few, more = (one.image(k).thumbnail(one.shape) > 0 for one in (bare, train))
        assert few.sum() < more.sum()
        assert not (few & ~more).any()
        answers = [bool((bare.labels[q][k] == train.labels[q][k]).all()) for q in train.labels]
        assert all(answers)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.*")}


def test_bytes_depend_on_the_seed_only_and_a_killed_call_is_continued(made, tmp_path):
    folder, train, _ = made
    other = tmp_path / "again"
    make_megapixel_mnist(other, SMALL)
    (other / "test.npz").unlink()
    (other / "train.npz").unlink()
    (other / "parts").mkdir()
    _make_shard(other / "parts" / "train-00001.npz", "train", range(100, 130), SMALL)
    again = make_megapixel_mnist(other, SMALL)[0]
    assert digest(other) == digest(folder)
    assert not (other / "parts").exists()
    seeded = make_megapixel_mnist(tmp_path / "seed", replace(SMALL, seed=1, n_train=3))[0]
    assert not torch.equal(seeded.labels["multi"], train.labels["multi"][:3])
    more = make_megapixel_mnist(tmp_path / "few", replace(SMALL, n_train=3))[0]
    assert np.array_equal(more.values, train.values[: more.offsets[3]])
    assert len(again) == 130


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_script_takes_the_published_flags(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = [out, "--width", "200", "--height", "160", "--n_train", "2", "--n_test", "1"]
    words += ["--no_noise", "--n_noise", "5", "--dataset_seed", "3", "--workers", "0"]
    run(monkeypatch, *words)
    assert "2 images of 160 x 200" in capsys.readouterr().out
    wanted = Canvas(n_train=2, n_test=1, width=200, height=160, noise=False, n_noise=5, seed=3)
    make_megapixel_mnist(tmp_path / "here", wanted)
    assert digest(out) == digest(tmp_path / "here")
    with pytest.raises(SystemExit, match="other parameters"):
        run(monkeypatch, out, "--width", "210")


def test_workers_write_the_same_bytes(made, tmp_path):
    with dask.config.set(scheduler="threads"):
        make_megapixel_mnist(tmp_path, SMALL, workers=2)
    assert digest(tmp_path) == digest(made[0])


def test_patches_are_those_of_the_whole_canvas(made):
    _, train, _ = made
    image = train.image(5)
    whole = image.read(torch.tensor([[0, 0]]), size=train.shape)[0]
    for patch, stride in ((50, None), (50, 25), (64, 40)):
        source = train.source(5, patch=patch, stride=stride)
        padded = torch.nn.functional.pad(whole, (0, 64, 0, 64))
        indices = torch.randperm(len(source))
        for found, (row, column) in zip(
            source.read(indices), source.corners[indices].tolist(), strict=True
        ):
            assert torch.equal(found, padded[:, row : row + patch, column : column + patch])
    beyond = image.read(torch.tensor([[-10, -20]]), size=(30, 40))[0]
    assert torch.equal(beyond[:, 10:, 20:], whole[:, :20, :20])
    assert not beyond[:, :10].any()
    assert not beyond[:, :, :20].any()


def test_thumbnails_are_means_over_cells(made):
    _, train, _ = made
    image = train.image(0)
    whole = image.read(torch.tensor([[0, 0]]), size=train.shape)[0].float() / 255
    wanted = torch.nn.functional.avg_pool2d(whole, (6, 5))
    torch.testing.assert_close(image.thumbnail((30, 44)), wanted)


def test_memory_grows_with_the_digits_and_not_with_the_canvas(tmp_path):
    sizes = []
    for side in (300, 1200):
        canvas = Canvas(n_train=2, n_test=1, width=side, height=side)
        sizes.append(make_megapixel_mnist(tmp_path / f"{side}", canvas)[0].values.nbytes)
    # Fewer strokes lie over each other on the larger one.
    assert sizes[1] < 2 * sizes[0]


def test_subsets_keep_images_and_labels(made):
    _, train, _ = made
    part = train.subset(torch.tensor([7, 3]))
    for new, old in ((0, 7), (1, 3)):
        assert np.array_equal(part.image(new)._values, train.image(old)._values)
        assert all(torch.equal(part.labels[q][new], train.labels[q][old]) for q in part.labels)


PLACES, GRAY = np.array([1, 5]), np.ones(2, np.uint8)


def spoiled(folder, tmp_path, spoil):
    """A copy of a folder of images, damaged."""
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path)
    return load_megapixel_mnist(tmp_path)


def cut(folder):
    data = (folder / "train.npz").read_bytes()
    (folder / "train.npz").write_bytes(data[: len(data) // 2])


def relabel(folder):
    with np.load(folder / "train.npz") as file:
        arrays = dict(file)
    arrays["top"] = arrays["top"] + 9
    np.savez(folder / "train.npz", **arrays)


def pickled(folder):
    (folder / "train.npz").unlink()
    (folder / "train.npy").write_bytes(b"x")


def unnamed(folder):
    with np.load(folder / "train.npz") as file:
        arrays = dict(file)
    del arrays["multi"]
    np.savez(folder / "train.npz", **arrays)


def objects(folder):
    with np.load(folder / "train.npz") as file:
        arrays = dict(file)
    arrays["top"] = np.array([{}] * 130, object)
    np.savez(folder / "train.npz", **arrays)


DAMAGE = {
    "truncated": (cut, "damaged"),
    "a wrong label": (relabel, "do not fit"),
    "pickled": (pickled, "pickle"),
    "no labels": (unnamed, "damaged"),
    "objects": (objects, "damaged"),
    "no split": (lambda folder: (folder / "train.npz").unlink(), "train.npz"),
    "no parameters": (lambda folder: (folder / "parameters.json").unlink(), "parameters.json"),
    "other parameters": (
        lambda folder: (folder / "parameters.json").write_text(json.dumps({"width": 3})),
        "height",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_folders_are_one_clear_error(name, made, tmp_path):
    spoil, words = DAMAGE[name]
    with pytest.raises(ImageError, match=words):
        spoiled(made[0], tmp_path, spoil)


BAD = {
    "small canvas": (lambda path: Canvas(width=80), "width=80"),
    "no images": (lambda path: Canvas(n_test=0), "n_test=0"),
    "seed": (lambda path: Canvas(seed=-1), "seed=-1"),
    "no room": (
        lambda path: make_megapixel_mnist(path / "new", replace(SMALL, width=84, height=84)),
        "five digits",
    ),
    "other files": (lambda path: make_megapixel_mnist(path.parent, SMALL), "not empty"),
    "no folder": (lambda path: load_megapixel_mnist(path / "none"), "parameters.json"),
    "a file": (
        lambda path: make_megapixel_mnist(path / "file", SMALL),
        "is a file",
    ),
    "places": (lambda path: SparseImage(PLACES[::-1], GRAY, shape=(2, 3)), "ascending"),
    "beyond": (lambda path: SparseImage(PLACES, GRAY, shape=(2, 2)), "below 2 x 2"),
    "gray": (lambda path: SparseImage(PLACES, GRAY * 1.0, shape=(2, 3)), "uint8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "file").write_bytes(b"")
    call, words = BAD[name]
    with pytest.raises(ImageError, match=words):
        call(folder)
