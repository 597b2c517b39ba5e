"""Open the features of slides: stores of `extract_features`, or HDF5 of the published code."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpic import _trust
from cpic._errors import ImageError, VolumeError
from cpic.data._faults import reading
from cpic.data.chunked._zarr import ZarrVolume
from cpic.images._zarr import ZarrImage
from cpic.images.slides._features import FeatureBag

_HDF5 = (".h5", ".hdf5")
# Patches of a slide.
_MOST_ROWS = 2**25


def open_features(path: str | os.PathLike) -> dict[str, FeatureBag]:
    """Open the features of slides; only their attributes and positions are read.

    Args:
        path: A folder of stores `NAME.zarr`, one such store, or an HDF5 file of the published code:
            a group per slide with `img` (n, F), `pos` (n,) and the attribute `label`.

    Returns:
        A bag per slide, by name, sorted.

    Raises:
        ImageError: If there are none, or a store lacks an array, has other shapes, or a label
            that is missing or not 0 or 1.

    Example:
        >>> bags = open_features("features/train")  # doctest: +SKIP
        >>> bags["tumor_001"].read(torch.tensor([5, 0])).shape  # doctest: +SKIP
        torch.Size([2, 2048])
    """
    path = Path(path)
    with reading(path, ImageError):
        if path.suffix.lower() in _HDF5:
            _trust.check_regular(path)
            stores = []
        elif path.suffix == ".zarr":
            stores = [path]
        else:
            stores = sorted(p for p in path.iterdir() if p.suffix == ".zarr" and p.name[0] != ".")
    if path.suffix.lower() in _HDF5:
        bags = _open_hdf5(path)
    else:
        bags = {store.name.removesuffix(".zarr"): _open_store(store) for store in stores}
    if not bags:
        raise ImageError(f"{path} has no features of any slide.")
    return bags


def _open_store(path: Path) -> FeatureBag:
    try:
        with reading(path, ImageError):
            found = _trust.parse_json(_trust.read_regular(path / "zarr.json"))["attributes"]
        places = ZarrVolume(path / "places", fill_missing=True).read()
        shape = ZarrVolume(path / "img").shape
        image = ZarrImage(path / "img") if len(shape) == 2 else None
    except (VolumeError, LookupError, TypeError) as error:
        raise ImageError(f"{path} is not a store of features ({error}).") from error
    if image is None or places.shape != (shape[0], 3) or places.dtype != torch.int64:
        raise ImageError(
            f"{path} needs img (n, F) and places (n, 3), got {shape} and {tuple(places.shape)}."
        )
    name = path.name.removesuffix(".zarr")
    return FeatureBag(
        name,
        _StoreRows(image),
        shape=image.shape,
        positions=places[:, 0],
        corners0=places[:, 1:],
        attributes=found,
    )


def _open_hdf5(path: Path) -> dict[str, FeatureBag]:
    import h5py

    bags = {}
    try:
        with h5py.File(path) as file:
            for name in sorted(file):
                group: Any = file[name]
                for key in ("img", "pos"):
                    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                        raise ImageError(f"{path} lacks the data set {key} of {name}.")
                    if group[key].is_virtual or group[key].external:
                        raise ImageError(f"{path} refers to other files in {key} of {name}.")
                img, pos = group["img"], group["pos"]
                if img.ndim != 2 or img.dtype.kind != "f" or pos.shape != img.shape[:1]:
                    raise ImageError(
                        f"{path} needs img (n, F) and pos (n,) of {name}, got {img.shape} and "
                        f"{pos.shape}."
                    )
                if len(pos) > _MOST_ROWS:
                    raise ImageError(f"{path} has too many positions in {name}.")
                positions = torch.from_numpy(np.asarray(pos[:]).astype(np.int64))
                label = group.attrs.get("label")
                with contextlib.suppress(TypeError, ValueError, OverflowError):
                    label = int(label) if float(label) == int(label) else float(label)
                bags[name] = FeatureBag(
                    name,
                    _HDF5Rows(path, name),
                    shape=img.shape,
                    positions=positions,
                    corners0=None,
                    attributes={"label": label},
                )
    except (*_trust.DAMAGED, OSError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} is not a readable HDF5 file of features ({error}).") from error
    return bags


class _StoreRows:
    """Rows of an array, which is read as an image of one row per patch."""

    def __init__(self, image: ZarrImage) -> None:
        self.image = image

    def __call__(self, at: np.ndarray) -> np.ndarray:
        corners = torch.from_numpy(np.stack([at, np.zeros_like(at)], 1))
        return self.image.read(corners, size=(1, self.image.shape[1]))[:, 0, 0].numpy()


class _HDF5Rows:
    """Rows of a data set; the file is opened for each read, which is safe in workers."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __call__(self, at: np.ndarray) -> np.ndarray:
        import h5py

        try:
            with h5py.File(self.path) as file:
                group: Any = file[self.name]
                array = group["img"]
                low, high = int(at[0]), int(at[-1]) + 1
                # Selecting many single rows is slow in this library.
                if high - low <= 4 * len(at):
                    return array[low:high][at - low]
                return array[at]
        except (*_trust.DAMAGED, OSError) as error:
            raise ImageError(f"{self.path} cannot be read at {self.name} ({error}).") from error
