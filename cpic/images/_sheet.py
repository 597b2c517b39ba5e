"""Pictures of many pictures, and of the singular values of many layers, as arrays of pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# Pixels of a singular value, between two layers, and above them.
_CELL, _GAP, _HEAD = 4, 2, 16


def tiled(pixels: Tensor, *, columns: int) -> Tensor:
    """Pictures side by side, row by row.

    Args:
        pixels: `(n, c, h, w)`.
        columns: Pictures in a row; the last row is filled with zeros.

    Returns:
        One picture `(c, rows * h, columns * w)`.

    Example:
        >>> tiled(torch.arange(3).view(3, 1, 1, 1), columns=2)
        tensor([[[0, 1],
                 [2, 0]]])
    """
    n, c, h, w = pixels.shape
    rows = -(-n // columns)
    whole = functional.pad(pixels, (0, 0) * 3 + (0, rows * columns - n))
    return whole.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, -1)


def spectra_sheet(spectra: Sequence[Tensor], *, top: int = 32) -> Tensor:
    """One column for each layer, one row for each of its largest singular values.

    Colors run from blue, the smallest value of all that are shown, to red, the largest one. The
    head has the smallest value, the smallest one shown, and the largest one.

    Args:
        spectra: Singular values of each layer.
        top: Values of a layer that are shown.

    Returns:
        A picture `(3, h, w)` of uint8.

    Example:
        >>> spectra_sheet([torch.tensor([1.0, 0.5]), torch.ones(1)], top=2).shape
        torch.Size([3, 24, 96])
    """
    from PIL import Image, ImageDraw

    ordered = [one.detach().cpu().double().sort(descending=True).values for one in spectra]
    shown = [one[:top] for one in ordered]
    values = torch.cat(shown)
    low, high = float(values.min()), float(values.max())
    height = max(len(one) for one in shown)
    sheet = torch.full((3, _HEAD + height * _CELL, max(96, len(shown) * (_CELL + _GAP))), 255)
    for k, one in enumerate(shown):
        share = (one - low) / max(high - low, 1e-12)
        cells = (255 * _jet(share)).round().long().repeat_interleave(_CELL, 1)
        left = k * (_CELL + _GAP)
        sheet[:, _HEAD : _HEAD + cells.shape[1], left : left + _CELL] = cells[:, :, None]
    picture = Image.fromarray(sheet.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())
    words = f"{float(torch.cat(ordered).min()):.2g} ({low:.2g}) {high:.2g}"
    ImageDraw.Draw(picture).text((0, 2), words, fill=(0, 0, 0))
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, 3).permute(2, 0, 1).contiguous()


def png(pixels: Tensor) -> bytes:
    """A picture `(c, h, w)` of uint8, with 1 or 3 channels, as a PNG file."""
    import io

    from PIL import Image

    array = pixels.cpu().permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(file, "PNG")
    return file.getvalue()


def _jet(share: Tensor) -> Tensor:
    """Red, green and blue from 0 to 1."""
    centers = torch.tensor([3.0, 2.0, 1.0], dtype=share.dtype)[:, None]
    return (1.5 - (4 * share - centers).abs()).clamp(0, 1)
