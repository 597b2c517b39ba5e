"""Data sets of pictures by name."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch

from cpic._errors import ImageError
from cpic._vision import torchvision
from cpic.images import _built_in
from cpic.images._check_trees import check_tree
from cpic.images._images import Images, PixelImages
from cpic.images._trees import TREES

# Inside packages, and in a folder of the user's.
BUILT_IN: dict[str, Callable[[bool], Images]] = {
    "digits": _built_in.digits,
    "small-digits": _built_in.small_digits,
    "faces": _built_in.faces,
    "textures": _built_in.textures,
    "animals": _built_in.animals,
}


def load(name: str, *, root: str | Path | None = None, train: bool = True) -> Images:
    """Load the training or test part of a data set of pictures.

    Built in, and inside installed packages: "digits" (4000 and 1000 of MNIST, 28 x 28),
    "small-digits" (8 x 8), "faces" (25 x 25), "textures" (64 x 64; see their docstrings for the
    split), and "animals" (28 x 28), whose package is installed separately. From a folder: "cifar10"
    (32 x 32) and "stl10" (96 x 96; the training part is the unlabeled one, all of class 0),
    unpacked as their authors publish them. Photographs, as their authors publish them, in color,
    each of its size: "imagenet" (or any folders `train/CLASS` and `val/CLASS`), "cub", "aircraft"
    (variants; also "aircraft-family", "aircraft-manufacturer"), "cars", "dogs" (or "dogs-cropped",
    one picture for each box) and "flowers". Nothing is downloaded.

    Args:
        name: One of these.
        root: Folder of the data set, or its parent; None for those that are built in.
        train: The part to train on, otherwise the part to test with.

    Returns:
        The pictures.

    Raises:
        ImageError: If there is no such data set, it is not in the folder, or a package is missing.

    Example:
        >>> load("small-digits").shape
        (1, 8, 8)
    """
    if name in BUILT_IN:
        if root is not None:
            raise ImageError(f"{name} are built in, got the folder {root}; leave it out.")
        return BUILT_IN[name](train)
    if name not in FOLDERS:
        raise ImageError(
            f"there is no data set {name!r}; choose one of {', '.join([*BUILT_IN, *FOLDERS])}."
        )
    if root is None:
        raise ImageError(f"{name} needs its folder; pass root=, it is not downloaded.")
    return FOLDERS[name](Path(root), train)


def _published(kind: str, folder: str, root: Path, train: bool) -> PixelImages:
    """One of the data sets that torchvision reads and checks by its digests."""
    torchvision()
    from torchvision import datasets

    place = root.parent if root.name == folder else root
    try:
        if kind == "cifar10":
            found = datasets.CIFAR10(place, train=train)
            pixels, labels = torch.from_numpy(found.data).permute(0, 3, 1, 2), found.targets
            classes = found.classes
        else:
            found = datasets.STL10(place, split="unlabeled" if train else "test")
            pixels = torch.from_numpy(found.data)
            # The unlabeled part has the label -1.
            labels = torch.as_tensor(found.labels).clamp(min=0)
            classes = found.classes
    except (RuntimeError, OSError) as error:
        raise ImageError(
            f"{kind} needs the published folder {folder} in {place}, complete; got: {error}"
        ) from error
    return PixelImages.make(
        pixels.contiguous(), torch.as_tensor(labels), classes=tuple(classes), source=str(place)
    )


FOLDERS: dict[str, Callable[[Path, bool], Images]] = {
    "cifar10": functools.partial(_published, "cifar10", "cifar-10-batches-py"),
    "stl10": functools.partial(_published, "stl10", "stl10_binary"),
    **TREES,
}


def check_images(name: str, root: str | Path) -> tuple[str, ...]:
    """Find what is missing or damaged in a folder of photographs; every one is decoded.

    Args:
        name: "imagenet", "cub", "aircraft", "aircraft-family", "aircraft-manufacturer", "cars",
            "dogs", "dogs-cropped" or "flowers".
        root: As for `load`.

    Returns:
        A sentence for each fault; none if all is well. Other numbers of classes or pictures than
        the published ones are one too.

    Raises:
        ImageError: If there is no such data set.

    Example:
        >>> check_images("cub", "data/CUB_200_2011")  # doctest: +SKIP
        ()
    """
    if name not in TREES:
        raise ImageError(f"check_images knows {', '.join(TREES)}, got {name!r}.")
    return check_tree(name, Path(root))
