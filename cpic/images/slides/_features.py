"""Features of the patches of a slide in a Zarr store, or in the HDF5 files of the published code.

A store `NAME.zarr` is a group with the arrays `img` (n, F), float32, and `places` (n, 3), int64:
index of the patch in its table, row and column at level 0. Attributes: `label`, `size0` and
`shape0` of the patches and the slide at level 0, and what the caller adds.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic.data._folder import writing
from cpic.images._source import PatchSource

_CHUNK_BYTES = 2**20


class FeatureBag:
    """Features of the patches of one slide, read by index.

    Attributes:
        name: Name of the slide.
        label: 0 or 1.
        width: Values per patch.
        positions: (n,), int64, indices of the patches in the table of tiles.
        corners0: (n, 2), int64, first pixels at level 0; None in files of the published code.
        attributes: Further attributes, such as `size0` and `shape0`.
    """

    def __init__(
        self,
        name: str,
        rows: Callable[[np.ndarray], np.ndarray],
        *,
        shape: tuple[int, int],
        positions: Tensor,
        corners0: Tensor | None,
        attributes: dict[str, Any],
    ) -> None:
        self.name, self._rows, self._n = name, rows, shape[0]
        self.width, self.positions, self.corners0 = shape[1], positions, corners0
        self.attributes = attributes
        label = attributes.get("label")
        if isinstance(label, bool) or not (isinstance(label, int) and label in (0, 1)):
            raise ImageError(f"features of {name} need a label 0 or 1, got {label!r}.")
        if len(positions) != self._n or (corners0 is not None and len(corners0) != self._n):
            raise ImageError(f"features of {name} have {self._n} rows, {len(positions)} positions.")
        self.label: int = label

    def __len__(self) -> int:
        return self._n

    def read(self, indices: Tensor) -> Tensor:
        """Read features.

        Args:
            indices: (n,), int64, in any order.

        Returns:
            (n, F), float32.

        Raises:
            ImageError: If an index is out of range, or a value is NaN or infinite.
        """
        at = indices.cpu().numpy()
        if (
            at.ndim != 1
            or at.dtype.kind != "i"
            or (len(at) and not 0 <= at.min() <= at.max() < self._n)
        ):
            raise ImageError(
                f"features of {self.name} need indices (n,) from 0 to {self._n - 1}, got "
                f"{tuple(indices.shape)}."
            )
        rows, back = np.unique(at, return_inverse=True)
        values = self._rows(rows) if len(rows) else np.zeros((0, self.width), np.float32)
        if not np.isfinite(values).all():
            first = rows[~np.isfinite(values).all(1)][0]
            raise ImageError(
                f"features of {self.name} are NaN or infinite, first at {first}; extract them "
                "again."
            )
        return torch.from_numpy(values.astype(np.float32, copy=False)[back])

    def __repr__(self) -> str:
        return f"FeatureBag({self.name}: {self._n} x {self.width}, label {self.label})"


def extract_features(
    source: PatchSource,
    encode: Callable[[Tensor], Tensor],
    path: str | os.PathLike,
    *,
    label: int,
    batch_size: int = 128,
    positions: Tensor | None = None,
    attributes: dict[str, Any] | None = None,
) -> list[str]:
    """Encode all patches and write their features; patches are read batch by batch.

    An existing store is kept as it is, so that a killed run over many slides can be continued; a
    store appears under its name when it is complete.

    Args:
        source: The patches. With the policy "skip", those that touch a corrupt tile are left out.
        encode: Maps patches (n, c, h, w), as read, to features (n, F); runs without gradients.
        path: The store to write, `NAME.zarr`.
        label: 0 or 1.
        batch_size: Patches per call of `encode`.
        positions: (n,), int64, indices of the patches in their table; None numbers them.
        attributes: Further attributes, as for JSON.

    Returns:
        A sentence for each corrupt tile.

    Raises:
        ImageError: If a feature is NaN or infinite, no patch can be read, or the label or the name
            of an attribute is invalid.
        CacheError: If the store cannot be written.

    Example:
        >>> extract_features(source, encoder, "features/a.zarr", label=1)  # doctest: +SKIP
    """
    path = Path(path)
    if label not in (0, 1):
        raise ImageError(f"extract_features needs a label 0 or 1, got {label!r}.")
    if taken := sorted({"label", "size0", "shape0", "faults"} & set(attributes or ())):
        raise ImageError(f"extract_features writes {', '.join(taken)} itself; rename attributes.")
    if path.exists():
        return []
    import zarr

    numbers = torch.arange(len(source)) if positions is None else positions
    with writing(path.parent, "folder of features", ""):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}-{secrets.token_hex(8)}.part")
        try:
            group: Any = zarr.open_group(part, mode="w")
            array, places = None, []
            for batch in torch.arange(len(source)).split(batch_size):
                patches = source.read(batch)
                good = ~torch.isin(batch, source.skipped)
                batch = batch[good]
                if not len(batch):
                    continue
                with torch.no_grad():
                    values = encode(patches[good]).float().cpu().numpy()
                if values.shape[:1] != batch.shape or values.ndim != 2:
                    raise ImageError(
                        f"encode needs to return ({len(batch)}, F), got {values.shape}."
                    )
                if not np.isfinite(values).all():
                    row = batch[int((~np.isfinite(values).all(1)).argmax())]
                    raise ImageError(
                        f"{path.name}: the features of patch {int(row)} are not finite."
                    )
                if array is None:
                    width = values.shape[1]
                    rows = max(1, min(len(source), _CHUNK_BYTES // (4 * width)))
                    array = group.create_array(
                        "img", shape=(len(source), width), chunks=(rows, width), dtype="float32"
                    )
                done = sum(map(len, places))
                array[done : done + len(batch)] = values
                places.append(torch.cat([numbers[batch, None], source.corners0[batch]], 1))
            if array is None:
                raise ImageError(f"{path.name}: none of the {len(source)} patches can be read.")
            table = torch.cat(places).numpy()
            array.resize((len(table), array.shape[1]))
            stored = group.create_array("places", shape=table.shape, dtype="int64")
            stored[...] = table
            faults = [f"tile ({f.row}, {f.column}): {f.reason}" for f in source.faults]
            group.attrs.update(
                label=label,
                size0=list(source.size0),
                shape0=list(source.image.levels[0]),
                faults=faults,
                **(attributes or {}),
            )
            os.replace(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return faults
