"""A slider with two forms: computed in a notebook, pre-rendered on a page.

One call draws a picture for every value of one or two parameters. In JupyterLab the sliders call
`draw` when they are moved. On a built page, without a kernel, the same sliders select among
pre-rendered pictures. Both forms have an alternative text for every picture and can be used from
the keyboard.

Shapes: a position is one index per axis; frames are in row-major order of positions.
"""

import importlib
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from cpic.show import _frames

MAX_FRAMES = 150
MIN_ALT = 15
_WEBP: dict[str, Any] = {"format": "WEBP", "lossless": True, "method": 4, "quality": 80}


class Frame(NamedTuple):
    """One picture of an `Explorer`: encoded pictures, alternative text, drawing time in seconds."""

    light: bytes
    dark: bytes | None
    alt: str
    width: int
    height: int
    seconds: float


def explore(
    draw: Callable[..., Any],
    *,
    alt: str | Callable[..., str],
    caption: str = "",
    labels: Mapping[str, str] | None = None,
    start: Mapping[str, Any] | None = None,
    dark: bool = False,
    **axes: Sequence[Any],
) -> "Explorer":
    """Show `draw(**params)` behind one or two sliders, live or pre-rendered.

    The sliders compute on demand in JupyterLab (environment variable `JPY_SESSION_NAME` set) and
    select among pre-rendered pictures everywhere else; `CPIC_EXPLORE` set to `live` or `static`
    overrides this. Without ipywidgets the static form is shown.

    Args:
        draw: Called with one value per axis, by keyword; returns a matplotlib Figure or a
            uint8 array `(height, width)` or `(height, width, 3)`. All pictures must have the same
            size, and should have the same limits, window and color scale.
        alt: Alternative text, a description of the picture for readers who cannot see it: a format
            string over the axes, `"Brain rebuilt at rank {rank}"`, or a function of the same
            keywords as `draw`. If the string names no axis, the values are appended. At least 15
            characters.
        caption: Text below the picture.
        labels: Names of the axes on the page, if the keywords are not suitable.
        start: Initial value of each axis; its first value by default.
        dark: Draw every picture a second time, light on dark, for pages in dark mode. Otherwise
            pictures keep a white background in dark mode.
        **axes: One or two names with the values of each, for example `rank=[2, 5, 10]`. Words get
            buttons in place of a slider, since they have no order.

    Returns:
        An object that displays itself as the last line of a cell. Its `values` are the axes and its
        `frames` the pictures drawn so far, by position.

    Raises:
        ValueError: If there are no axes or more than two, an axis without values, more than 150
            pictures, a `start` or label of an unknown axis or value, an alternative text that is
            too short, or pictures of different sizes.
        TypeError: If `draw` returns something else, or `alt` is neither text nor function.

    Example:
        >>> import numpy as np
        >>> def draw(level):
        ...     return np.full((8, 8), level, dtype=np.uint8)
        >>> view = explore(draw, alt="A square of gray level {level}", level=[0, 128, 255])
        >>> view
        Explorer(level: 3 values; static)
    """
    return Explorer(draw, alt, caption, labels or {}, start or {}, dark, axes)


