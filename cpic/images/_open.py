"""Select the reader of an image by the ending of its name."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cpic._errors import ImageError, VolumeError
from cpic.data._faults import reading
from cpic.data._mapped import MemmapVolume
from cpic.images._array import ArrayImage
from cpic.images._image import Faults, Image
from cpic.images._openslide import OpenSlideImage
from cpic.images._pillow import PillowImage
from cpic.images._tiff import TiffImage
from cpic.images._zarr import ZarrImage

_TIFFS = (".tif", ".tiff", ".svs", ".ndpi", ".scn", ".btf", ".tf8", ".qptiff")
_OTHERS = (".mrxs", ".vms", ".vmu", ".svslide", ".bif", ".czi")
# A level may be this much coarser than requested.
_CLOSE = 1.05


def open_image(
    image: str | os.PathLike | Tensor | np.ndarray,
    *,
    level: int = 0,
    target_mpp: float | None = None,
    mpp: float | None = None,
    faults: Faults = "raise",
) -> Image:
    """Open an image; only its header is read.

    Args:
        image: An array or tensor (H, W) or (H, W, c); a file that ends in `.npy`, `.png`, `.jpg`,
            `.jpeg` (decoded whole), `.tif`, `.tiff`, `.svs`, `.ndpi`, `.scn` or another ending of
            TIFF (tiles or strips); a `.zarr` folder or address, of an array or an OME-Zarr; or a
            format of OpenSlide (`.mrxs`, `.vms`, `.bif`, ...), if that is installed.
        level: Index among the stored levels of a pyramid, 0 the finest.
        target_mpp: Choose instead the coarsest level that is at least as fine as this, in
            micrometers per pixel (5 % coarser is accepted); nothing is resampled.
        mpp: Micrometers per pixel of level 0, for files that do not say so, or are wrong.
        faults: What to do with a tile that cannot be decoded: "raise"; "blank" takes its pixels as
            0; "skip" does so too, and `PatchSource.skipped` lists the patches that touch it.

    Raises:
        ImageError: If there is no such file, its ending or content is unknown, there is no such
            level, or `target_mpp` is given and the size of a pixel is unknown.

    Example:
        >>> image = open_image(np.zeros((300, 200, 3), "uint8"))
        >>> image.shape, image.channels
        ((300, 200), 3)
        >>> open_image("slide.svs", target_mpp=0.5).mpp  # doctest: +SKIP
        0.499
    """
    if isinstance(image, Tensor | np.ndarray):
        found: Any = lambda level: ArrayImage(image, mpp=mpp)  # noqa: E731
    else:
        found = _reader(image, mpp, faults)
    if target_mpp is None:
        opened = found(level)
        if not 0 <= level < len(opened.levels):
            raise ImageError(f"{image} has one level, got level={level}.")
        return opened
    first = found(0)
    if not 0 < target_mpp < math.inf:
        raise ImageError(f"open_image needs target_mpp above 0, got {target_mpp}.")
    if first.mpp is None:
        raise ImageError(
            f"{first._called} does not say how large its pixels are; pass mpp=, the micrometers "
            "per pixel of level 0."
        )
    sizes = [first.mpp * first.shape[1] / width for _, width in first.levels]
    fit = [k for k, size in enumerate(sizes) if size <= _CLOSE * target_mpp]
    if not fit:
        raise ImageError(
            f"{first._called} has {sizes[0]:.3g} micrometers per pixel, coarser than the "
            f"target_mpp={target_mpp:g} requested."
        )
    best = max(fit, key=lambda k: sizes[k])
    return first if best == 0 else found(best)


def _reader(path: str | os.PathLike, mpp: float | None, faults: Faults) -> Any:
    name = str(path).rstrip("/").lower()
    if "://" not in name:
        with reading(path, ImageError):
            folder = Path(path).is_dir()
            if not Path(path).exists():
                raise ImageError(f"there is no file or folder {path}; check the path.")
        if folder or name.endswith((".zarr", ".zarr.zip", ".ozx")):
            return lambda level: ZarrImage(path, level=level, mpp=mpp, faults=faults)
    elif ".zarr" in name:
        return lambda level: ZarrImage(path, level=level, mpp=mpp, faults=faults)
    if name.endswith((".png", ".jpg", ".jpeg")):
        return lambda level: PillowImage(path, mpp=mpp, faults=faults)
    if name.endswith(_TIFFS):
        return lambda level: TiffImage(path, level=level, mpp=mpp, faults=faults)
    if name.endswith(_OTHERS):
        return lambda level: OpenSlideImage(path, level=level, mpp=mpp, faults=faults)
    if name.endswith(".npy"):
        return lambda level: _MappedImage(path, mpp)
    endings = ", ".join((".npy", ".png", ".jpg", ".zarr", *_TIFFS, *_OTHERS))
    raise ImageError(f"open_image knows the endings {endings}, got {path}.")


class _MappedImage(ArrayImage):
    """A `.npy` file; workers map it again."""

    def __init__(self, path: str | os.PathLike, mpp: float | None) -> None:
        try:
            super().__init__(MemmapVolume(path)._part.map(), mpp=mpp)
        except VolumeError as error:
            raise ImageError(str(error)) from error
        self.path = path
