"""Swedish traffic signs: which speed limit does a photograph of a road show?"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cpic._errors import ImageError
from cpic._trust import read_regular
from cpic.data._faults import reading
from cpic.images._array import ArrayImage
from cpic.images._open import open_image
from cpic.images._source import PatchSource

CLASSES = ("EMPTY", "50_SIGN", "70_SIGN", "80_SIGN")
_VISIBLE = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")
_MD5 = {1: "9106a905a86209c95dc9b51d12f520d6", 2: "09debbc67f6cd89c1e2a2688ad1d03ca"}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)")


class Sign(NamedTuple):
    """A sign of a photograph: its name, visibility, and box (top, left, bottom, right)."""

    name: str
    visibility: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class TrafficSigns:
    """Photographs of a split with the speed limit that each of them shows, if any.

    Attributes:
        paths: The photographs, in the order of the annotations.
        labels: Index of the class of each: empty, 50, 70 or 80.
        size: Height and width to which photographs are scaled.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    size: tuple[int, int] = (1200, 1600)

    def __len__(self) -> int:
        return len(self.paths)

    def source(
        self,
        k: int,
        *,
        patch: int = 100,
        stride: int | None = None,
        shift: tuple[int, int] = (0, 0),
    ) -> PatchSource:
        """Patches of a photograph, which is decoded and scaled when this is called.

        Args:
            k: Index of the photograph.
            patch: Edge of a patch.
            stride: Distance between patches; None is `patch`.
            shift: Rows and columns by which the photograph is moved; it is 0 outside.

        Raises:
            ImageError: If the photograph is missing or damaged.
        """
        from PIL import Image as pillow

        image = open_image(self.paths[k])
        pixels = image._decode(0, 0)[0] if tuple(image.tile) == image.shape else None
        if pixels is None or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ImageError(f"{self.paths[k]} is not a color photograph in PNG or JPEG.")
        scaled = pillow.fromarray(pixels).resize(
            (self.size[1], self.size[0]), pillow.Resampling.BILINEAR
        )
        source = PatchSource(ArrayImage(np.array(scaled)), size=patch, stride=stride)
        source.corners = source.corners - source.corners.new_tensor(shift)
        return source


def read_signs(path: str | os.PathLike) -> dict[str, list[Sign]]:
    """Parse `annotations.txt`; signs called MISC_SIGNS are left out.

    A line is `file: visibility, xmax, ymax, xmin, ymin, type, name; ...`. What follows a number in
    its cell is cut, as the published files need it.

    Args:
        path: The file.

    Returns:
        Signs by name of the photograph.

    Raises:
        ImageError: If a line has another form.

    Example:
        >>> read_signs("Set1/annotations.txt")  # doctest: +SKIP
    """
    with reading(path, ImageError):
        text = read_regular(path).decode("utf-8", errors="replace")
    found: dict[str, list[Sign]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, rest = line.partition(":")
        name = name.strip()
        signs = []
        for part in filter(None, (part.strip() for part in rest.split(";"))):
            cells = [cell.strip() for cell in part.split(",")]
            if cells[-1] == "MISC_SIGNS":
                continue
            numbers = [_NUMBER.match(cell) for cell in cells[1:5]]
            if len(cells) != 7 or not all(numbers) or cells[0] not in _VISIBLE:
                raise ImageError(
                    f"{path} line {number} needs 'visibility, xmax, ymax, xmin, ymin, type, name', "
                    f"got {part[:80]!r}."
                )
            right, bottom, left, top = (float(one[0]) for one in numbers if one)
            signs.append(Sign(cells[6], cells[0], (top, left, bottom, right)))
        if not colon or not name or Path(name).name != name:
            raise ImageError(f"{path} line {number} needs the name of a file before a colon.")
        found[name] = signs
    if not found:
        raise ImageError(f"{path} has no line; download it again.")
    return found


def label_of(signs: list[Sign]) -> int | None:
    """The class of a photograph: that of its best speed limit, if that is visible.

    Args:
        signs: All its signs.

    Returns:
        0 without signs; None if it is not used: it has other signs only, or its best speed limit
        (by visibility, then by area) is not visible.

    Example:
        >>> box = (0.0, 0.0, 9.0, 9.0)
        >>> label_of([Sign("50_SIGN", "BLURRED", box), Sign("70_SIGN", "VISIBLE", box)])
        2
    """
    if not signs:
        return 0
    limits = [sign for sign in signs if sign.name in CLASSES[1:]]

    def rank(sign: Sign) -> tuple[int, float]:
        top, left, bottom, right = sign.box
        return _VISIBLE.index(sign.visibility), -abs((bottom - top) * (right - left))

    best = min(limits, key=rank, default=None)
    return CLASSES.index(best.name) if best and best.visibility == "VISIBLE" else None


def read_traffic(
    root: str | os.PathLike, *, train: bool = True, seed: int = 0, **options: Any
) -> TrafficSigns:
    """The photographs of a split, with their classes.

    Args:
        root: Folder with `Set1` and `Set2`: `annotations.txt`, with the photographs beside it.
        train: Which split; one set is for training, the other one for testing.
        seed: An odd one exchanges the sets.
        **options: Fields of `TrafficSigns`, such as `size`.

    Raises:
        ImageError: If annotations or photographs are missing or damaged.

    References: {cite}`bergner2023iterative`.

    Example:
        >>> signs = read_traffic("traffic")  # doctest: +SKIP
        >>> signs.source(0).read(torch.arange(192))  # doctest: +SKIP
    """
    folder = Path(root) / f"Set{1 + (seed + 1 + train) % 2}"
    labels = {
        folder / name: label
        for name, signs in read_signs(folder / "annotations.txt").items()
        if (label := label_of(signs)) is not None
    }
    missing = [path for path in labels if not path.is_file()]
    if missing or not labels:
        first = missing[0] if missing else "all of them"
        raise ImageError(
            f"{folder} lacks {len(missing)} of {len(labels)} photographs, first {first}; unpack "
            "the archive of the set there."
        )
    return TrafficSigns(tuple(labels), tuple(labels.values()), **options)


def check_traffic(root: str | os.PathLike) -> tuple[str, ...]:
    """Find what is missing or damaged in a copy of the set; every photograph is decoded.

    Args:
        root: As for `read_traffic`.

    Returns:
        A sentence for each fault; none if all is well. Annotations that differ from the published
        ones are one too, as in a synthetic copy.

    Example:
        >>> check_traffic("traffic")  # doctest: +SKIP
        ()
    """
    faults = []
    for number, expected in _MD5.items():
        table = Path(root) / f"Set{number}" / "annotations.txt"
        try:
            signs = read_traffic(root, train=number == 1)
            if hashlib.md5(read_regular(table), usedforsecurity=False).hexdigest() != expected:
                faults.append(f"{table} is not the published one.")
        except ImageError as error:
            faults.append(str(error))
            continue
        for k in range(len(signs)):
            try:
                signs.source(k)
            except (ImageError, OSError, SyntaxError, ValueError) as error:
                faults.append(f"{signs.paths[k]}: {error}")
    return tuple(faults)
