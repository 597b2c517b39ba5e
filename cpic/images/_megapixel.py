"""Megapixel MNIST: five digits among strokes on a large black canvas, and four questions.

`majority`: which digit is there three times? `max`: which one is the largest number? `top`: which
one is closest to the top? `multi`: which ones are there?

References: {cite}`katharopoulos2019processing`, {cite}`bergner2023iterative`.
"""

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic._trust import DAMAGED, check_regular, read_regular
from cpic.data._faults import reading
from cpic.images._source import PatchSource
from cpic.images._sparse import SparseImage

# Number of classes by question; of "multi" several may be right.
QUESTIONS = {"majority": 10, "max": 10, "top": 10, "multi": 10}
STORED = ("offsets", "indices", "values", *QUESTIONS)


@dataclass(frozen=True, eq=False)
class MegapixelMNIST:
    """Images of one split, in memory by their pixels above 0.

    Attributes:
        shape: Height and width.
        labels: By question: digits `(n,)`, and for "multi" 0 and 1 for each digit, `(n, 10)`.
        offsets: Where the pixels of each image begin, `(n + 1,)`.
        indices: Places of the pixels in their image.
        values: Their gray values.
    """

    shape: tuple[int, int]
    labels: dict[str, Tensor]
    offsets: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def image(self, k: int) -> SparseImage:
        """An image."""
        part = slice(self.offsets[k], self.offsets[k + 1])
        return SparseImage(self.indices[part], self.values[part], shape=self.shape)

    def source(self, k: int, *, patch: int = 50, stride: int | None = None) -> PatchSource:
        """Its patches, row by row.

        Args:
            k: Index of the image.
            patch: Edge of a patch.
            stride: Distance between patches; None is `patch`.
        """
        return PatchSource(self.image(k), size=patch, stride=stride)

    def subset(self, chosen: Tensor) -> "MegapixelMNIST":
        """These images only, in this order."""
        rows = chosen.tolist()
        parts = [slice(self.offsets[k], self.offsets[k + 1]) for k in rows]
        counts = np.array([0, *(part.stop - part.start for part in parts)])
        return MegapixelMNIST(
            self.shape,
            {name: labels[chosen] for name, labels in self.labels.items()},
            counts.cumsum(),
            np.concatenate([self.indices[part] for part in parts]),
            np.concatenate([self.values[part] for part in parts]),
        )


def load_megapixel_mnist(folder: str | os.PathLike, *, train: bool = True) -> MegapixelMNIST:
    """Load a split that `make_megapixel_mnist` made.

    Args:
        folder: It holds `parameters.json`, `train.npz` and `test.npz`.
        train: The split to train on, otherwise the one to test with.

    Raises:
        ImageError: If a file is missing or damaged, or is in the pickled format of the published
            code, which could run code.

    Example:
        >>> load_megapixel_mnist("data/megapixel_mnist").shape  # doctest: +SKIP
        (1500, 1500)
    """
    folder, name = Path(folder), "train" if train else "test"
    path = folder / f"{name}.npz"
    if not path.exists() and (folder / f"{name}.npy").exists():
        raise ImageError(
            f"{folder} has {name}.npy, a pickle, which may run any code when it is read; make the "
            "images again: python data_scripts/make_megapixel_mnist.py OUT."
        )
    with reading(folder / "parameters.json", ImageError):
        try:
            given = json.loads(read_regular(folder / "parameters.json"))
            shape = (int(given["height"]), int(given["width"]))
        except DAMAGED as error:
            raise ImageError(
                f"{folder}/parameters.json needs height and width ({error}); make it again."
            ) from error
    with reading(path, ImageError):
        try:
            check_regular(path)
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in STORED}
        except (*DAMAGED, zipfile.BadZipFile) as error:
            raise ImageError(f"{path} is damaged ({error}); make it again.") from error
    n = len(arrays["offsets"]) - 1
    offsets = arrays["offsets"].astype(np.int64)
    labels = {key: torch.from_numpy(arrays[key].astype(np.int64)) for key in QUESTIONS}
    shapes = {key: (n, size) if key == "multi" else (n,) for key, size in QUESTIONS.items()}
    fits = n > 0 and offsets[0] == 0 and bool((np.diff(offsets) >= 0).all())
    fits &= offsets[-1] == len(arrays["indices"]) == len(arrays["values"])
    fits &= arrays["values"].dtype == np.uint8
    for key, found in labels.items():
        top = 1 if key == "multi" else QUESTIONS[key] - 1
        fits &= tuple(found.shape) == shapes[key] and bool(((found >= 0) & (found <= top)).all())
    if not fits:
        raise ImageError(f"{path} has arrays that do not fit each other; make it again.")
    return MegapixelMNIST(shape, labels, offsets, arrays["indices"], arrays["values"])
