"""Shapes of real lung nodules with the ratings of radiologists, a file of this package."""

import functools
import json
import math
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_SIDE = 32


class Nodules(NamedTuple):
    """One nodule of each of n patients.

    Attributes:
        masks: bool `(n, 32, 32, 32)`, voxels of 1 mm, True inside the outline of one radiologist,
            that of the median volume, in the middle of the cube; axes z, y, x of the scan.
        ratings: float32 `(n, 7)`, means over the radiologists, from 1 to 5.
        readers: uint8 `(n, 4, 7)`, the rating of each, in no order; 0 where there is none.
        names: Of the seven ratings: subtlety, sphericity, margin, lobulation, spiculation, texture,
            malignancy.
        diameters: float32 `(n,)`, mm, of a ball of the same volume.
        manifest: Bytes, SHA-256, license, attribution, citation and changes of the file.
    """

    masks: Tensor
    ratings: Tensor
    readers: Tensor
    names: tuple[str, ...]
    diameters: Tensor
    manifest: dict[str, Any]


@functools.cache
def nodules() -> Nodules:
    """Shapes of 610 real lung nodules and what radiologists say of them, without gray values.

    From the scans of the LIDC-IDRI {cite}`armato2011lidc`, under CC BY 3.0: name `attribution` of
    the manifest where you show them. Three or four radiologists outlined each nodule and rated it,
    its malignancy among others; no rating is a diagnosis. `data_scripts/make_nodules.py` makes the
    file. Tensors are shared between calls.

    Example:
        >>> real = nodules()
        >>> real.masks.shape, real.names[-1], real.manifest["license"]
        (torch.Size([610, 32, 32, 32]), 'malignancy', 'CC BY 3.0')
    """
    folder = files("cpic.data") / "samples"
    manifest = json.loads((folder / "nodules.json").read_text(encoding="utf-8"))
    with (folder / manifest["file"]).open("rb") as file, np.load(file) as stored:
        bits, sizes, readers = stored["bits"], stored["sizes"], torch.from_numpy(stored["ratings"])
        names = tuple(stored["names"].tolist())
    masks, start = torch.zeros(len(sizes), *[_SIDE] * 3, dtype=torch.bool), 0
    for mask, size in zip(masks, sizes.tolist(), strict=True):
        count = math.prod(size)
        inside = np.unpackbits(bits[start : start + (count + 7) // 8], count=count).reshape(size)
        start += (count + 7) // 8
        low = [(_SIDE - n) // 2 for n in size]
        box = tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))
        mask[box] = torch.from_numpy(inside).bool()
    ratings = readers.sum(1).float() / (readers[..., 0] > 0).sum(1, keepdim=True)
    diameters = (masks.flatten(1).sum(1).float() * 6 / math.pi) ** (1 / 3)
    return Nodules(masks, ratings, readers, names, diameters, manifest)
