"""Labeled pictures in files, decoded when they are read."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from cpic._errors import ImageError
from cpic._trust import DAMAGED
from cpic.images._images import Images
from cpic.images._pillow import PillowImage


@dataclasses.dataclass(frozen=True, eq=False)
class FileImages(Images):
    """Pictures in PNG or JPEG files, in color.

    Gray pictures get three equal channels, 16 bits are reduced to the upper 8, and transparency is
    dropped. Each picture keeps its size, unless `size` is set: `shape` is (3, 0, 0) then.

    Attributes:
        paths: File of each picture.
        boxes: Left, top, right and bottom of the part of each picture that counts, `(n, 4)` int64;
            None for whole pictures.
        size: Length of the shorter side, or height and width, to which pictures are scaled; None
            for no scaling.
    """

    paths: tuple[Path, ...]
    boxes: Tensor | None = None
    size: int | tuple[int, int] | None = None

    def read(self, indices: Sequence[int] | Tensor) -> "Tensor | list[Tensor]":  # type: ignore[override]
        """Pixels of these pictures, uint8: `(k, 3, h, w)`, or a list if they differ in size.

        Raises:
            ImageError: If a file is missing or damaged.
        """
        found = [self._read(int(k)) for k in indices]
        if found and len({one.shape for one in found}) == 1:
            return torch.stack(found)
        return found

    def subset(self, indices: Sequence[int] | Tensor) -> "FileImages":
        """These pictures only, in this order."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            paths=tuple(self.paths[k] for k in chosen.tolist()),
            boxes=None if self.boxes is None else self.boxes[chosen],
        )

    def scaled(self, size: int | tuple[int, int] | None) -> "FileImages":
        """The same pictures, scaled when they are read."""
        shape = (3, *size) if isinstance(size, tuple) else (3, 0, 0)
        return dataclasses.replace(self, size=size, shape=shape)

    def _read(self, index: int) -> Tensor:
        from PIL import Image as pillow

        picture = pillow.fromarray(decode(self.paths[index]))
        if self.boxes is not None:
            left, top, right, bottom = self.boxes[index].tolist()
            right, bottom = min(right, picture.width), min(bottom, picture.height)
            if not (0 <= left < right and 0 <= top < bottom):
                raise ImageError(f"{self.paths[index]} has its box outside the picture.")
            picture = picture.crop((left, top, right, bottom))
        if self.size is not None:
            picture = picture.resize(_scaled(picture.size, self.size), pillow.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def decode(path: Path) -> np.ndarray:
    """Pixels of a picture in color, `(h, w, 3)` uint8.

    Raises:
        ImageError: If it is missing or damaged.
    """
    try:
        values = PillowImage(path)._decode(0, 0)[0]
    except (OSError, SyntaxError, *DAMAGED) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"{path} cannot be decoded ({error}).") from error
    if values.dtype == np.uint16:
        values = (values >> 8).astype(np.uint8)
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    values = values[..., : 3 if values.shape[-1] >= 3 else 1]
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _scaled(size: tuple[int, int], to: int | tuple[int, int]) -> tuple[int, int]:
    """Width and height after scaling."""
    if isinstance(to, tuple):
        return to[1], to[0]
    width, height = size
    shorter = min(size)
    return max(1, round(width * to / shorter)), max(1, round(height * to / shorter))


def listed(name: str, root: Path, files: Sequence[str]) -> tuple[Path, ...]:
    """Files of a list, all inside the folder.

    Raises:
        ImageError: If one is missing, or lies elsewhere.
    """
    if not files:
        raise ImageError(f"{name} in {root} lists no picture for this part.")
    for file in files:
        parts = PurePosixPath(file.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or not file.strip():
            raise ImageError(f"{name} lists a picture outside of {root}: {file!r}.")
    paths = tuple(root / file for file in files)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ImageError(
            f"{name} lacks {len(missing)} of {len(paths)} pictures in {root}, first "
            f"{missing[0].relative_to(root)}; unpack the whole archive there."
        )
    return paths
