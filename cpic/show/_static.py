"""The form of `explore` without a kernel: self-contained HTML."""

import hashlib
import html
import json
from functools import cache
from importlib.resources import files
from typing import Any

from cpic.show._frames import data_uri


def page(explorer: Any) -> str:
    """Write sliders, pictures and their script as one `<figure>`.

    The first picture is a real image, which is all that a reader without scripts, or on paper,
    gets; the controls stay hidden until the script has found them.
    """
    frames = [explorer.frame(position) for position in explorer.positions]
    pictures = list(dict.fromkeys(p for f in frames for p in (f.light, f.dark) if p is not None))
    number = {content: i for i, content in enumerate(pictures)}
    data = {
        "pictures": [data_uri(content) for content in pictures],
        "light": [number[f.light] for f in frames],
        "dark": [number[f.dark] for f in frames if f.dark is not None],
        "alt": [f.alt for f in frames],
        "texts": [explorer.texts(name) for name in explorer.values],
    }
    # A "<" in a script could end it.
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    identity = "cpic-" + hashlib.sha256(packed.encode()).hexdigest()[:10]
    controls = "".join(
        _control(explorer, name, first, f"{identity}-{axis}")
        for axis, (name, first) in enumerate(zip(explorer.values, explorer.start, strict=True))
    )
    return (
        f'<figure class="cpic-explore" id="{identity}">\n'
        f"<style>{_asset('slider.css')}</style>\n"
        f'<div class="cpic-controls" hidden>{controls}</div>\n'
        f"{_first(explorer)}"
        f'<p class="cpic-status" role="status" aria-live="polite"></p>\n'
        f"{caption(explorer)}"
        f'<script type="application/json">{packed}</script>\n'
        f"<script>{_asset('slider.js')}</script>\n"
        "</figure>"
    )


def still(explorer: Any) -> str:
    """Write only the first picture, for readers with neither kernel nor scripts."""
    return f'<figure class="cpic-explore">\n{_first(explorer)}{caption(explorer)}</figure>'


def _first(explorer: Any) -> str:
    shown = html.escape(explorer.state(explorer.start))
    image = picture(explorer, explorer.start)
    return f'{image}\n<p class="cpic-shown">Shown: {shown}.</p>\n'


def picture(explorer: Any, position: tuple[int, ...]) -> str:
    """Write the picture at a position as an `<img>` with its alternative text."""
    frame = explorer.frame(position)
    # `dark-light` tells the theme of the book to leave the gray values unchanged.
    return (
        f'<img class="cpic-picture dark-light" src="{data_uri(frame.light)}" '
        f'alt="{html.escape(frame.alt)}" width="{frame.width}" height="{frame.height}" '
        f'style="max-width:100%;height:auto;background:#fff">'
    )


def caption(explorer: Any) -> str:
    """Write the caption, or nothing."""
    return f"<figcaption>{html.escape(explorer.caption)}</figcaption>\n" if explorer.caption else ""


def _control(explorer: Any, name: str, first: int, identity: str) -> str:
    """Write the slider of an axis, or buttons if its values are words, which have no order."""
    texts = [html.escape(text) for text in explorer.texts(name)]
    label = html.escape(explorer.labels[name])
    if explorer.has_words(name):
        buttons = "".join(
            f'<label><input type="radio" name="{identity}" value="{i}" autocomplete="off"'
            f"{' checked' if i == first else ''}>{text}</label>"
            for i, text in enumerate(texts)
        )
        return f"<fieldset><legend>{label}</legend>{buttons}</fieldset>"
    # The slider itself announces the value, so the output next to it is silent.
    return (
        f'<label for="{identity}">{label}</label>'
        f'<input type="range" id="{identity}" min="0" max="{len(texts) - 1}" '
        f'step="1" value="{first}" aria-valuetext="{texts[first]}" autocomplete="off">'
        f'<output for="{identity}" aria-live="off">{texts[first]}</output>'
    )


@cache
def _asset(name: str) -> str:
    return files("cpic.show").joinpath(name).read_text(encoding="utf-8").strip()