class Explorer:
    """The result of `explore`; displays itself by its MIME bundle."""

    def __init__(
        self,
        draw: Any,
        alt: Any,
        caption: str,
        labels: Mapping,
        start: Mapping,
        dark: bool,
        axes: Any,
    ):
        if not callable(draw):
            raise TypeError(f"explore needs a function `draw`, got {type(draw).__name__}.")
        self.values = _check_axes(axes)
        if unknown := set(labels) - set(axes):
            raise ValueError(f"explore got a label for {sorted(unknown)}, got axes {[*axes]}.")
        self.caption = caption
        self.labels = {name: labels.get(name, name.replace("_", " ")) for name in axes}
        self.start = _check_start(self.values, start)
        self.frames: dict[tuple[int, ...], Frame] = {}
        self._draw, self._alt, self._dark = draw, alt, dark
        self._encoded: dict[bytes, bytes] = {}
        self._png = b""
        for position in self.positions:
            # All texts first: they are cheap, and an error in one should not come after the
            # drawing.
            self.alt_text(position)
        self.frame(self.start)
        self._widgets = _import_widgets() if _wants_live() else None
        self.live = self._widgets is not None
        if not self.live:
            for position in self.positions:
                self.frame(position)

    @property
    def positions(self) -> list[tuple[int, ...]]:
        """All positions in row-major order."""
        return list(itertools.product(*(range(len(v)) for v in self.values.values())))

    def texts(self, name: str) -> list[str]:
        """The values of an axis as shown to the reader."""
        return [f"{v:g}" if isinstance(v, float) else str(v) for v in self.values[name]]

    def has_words(self, name: str) -> bool:
        """Whether an axis has words as values: each gets a button, since they have no order."""
        return all(isinstance(value, str) for value in self.values[name])

    def params(self, position: tuple[int, ...]) -> dict[str, Any]:
        """The keyword arguments of `draw` at a position."""
        return {n: v[i] for (n, v), i in zip(self.values.items(), position, strict=True)}

    def state(self, position: tuple[int, ...]) -> str:
        """The values at a position in words: `rank 5, sites 8`."""
        pairs = zip(self.values, position, strict=True)
        return ", ".join(f"{self.labels[name]} {self.texts(name)[i]}" for name, i in pairs)

    def alt_text(self, position: tuple[int, ...]) -> str:
        """The alternative text of the picture at a position."""
        text = self._alt(**self.params(position)) if callable(self._alt) else self._alt
        if not isinstance(text, str):
            raise TypeError(
                "explore needs `alt` as text, or a function that returns text, got "
                f"{type(text).__name__}."
            )
        if text is self._alt:
            text = self._filled(text, position)
        if len(text.strip()) < MIN_ALT:
            raise ValueError(
                f"explore needs an `alt` of at least {MIN_ALT} characters, got {text!r}; describe "
                "the picture."
            )
        return text

    def _filled(self, alt: str, position: tuple[int, ...]) -> str:
        try:
            text = alt.format(**self.params(position))
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"explore needs an `alt` that names the axes {[*self.values]} only, got {alt!r}; "
                "write literal braces twice."
            ) from error
        if text != alt or len(text.strip()) < MIN_ALT:
            return text
        return f"{text.rstrip('. ')} ({self.state(position)})"

    def frame(self, position: tuple[int, ...]) -> Frame:
        """The picture at a position, drawn on the first call and cached."""
        if position not in self.frames:
            begin = time.perf_counter()
            params = self.params(position)
            light, size = self._picture(params, dark=False)
            dark = self._picture(params, dark=True)[0] if self._dark else None
            seconds = time.perf_counter() - begin
            self.frames[position] = Frame(light, dark, self.alt_text(position), *size, seconds)
        return self.frames[position]

    def _picture(self, params: dict[str, Any], *, dark: bool) -> tuple[bytes, tuple[int, int]]:
        with _frames.dark_style() if dark else nullcontext():
            pixels = _frames.to_pixels(self._draw(**params))
        size = (pixels.shape[1], pixels.shape[0])
        first = next(iter(self.frames.values()), None)
        if first and size != (first.width, first.height):
            raise ValueError(
                f"explore needs pictures of one size, got {size} pixels at {params} after "
                f"{(first.width, first.height)}; give every figure one figsize and one dpi."
            )
        # For printed books.
        self._png = self._png or _frames.encode(pixels, format="PNG", optimize=True)
        raw = pixels.tobytes()
        if raw not in self._encoded:
            self._encoded[raw] = _frames.encode(pixels, **_WEBP)
        return self._encoded[raw], size

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        from cpic.show import _live, _static

        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            "text/html": _static.still(self) if self.live else _static.page(self),
            "image/png": _frames.base64_text(self._png),
        }
        if self._widgets is not None:
            bundle |= _live.build(self, self._widgets)._repr_mimebundle_()
        return bundle

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}: {len(v)} values" for name, v in self.values.items())
        return f"Explorer({sizes}; {'live' if self.live else 'static'})"


def _check_axes(axes: Mapping[str, Sequence[Any]]) -> dict[str, tuple]:
    if not 1 <= len(axes) <= 2:
        raise ValueError(
            f"explore needs one or two axes, got {len(axes)} ({[*axes]}); pass each as a "
            "keyword with its values, for example `rank=[2, 5, 10]`."
        )
    values = {}
    for name, given in axes.items():
        if isinstance(given, str) or not hasattr(given, "__iter__"):
            raise TypeError(f"explore needs a list of values for `{name}`, got {given!r}.")
        # Scalars of tensors and arrays compare, print and hash differently from Python's.
        listed = given.tolist() if hasattr(given, "tolist") else given  # pyright: ignore
        values[name] = tuple(listed)
        if not values[name]:
            raise ValueError(f"explore needs at least one value for `{name}`, got none.")
    n_frames = math.prod(len(listed) for listed in values.values())
    if n_frames > MAX_FRAMES:
        raise ValueError(
            f"explore needs at most {MAX_FRAMES} pictures, got {n_frames}; take fewer values."
        )
    return values


def _check_start(values: dict[str, tuple], start: Mapping[str, Any]) -> tuple[int, ...]:
    for name, value in start.items():
        if name not in values:
            raise ValueError(f"explore got a start for `{name}`, got axes {[*values]}.")
        if value not in values[name]:
            raise ValueError(
                f"explore needs a start among the values of `{name}`, got {value!r}; choose "
                f"one of {list(values[name])}."
            )
    return tuple(v.index(start[name]) if name in start else 0 for name, v in values.items())


def _wants_live() -> bool:
    mode = os.environ.get("CPIC_EXPLORE") or "auto"
    if mode not in ("auto", "live", "static"):
        raise ValueError(f"CPIC_EXPLORE needs to be live, static or auto, got {mode!r}.")
    return mode == "live" or (mode == "auto" and bool(os.environ.get("JPY_SESSION_NAME")))


def _import_widgets() -> Any:
    try:
        return importlib.import_module("ipywidgets")
    except ImportError:
        return None
