"""What the script of slides does for one slide; finished work is kept, so a run can go on."""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpic._errors import ImageError
from cpic._files import write_text
from cpic._trust import DAMAGED, open_regular, read_regular
from cpic._vision import torchvision
from cpic.data._faults import reading
from cpic.images._color import normalized
from cpic.images._image import Faults
from cpic.images._open import open_image
from cpic.images._source import PatchSource
from cpic.images.slides._annotations import read_annotation
from cpic.images.slides._features import extract_features
from cpic.images.slides._otsu import otsu_threshold
from cpic.images.slides._slides import Slide
from cpic.images.slides._stores import open_features
from cpic.images.slides._tiles import foreground_tiles

_MOST_BYTES = 2**32


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write a table as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of such a table, as text.

    Raises:
        ImageError: If it is missing, damaged, or lacks a column.
    """
    with reading(path, ImageError):
        text = read_regular(path, _MOST_BYTES, what="rows").decode("utf-8-sig", "replace")
        found = list(csv.DictReader(io.StringIO(text, newline="")))
    if any(row.get(name) is None for row in found for name in columns):
        raise ImageError(f"{path} needs the columns {', '.join(columns)} in every row.")
    return found


def threshold_slide(slide: Slide, *, level: int, faults: Faults, out: Path) -> dict[str, Any]:
    """Threshold of a slide, kept in `out`."""
    part, columns = (
        out / f"{slide.name}.csv",
        ("name", "level", "threshold", "foreground", "faults"),
    )
    if not part.exists():
        found = otsu_threshold(open_image(slide.path, level=level, faults=faults))
        row = {"name": slide.name, "level": level, "threshold": repr(found.value)}
        row |= {"foreground": f"{found.foreground:.6f}", "faults": len(found.faults)}
        write_rows(part, [row], columns)
    return read_rows(part, columns)[0]


def tile_slide(
    slide: Slide, threshold: float, *, level: int, faults: Faults, out: Path, **options: Any
) -> list[dict[str, str]]:
    """Foreground tiles of a slide, kept in `out`."""
    part, columns = out / f"{slide.name}.csv", ("x", "y", "foreground", "tumor")
    if not part.exists():
        outlines = read_annotation(slide.annotation) if slide.annotation else None
        image = open_image(slide.path, level=level, faults=faults)
        tiles = foreground_tiles(image, threshold=threshold, annotation=outlines, **options)
        table = zip(
            tiles.corners0.tolist(), tiles.foreground.tolist(), tiles.tumor.tolist(), strict=True
        )
        rows = [
            {"x": x, "y": y, "foreground": f"{share:.4f}", "tumor": int(tumor)}
            for (y, x), share, tumor in table
        ]
        write_rows(part, rows, columns)
        if tiles.faults:
            lines = [f"{fault.row},{fault.column},{fault.reason}" for fault in tiles.faults]
            write_text(out / f"{slide.name}.faults.csv", "\n".join(["row,column,reason", *lines]))
    return read_rows(part, columns)


def tiles_of(
    slide: Slide, corners0: Tensor, *, level: int, size: int, faults: Faults = "raise"
) -> PatchSource:
    """The tiles of a table, (n, 2) at level 0, at a level of the slide."""
    image = open_image(slide.path, level=level, faults=faults)
    scale = torch.tensor(image.downsample, dtype=torch.float64)
    return PatchSource(image, size=size, corners=(corners0 / scale).round().long())


class Encoder(nn.Module):
    """A ResNet of torchvision without its classifier, on the normalized centers of patches.

    Args:
        arch: Name of the network.
        weights: File with its weights: those of the encoder of a run of `pretrain`, or of the whole
            network; None initializes it at random.
        crop: Edge of the center of a patch that is used.

    Raises:
        ImageError: If there is no such network, or the weights do not fit.
    """

    def __init__(
        self, arch: str = "resnet50", weights: Path | None = None, crop: int = 224
    ) -> None:
        super().__init__()
        models = torchvision().models
        if not arch.startswith("resnet") or not hasattr(models, arch):
            raise ImageError(f"an encoder of slides needs a resnet of torchvision, got {arch!r}.")
        self.network, self.crop = getattr(models, arch)(weights=None), crop
        self.width = self.network.fc.in_features
        self.network.fc = nn.Identity()
        if weights is not None:
            self._load(weights)

    def _load(self, path: Path) -> None:
        with reading(path, ImageError), open_regular(path) as file:
            try:
                found = torch.load(file, map_location="cpu", weights_only=True)
                found = found.get("model", found)
                # Of a run of pretrain, the encoder; of a whole network, all but the classifier.
                before = "online.0.network."
                own = {k: v for k, v in found.items() if k.startswith(before)} or found
                found = {k.removeprefix(before): v for k, v in own.items() if "fc." not in k}
                self.network.load_state_dict(found)
            except (*DAMAGED, OSError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ImageError(f"{path} has no weights of this network ({reason}).") from error

    def forward(self, patches: Tensor) -> Tensor:
        """Features (n, F) of patches (n, 3, h, w) as read, or of floating point views."""
        if patches.is_floating_point():
            return self.network(patches)
        low = [max(0, (edge - self.crop) // 2) for edge in patches.shape[2:]]
        patches = patches[:, :, low[0] :, low[1] :][:, :, : self.crop, : self.crop]
        return self.network(normalized(patches))


def encode_slide(
    slide: Slide,
    corners0: list[tuple[int, int]],
    positions: list[int],
    *,
    level: int,
    size: int,
    arch: str,
    weights: Path,
    batch_size: int,
    out: Path,
    faults: Faults,
) -> list[str]:
    """Features of the tiles of a slide, kept in `out`; the corrupt tiles."""
    store = out / f"{slide.name}.zarr"
    with reading(weights, ImageError), open_regular(weights) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    settings = {"level": level, "tile_size": size, "arch": arch, "weights": digest}
    if store.exists():
        found = open_features(store)[slide.name].attributes
        other = [name for name, value in settings.items() if found.get(name) != value]
        if other:
            raise ImageError(
                f"{store} was extracted with other {' and '.join(other)}; choose another folder."
            )
        return []
    encoder = Encoder(arch, weights).eval()
    source = tiles_of(slide, torch.tensor(corners0), level=level, size=size, faults=faults)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder.to(device)
    return extract_features(
        source,
        lambda patches: encoder(patches.to(device)),
        store,
        label=slide.label,
        batch_size=batch_size,
        positions=torch.tensor(positions),
        attributes={**settings, "mpp": source.image.mpp},
    )
