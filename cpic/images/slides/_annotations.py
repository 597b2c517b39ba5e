"""Outlines of tumors, as the annotation tool ASAP writes them."""

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from cpic._errors import ImageError
from cpic._trust import DoubtError, read_regular
from cpic.data._faults import reading

_MOST_BYTES = 2**28
# Groups of regions inside a tumor that are none.
_HOLES = ("exclusion", "_2")


@dataclass(frozen=True)
class Annotation:
    """Polygons in pixels of level 0.

    Attributes:
        tumors: Vertices (k, 2) of each polygon, as (row, column).
        holes: The same, of regions that are no tumor.

    Example:
        >>> square = np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 3.0], [3.0, 1.0]])
        >>> Annotation((square,)).mask((0, 0), size=(4, 4)).astype(int).tolist()
        [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """

    tumors: tuple[np.ndarray, ...]
    holes: tuple[np.ndarray, ...] = ()

    def mask(
        self,
        corner: tuple[float, float],
        *,
        size: tuple[int, int],
        downsample: tuple[float, float] = (1.0, 1.0),
    ) -> np.ndarray:
        """Pixels of a window whose centers lie in a tumor and in no hole (even-odd rule).

        Args:
            corner: Row and column of the window at level 0.
            size: Height and width of the window, in its own pixels.
            downsample: Pixels of level 0 per pixel of the window.

        Returns:
            (h, w), bool.
        """
        found = np.zeros(size, bool)
        for polygons, value in ((self.tumors, True), (self.holes, False)):
            for polygon in polygons:
                places = (polygon - np.asarray(corner)) / np.asarray(downsample)
                if (places.max(0) >= 0).all() and (places.min(0) <= size).all():
                    found[_filled(places, size)] = value
        return found

    def touches(
        self,
        corners: np.ndarray,
        *,
        size: tuple[int, int],
        downsample: tuple[float, float] = (1.0, 1.0),
    ) -> np.ndarray:
        """Which windows contain a pixel of a tumor.

        Args:
            corners: (n, 2), rows and columns at level 0; those of a row are rounded to whole
                multiples of `downsample` from its first window.
            size: Height and width of each window, in its own pixels.
            downsample: As for `mask`.

        Returns:
            (n,), bool.
        """
        found = np.zeros(len(corners), bool)
        if not self.tumors:
            return found
        low = np.min([polygon.min(0) for polygon in self.tumors], 0)
        high = np.max([polygon.max(0) for polygon in self.tumors], 0)
        extent = np.asarray(size) * downsample
        near = np.flatnonzero(((corners <= high) & (corners + extent >= low)).all(1))
        for row in np.unique(corners[near, 0]):
            here = near[corners[near, 0] == row]
            left = corners[here, 1].min()
            at = np.rint((corners[here, 1] - left) / downsample[1]).astype(int)
            strip = self.mask(
                (row, left), size=(size[0], int(at.max()) + size[1]), downsample=downsample
            )
            until = np.concatenate([[0], strip.any(0).cumsum()])
            found[here] = until[at + size[1]] > until[at]
        return found


def _filled(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centers, at halves, have an odd number of borders to their left."""
    starts, steps = polygon, np.roll(polygon, -1, 0) - polygon
    height = np.arange(size[0])[:, None] + 0.5
    rows, edges = np.nonzero((starts[:, 0] <= height) != ((starts + steps)[:, 0] <= height))
    start, step = starts[edges], steps[edges]
    x = start[:, 1] + (rows + 0.5 - start[:, 0]) / step[:, 0] * step[:, 1]
    columns = np.ceil(x - 0.5).clip(0, size[1]).astype(np.int64)
    # Only the parity matters, so that a byte may overflow.
    borders = np.zeros((size[0], size[1] + 1), np.uint8)
    np.add.at(borders, (rows, columns), 1)
    return borders[:, :-1].cumsum(1, dtype=np.uint8) % 2 == 1


def read_annotation(path: str | os.PathLike) -> Annotation:
    """Read an XML file of ASAP.

    Vertices are sorted by their `Order`. A polygon is closed by its first vertex, whether or not
    the file repeats it. Annotations of the groups "Exclusion" and "_2" are holes.

    Args:
        path: The file.

    Returns:
        Polygons in pixels of level 0.

    Raises:
        ImageError: If it is no such file, declares entities, or a polygon has fewer than three
            vertices, one that is no number, or an order twice.

    Example:
        >>> read_annotation("tumor_001.xml")  # doctest: +SKIP
    """
    path = Path(path)
    with reading(path, ImageError):
        text = read_regular(path, _MOST_BYTES)
        try:
            text = text.decode("utf-8-sig")
            if "<!DOCTYPE" in text or "<!ENTITY" in text:
                raise DoubtError("declares a document type or entities, which are not read")
            root = ElementTree.fromstring(text)
        except (UnicodeDecodeError, ElementTree.ParseError, ValueError) as error:
            if isinstance(error, DoubtError):
                raise
            raise DoubtError(f"is not XML in UTF-8 ({error})") from error
    parts: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for number, found in enumerate(root.iter("Annotation")):
        name = found.get("Name") or f"number {number}"
        try:
            rows = [
                (float(c.attrib["Order"]), float(c.attrib["Y"]), float(c.attrib["X"]))
                for c in found.iter("Coordinate")
            ]
        except (KeyError, ValueError) as error:
            raise ImageError(
                f"{path} has a vertex without numbers as Order, X and Y in {name!r} ({error})."
            ) from error
        table = np.array(sorted(rows), np.float64).reshape(-1, 3)
        if not np.isfinite(table).all() or len(np.unique(table[:, 0])) < len(table):
            raise ImageError(
                f"{path} has a vertex that is infinite, or an Order twice, in {name!r}."
            )
        polygon = table[:, 1:]
        if len(polygon) > 1 and (polygon[0] == polygon[-1]).all():
            polygon = polygon[:-1]
        if len(polygon) < 3:
            raise ImageError(
                f"{path} needs at least 3 vertices in each polygon, got {len(polygon)} in {name!r}."
            )
        parts[(found.get("PartOfGroup") or "").lower() in _HOLES].append(polygon)
    if not parts[False]:
        raise ImageError(f"{path} has no polygon of a tumor; it is not a file of ASAP.")
    return Annotation(tuple(parts[False]), tuple(parts[True]))
