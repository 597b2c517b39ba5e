import base64
import io
import json
import re
import sys
from typing import Any

import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from PIL import Image

from cpic import show
from cpic.show import _explore, _frames, _live

ALT = "A square of gray level {level}"


class Draw:
    """Draws a square and counts how often."""

    def __init__(self):
        self.calls = []

    def __call__(self, level, shift=0):
        self.calls.append((level, shift))
        return np.full((12, 16), level + shift, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_notebook(monkeypatch):
    monkeypatch.delenv("CPIC_EXPLORE", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def page(view) -> tuple[BeautifulSoup, dict[str, Any]]:
    soup = BeautifulSoup(view._repr_mimebundle_()["text/html"], "html.parser")
    script = soup.find("script", type="application/json")
    assert script is not None
    return soup, json.loads(script.get_text())


def pixels(uri: str) -> np.ndarray:
    kind, content = uri.split(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return np.asarray(image.convert("RGB"))


def test_static_page_holds_every_frame_in_row_major_order():
    view = show.explore(Draw(), alt=ALT, level=[10, 20, 30], shift=[0, 5])
    _, data = page(view)
    shown = [int(pixels(data["pictures"][k])[0, 0, 0]) for k in data["light"]]
    assert shown == [10, 15, 20, 25, 30, 35]
    assert data["texts"] == [["10", "20", "30"], ["0", "5"]]
    assert data["alt"][3] == "A square of gray level 20"
    assert view.values == {"level": (10, 20, 30), "shift": (0, 5)}
    assert next(iter(view.frames)) == (0, 0)
    assert len(view.frames) == 6


def test_static_page_has_labels_values_alt_and_live_region():
    view = show.explore(
        Draw(),
        alt=ALT,
        caption="A <b>caption</b> & more",
        labels={"level": "gray level"},
        start={"level": 20},
        level=[10, 20],
    )
    soup, data = page(view)
    slider = soup.find("input", type="range")
    assert soup.find("label", attrs={"for": slider["id"]}).get_text() == "gray level"
    assert soup.find("output", attrs={"for": slider["id"]}).get_text() == "20"
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "1", "1")
    assert slider["aria-valuetext"] == "20"
    assert soup.img["alt"] == data["alt"][1]
    assert pixels(soup.img["src"])[0, 0, 0] == 20
    assert (soup.img["width"], soup.img["height"]) == ("16", "12")
    assert soup.figcaption.get_text() == "A <b>caption</b> & more"
    assert soup.find(attrs={"aria-live": "polite", "role": "status"})
    assert "hidden" in soup.find(class_="cpic-controls").attrs
    assert "gray level 20" in soup.find(class_="cpic-shown").get_text()


def test_equal_frames_are_stored_once():
    _, data = page(show.explore(Draw(), alt=ALT, level=[1, 2], shift=[0, 1]))
    assert len(data["pictures"]) == 3
    assert data["light"] == [0, 1, 1, 2]


def test_ids_are_deterministic_and_differ_between_sliders():
    def write(levels):
        return show.explore(Draw(), alt=ALT, level=levels)._repr_mimebundle_()["text/html"]

    assert write([1, 2]) == write([1, 2])
    first, second = (set(re.findall(r'\bid="([^"]+)"', write(v))) for v in ([1, 2], [1, 3]))
    assert len(first) == 2
    assert not first & second


def test_page_asks_no_other_host_and_cannot_end_its_script():
    view = show.explore(Draw(), alt=lambda level: f"</script> at level {level}", level=[1])
    html = view._repr_mimebundle_()["text/html"]
    assert not re.search(r"https?:|//[a-z]|@import|fetch\(|XMLHttp", re.sub(r"// .*", "", html))
    assert html.count("</script>") == 2


def test_static_bundle_has_a_picture_for_print():
    bundle = show.explore(Draw(), alt=ALT, start={"level": 7}, level=[3, 7])._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as image:
        assert image.convert("L").getpixel((0, 0)) == 7


def test_dark_frames_are_drawn_only_when_asked_and_keep_the_light_ones():
    def draw(k):
        figure = Figure(figsize=(1, 1), dpi=40)
        figure.text(0.5, 0.5, str(k))
        return figure

    view = show.explore(draw, alt="A number, {k}, in a square", dark=True, k=[1, 2])
    _, data = page(view)
    light, dark = (
        pixels(data["pictures"][data["light"][0]]),
        pixels(data["pictures"][data["dark"][0]]),
    )
    assert light[0, 0].tolist() == [255, 255, 255]
    assert dark[0, 0].tolist() == [18, 18, 18]
    assert page(show.explore(draw, alt="A number, {k}, in a square", k=[1]))[1]["dark"] == []


def test_sixty_frames_stay_small(generator):
    import torch

    noise = torch.rand(24, 24, generator=generator).numpy()

    def draw(rank, beta):
        figure = Figure(figsize=(3.84, 2.88), dpi=100)
        figure.add_subplot().imshow(noise * rank + beta, cmap="gray", vmin=0, vmax=11)
        return figure

    view = show.explore(
        draw, alt="Noise at {rank} and {beta}", rank=range(1, 11), beta=[0, 0.1, 0.2, 0.3, 0.4, 0.5]
    )
    assert len(view.frames) == 60
    assert len(view._repr_mimebundle_()["text/html"]) < 900_000


@pytest.mark.parametrize(("name", "value"), [("CPIC_EXPLORE", "live"), ("JPY_SESSION_NAME", "a")])
def test_live_widget_draws_each_frame_once_and_changes_the_picture(monkeypatch, name, value):
    import ipywidgets

    monkeypatch.setenv(name, value)
    draw = Draw()
    view = show.explore(draw, alt=ALT, labels={"level": "gray"}, level=[1, 2, 3])
    assert view.live
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    soup = BeautifulSoup(bundle["text/html"], "html.parser")
    assert soup.img["alt"] == "A square of gray level 1"
    assert not soup.find("script")
    box = _live.build(view, ipywidgets)
    slider, picture = box.children
    assert slider.description == "gray"
    assert draw.calls == [(1, 0)]
    before = picture.value
    slider.value = 2
    after = picture.value
    assert 'alt="A square of gray level 3"' in after
    slider.value = 0
    assert picture.value == before != after
    slider.value = 2
    assert picture.value == after
    assert draw.calls == [(1, 0), (3, 0)]


def test_words_are_buttons_in_a_notebook(monkeypatch):
    import ipywidgets

    monkeypatch.setenv("CPIC_EXPLORE", "live")

    def draw(by, level):
        return np.full((12, 16), level + 100 * (by == "cross"), dtype=np.uint8)

    view = show.explore(
        draw, alt="A square by {by} at level {level}", by=["svd", "cross"], level=[1, 2]
    )
    buttons, slider, picture = _live.build(view, ipywidgets).children
    assert isinstance(buttons, ipywidgets.ToggleButtons)
    assert isinstance(slider, ipywidgets.SelectionSlider)
    buttons.value = 1
    assert 'alt="A square by cross at level 1"' in picture.value


def test_static_is_forced_inside_a_notebook(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a")
    monkeypatch.setenv("CPIC_EXPLORE", "static")
    assert not show.explore(Draw(), alt=ALT, level=[1]).live


def test_without_ipywidgets_the_static_face_is_shown(monkeypatch):
    monkeypatch.setenv("CPIC_EXPLORE", "live")
    # None in sys.modules makes an import fail.
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    view = show.explore(Draw(), alt=ALT, level=[1, 2])
    assert not view.live
    assert BeautifulSoup(view._repr_mimebundle_()["text/html"], "html.parser").find("input")


def test_alt_that_names_no_axis_gets_the_values():
    view = show.explore(Draw(), alt="A square of one gray.", level=[0.5e0 * 2, 2])
    assert view.frames[(1,)].alt == "A square of one gray (level 2)"


def test_pyplot_figures_are_closed():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    def draw(k):
        return pyplot.figure(figsize=(1, 1), dpi=20)

    show.explore(draw, alt="An empty figure, number {k}", k=[1, 2])
    assert pyplot.get_fignums() == []


def test_transparent_figures_become_white():
    figure = Figure(figsize=(1, 1), dpi=10, facecolor="none")
    assert (_frames.to_pixels(figure) == 255).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ValueError, "one or two axes, got 0"),
        ({"level": [1], "shift": [1], "third": [1]}, ValueError, "one or two axes, got 3"),
        ({"level": []}, ValueError, "at least one value for `level`"),
        ({"level": 3}, TypeError, "list of values for `level`"),
        ({"level": range(_explore.MAX_FRAMES + 1)}, ValueError, "at most 150 pictures, got 151"),
        ({"level": [1], "start": {"level": 2}}, ValueError, "start among the values of `level`"),
        ({"level": [1], "start": {"rank": 2}}, ValueError, "start for `rank`"),
        ({"level": [1], "labels": {"rank": "a"}}, ValueError, "label for"),
        ({"level": [1], "alt": "short"}, ValueError, "at least 15 characters"),
        ({"level": [1], "alt": ""}, ValueError, "at least 15 characters"),
        ({"level": [1], "alt": "At another {rank} than that"}, ValueError, "names the axes"),
        ({"level": [1], "alt": 3}, TypeError, "`alt` as text"),
        ({"level": [1], "alt": lambda level: None}, TypeError, "`alt` as text"),
    ],
)
def test_one_clear_error(options, error, words):
    with pytest.raises(error, match=re.escape(words)):
        show.explore(Draw(), **({"alt": "A square of gray level, drawn"} | options))


def test_alt_is_required():
    with pytest.raises(TypeError, match="alt"):
        show.explore(Draw(), level=[1])  # pyright: ignore


def test_unknown_mode_is_an_error(monkeypatch):
    monkeypatch.setenv("CPIC_EXPLORE", "lively")
    with pytest.raises(ValueError, match="live, static or auto"):
        show.explore(Draw(), alt=ALT, level=[1])


@pytest.mark.parametrize(
    "drawn", [None, "picture", np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8)]
)
def test_draw_that_returns_something_else(drawn):
    with pytest.raises(TypeError, match="Figure or a uint8 array"):
        show.explore(lambda level: drawn, alt=ALT, level=[1])


def test_frames_of_two_sizes():
    with pytest.raises(ValueError, match="pictures of one size"):
        show.explore(lambda level: np.zeros((level, 4), np.uint8), alt=ALT, level=[4, 5])
