"""The form of `explore` with a kernel: ipywidgets that draw on demand."""

from typing import Any

from cpic.show import _static

# Slower pictures are drawn when the slider is released.
CONTINUOUS_SECONDS = 0.25


def build(explorer: Any, widgets: Any) -> Any:
    """Build a box with a slider, or buttons for words, for each axis and the picture below them."""
    quick = explorer.frame(explorer.start).seconds < CONTINUOUS_SECONDS

    def control(name: str, first: int) -> Any:
        options = {
            "options": [(text, i) for i, text in enumerate(explorer.texts(name))],
            "value": first,
            "description": explorer.labels[name],
            "style": {"description_width": "initial"},
        }
        if explorer.has_words(name):
            return widgets.ToggleButtons(**options)
        options |= {"continuous_update": quick, "layout": {"width": "min(100%, 36em)"}}
        return widgets.SelectionSlider(**options)

    axes = zip(explorer.values, explorer.start, strict=True)
    controls = [control(name, first) for name, first in axes]
    picture = widgets.HTML()

    def show(_change: Any = None) -> None:
        position = tuple(one.value for one in controls)
        picture.value = _static.picture(explorer, position)

    for one in controls:
        one.observe(show, names="value")
    show()
    caption = [widgets.HTML(_static.caption(explorer))] if explorer.caption else []
    return widgets.VBox([*controls, picture, *caption])
