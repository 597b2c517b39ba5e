"""Real images contained in installed packages: no download, no account."""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from cpic._errors import VolumeError
from cpic._renamed import renamed
from cpic.data._array import ArrayVolume

_MNI = ("t1", "gm", "wm")
# The images in the scikit-image wheel; its other images would be downloaded.
_PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel",
    "horse", "hubble_deep_field", "ihc", "moon", "motorcycle_left", "motorcycle_right", "page",
    "retina", "rocket", "text",
)  # fmt: skip


def mni152(contrast: str = "t1") -> ArrayVolume:
    """The MNI152 template head at 1 mm, from the files inside `nilearn`.

    Args:
        contrast: "t1", "gm" (gray matter probability) or "wm" (white matter probability).

    Returns:
        Volume of shape (197, 233, 189), float32, scaled to [0, 1]; x to the right, y to the front,
        z up. The values are shared between calls, the ledger is not.

    Raises:
        VolumeError: For another contrast.

    References: {cite}`fonov2009unbiased`.

    Example:
        >>> mni152("t1")
        ArrayVolume(197x233x189, float32)
    """
    if contrast not in _MNI:
        raise VolumeError(f"mni152 has the contrasts 't1', 'gm' and 'wm', got {contrast!r}.")
    return ArrayVolume(_mni_values(contrast))


@functools.cache
def _mni_values(contrast: str) -> Tensor:
    from importlib.resources import as_file, files

    import nibabel

    name = f"mni_icbm152_{contrast}_tal_nlin_sym_09a_converted.nii.gz"
    with as_file(files("nilearn.datasets.data") / name) as path:
        values = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    low, high = tensor.aminmax()
    return (tensor - low) / (high - low)


@renamed(colour="color")
def photograph(name: str = "camera", *, color: bool = False) -> Tensor:
    """A picture from the scikit-image wheel, gray unless color is requested.

    Names: astronaut, brick, camera, cell, chelsea, coffee, coins, grass, gravel, horse,
    hubble_deep_field, ihc, moon, motorcycle_left, motorcycle_right, page, retina, rocket, text.

    Args:
        name: One of the names above.
        color: Return the three channels; a gray picture then has three equal ones.

    Returns:
        (H, W), or (H, W, 3) with `color`, float64 in [0, 1]. Gray is the luminance of Rec. 709.

    Raises:
        VolumeError: For a name that is not in the list.

    Example:
        >>> photograph("camera").shape
        torch.Size([512, 512])
    """
    if name not in _PHOTOGRAPHS:
        raise VolumeError(f"photograph needs one of {', '.join(_PHOTOGRAPHS)}; got {name!r}.")
    from importlib.resources import as_file, files

    from skimage import io

    folder = files("skimage.data")
    found = [folder / f"{name}{ending}" for ending in (".png", ".jpg")]
    with as_file(next(path for path in found if path.is_file())) as path:
        pixels = np.asarray(io.imread(path))
    top = 1 if pixels.dtype == bool else 255
    values = torch.from_numpy(pixels.astype(np.float64)) / top
    if values.ndim == 2:
        return values[..., None].expand(-1, -1, 3).contiguous() if color else values
    values = values[..., :3]
    if color:
        return values.contiguous()
    weights = values.new_tensor([0.2125, 0.7154, 0.0721])
    return (values * (weights / math.fsum(weights.tolist()))).sum(-1)
