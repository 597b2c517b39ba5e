"""The folder tree of CAMELYON16: slides, their annotations and labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpic._errors import ImageError
from cpic.data._faults import reading

Split = Literal["train", "test"]
_FOLDERS = {
    "train": (("training/normal", "training/tumor"), "training/lesion_annotations"),
    "test": (("testing/images",), "testing/lesion_annotations"),
}


@dataclass(frozen=True)
class Slide:
    """A slide.

    Attributes:
        name: Name of the file up to its first dot.
        path: The file.
        annotation: File with the outlines of tumors; None for a normal slide.
    """

    name: str
    path: Path
    annotation: Path | None

    @property
    def label(self) -> int:
        """1 for a slide with tumors, else 0."""
        return int(self.annotation is not None)


@dataclass(frozen=True)
class Slides:
    """The slides of a split.

    Attributes:
        slides: Sorted by name.
        unused: Annotations without a slide, as when not all slides were downloaded.
    """

    slides: tuple[Slide, ...]
    unused: tuple[Path, ...] = ()


def read_slides(
    root: str | os.PathLike, *, split: Split = "train", endings: Sequence[str] = (".tif",)
) -> Slides:
    """Find the slides of a split; `training/{normal,tumor}` or `testing/images`, recursively.

    A slide with a file `lesion_annotations/NAME.xml` is positive. A slide for testing without one
    is negative.

    Args:
        root: Folder with `training` and `testing`.
        split: "train" or "test".
        endings: Of the names of slides.

    Returns:
        The slides, and annotations that belong to none.

    Raises:
        ImageError: If there are none; a training slide with a tumor has no annotation, or a normal
            one has; or two have one name.

    Example:
        >>> read_slides("CAMELYON16").slides[0].label  # doctest: +SKIP
        0
    """
    if split not in _FOLDERS:
        raise ImageError(f'read_slides needs split "train" or "test", got {split!r}.')
    root, (folders, lesions) = Path(root), _FOLDERS[split]
    with reading(root, ImageError):
        files = sorted(
            path
            for folder in folders
            for path in (root / folder).rglob("*")
            if path.name.lower().endswith(tuple(endings)) and path.is_file()
        )
        outlines = {
            path.name.split(".")[0]: path for path in sorted((root / lesions).glob("*.xml"))
        }
    if not files:
        raise ImageError(
            f"{root} has no file that ends in {', '.join(endings)} in {' or '.join(folders)}."
        )
    found: dict[str, Slide] = {}
    for path in files:
        name = path.name.split(".")[0]
        if name in found:
            raise ImageError(f"{path} and {found[name].path} are both called {name}; rename one.")
        slide = Slide(name, path, outlines.pop(name, None))
        kind = path.relative_to(root).parts[1]
        if kind == "tumor" and not slide.label:
            raise ImageError(f"{path} needs its annotation {root / lesions / name}.xml.")
        if kind == "normal" and slide.label:
            raise ImageError(
                f"{path} is a normal slide, but has the annotation {slide.annotation}."
            )
        found[name] = slide
    slides = tuple(found[name] for name in sorted(found))
    return Slides(slides, tuple(outlines.values()))
