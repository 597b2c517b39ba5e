"""Images as bags of patches: megapixel MNIST, enlarged digits, traffic signs, slides."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.data._folder import user_cache
from cpic.images import (
    Canvas,
    PatchSource,
    load,
    load_megapixel_mnist,
    make_megapixel_mnist,
    read_traffic,
)
from cpic.images.slides import open_features
from cpic.nn.ips import Bag, Target
from cpic.options import Patches
from cpic.train.tasks._bag_readers import (
    EnlargedReader,
    FeatureReader,
    MegapixelReader,
    SignReader,
)

_log = logging.getLogger(__name__)
_MNIST = (
    Target("majority", 10),
    Target("max", 10),
    Target("top", 10),
    Target("multi", 10, "multilabel"),
)


@dataclass(eq=False)
class Labeled:
    """Images of any kind as `LabeledBags`.

    Attributes:
        targets: The tasks.
        labels: By task.
        open: Opens the patches of an image, altered if there is a generator.
        look: Makes a small view of an image.
        places: Numbers of the images.
        grid: Rows and columns of patches; None if images differ, or have none.
    """

    targets: tuple[Target, ...]
    labels: dict[str, Tensor]
    open: Callable[[int, torch.Generator | None], Bag]
    look: Callable[[int], Tensor] | None
    places: Tensor
    grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.places)

    def bag(self, k: int, generator: torch.Generator | None) -> Bag:
        """The patches of an image."""
        return self.open(int(self.places[k]), generator)

    def view(self, k: int) -> Tensor | None:
        """A small view of an image."""
        return None if self.look is None else self.look(int(self.places[k]))

    def subset(self, chosen: Tensor) -> "Labeled":
        """These images only."""
        labels = {name: values[chosen] for name, values in self.labels.items()}
        targets, kind = self.targets, type(self)
        return kind(targets, labels, self.open, self.look, self.places[chosen], self.grid)


def load_bags(
    dataset: str, data: Patches, *, seed: int, view: int | None = None
) -> tuple[Labeled, Labeled, dict[str, Any]]:
    """The images to train on and to test with, and facts about them.

    Args:
        dataset: "mnist", "digits", "traffic" or "camelyon".
        data: Where they are, and how patches are cut.
        seed: Seed of images that are made, and of the split of traffic signs.
        view: Edge of small views; None if no model looks at them.

    Raises:
        ImageError: If they cannot be used.
    """
    (train, test), facts = _LOADERS[dataset](data, seed)
    for part in (train, test):
        _choose_tasks(part, data.tasks)
        if view is None:
            part.look = None
        elif part.look is None:
            raise ImageError(f"{dataset} has no small views of its images; choose another method.")
        else:
            vars(part.open)["edge"] = view
    return train, test, facts


def _choose_tasks(part: Labeled, names: Sequence[str] | None) -> None:
    """Leave some of the tasks."""
    known = {target.name: target for target in part.targets}
    if names is None:
        return
    if not names or set(names) - set(known) or len(set(names)) < len(names):
        raise ImageError(
            f"tasks need different names out of {', '.join(known)}, got {', '.join(names)}."
        )
    part.targets = tuple(known[name] for name in names)
    part.labels = {name: part.labels[name] for name in names}


def _mnist(data: Patches, seed: int) -> tuple[list[Labeled], dict[str, Any]]:
    if data.root is None:
        n = data.images or 5000
        canvas = Canvas(
            n_train=n,
            n_test=max(1, n // 5),
            height=data.canvas[0],
            width=data.canvas[1],
            n_noise=data.strokes,
            seed=seed,
        )
        key = hashlib.sha256(json.dumps(asdict(canvas)).encode()).hexdigest()[:12]
        folder = user_cache(data.cache) / "megapixel_mnist" / key
        _log.info("megapixel MNIST of %d images is made in %s", n, folder)
        both = make_megapixel_mnist(folder, canvas)
    else:
        train, test = (load_megapixel_mnist(data.root, train=one) for one in (True, False))
        rows = torch.arange(min(len(train), data.images or len(train)))
        both = train.subset(rows), test
        folder = Path(data.root)
    found = []
    for images in both:
        reader = MegapixelReader(images, data.patch or 50, data.stride)
        grid = _grid(images.source(0, patch=reader.patch, stride=reader.stride))
        places = torch.arange(len(images))
        found.append(Labeled(_MNIST, images.labels, reader, reader.look, places, grid))
    facts = {"channels": 1, "pixels": list(both[0].shape), "synthetic": True, "folder": str(folder)}
    return found, facts


def _digits(data: Patches, seed: int) -> tuple[list[Labeled], dict[str, Any]]:
    found = []
    for train in (True, False):
        images = load("digits", root=data.root, train=train)
        reader = EnlargedReader(images, data.canvas, data.patch or 100, data.stride)
        n = min(len(images), data.images or len(images)) if train else len(images)
        # In turn of all classes: they are sorted.
        rows = torch.arange(len(images)).view(10, -1).T.flatten()[:n]
        labels = {"digit": images.labels[rows]}
        grid = _grid(reader(0, None))
        found.append(Labeled((Target("digit", 10),), labels, reader, reader.look, rows, grid))
    return found, {"channels": 1, "pixels": list(data.canvas), "source": images.source}


def _traffic(data: Patches, seed: int) -> tuple[list[Labeled], dict[str, Any]]:
    root = _needed(data, "traffic", "make_traffic_like.py")
    found = []
    for train in (True, False):
        signs = read_traffic(root, train=train, seed=seed)
        rows = torch.arange(min(len(signs), data.images or len(signs)) if train else len(signs))
        labels = {"sign": torch.tensor(signs.labels)[rows]}
        reader = SignReader(signs, data.patch or 100, data.stride)
        grid = _grid(signs.source(0, patch=reader.patch, stride=reader.stride))
        targets = (Target("sign", 4),)
        found.append(Labeled(targets, labels, reader, reader.look, rows, grid))
    return found, {"channels": 3, "folder": str(root)}


def _camelyon(data: Patches, seed: int) -> tuple[list[Labeled], dict[str, Any]]:
    root = _needed(data, "camelyon", "slides.py")
    found, widths = [], set()
    files = {"train_file": data.train_file or "train", "test_file": data.test_file or "test"}
    for name in files.values():
        bags = list(open_features(root / name).values())[: data.images]
        widths |= {bag.width for bag in bags}
        labels = {"metastases": torch.tensor([bag.label for bag in bags])}
        targets = (Target("metastases", kind="sigmoid"),)
        found.append(Labeled(targets, labels, FeatureReader(bags), None, torch.arange(len(bags))))
    if len(widths) > 1:
        raise ImageError(f"features need one width, got {sorted(widths)}; extract them alike.")
    return found, {"channels": widths.pop(), "folder": str(root)}


_LOADERS: Mapping[str, Callable[[Patches, int], tuple[list[Labeled], dict[str, Any]]]] = {
    "mnist": _mnist,
    "digits": _digits,
    "traffic": _traffic,
    "camelyon": _camelyon,
}


def _needed(data: Patches, dataset: str, script: str) -> Path:
    if data.root is None:
        raise ImageError(
            f"{dataset} needs root, the folder of the data, got none; for a synthetic stand-in see "
            f"data_scripts/{script}."
        )
    return Path(data.root)


def _grid(source: PatchSource) -> tuple[int, int]:
    """Rows and columns of patches."""
    return len(source.corners[:, 0].unique()), len(source.corners[:, 1].unique())
