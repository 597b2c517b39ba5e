"""Data sets of pictures: what is in them, how they are divided, and what is refused."""

import pickle

import numpy as np
import pytest
import torch

from cpic import images
from cpic._errors import ImageError
from cpic.images import _built_in

# Training and test pictures, channels and size.
BUILT_IN = {
    "digits": (4000, 1000, (1, 28, 28)),
    "small-digits": (1438, 359, (1, 8, 8)),
    "faces": (160, 40, (1, 25, 25)),
    "textures": (720, 720, (1, 64, 64)),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_parts_of_built_in_sets(name):
    *counts, shape = BUILT_IN[name]
    parts = [images.load(name, train=train) for train in (True, False)]
    assert [len(part) for part in parts] == counts
    for part in parts:
        assert part.shape == shape == part.read([0]).shape[1:]
        assert part.labels.unique().tolist() == [*range(len(part.classes))]
    keys = [{bytes(image.numpy()) for image in part.pixels} for part in parts]
    assert len(keys[0] & keys[1]) <= 0.001 * len(keys[0])  # no picture is in both


def test_textures_share_no_pixels():
    """The rows of the photographs that training and test patches were cut from are disjoint."""
    marked = torch.arange(512).repeat_interleave(512).view(512, 512) % 251
    parts = []
    for train in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_built_in, "photograph", lambda name: marked.double() / 255)
            # Rows are their number modulo 251: each part has 256 of 512.
            part = _built_in.textures(train)
        parts.append({int(row) for row in part.pixels[:, 0, :, 0].unique()})
    assert parts[0] | parts[1] == set(range(251))
    rows = [torch.arange(512).tensor_split(4)[k::2] for k in (0, 1)]
    assert parts[0] == {int(r) % 251 for band in rows[0] for r in band}
    assert parts[1] == {int(r) % 251 for band in rows[1] for r in band}


def numbered(labels):
    n = len(labels)
    pixels = torch.arange(n).to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4).contiguous()
    labels = torch.tensor(labels)
    return images.PixelImages.make(pixels, labels, classes=("a", "b", "c"))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_split_takes_a_share_of_each_class(share):
    whole = numbered([0] * 8 + [1] * 4 + [2] * 12)
    rest, aside = images.split(whole, share, generator=torch.Generator().manual_seed(0))
    counted = [0] * 3 if aside is None else aside.labels.bincount(minlength=3).tolist()
    assert counted == [round(share * n) for n in (8, 4, 12)]
    seen = [int(p) for part in (rest, aside) if part is not None for p in part.pixels[:, 0, 0, 0]]
    assert sorted(seen) == [*range(24)]


def test_split_is_random():
    whole = numbered([0] * 30)
    draws = [
        images.split(whole, 0.2, generator=torch.Generator().manual_seed(k))[1] for k in (0, 0, 1)
    ]
    chosen = [draw.pixels[:, 0, 0, 0].tolist() for draw in draws]
    assert chosen[0] == chosen[1] != chosen[2]


CIFAR = "a" * 8


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: images.load("digit"), "digits, small-digits"),
        (lambda p: images.load("digits", root=p), "leave it out"),
        (lambda p: images.load("cifar10"), "pass root="),
        (lambda p: images.load("cifar10", root=p), "cifar-10-batches-py"),
        (lambda p: images.load("stl10", root=p), "stl10_binary"),
        (lambda p: numbered([0, 3]), "0 to 2 for 3 classes, got 0 to 3"),
        (lambda p: numbered([0, -1]), "got -1 to 0"),
        (
            lambda p: images.PixelImages.make(
                torch.zeros(2, 1, 4, 4), torch.zeros(2), classes=("a",)
            ),
            "uint8, one for each label, got torch.float32",
        ),
    ],
)
def test_bad_input(call, words, tmp_path):
    with pytest.raises(ImageError, match=words):
        call(tmp_path)


def test_only_arrays_are_unpickled(tmp_path):
    import gzip
    import os

    for value, good in [(np.arange(3), True), ([os.getcwd], False)]:
        path = tmp_path / "data.gz"
        path.write_bytes(gzip.compress(pickle.dumps(value)))
        if good:
            assert _built_in._read_array(path).tolist() == [0, 1, 2]
        else:
            with pytest.raises(ImageError, match="needs an array"):
                _built_in._read_array(path)
