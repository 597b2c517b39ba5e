"""The form of `explore` with a kernel: ipywidgets that draw on demand."""

from typing import Any

from cpic.show import _static

# Slower pictures are drawn when the slider is released.
CONTINUOUS_SECONDS = 0.25


def build(explorer: Any, widgets: Any) -> Any:
    """Build a box with one slider per axis and the picture below them."""
    quick = explorer.frame(explorer.start).seconds < CONTINUOUS_SECONDS
    sliders = [
        widgets.SelectionSlider(
            options=[(text, i) for i, text in enumerate(explorer.texts(name))],
            value=first,
            description=explorer.labels[name],
            continuous_update=quick,
            style={"description_width": "initial"},
            layout={"width": "min(100%, 36em)"},
        )
        for name, first in zip(explorer.values, explorer.start, strict=True)
    ]
    picture = widgets.HTML()

    def show(_change: Any = None) -> None:
        position = tuple(slider.value for slider in sliders)
        picture.value = _static.picture(explorer, position)

    for slider in sliders:
        slider.observe(show, names="value")
    show()
    caption = [widgets.HTML(_static.caption(explorer))] if explorer.caption else []
    return widgets.VBox([*sliders, picture, *caption])
