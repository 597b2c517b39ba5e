"""Encode the results of a `draw` function as pictures of one size.

Shapes: `h` and `w` height and width in pixels.
"""

import base64
import io
import sys
from typing import Any

import numpy as np

# Background of a frame on a dark page; anatomy keeps its grays.
_GROUND = [f"{part}.facecolor" for part in ("figure", "savefig", "axes", "legend")]
_INK = ["axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"]
DARK_STYLE: dict[Any, Any] = {
    **dict.fromkeys([*_GROUND, "figure.edgecolor"], "#121212"),
    **dict.fromkeys(_INK, "#e6e6e6"),
    "grid.color": "#555555",
    "legend.edgecolor": "#777777",
}


def dark_style() -> Any:
    """Draw light on dark in this context."""
    import matplotlib

    return matplotlib.rc_context(DARK_STYLE)


def to_pixels(drawn: Any) -> np.ndarray:
    """Render a matplotlib Figure, or check an array, as `(h, w, 3)` uint8 pixels.

    Raises:
        TypeError: If `drawn` is neither a Figure nor a gray or RGB uint8 array.
    """
    from matplotlib.figure import Figure

    if isinstance(drawn, Figure):
        return _rasterize(drawn)
    if hasattr(drawn, "__array__"):
        array = np.asarray(drawn)
        if array.dtype == np.uint8 and array.size and array.ndim in (2, 3):
            if array.ndim == 2:
                return np.repeat(array[..., None], 3, axis=-1)
            if array.shape[-1] == 3:
                return np.ascontiguousarray(array)
        got = f"an array of shape {array.shape} and dtype {array.dtype}"
    else:
        got = type(drawn).__name__
    raise TypeError(
        "explore needs `draw` to return a matplotlib Figure or a uint8 array of shape "
        f"(height, width) or (height, width, 3), got {got}; return the figure itself."
    )


def _rasterize(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    rgba = np.asarray(canvas.buffer_rgba()).astype(np.float32)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        # A figure of pyplot would be shown again below the cell, and never be released.
        pyplot.close(figure)
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def encode(pixels: np.ndarray, **options: Any) -> bytes:
    """Encode `(h, w, 3)` pixels, with the options of `PIL.Image.save`."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **options)
    return stream.getvalue()


def data_uri(webp: bytes) -> str:
    """Encode a picture as a data URI, which needs no file."""
    return "data:image/webp;base64," + base64_text(webp)


def base64_text(content: bytes) -> str:
    """Encode bytes in base64, as in MIME bundles."""
    return base64.b64encode(content).decode("ascii")
