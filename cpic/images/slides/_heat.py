"""Scores of patches drawn over their slide, in coordinates of level 0."""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic._files import replace_file
from cpic._trust import DAMAGED, open_regular


class Scores(NamedTuple):
    """Scores of the patches of a slide, and all that is needed to draw them.

    Attributes:
        values: (n,), floating point.
        corners0: (n, 2), int64, first pixels at level 0.
        size0: Height and width of a patch at level 0.
        shape0: Height and width of the slide at level 0.
    """

    values: Tensor
    corners0: Tensor
    size0: tuple[int, int]
    shape0: tuple[int, int]


def heat_map(scores: Scores, *, downsample: int = 32) -> Tensor:
    """Add the score of each patch over its rectangle; overlaps add up.

    A pixel of the map is the mean of the map at level 0 over its pixels, so a rectangle that covers
    a part of it adds that part of its score.

    Args:
        scores: Scores of the patches.
        downsample: Pixels of level 0 per pixel of the map.

    Returns:
        (H, W), float64, with `ceil(shape0 / downsample)` rows and columns; differentiable with
        respect to the values.

    Raises:
        ImageError: If shapes do not fit, or the map is larger than 2^28 pixels.

    References: {cite}`bergner2023iterative`.

    Example:
        >>> scores = Scores(torch.tensor([1, 2]), torch.tensor([[0, 0], [0, 2]]), (2, 4), (4, 6))
        >>> heat_map(scores, downsample=2)
        tensor([[1., 3., 2.],
                [0., 0., 0.]], dtype=torch.float64)
    """
    values, corners = scores.values.double(), scores.corners0
    if values.ndim != 1 or corners.shape != (len(values), 2) or downsample < 1:
        raise ImageError(
            f"heat_map needs values (n,), corners0 (n, 2) and a downsample of at least 1, got "
            f"{tuple(values.shape)}, {tuple(corners.shape)} and {downsample}."
        )
    height, width = (-(-n // downsample) for n in scores.shape0)
    if height * width > 2**28:
        raise ImageError(f"a heat map of {height}x{width} pixels is too large; raise downsample.")
    low = corners.double() / downsample
    high = low + low.new_tensor(scores.size0) / downsample
    limit = low.new_tensor([height, width])
    places, added = [], []
    # Second differences: each corner of a rectangle adds to the four pixels around it.
    for ends, sign in ((low, 1), (high, -1)):
        for other, other_sign in ((low, 1), (high, -1)):
            at = torch.stack([ends[:, 0], other[:, 1]], 1).clamp(min=0).minimum(limit)
            first, part = at.long(), at - at.long()
            for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
                weight = (part[:, 0] if i else 1 - part[:, 0]) * (
                    part[:, 1] if j else 1 - part[:, 1]
                )
                places.append((first[:, 0] + i) * (width + 2) + first[:, 1] + j)
                added.append(sign * other_sign * weight * values)
    out = values.new_zeros((height + 2) * (width + 2))
    out = out.index_add(0, torch.cat(places), torch.cat(added))
    return out.reshape(height + 2, -1).cumsum(0).cumsum(1)[:height, :width]


def save_scores(path: str | os.PathLike, scores: Scores) -> None:
    """Write scores as `.npz`.

    Args:
        path: The file to write.
        scores: Scores of the patches.

    Example:
        >>> save_scores("tumor_001.npz", scores)  # doctest: +SKIP
    """
    arrays: Any = {
        "values": scores.values.detach().cpu().numpy(),
        "corners0": scores.corners0.cpu().numpy(),
        "size0": np.array(scores.size0),
        "shape0": np.array(scores.shape0),
    }
    replace_file(Path(path), lambda file: np.savez(file, **arrays))


def read_scores(path: str | os.PathLike) -> Scores:
    """Read scores that `save_scores` wrote.

    Args:
        path: The file.

    Raises:
        ImageError: If it is no such file, or its arrays do not fit.

    Example:
        >>> heat_map(read_scores("tumor_001.npz"))  # doctest: +SKIP
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as found:
            values, corners = found["values"], found["corners0"]
            (h, w), (height, width) = found["size0"].tolist(), found["shape0"].tolist()
        if values.shape != corners.shape[:1] or corners.shape[1:] != (2,) or min(h, w) < 1:
            raise ValueError(f"values {values.shape} and corners {corners.shape}")
        if corners.dtype != np.int64 or not np.isfinite(values).all():
            raise ValueError("corners that are not whole, or values that are not finite")
        place = (int(h), int(w)), (int(height), int(width))
        return Scores(torch.from_numpy(values), torch.from_numpy(corners), *place)
    except (*DAMAGED, OSError, zipfile.BadZipFile) as error:
        raise ImageError(f"{path} is not a file of scores ({error}).") from error
