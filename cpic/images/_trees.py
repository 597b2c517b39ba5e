"""Data sets of photographs as their authors publish them: folders, lists and annotations."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cpic._errors import ImageError
from cpic.data._faults import reading
from cpic.images._annotations import form_of, read_boxes, read_lines, read_matlab, read_table, whole
from cpic.images._in_files import FileImages, listed

_SUFFIXES = {".jpg", ".jpeg", ".png"}
_LARGEST = 2**28


def imagenet(root: Path, train: bool) -> FileImages:
    """`train/CLASS/*` and `val/CLASS/*`: ImageNet, or any pictures in folders."""
    folder = root / ("train" if train else "val")
    classes = _folders(root / "train")
    numbers = {name: k for k, name in enumerate(classes)}
    own = classes if train else _folders(folder)
    if unknown := sorted(set(own) - set(classes)):
        raise ImageError(
            f"{folder} has the class {unknown[0]!r}, which {root / 'train'} lacks; the parts are "
            "of different data sets."
        )
    with reading(folder, ImageError):
        found = [
            (str(path.relative_to(root)), numbers[name])
            for name in own
            for path in sorted((folder / name).iterdir())
            if path.suffix.lower() in _SUFFIXES
        ]
    files, labels = [file for file, _ in found], [label for _, label in found]
    return made("imagenet", root, files, labels, classes, "pictures in folders")


def _folders(root: Path) -> list[str]:
    with reading(root, ImageError):
        return sorted(path.name for path in root.iterdir() if path.is_dir())


def birds(root: Path, train: bool) -> FileImages:
    """CUB-200-2011: four lists; a picture is for training if `train_test_split.txt` says 1."""
    root = _inside(root, "CUB_200_2011")
    files, numbers, flags, classes = (
        read_table(root / f"{name}.txt")
        for name in ("images", "image_class_labels", "train_test_split", "classes")
    )
    if not (files.keys() == numbers.keys() == flags.keys()):
        raise ImageError(f"{root} has lists of different pictures; they are of other data sets.")
    names = [name for _, name in sorted(classes.items(), key=lambda item: int(item[0]))]
    chosen = [key for key in files if (flags[key] == "1") == train]
    return made(
        "cub",
        root,
        [f"images/{files[key]}" for key in chosen],
        [whole(root, numbers[key]) - 1 for key in chosen],
        names,
        "Caltech-UCSD Birds-200-2011",
    )


def aircraft(root: Path, train: bool, kind: str = "variant") -> FileImages:
    """FGVC-Aircraft 2013b: `images_KIND_trainval.txt` and `images_KIND_test.txt`."""
    root = _inside(root, "fgvc-aircraft-2013b")
    parts = {}
    for part in ("trainval", "test"):
        lines = read_lines(root / "data" / f"images_{kind}_{part}.txt")
        parts[part] = [(one, name.strip()) for one, _, name in (x.partition(" ") for x in lines)]
    if any(not name for rows in parts.values() for _, name in rows):
        raise ImageError(f"{root} has lines without a class; they are of another data set.")
    classes = sorted({name for rows in parts.values() for _, name in rows})
    rows = parts["trainval" if train else "test"]
    return made(
        "aircraft",
        root,
        [f"data/images/{one}.jpg" for one, _ in rows],
        [classes.index(name) for _, name in rows],
        classes,
        "FGVC-Aircraft 2013b",
    )


def cars(root: Path, train: bool) -> FileImages:
    """Stanford Cars: `cars_annos.mat` with paths, classes from 1 and the flag of the test part."""
    found = read_matlab(root / "cars_annos.mat", ("annotations",))["annotations"].flatten()
    with form_of(root / "cars_annos.mat"):
        rows = [
            (str(row["relative_im_path"].item()), int(row["class"].item()), int(row["test"].item()))
            for row in found
        ]
    n_classes = max((number for _, number, _ in rows), default=0)
    rows = [row for row in rows if bool(row[2]) != train]
    return made(
        "cars",
        root,
        [file for file, *_ in rows],
        [number - 1 for _, number, _ in rows],
        [f"car {k + 1}" for k in range(n_classes)],
        "Stanford Cars",
    )


def dogs(root: Path, train: bool, cropped: bool = False) -> FileImages:
    """Stanford Dogs: `train_list.mat` and `test_list.mat`; cropped, one picture for each box."""
    root = _inside(root, "Dogs")
    path = root / f"{'train' if train else 'test'}_list.mat"
    found = read_matlab(path, ("annotation_list", "labels"))
    with form_of(path):
        names = [str(one.item()) for one in found["annotation_list"].flatten()]
        numbers = [int(one) for one in found["labels"].flatten()]
    if len(names) != len(numbers):
        raise ImageError(f"{path} has {len(names)} pictures and {len(numbers)} labels.")
    classes = {
        number - 1: name.partition("/")[0] for name, number in zip(names, numbers, strict=True)
    }
    boxes = None
    if cropped:
        listed("dogs", root / "Annotation", names)
        each = [read_boxes(root / "Annotation" / name) for name in names]
        boxes = torch.tensor([box for one in each for box in one])
        numbers = [number for number, one in zip(numbers, each, strict=True) for _ in one]
        names = [name for name, one in zip(names, each, strict=True) for _ in one]
    n_classes = max(classes, default=-1) + 1
    return made(
        "dogs",
        root,
        [f"Images/{name}.jpg" for name in names],
        [number - 1 for number in numbers],
        [classes.get(k, f"dog {k + 1}") for k in range(n_classes)],
        "Stanford Dogs",
        boxes=boxes,
    )


def flowers(root: Path, train: bool) -> FileImages:
    """Oxford Flowers 102: `jpg/image_00001.jpg`, ... and `imagelabels.mat`, classes from 1.

    With `setid.mat`, its split: training and validation part to train with. Without it, 90 % at
    random, the same ones each time.
    """
    path = root / "imagelabels.mat"
    with form_of(path):
        numbers = [int(one) for one in read_matlab(path, ("labels",))["labels"].flatten()]
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0)).tolist()
    cut = round(0.9 * len(numbers))
    chosen = order[:cut] if train else order[cut:]
    if (root / "setid.mat").is_file():
        parts = ("trnid", "valid") if train else ("tstid",)
        found = read_matlab(root / "setid.mat", parts)
        chosen = [int(one) - 1 for part in parts for one in found[part].flatten()]
        if chosen and not 0 <= min(chosen) <= max(chosen) < len(numbers):
            raise ImageError(f"{root / 'setid.mat'} has numbers of other pictures.")
    chosen = sorted(chosen)
    return made(
        "flowers",
        root,
        [f"jpg/image_{k + 1:05d}.jpg" for k in chosen],
        [numbers[k] - 1 for k in chosen],
        [f"flower {k + 1}" for k in range(max(numbers, default=0))],
        "Oxford Flowers 102",
    )


def made(
    name: str,
    root: Path,
    files: Sequence[str],
    labels: Sequence[int],
    classes: Sequence[str],
    source: str,
    *,
    boxes: torch.Tensor | None = None,
) -> FileImages:
    """Pictures of a list, checked."""
    paths = listed(name, root, files)
    if len(classes) < 2:
        raise ImageError(
            f"{name} in {root} needs at least two classes, got {list(classes)}; nothing can be "
            "told apart."
        )
    if not 0 <= min(labels) <= max(labels) < len(classes):
        raise ImageError(
            f"{name} in {root} has {len(classes)} classes, but labels from {min(labels) + 1} to "
            f"{max(labels) + 1}; its lists are of different data sets."
        )
    target = torch.tensor(labels, dtype=torch.int64)
    return FileImages(target, tuple(classes), (3, 0, 0), f"{source}, {root}", paths, boxes)


def _inside(root: Path, name: str) -> Path:
    """The folder of this name in a folder, or that folder itself."""
    return root / name if (root / name).is_dir() else root


TREES: dict[str, Callable[[Path, bool], FileImages]] = {
    "imagenet": imagenet,
    "cub": birds,
    "aircraft": aircraft,
    "aircraft-family": lambda root, train: aircraft(root, train, "family"),
    "aircraft-manufacturer": lambda root, train: aircraft(root, train, "manufacturer"),
    "cars": cars,
    "dogs": dogs,
    "dogs-cropped": lambda root, train: dogs(root, train, cropped=True),
    "flowers": flowers,
}
